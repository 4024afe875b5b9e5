//! How a push is framed for one kind of client. A group's message is framed once for each kind, not for each client.

use bytes::Bytes;

use crate::websocket;

/// A kind of client, by what its socket is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// WebSocket text messages.
    WebSocket,
}

impl Format {
    /// Frames JSON text that is for one client alone: an answer, a `gap`.
    pub fn frame(self, json: &[u8]) -> Bytes {
        match self {
            Self::WebSocket => websocket::text(json),
        }
    }
}
