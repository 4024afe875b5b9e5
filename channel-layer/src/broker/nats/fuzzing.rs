//! Doors to what reads the bytes of a server, for `fuzz/`.

use bytes::Bytes;
use groupcast_protocol::{GroupName, Message};
use serde_json::Value;

use super::api::{Stored, understood};
use super::channels;
use super::django::subjects::Subjects;
use super::monitoring;
use super::record::Record;
use super::time::{ServerClock, ServerTime};

/// A record as it was read: the bytes that it is written as, its messages with their offsets, and where the group is.
pub struct Reread {
    /// Its bytes.
    pub bytes: Bytes,
    /// Offsets and messages.
    pub messages: Vec<(u64, Message)>,
    /// The offset behind it.
    pub offset: u64,
}

/// Reads a record of messages of at most `max` bytes.
pub fn record(bytes: &Bytes, max: usize) -> Option<Reread> {
    let record = Record::decode(bytes, max).ok()?;
    Some(Reread { bytes: record.encode(), offset: record.at.offset, messages: record.numbered().collect() })
}

/// Where a record says that its group is, whatever its messages are.
pub fn place(bytes: &Bytes) -> Option<u64> {
    Record::place(bytes).map(|record| record.at.offset)
}

/// A message of a stream: its number, when it was stored in nanoseconds since 1970, and its bytes.
pub type Told = (u64, u128, Bytes);

/// Reads an answer of `$JS.API`, and the message in it.
pub fn answer(payload: &[u8]) -> Option<(Value, Option<Told>)> {
    let answer = understood(payload).ok()?;
    let stored = Stored::from_answer(&answer["message"]);
    let stored = stored.map(|stored| {
        let age = ServerClock::told(stored.at).age(stored.at);
        assert!(age.as_secs() < 60, "a time is as old as itself");
        (stored.sequence, stored.at.nanos(), stored.payload)
    });
    Some((answer, stored))
}

/// Reads a time as servers write it, in nanoseconds since 1970.
pub fn time(text: &str) -> Option<u128> {
    ServerTime::parse(text).map(ServerTime::nanos)
}

/// What a server says at its monitoring port.
pub fn syncs_always(answer: &[u8], server_id: &str) -> Option<bool> {
    monitoring::told(answer, server_id).ok()
}

/// Reads a message of a channel of at most `max` bytes.
pub fn of_channel(payload: &Bytes, max: usize) -> Option<Message> {
    channels::read(payload, max).map(|(_, message)| message)
}

/// The group of a subject of channels_nats, and the subject of that group.
pub fn group(prefix: &str, subject: &str) -> Option<(GroupName, Option<String>)> {
    let subjects = Subjects::new(prefix);
    let group = subjects.group_of(subject)?;
    let again = subjects.group(&group);
    Some((group, again))
}
