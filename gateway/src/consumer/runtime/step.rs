//! `Step`: what is recorded of an attempt of a job ("Semantic conventions for messaging spans", operation `process`).

use groupcast_protocol::Trace;

use crate::jobs::ReplyTo;
use crate::jobs::queue::Claimed;
use crate::telemetry::{Kind, Scope, Span, Tracer};

/// Outcomes after which somebody may have to look.
const FAILED: &[&str] = &["dead", "fenced", "hung", "retried", "unreported"];

/// One attempt. Boxed: most jobs have none.
pub(super) struct Step(Box<Span>);

impl Step {
    /// Begins, and says in which scope the attempt is to be done.
    pub(super) fn begin(tracer: &Tracer, claimed: &Claimed, now_ms: u64) -> (Scope, Option<Self>) {
        let step = Self::process(tracer, claimed, now_ms);
        let trace = step.as_ref().map_or_else(|| claimed.message.trace().clone(), Self::trace);
        (Scope::job(claimed.lease.id).within(tracer, trace), step)
    }

    /// Begins, if the trace of who asked is recorded. That the job had to wait is seen by what lies between the two.
    fn process(tracer: &Tracer, claimed: &Claimed, now_ms: u64) -> Option<Self> {
        let mut span = tracer.begin(claimed.message.trace(), Kind::Consumer, "process")?;
        span.set("messaging.system", "groupcast");
        span.set("messaging.operation.name", "process");
        span.set("messaging.operation.type", "process");
        if let ReplyTo::Group(group) = &claimed.reply_to {
            span.set("messaging.destination.name", group.as_str().to_owned());
        }
        span.set("groupcast.consumer", claimed.consumer.clone());
        span.set("groupcast.job.id", claimed.lease.id.to_string());
        span.set("groupcast.job.type", claimed.message.kind().to_owned());
        span.set("groupcast.job.attempt", claimed.attempt);
        span.set("groupcast.job.wait_ms", now_ms.saturating_sub(claimed.ready_at));
        Some(Self(Box::new(span)))
    }

    /// What the attempt asks and sends is part of this.
    fn trace(&self) -> Trace {
        self.0.trace()
    }

    /// Ends with what came of the attempt.
    pub(super) fn end(mut self, outcome: &'static str) {
        self.0.set("groupcast.job.outcome", outcome);
        if FAILED.contains(&outcome) {
            self.0.fail(outcome, "");
        }
    }
}
