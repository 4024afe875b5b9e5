//! What a server pushes: read, checked, and handed to the layer without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Envelope, Message};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::foreign::Foreign;
use super::names::{Names, Topic};
use super::shared::Shared;
use crate::broker::BrokerEvent;
use crate::broker::dropped::{Dropped, Reason};

/// Takes what one connection is pushed.
pub(super) struct Arrivals {
    names: Names,
    max_bytes: usize,
    backlog: Arc<Backlog>,
    broken: Arc<Broken>,
    dropped: Arc<Dropped>,
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
    /// Of a connection to a server, by its number.
    pub(super) fn new(shared: &Shared, server: usize, backlog: Arc<Backlog>, broken: Arc<Broken>) -> Self {
        let foreign = shared.foreign.clone().map(|foreign| (foreign, server));
        let (names, dropped) = (shared.names.clone(), shared.dropped.clone());
        Self { names, max_bytes: shared.message_bytes, backlog, broken, dropped, foreign }
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
        self.dropped.sift(self.ours(ours, payload.into()))
    }

    fn ours(&self, topic: Topic, payload: Bytes) -> Result<BrokerEvent, Reason> {
        match topic {
            Topic::Group(group) => {
                let envelope = Envelope::decode(&payload, self.max_bytes)?;
                Ok(BrokerEvent::Message { group, envelope })
            }
            Topic::Node => self.direct(&payload),
            Topic::Mail => Ok(BrokerEvent::Mail { channel: name(&payload)? }),
            Topic::Notes => Ok(BrokerEvent::Note(payload)),
        }
    }

    fn direct(&self, payload: &Bytes) -> Result<BrokerEvent, Reason> {
        let at = payload.iter().position(|byte| *byte == b' ').ok_or(Reason::Unreadable)?;
        let channel = name(&payload[..at])?;
        let message = Message::parse_within(payload.slice(at + 1..), self.max_bytes)?;
        Ok(BrokerEvent::Direct { channel, message })
    }
}

fn name(text: &[u8]) -> Result<ChannelName, Reason> {
    let text = std::str::from_utf8(text).map_err(|_| Reason::Unreadable)?;
    ChannelName::parse(text).map_err(|_| Reason::Unreadable)
}
