//! Messages that programs of another kind send, as Django does by its own channel layer.
//!
//! They come without a number, and may be work. A broker that speaks such a dialect keeps each of them until an [`Intake`]
//! has taken it, one node at a time; then it is numbered and published like a message of a node, or it is done with.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

#[cfg(any(feature = "redis", feature = "nats"))]
use groupcast_protocol::ChannelName;
use groupcast_protocol::{GroupName, Message};

/// Decides what becomes of foreign messages.
pub trait Intake: Send + Sync + 'static {
    /// Takes a message that was sent to a group. `id` is the same when the same message is given again, which happens when
    /// the node that had it ended.
    ///
    /// # Cancel safety
    /// A call that is dropped may have been carried out: the message is given again.
    fn take<'a>(
        &'a self,
        group: &'a GroupName,
        message: &'a Message,
        id: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Taken> + Send + 'a>>;
}

/// What became of a foreign message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The group's members are to see it.
    Show,
    /// It is done with.
    Done,
    /// It could not be taken; it has to be given again, and everything behind it later.
    Later,
}

/// Whether a name is that of a connection of some gateway: `specific.NODE!cNUMBER`.
#[cfg(any(feature = "redis", feature = "nats"))]
pub(super) fn is_connection(channel: &ChannelName) -> bool {
    let local = channel.as_str().split_once('!').map_or("", |(_, local)| local);
    local.strip_prefix('c').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Debug for dyn Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Intake")
    }
}
