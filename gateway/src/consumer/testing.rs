//! What the tests of this module share.

use bytes::Bytes;
use groupcast_protocol::{JobId, Message};

use crate::config::consumer::Durability;
use crate::jobs::ReplyTo;
use crate::jobs::queue::{Claimed, Lease};

/// A message.
pub(crate) fn message(json: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(json.as_bytes())).expect("a message")
}

/// The first attempt of a job that may have 100.
pub(crate) fn claimed() -> Claimed {
    Claimed {
        lease: Lease { id: JobId::new(1, 1), token: 1, durability: Durability::Memory },
        attempt: 1,
        max_attempts: 100,
        crashes: 0,
        timeouts: 0,
        deadline_at: None,
        ready_at: 0,
        consumer: "queries".into(),
        message: message(r#"{"type":"execute_query","queryset_id":7}"#),
        reply_to: ReplyTo::Nobody,
        hops: 0,
        coalesce_key: None,
        asker: None,
        told_by: None,
    }
}
