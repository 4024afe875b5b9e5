//! The answer to work and messages that were taken: the same over WebSocket and HTTP.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, MessageId};
use crate::names::GroupName;

/// The layer has taken the message and every job is stored at its durability.
///
/// ```text
/// {"message_id":"01JD…","group":"g","members":3,"existing":false,
///  "jobs":[{"id":"01JD…","consumer":"queries","durability":"disk","existing":false}]}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The id that the message got.
    pub message_id: MessageId,
    /// The group; `null` for a query and for a message to one channel.
    pub group: Option<GroupName>,
    /// Subscriptions that the layer knows of; `null` if it cannot know.
    pub members: Option<u64>,
    /// Whether this is the answer to an earlier request with the same idempotency key.
    pub existing: bool,
    /// The jobs that consumers made of the message.
    pub jobs: Vec<AcceptedJob>,
    /// The message's place in the group's history; absent without history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The epoch of `offset`; absent without history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// One job of an accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedJob {
    /// The id of the job.
    pub id: JobId,
    /// The consumer that runs it.
    pub consumer: String,
    /// What it survives.
    pub durability: Durability,
    /// Whether the job was there before.
    pub existing: bool,
}

/// What an accepted job survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// A crash of the process.
    Os,
    /// A power cut.
    Disk,
}

impl Durability {
    /// The level as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Disk => "disk",
        }
    }
}

/// A text that is not a durability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a durability; use `memory`, `os` or `disk`")]
pub struct DurabilityError(String);

impl FromStr for Durability {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, DurabilityError> {
        [Self::Memory, Self::Os, Self::Disk]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| DurabilityError(text.chars().take(40).collect()))
    }
}
