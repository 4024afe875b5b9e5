//! A broker in memory, which several nodes of one process share: the model of the others, and what tests of clusters stand on.
//!
//! It can be cut off, lose what it hands over, and forget everything, as real ones do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Envelope, GroupName, Message, NodeId, Position};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::WhereIs;
use super::dropped::Dropped;
use super::{
    Ask, Broker, BrokerCall, BrokerError, BrokerEvent, BrokerInbox, ChannelBound, INBOX, Kept, Level, Publication,
    Published,
};
use crate::config::HistoryRule;

/// What the nodes of one process share. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

/// One node's way to the hub.
#[derive(Debug)]
pub struct MemoryBroker {
    hub: Hub,
    node: NodeId,
    dropped: Dropped,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<GroupName, Sequence>,
    channels: HashMap<ChannelName, Unread>,
    nodes: HashMap<NodeId, Link>,
}

/// A group's numbers and what it keeps.
#[derive(Debug)]
struct Sequence {
    epoch: Box<str>,
    head: u64,
    kept: VecDeque<(u64, Instant, Message)>,
}

#[derive(Debug, Default)]
struct Unread {
    messages: VecDeque<(Instant, Message)>,
    /// Nodes that found nothing.
    waiting: HashSet<NodeId>,
}

#[derive(Debug)]
struct Link {
    events: mpsc::Sender<BrokerEvent>,
    followed: HashSet<GroupName>,
    is_up: bool,
    /// Messages of groups that are to be lost on their way to this node.
    to_lose: usize,
    /// Notes that are to be lost on their way to this node.
    notes_to_lose: usize,
}

impl Hub {
    /// Connects a node. Its inbox begins with [`BrokerEvent::Up`].
    pub fn connect(&self, node: NodeId) -> (Arc<MemoryBroker>, BrokerInbox) {
        let (events, inbox) = mpsc::channel(INBOX);
        let mut link = Link { events, followed: HashSet::new(), is_up: true, to_lose: 0, notes_to_lose: 0 };
        link.hand_over(BrokerEvent::Up);
        self.0.lock().nodes.insert(node.clone(), link);
        (Arc::new(MemoryBroker { hub: self.clone(), node, dropped: Dropped::default() }), inbox)
    }

    /// Cuts a node off: its calls fail, nothing reaches it.
    pub fn cut(&self, node: &NodeId) {
        if let Some(link) = self.0.lock().nodes.get_mut(node) {
            link.is_up = false;
            link.followed.clear();
            link.hand_over(BrokerEvent::Down { why: "cut off".to_owned() });
        }
    }

    /// Connects a node again.
    pub fn join(&self, node: &NodeId) {
        if let Some(link) = self.0.lock().nodes.get_mut(node) {
            link.is_up = true;
            link.hand_over(BrokerEvent::Up);
        }
    }

    /// Loses the next messages of groups on their way to a node, in silence.
    pub fn lose(&self, node: &NodeId, messages: usize) {
        if let Some(link) = self.0.lock().nodes.get_mut(node) {
            link.to_lose = messages;
        }
    }

    /// As [`Hub::lose`], of notes.
    pub fn lose_notes(&self, node: &NodeId, notes: usize) {
        if let Some(link) = self.0.lock().nodes.get_mut(node) {
            link.notes_to_lose = notes;
        }
    }

    /// Forgets all groups and channels, as a broker does that keeps nothing on disk and is started again. Nodes stay as they
    /// are: cut them off before, and join them after.
    pub fn forget(&self) {
        let mut state = self.0.lock();
        state.groups.clear();
        state.channels.clear();
    }

    /// Where a group is.
    pub fn position(&self, group: &GroupName) -> Option<Position> {
        self.0.lock().groups.get(group).map(Sequence::position)
    }

    /// Hands a node a message that the broker has not numbered, as anybody can do who may write to a real one.
    pub fn forge(&self, node: &NodeId, group: GroupName, envelope: Envelope) {
        if let Some(link) = self.0.lock().nodes.get_mut(node).filter(|link| link.is_up) {
            link.hand_over(BrokerEvent::Message { group, envelope });
        }
    }

    /// The groups that a node follows.
    pub fn followed(&self, node: &NodeId) -> HashSet<GroupName> {
        self.0.lock().nodes.get(node).map(|link| link.followed.clone()).unwrap_or_default()
    }
}

impl MemoryBroker {
    /// Does something unless the node is cut off.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, BrokerError> {
        let mut state = self.hub.0.lock();
        match state.nodes.get(&self.node) {
            Some(link) if link.is_up => Ok(act(&mut state)),
            _ => Err(BrokerError::Unavailable { why: "cut off".to_owned() }),
        }
    }

    fn call<T: Send + 'static>(&self, act: impl FnOnce(&mut State) -> T) -> BrokerCall<'_, T> {
        Box::pin(ready(self.with(act)))
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, publication: Publication) -> BrokerCall<'_, Published> {
        self.call(|state| state.publish(publication))
    }

    fn follow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        self.call(|state| state.link(&self.node).followed.extend(groups))
    }

    fn unfollow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        self.call(|state| state.link(&self.node).followed.retain(|group| !groups.contains(group)))
    }

    fn heads(&self, asks: Vec<WhereIs>) -> BrokerCall<'_, Vec<Position>> {
        self.call(|state| {
            let place = |WhereIs { group, fresh_epoch }: WhereIs| {
                state.groups.entry(group).or_insert_with(|| Sequence::new(fresh_epoch)).position()
            };
            asks.into_iter().map(place).collect()
        })
    }

    fn history(&self, ask: Ask) -> BrokerCall<'_, Kept> {
        self.call(|state| {
            let sequence = state.groups.entry(ask.group).or_insert_with(|| Sequence::new(ask.fresh_epoch));
            sequence.history(ask.rule, ask.after, ask.limit)
        })
    }

    fn send(&self, node: NodeId, channel: ChannelName, message: Message) -> BrokerCall<'_, bool> {
        self.call(|state| match state.nodes.get_mut(&node).filter(|link| link.is_up) {
            Some(link) => link.hand_over(BrokerEvent::Direct { channel, message }),
            None => false,
        })
    }

    fn push(&self, channel: ChannelName, message: Message, bound: ChannelBound) -> BrokerCall<'_, bool> {
        self.call(|state| state.push(channel, message, bound))
    }

    fn take(&self, channel: ChannelName) -> BrokerCall<'_, Option<Message>> {
        self.call(|state| {
            let unread = state.channels.entry(channel).or_default();
            let now = Instant::now();
            while unread.messages.pop_front_if(|(until, _)| *until <= now).is_some() {}
            let taken = unread.messages.pop_front().map(|(_, message)| message);
            if taken.is_none() {
                unread.waiting.insert(self.node.clone());
            }
            taken
        })
    }

    fn tell(&self, note: Bytes) -> BrokerCall<'_, ()> {
        self.call(|state| {
            for link in state.nodes.values_mut().filter(|link| link.is_up) {
                match link.notes_to_lose.checked_sub(1) {
                    Some(left) => link.notes_to_lose = left,
                    None => drop(link.hand_over(BrokerEvent::Note(note.clone()))),
                }
            }
        })
    }

    fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    fn ready(&self) -> Result<(), String> {
        self.with(|_| ()).map_err(|error| error.to_string())
    }

    fn level(&self) -> Level {
        Level::Memory
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.hub.0.lock().nodes.remove(&self.node);
        Box::pin(ready(()))
    }
}

impl State {
    fn link(&mut self, node: &NodeId) -> &mut Link {
        self.nodes.get_mut(node).expect("the caller has found it under the same lock")
    }

    fn publish(&mut self, publication: Publication) -> Published {
        let Publication { group, message, keep, fresh_epoch } = publication;
        let sequence = self.groups.entry(group.clone()).or_insert_with(|| Sequence::new(fresh_epoch));
        sequence.head += 1;
        if let Some(rule) = keep {
            sequence.kept.push_back((sequence.head, Instant::now(), message.clone()));
            while sequence.kept.len() > rule.messages {
                sequence.kept.pop_front();
            }
        }
        let position = sequence.position();
        for link in self.nodes.values_mut().filter(|link| link.followed.contains(&group)) {
            if link.to_lose > 0 {
                link.to_lose -= 1;
                continue;
            }
            let envelope = Envelope { position: position.clone(), message: message.clone() };
            link.hand_over(BrokerEvent::Message { group: group.clone(), envelope });
        }
        Published { position }
    }

    fn push(&mut self, channel: ChannelName, message: Message, bound: ChannelBound) -> bool {
        let unread = self.channels.entry(channel.clone()).or_default();
        let now = Instant::now();
        while unread.messages.pop_front_if(|(until, _)| *until <= now).is_some() {}
        if unread.messages.len() >= bound.capacity {
            return false;
        }
        unread.messages.push_back((now + bound.expiry, message));
        for node in std::mem::take(&mut unread.waiting) {
            if let Some(link) = self.nodes.get_mut(&node) {
                link.hand_over(BrokerEvent::Mail { channel: channel.clone() });
            }
        }
        true
    }
}

impl Sequence {
    fn new(epoch: Box<str>) -> Self {
        Self { epoch, head: 0, kept: VecDeque::new() }
    }

    fn position(&self) -> Position {
        Position { epoch: self.epoch.clone(), offset: self.head }
    }

    fn history(&mut self, rule: HistoryRule, after: u64, limit: usize) -> Kept {
        while self.kept.pop_front_if(|(_, at, _)| at.elapsed() >= rule.age).is_some() {}
        let mut rest = self.kept.iter().filter(|(offset, ..)| *offset > after);
        let messages = rest.by_ref().take(limit).map(|(offset, _, message)| (*offset, message.clone())).collect();
        Kept { head: self.position(), messages, more: rest.next().is_some() }
    }
}

impl Link {
    /// Where there is no room the event is lost and the node cut off, as a server does to a client that does not read.
    fn hand_over(&mut self, event: BrokerEvent) -> bool {
        let taken = self.events.try_send(event).is_ok();
        if !taken {
            self.is_up = false;
            self.followed.clear();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::contract::{self, Node};

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::run(|nodes| async move {
            let hub = Hub::default();
            let node = |n| {
                let id = NodeId::parse(&format!("n{n}")).expect("a valid name");
                let (broker, inbox) = hub.connect(id.clone());
                Node { id, broker, inbox }
            };
            (0..nodes).map(node).collect()
        })
        .await;
    }
}
