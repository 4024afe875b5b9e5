//! The bytes of Server-Sent Events (HTML standard, section 9.2, "Server-sent events") and the ids that clients come
//! back with.
//!
//! ```text
//! event: subscribed
//! id: x7:40
//! data: {"type":"subscribed","group":"my_group","epoch":"x7","offset":40}
//!
//! ```
//!
//! An `id` is opaque to clients. With one group it is a [`Position`] and stands in every event; with several it names
//! the [`Positions`] of all of them and stands in a block of its own behind each batch. An id never claims more than
//! what stands before it in the stream.

use std::fmt;
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use crate::envelope::Position;
use crate::names::GroupName;

/// The media type of a stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// Room for field names, line ends and a short id.
const FIELDS_ROOM: usize = 64;

/// One event. Clients see its JSON with line feeds for carriage returns: outside of strings they mean the same, and in
/// strings JSON has neither.
pub fn event(name: Option<&str>, json: &[u8], id: Option<&dyn fmt::Display>) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + FIELDS_ROOM);
    if let Some(name) = name {
        field(&mut out, "event", &name);
    }
    if let Some(id) = id {
        field(&mut out, "id", id);
    }
    for line in lines(json) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// A block that moves the client's id on and shows it no event.
pub fn id_only(id: &dyn fmt::Display) -> Bytes {
    let mut out = BytesMut::with_capacity(FIELDS_ROOM);
    field(&mut out, "id", id);
    out.put_u8(b'\n');
    out.freeze()
}

/// Tells the client how long to wait before it comes back.
pub fn retry(ms: u64) -> Bytes {
    Bytes::from(format!("retry: {ms}\n\n"))
}

/// A comment, which keeps a quiet stream alive.
pub fn heartbeat() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// Where a client stands in several groups.
///
/// ```text
/// room.1=x7:40,room.2=x9:3
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(Vec<(GroupName, Position)>);

/// Why a text names no positions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionsError {
    /// More groups than the caller allows.
    #[error("the id names more than {max} groups; give the id that the stream told")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Not a list of groups and positions, or a group stands there twice.
    #[error(
        "part {at} of the id is not a group and its position; give the id as the stream told it, as in `room=x7:40`"
    )]
    Malformed {
        /// Which part, from 1.
        at: usize,
    },
}

impl Positions {
    /// Reads the id of a stream with several groups; at most `max` of them.
    ///
    /// # Errors
    /// When the text is not what [`Positions`] writes, or names too many groups.
    pub fn parse(text: &str, max: usize) -> Result<Self, PositionsError> {
        let mut positions = Self::default();
        for (at, part) in text.split(',').enumerate() {
            if at == max {
                return Err(PositionsError::TooMany { max });
            }
            let malformed = PositionsError::Malformed { at: at + 1 };
            let Some((group, position)) = part.split_once('=') else { return Err(malformed) };
            let (Ok(group), Ok(position)) = (GroupName::parse(group), position.parse()) else { return Err(malformed) };
            if positions.of(&group).is_some() {
                return Err(malformed);
            }
            positions.0.push((group, position));
        }
        Ok(positions)
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The position in one group.
    pub fn of(&self, group: &GroupName) -> Option<&Position> {
        self.0.iter().find(|(name, _)| name == group).map(|(_, position)| position)
    }
}

impl FromIterator<(GroupName, Position)> for Positions {
    fn from_iter<I: IntoIterator<Item = (GroupName, Position)>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (group, position)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{group}={position}")?;
        }
        Ok(())
    }
}

fn field(out: &mut BytesMut, name: &str, value: &dyn fmt::Display) {
    writeln!(out, "{name}: {value}").expect("bytes in memory take any text");
}

/// A stream's line ends with a line feed, a carriage return, or both.
fn lines(json: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(json);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { return Some(text) };
        let behind = if text[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
        rest = Some(&text[behind..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        text.parse().expect("a valid position")
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).expect("a valid name")
    }

    #[test]
    fn an_event_has_its_name_its_id_and_its_data() {
        let framed = event(Some("subscribed"), b"{}", Some(&position("x7:40")));
        assert_eq!(framed, "event: subscribed\nid: x7:40\ndata: {}\n\n");
        assert_eq!(event(None, b"{\"a\":1}", None), "data: {\"a\":1}\n\n");
        assert_eq!(id_only(&"a=x:1"), "id: a=x:1\n\n");
        assert_eq!(retry(1830), "retry: 1830\n\n");
    }

    #[test]
    fn every_kind_of_line_end_begins_a_new_data_line() {
        let framed = event(None, b"{\"a\":\n1,\r\n\"b\":\r2,\n\r\"c\":3}", None);
        assert_eq!(framed, "data: {\"a\":\ndata: 1,\ndata: \"b\":\ndata: 2,\ndata: \ndata: \"c\":3}\n\n");
        for (text, lines) in [("", 1), ("\r", 2), ("\n", 2), ("\r\n", 2), ("\n\r", 3), ("\r\r\n", 3), ("{}\r", 2)] {
            let framed = event(None, text.as_bytes(), None);
            assert_eq!(framed.iter().filter(|byte| **byte == b'\n').count(), lines + 1, "{text:?}");
        }
    }

    #[test]
    fn positions_are_text_and_back() {
        let positions: Positions =
            [(group("room.1"), position("x7:40")), (group("b"), position("x7-1:0"))].into_iter().collect();
        assert_eq!(positions.to_string(), "room.1=x7:40,b=x7-1:0");
        let read = Positions::parse(&positions.to_string(), 2).expect("what was written can be read");
        assert_eq!(read, positions);
        assert_eq!((read.of(&group("b")), read.of(&group("c"))), (Some(&position("x7-1:0")), None));
    }

    #[test]
    fn other_ids_are_refused() {
        let malformed = |at| Err(PositionsError::Malformed { at });
        for text in ["", "a", "a=", "=x:1", "x:1", "a=x:1=", "a=x", "a!=x:1", "a=x:-1", " a=x:1", "a=é:1"] {
            assert_eq!(Positions::parse(text, 9), malformed(1), "{text:?}");
        }
        for text in ["a=x:1,", "a=x:1,,b=x:1", "a=x:1,a=x:2", "a=x:1, b=x:1"] {
            assert_eq!(Positions::parse(text, 9), malformed(2), "{text:?}");
        }
        assert_eq!(Positions::parse("a=x:1,b=x:1", 1), Err(PositionsError::TooMany { max: 1 }));
    }
}
