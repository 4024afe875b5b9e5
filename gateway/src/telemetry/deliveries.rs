//! `Deliveries`: what is recorded, and at `trace` logged, of messages that shards lay out for their connections.

use groupcast_channel_layer::{Delivery, Witness};

use super::{Kind, Tracer};

/// One span for each message of a recorded trace and each shard with readers of its group.
pub(crate) struct Deliveries(Tracer);

impl Deliveries {
    /// `None` where nobody would hear of them: shards are not to look then.
    pub(crate) fn of(tracer: &Tracer) -> Option<Self> {
        (tracer.is_on() || tracing::enabled!(tracing::Level::TRACE)).then(|| Self(tracer.clone()))
    }
}

impl Witness for Deliveries {
    fn delivered(&self, delivery: Delivery<'_>) {
        if let Some(trace) = delivery.trace {
            let (group, recipients) = (delivery.group, delivery.recipients);
            tracing::trace!(%group, recipients, traceparent = trace.traceparent(), "delivered to the logs of a shard");
        }
        let Some(mut span) = self.0.begin(delivery.trace, Kind::Consumer, "deliver") else { return };
        span.began_before(delivery.took);
        span.set("messaging.system", "groupcast");
        span.set("messaging.operation.name", "deliver");
        span.set("messaging.operation.type", "process");
        span.set("messaging.destination.name", delivery.group.as_str().to_owned());
        span.set("groupcast.recipients", u64::try_from(delivery.recipients).unwrap_or(u64::MAX));
    }
}
