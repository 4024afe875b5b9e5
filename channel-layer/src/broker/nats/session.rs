//! What a node follows and listens to, from one [`BrokerEvent::Up`] to the next loss.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message as Arrived, Subject, Subscriber};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use groupcast_protocol::{ChannelName, Envelope, GroupName, Message, NodeId, Position};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::api::Api;
use super::config::NatsConfig;
use super::django::Django;
use super::names::{Names, Stream};
use super::record::Record;
use super::time::ServerClock;
use super::traces;
use crate::broker::dropped::{Dropped, Reason};
use crate::broker::{BrokerError, BrokerEvent, Level};

/// What is known as long as the link holds.
pub(super) struct Session {
    /// Which session of this process.
    pub(super) number: u64,
    pub(super) api: Api,
    pub(super) names: Names,
    /// The run that records of now carry; others are of before.
    pub(super) run: Box<str>,
    pub(super) level: Level,
    pub(super) max_bytes: usize,
    pub(super) dropped: Arc<Dropped>,
    /// How long the group with the longest history keeps it.
    pub(super) history_age: Duration,
    clock: Mutex<ServerClock>,
    listening: Mutex<Listening>,
    is_over: watch::Sender<bool>,
}

/// Dropping a sender ends the task that listens.
#[derive(Default)]
struct Listening {
    is_over: bool,
    own: Vec<oneshot::Sender<()>>,
    groups: HashMap<GroupName, oneshot::Sender<()>>,
    /// Channels that were found empty.
    empty: HashSet<ChannelName>,
    events: Option<mpsc::Sender<BrokerEvent>>,
}

/// Reads what has arrived for one subject.
type Read = Box<dyn FnMut(Arrived) -> Vec<BrokerEvent> + Send>;

impl Session {
    pub(super) fn new(
        number: u64,
        api: Api,
        names: Names,
        (run, level, clock): (Box<str>, Level, ServerClock),
        config: &NatsConfig,
        dropped: Arc<Dropped>,
    ) -> Self {
        let (max_bytes, history_age) = (config.message_bytes, config.history.age);
        let (clock, listening) = (Mutex::new(clock), Mutex::default());
        let is_over = watch::Sender::new(false);
        Self { number, api, names, run, level, max_bytes, dropped, history_age, clock, listening, is_over }
    }

    /// Does something that ends with the session: what was asked over a connection that is lost is never answered, and the
    /// whole deadline would be waited for.
    pub(super) async fn unless_over<T>(
        &self,
        act: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let mut is_over = self.is_over.subscribe();
        tokio::select! {
            biased;
            done = act => done,
            _ = is_over.wait_for(|is_over| *is_over) => Err(lost()),
        }
    }

    pub(super) fn clock(&self) -> ServerClock {
        *self.clock.lock()
    }

    pub(super) fn set_clock(&self, clock: ServerClock) {
        *self.clock.lock() = clock;
    }

    /// Listens to what is for this node, or for all.
    pub(super) async fn listen(
        &self,
        node: &NodeId,
        events: &mpsc::Sender<BrokerEvent>,
        django: Option<Arc<Django>>,
    ) -> Result<(), BrokerError> {
        self.listening.lock().events = Some(events.clone());
        let (client, max, dropped) = (self.api.client.clone(), self.max_bytes, self.dropped.clone());
        let direct: Read = Box::new(move |arrived| {
            acknowledge(&client, arrived.reply);
            dropped.sift(direct_of(&arrived.payload, max)).into_iter().collect()
        });
        let note: Read = Box::new(|arrived| vec![BrokerEvent::Note(arrived.payload)]);
        let own = [(self.names.node(node), direct), (self.names.notes(), note)];
        for (subject, read) in own.into_iter().chain(django.and_then(of_django)) {
            let stop = self.start(self.subscribe(subject).await?, read);
            self.keep(stop);
        }
        self.settle().await
    }

    /// Follows groups that are not followed yet.
    pub(super) async fn follow(&self, groups: Vec<GroupName>) -> Result<(), BrokerError> {
        for group in groups {
            if self.listening.lock().groups.contains_key(&group) {
                continue;
            }
            let subscriber = self.subscribe(self.names.group(&group)).await?;
            let stop = self.start(subscriber, self.reader(group.clone()));
            let mut listening = self.listening.lock();
            if listening.is_over {
                return Err(lost());
            }
            listening.groups.insert(group, stop);
        }
        self.settle().await
    }

    /// Listens to a subject; what is stored from here on comes.
    pub(super) async fn listen_to(&self, subject: String) -> Result<Subscriber, BrokerError> {
        let subscriber = self.subscribe(subject).await?;
        self.settle().await?;
        Ok(subscriber)
    }

    pub(super) fn unfollow(&self, groups: &[GroupName]) {
        let mut listening = self.listening.lock();
        groups.iter().for_each(|group| drop(listening.groups.remove(group)));
    }

    /// Listens for the next message of a channel that was found empty. Says whether that is new.
    pub(super) async fn await_mail(self: &Arc<Self>, channel: &ChannelName) -> Result<bool, BrokerError> {
        if !self.listening.lock().empty.insert(channel.clone()) {
            return Ok(false);
        }
        let mut subscriber = self.subscribe(self.names.mail(channel)).await?;
        // The server's part; more than one may be on the way all the same.
        let _ = subscriber.unsubscribe_after(1).await;
        let (session, name) = (Arc::downgrade(self), channel.clone());
        let read: Read = Box::new(move |_| {
            let Some(session) = session.upgrade() else { return Vec::new() };
            let is_first = session.listening.lock().empty.remove(&name);
            is_first.then(|| BrokerEvent::Mail { channel: name.clone() }).into_iter().collect()
        });
        let stop = self.start(subscriber, read);
        self.keep(stop);
        self.settle().await?;
        Ok(true)
    }

    fn keep(&self, stop: oneshot::Sender<()>) {
        let mut listening = self.listening.lock();
        // Those that have heard what they waited for are over.
        listening.own.retain(|stop| !stop.is_closed());
        listening.own.push(stop);
    }

    /// Ends all that listens.
    pub(super) fn end(&self) {
        let over = Listening { is_over: true, ..Listening::default() };
        drop(std::mem::replace(&mut *self.listening.lock(), over));
        self.is_over.send_replace(true);
    }

    /// Waits until what was subscribed to is effective on the servers that have the streams: subscriptions and questions go
    /// the same way, one behind the other.
    async fn settle(&self) -> Result<(), BrokerError> {
        let ask = async |stream: Stream| {
            self.api.newest(&self.names.stream(stream), &self.names.nothing(stream)).await.map(drop)
        };
        tokio::try_join!(ask(Stream::Plain), ask(Stream::Kept), ask(Stream::Channels))?;
        Ok(())
    }

    async fn subscribe(&self, subject: String) -> Result<Subscriber, BrokerError> {
        let subscribed = tokio::time::timeout(self.api.timeout, self.api.client.subscribe(subject)).await;
        let subscribed = subscribed.map_err(|_| BrokerError::TimedOut { after: self.api.timeout })?;
        subscribed.map_err(|error| BrokerError::Unavailable { why: error.to_string() })
    }

    /// Starts the task that takes what arrives; it ends when the answer is dropped.
    fn start(&self, subscriber: Subscriber, read: Read) -> oneshot::Sender<()> {
        let (stop, stopped) = oneshot::channel();
        if let Some(events) = self.listening.lock().events.clone() {
            tokio::spawn(take(subscriber, read, events, stopped));
        }
        stop
    }

    fn reader(&self, group: GroupName) -> Read {
        let (max, dropped) = (self.max_bytes, self.dropped.clone());
        Box::new(move |arrived| {
            let Some(mut record) = dropped.sift(Record::decode(&arrived.payload, max)) else { return Vec::new() };
            traces::give(&mut record.messages, arrived.headers.as_ref());
            let epoch = record.at.epoch.clone();
            let event = |(offset, message)| BrokerEvent::Message {
                group: group.clone(),
                envelope: Envelope { position: Position { epoch: epoch.clone(), offset }, message },
            };
            record.numbered().map(event).collect()
        })
    }
}

fn lost() -> BrokerError {
    BrokerError::Unavailable { why: "the link was lost meanwhile".to_owned() }
}

async fn take(
    mut subscriber: Subscriber,
    mut read: Read,
    events: mpsc::Sender<BrokerEvent>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        let arrived = tokio::select! {
            biased;
            _ = &mut stopped => return,
            arrived = subscriber.next() => arrived,
        };
        let Some(arrived) = arrived else { return };
        for event in read(arrived) {
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                sent = events.send(event) => if sent.is_err() { return },
            }
        }
    }
}

/// What Django's processes send to channels of this node, and how it is read.
fn of_django(django: Arc<Django>) -> Option<(String, Read)> {
    let subject = django.own_subject()?;
    Some((subject, Box::new(move |arrived| django.direct(&arrived).into_iter().collect())))
}

/// Tells who sent a message to this node that it is there.
fn acknowledge(client: &Client, reply: Option<Subject>) {
    let Some(reply) = reply else { return };
    let client = client.clone();
    // Not waited for: a full queue to the server would keep what has arrived from the layer.
    tokio::spawn(async move { client.publish(reply, Bytes::new()).await });
}

/// A message to one channel of a node: `CHANNEL MESSAGE`.
pub(super) fn direct(channel: &ChannelName, message: &Message) -> Bytes {
    let mut payload = BytesMut::with_capacity(channel.as_str().len() + 1 + message.raw().len());
    payload.put_slice(channel.as_str().as_bytes());
    payload.put_u8(b' ');
    payload.put_slice(message.raw());
    payload.freeze()
}

fn direct_of(payload: &Bytes, max: usize) -> Result<BrokerEvent, Reason> {
    let at = payload.iter().position(|byte| *byte == b' ').ok_or(Reason::Unreadable)?;
    let name = std::str::from_utf8(&payload[..at]).map_err(|_| Reason::Unreadable)?;
    let channel = ChannelName::parse(name).map_err(|_| Reason::Unreadable)?;
    let message = Message::parse_within(payload.slice(at + 1..), max)?;
    Ok(BrokerEvent::Direct { channel, message })
}
