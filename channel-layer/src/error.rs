//! Why the layer refuses.

use groupcast_protocol::{ChannelName, GroupName};

use crate::broker::BrokerError;

/// Why an operation of the layer was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// The channel holds as many unread messages as it may (`ChannelFull` of Channels).
    #[error("channel `{channel}` holds {capacity} unread messages, its capacity; read it, or send later")]
    ChannelFull {
        /// The channel.
        channel: ChannelName,
        /// Its capacity.
        capacity: usize,
    },
    /// All channels together hold as many bytes as they may.
    #[error(
        "unread messages take {max} bytes, as much as they may; channel `{channel}` takes no more until some are read"
    )]
    OutOfRoom {
        /// The channel.
        channel: ChannelName,
        /// The bound.
        max: usize,
    },
    /// A channel that belongs to one process, and that process does not have it (any more).
    #[error("channel `{channel}` is gone: it belonged to a connection or process that has ended")]
    Gone {
        /// The channel.
        channel: ChannelName,
    },
    /// A channel that somebody else reads.
    #[error("channel `{channel}` is read by its own connection; receive from a channel of your own")]
    NotYours {
        /// The channel.
        channel: ChannelName,
    },
    /// More channels than the layer keeps.
    #[error("{max} channels exist already, as many as are kept; channel `{channel}` was not made")]
    TooManyChannels {
        /// The channel that was asked for.
        channel: ChannelName,
        /// The bound.
        max: usize,
    },
    /// The shards did not take the message in time.
    #[error("the message to group `{group}` was not taken within the deadline; send it again later")]
    Overloaded {
        /// The group.
        group: GroupName,
    },
    /// The broker did not do its part. A message may have been sent all the same, unless it was refused.
    #[error(transparent)]
    Broker(BrokerError),
    /// The shards did not take an event for a channel in time.
    #[error("channel `{channel}` could not be reached within the deadline; try again later")]
    Busy {
        /// The channel.
        channel: ChannelName,
    },
}
