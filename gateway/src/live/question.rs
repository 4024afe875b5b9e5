//! `Question`: a live query with its parameters, which tell it from every other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{ErrorCode, GroupName, Id, Refusal};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::consumer::{Bound, Given, Query, keep_needed};
use crate::jobs::Asker;

/// Bytes of a set's parameters: each set keeps its own, and repeats them in what it sends.
const PARAMS_BYTES_MAX: usize = 4096;

/// What a set asks.
#[derive(Debug)]
pub(crate) struct Question {
    pub(super) query: Arc<Query>,
    pub(super) values: Bound,
    /// The parameters as JSON, every default filled in.
    pub(super) params: String,
    pub(super) group: GroupName,
    /// A number by chance that is always the same for this question: where in its interval it runs.
    pub(super) phase: u64,
}

impl Question {
    pub(super) fn new(query: &Arc<Query>, given: &Given) -> Result<Self, Refusal> {
        let config = &query.config;
        if config.refresh.is_none() && config.tags.is_empty() {
            let why = "it has neither `refresh` nor `tags` in the configuration; ask it with `query`";
            return Err(Refusal::new(ErrorCode::BadRequest, format!("query `{}` is not live: {why}", config.name)));
        }
        let values = query.bind(given)?;
        let params = query.canonical(&values);
        if params.len() > PARAMS_BYTES_MAX {
            let why = format!("the parameters have {} bytes, {PARAMS_BYTES_MAX} are allowed", params.len());
            return Err(Refusal::new(ErrorCode::TooLarge, format!("query `{}`: {why}", config.name)));
        }
        let id = id(query, &params);
        let group = GroupName::of_live_query(id);
        let phase = u64::from_be_bytes(*id.to_bytes().last_chunk().expect("an id has 16 bytes"));
        Ok(Self { query: Arc::clone(query), values, params, group, phase })
    }

    /// The group that its changes go to.
    pub(crate) fn group(&self) -> &GroupName {
        &self.group
    }

    /// The name of the query.
    pub(crate) fn name(&self) -> &str {
        &self.query.config.name
    }

    /// Which claims of an asker it has in its parameters.
    pub(crate) fn claims(&self, asker: Option<&Asker>) -> BTreeMap<String, Value> {
        let mut asker = asker.cloned().unwrap_or_default();
        keep_needed(&mut asker, Some(&*self.query));
        asker.claims
    }

    pub(super) fn source(&self) -> &str {
        &self.query.config.source
    }

    pub(super) fn refresh(&self) -> Option<Duration> {
        self.query.config.refresh.map(|refresh| refresh.0)
    }
}

/// The same for the same query, SQL and values, on every gateway; what is asked cannot be guessed from it.
fn id(query: &Query, params: &str) -> Id {
    let mut hash = Sha256::new();
    for part in [&query.config.name, &query.config.source, &query.config.sql, params] {
        // With its length: two parts do not run into one another.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Id::from_bytes(*hash.finalize().first_chunk().expect("a digest has 32 bytes"))
}
