//! Group names that are too long to be part of a member's name.

use std::collections::HashMap;

use groupcast_protocol::GroupName;

use crate::broker::BrokerError;
use crate::broker::redis::foreign::Foreign;
use crate::broker::redis::up::Up;

/// Long names that are remembered; of more, all are asked for once more.
const NAMES_MAX: usize = 10_000;

/// Those that have been asked for, by what stands for them.
#[derive(Default)]
pub(in crate::broker::redis::foreign) struct LongNames(HashMap<String, GroupName>);

impl LongNames {
    /// The group that the local part of a member's name stands for.
    pub(in crate::broker::redis::foreign) async fn group(
        &mut self,
        foreign: &Foreign,
        up: &Up,
        id: &str,
    ) -> Result<Option<GroupName>, BrokerError> {
        if let Some(name) = id.strip_prefix("g.") {
            return Ok(GroupName::parse(name).ok());
        }
        let Some(id) = id.strip_prefix("h.") else { return Ok(None) };
        if let Some(name) = self.0.get(id) {
            return Ok(Some(name.clone()));
        }
        let command = redis::cmd("HGET").arg(format!("{}:ids", foreign.own)).arg(id).clone();
        let name: Option<String> = up.run(&command).await?;
        let name = name.and_then(|name| GroupName::parse(&name).ok());
        if let Some(name) = &name {
            if self.0.len() >= NAMES_MAX {
                self.0.clear();
            }
            self.0.insert(id.to_owned(), name.clone());
        }
        Ok(name)
    }
}
