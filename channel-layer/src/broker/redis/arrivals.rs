//! What a server pushes: read, checked, and handed to the layer without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Message};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::envelope_of;
use super::foreign::Foreign;
use super::names::{Names, Topic};
use crate::broker::BrokerEvent;

/// Takes what one connection is pushed.
pub(super) struct Arrivals {
    names: Names,
    max_bytes: usize,
    backlog: Arc<Backlog>,
    broken: Arc<Broken>,
    /// Django's dialect, and the server's number.
    foreign: Option<(Arc<Foreign>, usize)>,
}

/// That a connection is of no use any more, and why.
#[derive(Debug, Default)]
pub(super) struct Broken {
    is_over: AtomicBool,
    why: Mutex<Option<String>>,
    told: Notify,
    /// Topics that were unsubscribed, and whose end the server has not told yet.
    ends: AtomicUsize,
}

/// What was pushed has no place to go.
pub(super) struct Unwanted;

impl Broken {
    /// Notes the first cause.
    pub(super) fn note(&self, why: &str) {
        self.end();
        self.why.lock().get_or_insert_with(|| why.to_owned());
        self.told.notify_one();
    }

    /// Nothing more is taken.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Topics are about to be unsubscribed.
    pub(super) fn expect_ends(&self, topics: usize) {
        self.ends.fetch_add(topics, Ordering::AcqRel);
    }

    /// Whether a topic that has ended was to.
    fn was_expected(&self) -> bool {
        self.ends.fetch_update(Ordering::AcqRel, Ordering::Acquire, |ends| ends.checked_sub(1)).is_ok()
    }

    pub(super) async fn wait(&self) {
        self.told.notified().await;
    }

    pub(super) fn why(&self) -> String {
        self.why.lock().clone().unwrap_or_else(|| "the connection has ended".to_owned())
    }
}

impl Arrivals {
    pub(super) fn new(names: Names, max_bytes: usize, backlog: Arc<Backlog>, broken: Arc<Broken>) -> Self {
        Self { names, max_bytes, backlog, broken, foreign: None }
    }

    /// Gives a dialect what is its own.
    pub(super) fn speaking(self, foreign: Option<Arc<Foreign>>, server: usize) -> Self {
        Self { foreign: foreign.map(|foreign| (foreign, server)), ..self }
    }

    /// Takes a push. Where there is no room the connection is given up, as Redis gives up a client that does not read: what
    /// is lost is found out when it is made anew.
    pub(super) fn take(&self, push: PushInfo) -> Result<(), Unwanted> {
        if self.broken.is_over.load(Ordering::Acquire) {
            return Err(Unwanted);
        }
        let push = match push.kind {
            PushKind::Message | PushKind::SMessage | PushKind::PMessage => push,
            // A cluster ends a subscription whose slot has gone to another server.
            PushKind::SUnsubscribe | PushKind::Unsubscribe if !self.broken.was_expected() => {
                self.broken.note("a subscription was ended by the server");
                return Ok(());
            }
            PushKind::Disconnection => {
                self.broken.note("the connection was lost");
                return Ok(());
            }
            PushKind::Invalidate => {
                if let Some((foreign, server)) = &self.foreign {
                    foreign.ring(*server);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let bytes = push
            .data
            .last()
            .map_or(0, |payload| if let Value::BulkString(payload) = payload { payload.len() } else { 0 });
        let Some(event) = self.event(push.data) else { return Ok(()) };
        if self.backlog.take(event, bytes).is_err() {
            self.broken.note("messages came faster than they were taken");
        }
        Ok(())
    }

    /// What has come, if it is for the layer. The last two parts are the topic and the payload; before them is a pattern.
    fn event(&self, mut data: Vec<Value>) -> Option<BrokerEvent> {
        let (Some(Value::BulkString(payload)), Some(Value::BulkString(topic))) = (data.pop(), data.pop()) else {
            return None;
        };
        let Some(ours) = self.names.read(&topic) else {
            let (foreign, server) = self.foreign.as_ref()?;
            return foreign.arrived(*server, &topic, payload);
        };
        let event = self.ours(ours, payload);
        if event.is_none() {
            tracing::debug!("something that is no message of ours was dropped");
        }
        event
    }

    fn ours(&self, topic: Topic, payload: Vec<u8>) -> Option<BrokerEvent> {
        match topic {
            Topic::Group(group) => {
                let envelope = envelope_of(payload, self.max_bytes)?;
                Some(BrokerEvent::Message { group, envelope })
            }
            Topic::Node => self.direct(payload.into()),
            Topic::Mail => Some(BrokerEvent::Mail { channel: name(&payload)? }),
            Topic::Notes => Some(BrokerEvent::Note(payload.into())),
        }
    }

    fn direct(&self, payload: Bytes) -> Option<BrokerEvent> {
        let at = payload.iter().position(|byte| *byte == b' ')?;
        let channel = name(&payload[..at])?;
        let message = Message::parse_within(payload.slice(at + 1..), self.max_bytes).ok()?;
        Some(BrokerEvent::Direct { channel, message })
    }
}

fn name(text: &[u8]) -> Option<ChannelName> {
    ChannelName::parse(std::str::from_utf8(text).ok()?).ok()
}
