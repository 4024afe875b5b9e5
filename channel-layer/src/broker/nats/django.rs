//! The dialect of `channels_nats.NatsChannelLayer`: Django's processes and ours in the same groups.
//!
//! Django's processes publish with core NATS, which keeps nothing and acknowledges nothing. A stream that has the subjects of
//! their groups keeps what they send from the moment the server has it, also while no gateway runs. One gateway at a time
//! empties it (`registrar`, by a `lease`): each message goes to the [`Intake`](crate::broker::foreign::Intake), which stores
//! work under the message's number and time; what members are to see is published behind the group's newest record, which says
//! up to where the group has such messages (`show`); and only then is it taken out of the stream. So a gateway that dies at any
//! point loses nothing, and two that empty the stream at once do nothing twice: the lease only saves them the trouble.
//! Reading order: this file (what a node sends), `subjects`, `registrar` (with `lease`, `turn` and `show`).
//!
//! ```text
//! channels.grp.GROUP             their group_send, and ours for their processes
//! channels.pc.specific.PROCESS   their send to a process's own channel, which the header `Channel` names; ours to theirs
//! channels.ch.NAME               their channels that any process may read, in a queue group of the same name
//! PREFIX_foreign                 stream of channels.grp.>
//! PREFIX.came.GROUP              where it tells what it has stored: the numbers, without the messages
//! PREFIX.plain.!registrar        which gateway empties it
//! ```
//!
//! What we send to their groups bears the header `Nats-Expected-Stream` with the name of no stream: the server hands it to who
//! listens, and stores it nowhere. So no gateway takes in what a gateway has sent.
//!
//! Group names with empty parts (`room.`, `a..b`) are no subjects. No process of Django can be in such a group, so nothing is
//! sent there; among gateways they are groups like others.

mod lease;
mod registrar;
mod show;
pub(super) mod subjects;
#[cfg(test)]
mod tests;
mod turn;

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::names::Stream;
use super::session::Session;
use crate::broker::seldom::Seldom;
use crate::broker::{BrokerError, BrokerEvent};
use crate::config::GroupRule;
use crate::dialect::{Decoded, To, msgpack};
use crate::stats::Counter;
use subjects::Subjects;

pub(super) use registrar::run;

/// Names the channel of one process that a message is for.
const CHANNEL: &str = "Channel";
/// With a stream's name: no other stream stores the message.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// No stream can be called so: there is a period in it.
const NO_STREAM: &str = "groupcast.none";
/// How often the log says that messages are dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// More than the headers of any message here have.
const HEADERS_MAX: usize = 256;

/// Settings that have to be those of Django's `CHANNEL_LAYERS`, and what is known of groups.
#[derive(Debug, Clone)]
pub struct DjangoConfig {
    /// `prefix`.
    pub prefix: String,
    /// `expiry`: what is only to be shown, and has waited longer, is not. Work waits for a day.
    pub expiry: Duration,
    /// Which groups keep history, for what is published on behalf of others.
    pub groups: Vec<GroupRule>,
    /// What this run is known by: no other has the same.
    pub run: String,
}

/// What one node does in the dialect.
pub(super) struct Django {
    config: DjangoConfig,
    node: NodeId,
    subjects: Subjects,
    max_bytes: usize,
    counters: Counters,
    /// The number of the lease that this node holds.
    lease: Mutex<Option<u64>>,
    /// For saying in the log that messages are dropped.
    seldom: Seldom,
}

/// What is counted.
#[derive(Debug, Default)]
struct Counters {
    arrived: Counter,
    shown: Counter,
    repeated: Counter,
    dropped: Counter,
    expired: Counter,
    sent: Counter,
    epochs: Counter,
    depth: Counter,
    is_registrar: Counter,
}

/// A message as Django's processes read it.
pub(super) struct Frame(Bytes);

impl Django {
    pub(super) fn new(config: DjangoConfig, node: NodeId, max_bytes: usize) -> Self {
        let subjects = Subjects::new(&config.prefix);
        let (counters, lease, seldom) = (Counters::default(), Mutex::default(), Seldom::new(TELL_EVERY));
        Self { config, node, subjects, max_bytes, counters, lease, seldom }
    }

    /// Writes a message for Django; asked before anybody has got it.
    pub(super) fn frame(&self, session: &Session, message: &Message) -> Result<Frame, BrokerError> {
        let unwritable = |why: String| BrokerError::Unwritable { why };
        let frame = msgpack::encode(message, &To::Nobody).map_err(|error| unwritable(error.to_string()))?;
        let max = session.api.client.max_payload().saturating_sub(HEADERS_MAX);
        if frame.len() > max {
            let size = frame.len();
            return Err(unwritable(format!(
                "the message has {size} bytes as Django reads it, and the NATS server takes {max}; \
                 send less, or raise `max_payload` there"
            )));
        }
        Ok(Frame(frame.into()))
    }

    /// Sends a message to the processes of Django that are in a group. Who is there, nobody knows.
    pub(super) async fn forward(
        &self,
        session: &Session,
        group: &GroupName,
        Frame(frame): Frame,
    ) -> Result<(), BrokerError> {
        let Some(subject) = self.subjects.group(group) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_STREAM, NO_STREAM);
        let sent = session.api.client.publish_with_headers(subject, headers, frame);
        let after = session.api.timeout;
        let sent = timeout(after, sent).await.map_err(|_elapsed| BrokerError::TimedOut { after })?;
        sent.map_err(|error| BrokerError::Unavailable { why: error.to_string() })?;
        self.counters.sent.add(1);
        Ok(())
    }

    /// Sends a message to one channel of theirs. Says whether anybody reads it: NATS keeps nothing for who comes later.
    pub(super) async fn send(
        &self,
        session: &Session,
        channel: &ChannelName,
        message: &Message,
    ) -> Result<bool, BrokerError> {
        let Frame(frame) = self.frame(session, message)?;
        let Some(subject) = self.subjects.channel(channel) else { return Ok(false) };
        let mut headers = HeaderMap::new();
        if channel.is_process_local() {
            headers.insert(CHANNEL, channel.as_str());
        }
        let unavailable = |error: &dyn std::fmt::Display| BrokerError::Unavailable { why: error.to_string() };
        let client = &session.api.client;
        let inbox = client.new_inbox();
        // Whoever reads it does not answer; a server answers for nobody.
        let mut nobody = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(&error))?;
        let sent = client.publish_with_reply_and_headers(subject, inbox, headers, frame);
        sent.await.map_err(|error| unavailable(&error))?;
        // What was asked behind it is answered behind it.
        session.api.newest(&session.names.stream(Stream::Plain), &session.names.nothing(Stream::Plain)).await?;
        let is_read = tokio::task::unconstrained(nobody.next()).now_or_never().is_none();
        self.counters.sent.add(u64::from(is_read));
        Ok(is_read)
    }

    /// Where what is for this node's connections comes; none when the node's name can be no part of a subject.
    pub(super) fn own_subject(&self) -> Option<String> {
        self.subjects.process(&format!("specific.{}", self.node))
    }

    /// Reads what came there.
    pub(super) fn direct(&self, arrived: &async_nats::Message) -> Option<BrokerEvent> {
        let channel = arrived.headers.as_ref().and_then(|headers| headers.get(CHANNEL));
        let channel = channel.and_then(|channel| ChannelName::parse(channel.as_str()).ok());
        let message = self.read(&arrived.payload);
        match (channel, message) {
            (Some(channel), Some(message)) => Some(BrokerEvent::Direct { channel, message }),
            (None, Some(_)) => {
                self.drop_messages(1, &"it names no channel");
                None
            }
            (_, None) => None,
        }
    }

    /// What it counts, for metrics.
    pub(super) fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counters = &self.counters;
        vec![
            ("foreign_arrived", "Messages of Django that were taken from NATS", counters.arrived.value()),
            ("foreign_shown", "Messages of Django that were published to sockets", counters.shown.value()),
            ("foreign_repeated", "Messages that had been published before", counters.repeated.value()),
            ("foreign_dropped", "Messages that could not be understood, or name nobody", counters.dropped.value()),
            ("foreign_expired", "Messages that were too old to be shown", counters.expired.value()),
            ("foreign_sent", "Messages sent to processes of Django", counters.sent.value()),
        ]
    }

    /// What there is at the moment, for metrics.
    pub(super) fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counters = &self.counters;
        vec![
            ("foreign_waiting", "Messages of Django that wait for this gateway", counters.depth.value()),
            ("foreign_registrar", "Whether this gateway takes what Django sends", counters.is_registrar.value()),
        ]
    }

    fn read(&self, payload: &[u8]) -> Option<Message> {
        self.counters.arrived.add(1);
        match msgpack::decode(payload, self.max_bytes) {
            Ok(Decoded { message, .. }) => Some(message),
            Err(error) => {
                self.drop_messages(1, &error);
                None
            }
        }
    }

    /// Messages are of no use. Whoever may publish there can send any number of them: the counter has all, and the log one a
    /// minute.
    fn drop_messages(&self, messages: u64, why: &dyn std::fmt::Display) {
        self.counters.dropped.add(messages);
        if self.seldom.is_due() {
            let dropped = self.counters.dropped.value();
            tracing::warn!(%why, dropped, "what somebody publishes on subjects of Django's is dropped");
        }
    }

    /// Whether a group keeps a history.
    fn keeps(&self, group: &GroupName) -> bool {
        let rule = self.config.groups.iter().find(|rule| rule.pattern.matches(group.as_str()));
        rule.is_some_and(|rule| rule.history.is_some())
    }

    fn fresh_epoch(&self) -> Box<str> {
        self.counters.epochs.add(1);
        format!("{}-f{:x}", self.config.run, self.counters.epochs.value()).into()
    }
}

impl std::fmt::Debug for Django {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Django").field("prefix", &self.config.prefix).finish_non_exhaustive()
    }
}
