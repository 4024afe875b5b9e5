//! How a push is framed for one kind of client. A group's message is framed once for each kind, not for each client.

use std::fmt;

use bytes::Bytes;

use crate::{sse, websocket};

/// A kind of client, by what its socket is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// WebSocket text messages.
    WebSocket,
    /// Server-Sent Events of one group: each that has a position carries it as its `id`.
    Events,
    /// Server-Sent Events of several groups: the `id` with the positions of all stands in blocks of its own, see
    /// [`sse::Positions`].
    EventsOfMany,
    /// WebSocket text messages of which the layer compresses those of groups, where that gains something. What is for one
    /// client alone is not worth it.
    Deflated,
}

impl Format {
    /// How many kinds there are; `format as usize` is below it.
    pub const COUNT: usize = 4;

    /// Frames JSON text that is for one client alone and moves no position: an answer, a direct message.
    pub fn frame(self, json: &[u8]) -> Bytes {
        self.frame_at(json, None)
    }

    /// Frames JSON text of a group. Who has read it is at position `at`, if the group has any.
    pub fn frame_at(self, json: &[u8], at: Option<At<'_>>) -> Bytes {
        match self {
            Self::WebSocket | Self::Deflated => websocket::text(json),
            Self::Events => sse::event(None, json, at.as_ref().map(|at| at as &dyn fmt::Display)),
            Self::EventsOfMany => sse::event(None, json, None),
        }
    }

    /// Frames `subscribed`, which event streams name as an event. Who has read it is at position `at`: the one that it
    /// came with when that is recovered, else the group's.
    pub fn subscribed(self, json: &[u8], at: Option<At<'_>>) -> Bytes {
        match self {
            Self::WebSocket | Self::Deflated => websocket::text(json),
            Self::Events => sse::event(Some("subscribed"), json, at.as_ref().map(|at| at as &dyn fmt::Display)),
            Self::EventsOfMany => sse::event(Some("subscribed"), json, None),
        }
    }

    /// Frames anew what has been framed for WebSockets. Who has read it is at position `at`, if the group has any.
    pub fn of_websocket(self, frame: &Bytes, at: Option<At<'_>>) -> Bytes {
        match self {
            Self::WebSocket | Self::Deflated => frame.clone(),
            Self::Events | Self::EventsOfMany => self.frame_at(websocket::payload(frame), at),
        }
    }
}

/// A borrowed [`Position`](crate::Position).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<'a> {
    /// The epoch.
    pub epoch: &'a str,
    /// The offset.
    pub offset: u64,
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Option<At<'_>> = Some(At { epoch: "x7", offset: 41 });

    #[test]
    fn a_stream_of_one_group_has_ids_and_one_of_many_has_none() {
        let frame = websocket::text(b"{}");
        assert_eq!(Format::WebSocket.of_websocket(&frame, AT), frame);
        assert_eq!(Format::Events.of_websocket(&frame, AT), "id: x7:41\ndata: {}\n\n");
        assert_eq!(Format::EventsOfMany.of_websocket(&frame, AT), "data: {}\n\n");
        assert_eq!(Format::Events.frame(b"{}"), "data: {}\n\n");
    }

    #[test]
    fn only_subscribed_is_a_named_event() {
        assert_eq!(Format::WebSocket.subscribed(b"{}", AT), websocket::text(b"{}"));
        assert_eq!(Format::Events.subscribed(b"{}", AT), "event: subscribed\nid: x7:41\ndata: {}\n\n");
        assert_eq!(Format::EventsOfMany.subscribed(b"{}", AT), "event: subscribed\ndata: {}\n\n");
    }

    #[test]
    fn every_format_counts() {
        assert_eq!(Format::Deflated as usize + 1, Format::COUNT);
    }
}
