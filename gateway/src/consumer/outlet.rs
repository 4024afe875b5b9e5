//! `Outlet`: how the events of jobs leave. The gateway implements it over the channel layer.

use futures_util::future::BoxFuture;
use groupcast_protocol::Message;

use crate::jobs::ReplyTo;

/// Takes events on their way to a group or a channel.
///
/// An event counts as sent when `publish` answers `Ok`; a terminal one is sent again until then, also after a restart.
/// A receiver that will never take it (a channel that is gone) is `Ok` too.
pub trait Outlet: Send + Sync + 'static {
    /// Sends an event.
    fn publish(&self, to: ReplyTo, message: Message) -> BoxFuture<'_, Result<(), OutletError>>;
}

/// The layer did not take an event; it is worth trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event was not taken: {0}")]
pub struct OutletError(pub String);
