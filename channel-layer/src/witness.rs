//! `Witness`: who is told of deliveries that belong to a trace.

use std::time::Duration;

use groupcast_protocol::{GroupName, Trace};

/// Is told by a shard what became of messages that belong to a trace; of others nobody is told anything.
///
/// On the shard's thread, while others wait: whoever has much to do hands it on.
pub trait Witness {
    /// The logs of the shard have a message, and the connections that read there are marked to be written to.
    fn delivered(&self, delivery: Delivery<'_>);
}

/// What became of a message in one shard.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The trace that the message belongs to, never `None`.
    pub trace: &'a Trace,
    /// The group that it was sent to.
    pub group: &'a GroupName,
    /// Connections of the shard that read the group, also those that are behind.
    pub recipients: usize,
    /// How long it took to lay it out for them.
    pub took: Duration,
}
