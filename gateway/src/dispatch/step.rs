//! `Step`: what is recorded of a message that is taken in ("Semantic conventions for messaging spans").

use groupcast_protocol::frame::Accepted;
use groupcast_protocol::{GroupName, Message, Refusal, Trace};

use crate::telemetry::{Kind, Span, Tracer};

/// The sending of one message, or the storing of it as work. Boxed: most messages have none.
pub(super) struct Step(Box<Span>);

impl Step {
    /// Begins, if the message's trace is recorded.
    pub(super) fn publish(tracer: &Tracer, group: &GroupName, message: &Message) -> Option<Self> {
        let mut span = tracer.begin(message.trace(), Kind::Producer, "publish")?;
        span.set("messaging.system", "groupcast");
        span.set("messaging.operation.name", "publish");
        span.set("messaging.operation.type", "send");
        span.set("messaging.destination.name", group.as_str().to_owned());
        span.set("groupcast.message.type", message.kind().to_owned());
        span.set("messaging.message.body.size", i64::try_from(message.raw().len()).unwrap_or(i64::MAX));
        Some(Self(Box::new(span)))
    }

    /// What becomes of the message is part of this.
    pub(super) fn trace(&self) -> Trace {
        self.0.trace()
    }

    /// Ends with what the sender is told.
    pub(super) fn end(mut self, taken: &Result<Accepted, Refusal>) {
        let span = &mut self.0;
        match taken {
            Ok(accepted) => {
                span.set("messaging.message.id", accepted.message_id.to_string());
                if let Some(members) = accepted.members {
                    span.set("groupcast.members", members);
                }
                if !accepted.jobs.is_empty() {
                    let jobs: Vec<_> = accepted.jobs.iter().map(|job| job.id.to_string()).collect();
                    span.set("groupcast.jobs", jobs.join(","));
                }
            }
            Err(refusal) => span.fail(refusal.code.as_str(), &refusal.message),
        }
    }
}
