//! What is answered, as types: they are serialised, and the API's description is made from them.

use groupcast_protocol::MessageId;
use groupcast_protocol::frame::{Accepted, AcceptedJob};
use serde::Serialize;
use utoipa::ToSchema;

/// The message was taken, and every job is stored at its durability.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(super) struct AcceptedBody {
    /// The id that the message got.
    #[schema(value_type = String, example = "01JD8ZJ4M5E8RAX0V4C9QW2N7K")]
    message_id: MessageId,
    /// The group; `null` for a message to one channel.
    group: Option<String>,
    /// Subscriptions that the layer knows of; `null` if it cannot know.
    members: Option<u64>,
    /// Whether this is the answer to an earlier request with the same `Idempotency-Key`.
    existing: bool,
    /// The jobs that consumers made of the message.
    jobs: Vec<AcceptedJobBody>,
    /// The message's place in the group's history; absent without history.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The epoch of `offset`; absent without history.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

/// One job of an accepted message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AcceptedJob)]
struct AcceptedJobBody {
    /// The id of the job.
    id: String,
    /// The consumer that runs it.
    consumer: String,
    /// What it survives: `memory`, `os` or `disk`.
    durability: &'static str,
    /// Whether the job was there before.
    existing: bool,
}

impl From<Accepted> for AcceptedBody {
    fn from(accepted: Accepted) -> Self {
        Self {
            message_id: accepted.message_id,
            group: accepted.group.map(|group| group.to_string()),
            members: accepted.members,
            existing: accepted.existing,
            jobs: accepted.jobs.into_iter().map(AcceptedJobBody::from).collect(),
            offset: accepted.offset,
            epoch: accepted.epoch,
        }
    }
}

impl From<AcceptedJob> for AcceptedJobBody {
    fn from(job: AcceptedJob) -> Self {
        let durability = job.durability.as_str();
        Self { id: job.id.to_string(), consumer: job.consumer, durability, existing: job.existing }
    }
}
