//! Carries the events of jobs that run here to the process that took them in, by `NOTIFY`: `started`, `progress`, `retry`.
//!
//! A lane of its own beside the other hints, because order matters here: one task, one statement at a time, at most so
//! often. What does not fit is dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{ChannelName, GroupName, JobId, Message, TraceContext};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::db::Db;
use crate::jobs::Carried;
use crate::jobs::new_job::ReplyTo;

/// Events that wait to be sent; more are dropped.
const QUEUE_MAX: usize = 1024;

/// Events in one statement.
const BATCH_MAX: usize = 256;

/// Statements of one process are so far apart: each `NOTIFY` makes the commits of a server wait for each other.
const EVERY: Duration = Duration::from_millis(50);

/// PostgreSQL takes less than 8000 bytes.
const PAYLOAD_MAX: usize = 7999;

/// The beginning of such a hint.
pub(super) const PREFIX: &str = "p ";

/// Where events are given to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Carrier {
    queue: mpsc::Sender<Letter>,
}

struct Letter {
    to: String,
    carried: Carried,
}

/// As it is sent, after `p `.
///
/// ```text
/// {"to":"gw1","job":"01J…","attempt":1,"group":"my_group","event":{"type":"job.started",…}}
/// ```
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    to: &'a str,
    job: JobId,
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl Carrier {
    /// Starts the task that sends.
    pub(super) fn start(db: &Db, channel: &str) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        db.spawn(send(db.clone(), channel.to_owned(), inbox));
        Self { queue }
    }

    /// Sends an event to a process soon, or never.
    pub(super) fn give(&self, to: &str, carried: Carried) {
        drop(self.queue.try_send(Letter { to: to.to_owned(), carried }));
    }
}

async fn send(db: Db, channel: String, mut inbox: mpsc::Receiver<Letter>) {
    let mut letters = Vec::new();
    loop {
        let taken = tokio::select! {
            taken = inbox.recv_many(&mut letters, BATCH_MAX) => taken,
            () = db.closed.cancelled() => return,
        };
        if taken == 0 {
            return;
        }
        let payloads: Vec<String> = latest(std::mem::take(&mut letters)).iter().filter_map(payload).collect();
        // In the order of the list: they are heard in it, too.
        let sql = "select pg_notify($1, payload) from unnest($2::text[]) as payload";
        if let Err(error) = db.read(sql, vec![Box::new(channel.clone()), Box::new(payloads)]).await {
            tracing::debug!(%error, "events were not carried to those who tell them");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = db.closed.cancelled() => return,
        }
    }
}

/// Leaves out how far a job was where it is said, too, how far it is.
fn latest(letters: Vec<Letter>) -> Vec<Letter> {
    let is_progress = |letter: &Letter| letter.carried.event.kind() == "job.progress";
    let mut said = HashSet::new();
    let mut kept: Vec<Letter> = letters
        .into_iter()
        .rev()
        .filter(|letter| !is_progress(letter) || said.insert((letter.carried.id, letter.carried.attempt)))
        .collect();
    kept.reverse();
    kept
}

/// `None`: it has no place in a hint.
fn payload(letter: &Letter) -> Option<String> {
    let Carried { id, attempt, reply_to, event } = &letter.carried;
    let (group, channel) = match reply_to {
        ReplyTo::Group(group) => (Some(group.as_str()), None),
        ReplyTo::Channel(channel) => (None, Some(channel.as_str())),
        ReplyTo::Nobody => return None,
    };
    let trace = event.trace().as_ref().map(ToString::to_string);
    let event: &RawValue = serde_json::from_str(event.as_str()).ok()?;
    let wire = Wire { to: &letter.to, job: *id, attempt: *attempt, group, channel, trace, event };
    let text = format!("{PREFIX}{}", serde_json::to_string(&wire).ok()?);
    (text.len() <= PAYLOAD_MAX).then_some(text)
}

/// Reads what follows [`PREFIX`]; `None`: not for the process of this name, or not one of this program's.
pub(super) fn read(payload: &str, node: &str) -> Option<Carried> {
    let wire: Wire<'_> = serde_json::from_str(payload).ok()?;
    if wire.to != node {
        return None;
    }
    let reply_to = match (wire.group, wire.channel) {
        (Some(group), None) => ReplyTo::Group(GroupName::parse(group).ok()?),
        (None, Some(channel)) => ReplyTo::Channel(ChannelName::parse(channel).ok()?),
        _ => return None,
    };
    let trace = wire.trace.as_deref().and_then(TraceContext::from_text).map(Arc::new);
    let event = Message::parse(wire.event.get().to_owned().into()).ok()?.with_trace(trace);
    Some(Carried { id: wire.job, attempt: wire.attempt, reply_to, event })
}

/// The message in an event that is carried to the process of this name.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_carried(payload: &str, node: &str) -> Option<Message> {
    let carried = read(payload, node)?;
    let letter = Letter { to: node.to_owned(), carried: carried.clone() };
    if let Some(text) = self::payload(&letter) {
        assert_eq!(read(&text[PREFIX.len()..], node).as_ref(), Some(&carried), "what we write is read as the same");
    }
    Some(carried.event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(event: &str) -> Letter {
        let reply_to = ReplyTo::Group(GroupName::parse("my_group").expect("a name"));
        let event = Message::parse(event.to_owned().into()).expect("a message");
        Letter { to: "gw1".into(), carried: Carried { id: JobId::new(7, 7), attempt: 2, reply_to, event } }
    }

    #[test]
    fn an_event_reads_back_where_it_is_meant_for() {
        let letter = letter(r#"{"type":"job.started","text":"\"é\n"}"#);
        let channel = ReplyTo::Channel(ChannelName::parse("specific.gw1!c1").expect("a name"));
        let other = Letter { to: "gw1".into(), carried: Carried { reply_to: channel, ..letter.carried.clone() } };
        let trace = TraceContext::from_text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 a=b c,d=e");
        let event = letter.carried.event.clone().with_trace(trace.map(Arc::new));
        let traced = Letter { to: "gw1".into(), carried: Carried { event, ..letter.carried.clone() } };
        for letter in [letter, other, traced] {
            let text = payload(&letter).expect("it fits");
            let rest = text.strip_prefix(PREFIX).expect("it begins so");
            assert_eq!(read(rest, "gw1"), Some(letter.carried));
            assert_eq!(read(rest, "gw2"), None);
        }
        for strange in ["", "{}", r#"{"to":"gw1","job":"x","attempt":1,"group":"g","event":{}}"#] {
            assert_eq!(read(strange, "gw1"), None, "{strange}");
        }
    }

    #[test]
    fn what_does_not_fit_and_what_is_for_nobody_is_not_sent() {
        let long = format!(r#"{{"type":"job.retry","error":"{}"}}"#, "x".repeat(8000));
        assert_eq!(payload(&letter(&long)), None);
        let mut nobody = letter(r#"{"type":"job.started"}"#);
        nobody.carried.reply_to = ReplyTo::Nobody;
        assert_eq!(payload(&nobody), None);
    }

    #[test]
    fn of_a_batch_the_last_progress_counts() {
        let events = [r#"{"type":"job.started"}"#, r#"{"type":"job.progress","done":1}"#]
            .into_iter()
            .chain([r#"{"type":"job.progress","done":2}"#, r#"{"type":"job.retry"}"#]);
        let kept = latest(events.map(letter).collect());
        let kept: Vec<&str> = kept.iter().map(|letter| letter.carried.event.as_str()).collect();
        let expected = [r#"{"type":"job.started"}"#, r#"{"type":"job.progress","done":2}"#, r#"{"type":"job.retry"}"#];
        assert_eq!(kept, expected);
    }
}
