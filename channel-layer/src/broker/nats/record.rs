//! What is stored in a stream and sent on to followers: messages of a group that were numbered together, and where the
//! group is behind them.
//!
//! ```text
//! gcn1 RUN EPOCH OFFSET 22,31
//! {"type":"a","text":"b"}{"type":"a","text":"something"}
//! ```
//!
//! `OFFSET` is that of the last message; the numbers are the messages' lengths, `-` for none: then the record only says
//! where the group is. `RUN` is the run of the server, where a new one begins new epochs, or `-`.

use bytes::{BufMut, Bytes, BytesMut};
use groupcast_protocol::{Message, Position};

const FORM: &str = "gcn1";

/// A record of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) run: Box<str>,
    /// Where the group is behind the record.
    pub(super) at: Position,
    pub(super) messages: Vec<Message>,
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let sizes: Vec<String> = self.messages.iter().map(|message| message.raw().len().to_string()).collect();
        let sizes = if sizes.is_empty() { "-".to_owned() } else { sizes.join(",") };
        let head = format!("{FORM} {} {} {} {sizes}\n", self.run, self.at.epoch, self.at.offset);
        let bytes: usize = self.messages.iter().map(|message| message.raw().len()).sum();
        let mut record = BytesMut::with_capacity(head.len() + bytes);
        record.put_slice(head.as_bytes());
        self.messages.iter().for_each(|message| record.put_slice(message.raw()));
        record.freeze()
    }

    /// Reads what came from outside; a message may have at most `max` bytes. `None` when it is not a record.
    pub(super) fn decode(bytes: &Bytes, max: usize) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (run, epoch, offset, sizes) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let at: Position = format!("{epoch}:{offset}").parse().ok()?;
        let mut rest = bytes.slice(end + 1..);
        let mut messages = Vec::new();
        for size in sizes.split(',').filter(|_| sizes != "-") {
            let size: usize = size.parse().ok()?;
            if size > rest.len() {
                return None;
            }
            messages.push(Message::parse_within(rest.split_to(size), max).ok()?);
        }
        let is_whole = rest.is_empty() && words.next().is_none() && at.offset >= messages.len() as u64;
        is_whole.then(|| Self { run: run.into(), at, messages })
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

    fn decoded(text: &'static str) -> Option<Record> {
        Record::decode(&Bytes::from_static(text.as_bytes()), 30)
    }

    #[test]
    fn to_bytes_and_back() {
        let messages = vec![message(r#"{"type":"a"}"#), message("{\"type\":\n\"bc\"}")];
        let record = Record { run: "r".into(), at: "x7:41".parse().expect("valid"), messages };
        let bytes = record.encode();
        assert_eq!(&bytes[..], b"gcn1 r x7 41 12,14\n{\"type\":\"a\"}{\"type\":\n\"bc\"}");
        assert_eq!(Record::decode(&bytes, 30), Some(record.clone()));
        assert_eq!(record.numbered().map(|(offset, _)| offset).collect::<Vec<_>>(), [40, 41]);
        let only = Record { run: "-".into(), at: "x7:0".parse().expect("valid"), messages: Vec::new() };
        assert_eq!(Record::decode(&only.encode(), 30), Some(only));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(decoded("gcn1 r x7 1 12\n{\"type\":\"a\"}").is_some());
        for text in [
            "",
            "gcn1",
            "gcn1 r x7 1 12",
            "gcn2 r x7 1 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 13\n{\"type\":\"a\"}",
            "gcn1 r x7 1 11\n{\"type\":\"a\"}",
            "gcn1 r x7 0 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12 x\n{\"type\":\"a\"}",
            "gcn1 r x7 x 12\n{\"type\":\"a\"}",
            "gcn1 r x7 1 12,\n{\"type\":\"a\"}",
            "gcn1 r x7 1 40\n{\"type\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
