//! What is enqueued, and what the one who enqueued it is told.

use std::collections::BTreeMap;

use groupcast_protocol::{ChannelName, GroupName, JobId, Message};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::consumer::Durability;

/// Who gets the events of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// The members of a group.
    Group(GroupName),
    /// One channel.
    Channel(ChannelName),
    /// Nobody: the record is all there is.
    Nobody,
}

/// Who asked for a job, as far as a token or the lack of one tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asker {
    /// The user; `None`: a service, or somebody who shows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the names of the groups of the user's tenant begin with, where there are tenants: a name may be used in each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The service whose key does not let it see everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Claims of the user's token by name, as far as the query binds them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, serde_json::Value>,
}

impl Asker {
    /// The user, as a token of his names him: by his name, and by where his tenant's groups are.
    pub(crate) fn user(&self) -> Option<(&str, Option<&str>)> {
        self.user.as_deref().map(|name| (name, self.within.as_deref()))
    }
}

/// Work to be stored: made by `consumer::Claims` from a message, or for `POST /v1/queries`.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// A fresh id.
    pub id: JobId,
    /// The consumer that will run it.
    pub consumer: String,
    /// The message that asks for it.
    pub message: Message,
    /// Who gets its events.
    pub reply_to: ReplyTo,
    /// What its acceptance must survive.
    pub durability: Durability,
    /// Higher first. Default 0.
    pub priority: i32,
    /// Not before this time, in milliseconds since 1970.
    pub run_at: Option<u64>,
    /// Worth nothing after this time, in milliseconds since 1970.
    pub deadline_at: Option<u64>,
    /// How often it may be tried, at least 1.
    pub max_attempts: u32,
    /// While a job of the same consumer with this key lives, no second one is made.
    pub unique_key: Option<String>,
    /// Jobs of the same consumer with this key ask for the same: one execution may serve them all.
    pub coalesce_key: Option<String>,
    /// How many jobs it is away from a client's message: 0 unless a consumer is fed by another one.
    pub hops: u8,
    /// The user whose job it is; `None`: no user's.
    pub asker: Option<Asker>,
}

impl NewJob {
    /// A job with a fresh id and nothing special about it.
    pub fn new(consumer: impl Into<String>, message: Message, reply_to: ReplyTo) -> Self {
        Self {
            id: clock::new_id(),
            consumer: consumer.into(),
            message,
            reply_to,
            durability: Durability::default(),
            priority: 0,
            run_at: None,
            deadline_at: None,
            max_attempts: 5,
            unique_key: None,
            coalesce_key: None,
            hops: 0,
            asker: None,
        }
    }
}

/// What the one who enqueued a job is told: an entry of `jobs` in the answer of `group_send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The job's id; that of the earlier job when there was one.
    pub id: JobId,
    /// The consumer that will run it.
    pub consumer: String,
    /// What its acceptance survives.
    pub durability: Durability,
    /// Whether a live job with the same unique key was there already.
    pub existing: bool,
}
