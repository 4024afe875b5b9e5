//! What is stored in a stream and sent on to followers: messages of a group that were numbered together, and where the
//! group is behind them.
//!
//! ```text
//! gcn1 RUN EPOCH OFFSET 22,31
//! {"type":"a","text":"b"}{"type":"a","text":"something"}
//!
//! gcn1 RUN EPOCH OFFSET 22 SEQUENCE@TIME
//! {"type":"a","text":"b"}
//! ```
//!
//! `OFFSET` is that of the last message; the numbers are the messages' lengths, `-` for none: then the record only says
//! where the group is. `RUN` is the run of the server, where a new one begins new epochs, or `-`. `SEQUENCE@TIME` is the
//! [`Mark`] of the newest message of another program that the group has got; each record repeats it.

use bytes::{BufMut, Bytes, BytesMut};
use groupcast_protocol::{Message, OFFSET_MAX, Position};

use super::time::ServerTime;
use crate::broker::dropped::Reason;

const FORM: &str = "gcn1";

/// Which message of the stream of foreign ones it is: its number there, and when it was stored, in ns since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) at: ServerTime,
}

impl Mark {
    /// Whether a message is this one, or was before it. A server that has lost its newest messages gives their numbers once
    /// more, at another time.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.sequence <= self.sequence && other.at <= self.at
    }

    /// The mark behind both. Clocks of servers may differ, so the later time counts, whosever it is.
    pub(super) fn and(self, other: &Self) -> Self {
        Self { sequence: other.sequence, at: self.at.max(other.at) }
    }

    /// The same for the same message.
    pub(super) fn id(&self) -> String {
        format!("{}@{}", self.sequence, self.at.nanos())
    }

    fn parse(text: &str) -> Option<Self> {
        let (sequence, nanos) = text.split_once('@')?;
        Some(Self { sequence: sequence.parse().ok()?, at: ServerTime::from_nanos(nanos.parse().ok()?) })
    }
}

/// A record of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) run: Box<str>,
    /// Where the group is behind the record.
    pub(super) at: Position,
    pub(super) messages: Vec<Message>,
    /// Up to where the group has the messages of other programs.
    pub(super) foreign: Option<Mark>,
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let sizes: Vec<String> = self.messages.iter().map(|message| message.raw().len().to_string()).collect();
        let sizes = if sizes.is_empty() { "-".to_owned() } else { sizes.join(",") };
        let foreign = self.foreign.map(|mark| format!(" {}", mark.id())).unwrap_or_default();
        let head = format!("{FORM} {} {} {} {sizes}{foreign}\n", self.run, self.at.epoch, self.at.offset);
        let bytes: usize = self.messages.iter().map(|message| message.raw().len()).sum();
        let mut record = BytesMut::with_capacity(head.len() + bytes);
        record.put_slice(head.as_bytes());
        self.messages.iter().for_each(|message| record.put_slice(message.raw()));
        record.freeze()
    }

    /// Reads what came from outside; a message may have at most `max` bytes. An error when it is not a record.
    pub(super) fn decode(bytes: &Bytes, max: usize) -> Result<Self, Reason> {
        let (head, sizes, mut rest) = Self::head(bytes).ok_or(Reason::Unreadable)?;
        let mut messages = Vec::new();
        for size in sizes {
            if size > rest.len() {
                return Err(Reason::Unreadable);
            }
            messages.push(Message::parse_within(rest.split_to(size), max)?);
        }
        if !rest.is_empty() || head.at.offset < messages.len() as u64 {
            return Err(Reason::Unreadable);
        }
        Ok(Self { messages, ..head })
    }

    /// Where a record says that the group is, whatever its messages are; none when it is not a record. Nodes may differ in what
    /// they take for too large, and not in this.
    pub(super) fn place(bytes: &Bytes) -> Option<Self> {
        let (head, sizes, rest) = Self::head(bytes)?;
        let bytes = sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size))?;
        (bytes == rest.len() && head.at.offset >= sizes.len() as u64).then_some(head)
    }

    /// All but the messages: how long each of them is, and where they begin.
    fn head(bytes: &Bytes) -> Option<(Self, Vec<usize>, Bytes)> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (run, epoch, offset, sizes) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let at: Position = format!("{epoch}:{offset}").parse().ok()?;
        if at.offset > OFFSET_MAX {
            return None;
        }
        let foreign = match words.next() {
            Some(mark) => Some(Mark::parse(mark)?),
            None => None,
        };
        let sizes: Result<Vec<usize>, _> = sizes.split(',').filter(|_| sizes != "-").map(str::parse).collect();
        let head = Self { run: run.into(), at, messages: Vec::new(), foreign };
        words.next().is_none().then_some((head, sizes.ok()?, bytes.slice(end + 1..)))
    }

    /// The messages with their offsets.
    pub(super) fn numbered(self) -> impl Iterator<Item = (u64, Message)> {
        let first = self.at.offset + 1 - self.messages.len() as u64;
        (first..).zip(self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &'static str) -> Message {
        Message::parse(Bytes::from_static(text.as_bytes())).expect("a valid message")
    }

    fn decoded(text: &'static str) -> Result<Record, Reason> {
        Record::decode(&Bytes::from_static(text.as_bytes()), 30)
    }

    #[test]
    fn to_bytes_and_back() {
        let messages = vec![message(r#"{"type":"a"}"#), message("{\"type\":\n\"bc\"}")];
        let at = "x7:41".parse().expect("valid");
        let mut record = Record { run: "r".into(), at, messages, foreign: None };
        let bytes = record.encode();
        assert_eq!(&bytes[..], b"gcn1 r x7 41 12,14\n{\"type\":\"a\"}{\"type\":\n\"bc\"}");
        assert_eq!(Record::decode(&bytes, 30), Ok(record.clone()));
        record.foreign = Some(mark(7, 8));
        let bytes = record.encode();
        assert_eq!(&bytes[..], b"gcn1 r x7 41 12,14 7@8\n{\"type\":\"a\"}{\"type\":\n\"bc\"}");
        assert_eq!(Record::decode(&bytes, 30), Ok(record.clone()));
        assert_eq!(record.numbered().map(|(offset, _)| offset).collect::<Vec<_>>(), [40, 41]);
        let at = "x7:0".parse().expect("valid");
        let only = Record { run: "-".into(), at, messages: Vec::new(), foreign: None };
        assert_eq!(Record::decode(&only.encode(), 30), Ok(only));
    }

    #[test]
    fn the_place_of_a_record_does_not_depend_on_its_messages() {
        let large = "gcn1 r x7 1 42\n{\"type\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}";
        for text in ["gcn1 r x7 1 12\n{\"type\":\"a\"}", "gcn1 r x7 1 -\n", large] {
            let at = Record::place(&Bytes::from_static(text.as_bytes())).map(|head| head.at.to_string());
            assert_eq!(at.as_deref(), Some("x7:1"), "{text}");
        }
        for text in
            ["", "x", "gcn1 r x7 1 12\n", "gcn1 r x7 0 12\n{\"type\":\"a\"}", "gcn1 r x7 1 99999999999999999999\n"]
        {
            assert_eq!(Record::place(&Bytes::from_static(text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn a_mark_covers_what_was_before_it() {
        for (other, is_covered) in
            [((7, 50), true), ((6, 40), true), ((8, 60), false), ((8, 40), false), ((6, 60), false)]
        {
            assert_eq!(mark(7, 50).covers(&mark(other.0, other.1)), is_covered, "{other:?}");
        }
        // The clock of another server is behind: nothing of before is taken for new.
        let both = mark(7, 50).and(&mark(8, 40));
        assert!(both.covers(&mark(8, 40)) && both.covers(&mark(7, 50)));
    }

    fn mark(sequence: u64, nanos: u128) -> Mark {
        Mark { sequence, at: ServerTime::from_nanos(nanos) }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(decoded("gcn1 r x7 1 12\n{\"type\":\"a\"}").is_ok());
        for text in [
            "",
            "gcn1",
            "gcn1 r x7 1 12",
            "gcn2 r x7 1 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 13\n{\"type\":\"a\"}",
            "gcn1 r x7 1 11\n{\"type\":\"a\"}",
            "gcn1 r x7 0 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12 x\n{\"type\":\"a\"}",
            "gcn1 r x7 9007199254740993 12\n{\"type\":\"a\"}",
            "gcn1 r x7 x 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12,\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12 7\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12 7@x\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12 7@8 x\n{\"type\":\"a\"}",
        ] {
            assert_eq!(decoded(text), Err(Reason::Unreadable), "{text}");
        }
        let large = "gcn1 r x7 1 42\n{\"type\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}";
        assert_eq!(decoded(large), Err(Reason::TooLarge));
    }
}
