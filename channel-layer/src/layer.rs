//! The layer as its callers see it: `send`, `receive`, `new_channel`, `group_add`, `group_discard`, `group_send`.
//!
//! The promises are in the crate's documentation. Connections join and leave by their shard. `group_send` is in
//! `layer/fan_out.rs`, what a broker brings in `layer/arrival.rs`.

mod arrival;
mod fan_out;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::bus::Bus;
use crate::config::LayerConfig;
use crate::error::LayerError;
use crate::group::{GroupState, Member};
use crate::history::History;
use crate::mailbox::{Mailbox, Pushed, Received};
use crate::registry::Registry;
use crate::reserved::Reserved;
use crate::shard::{Address, ConnectionInfo, Event, EventKind, ShardInbox};
use crate::stats::Stats;

pub(crate) use fan_out::Room;

/// The channel layer of this process. A cheap handle: clones are the same layer.
#[derive(Debug, Clone)]
pub struct ChannelLayer {
    pub(crate) registry: Arc<Registry>,
    /// There when nodes share the groups.
    pub(crate) bus: Option<Arc<Bus>>,
}

/// What `group_send` took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Members that the message was addressed to; `None` when they are on other nodes, too, and nobody counts them.
    pub members: Option<u64>,
    /// The message's place in the group's history, when the group keeps one.
    pub position: Option<Position>,
}

/// A part of a group's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The epoch of all offsets here.
    pub epoch: Box<str>,
    /// Messages with their offsets, oldest first.
    pub messages: Vec<(u64, Message)>,
    /// Whether there is more behind them.
    pub more: bool,
}

impl ChannelLayer {
    /// Makes a layer and the inboxes of its shards, one for each thread that owns connections.
    pub fn new(config: LayerConfig) -> (Self, Vec<ShardInbox>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.shards).map(|_| mpsc::channel(config.shard_queue)).unzip();
        let registry = Arc::new(Registry::new(config, senders));
        let inbox = |(shard, events)| ShardInbox::new(shard, registry.clone(), events);
        let inboxes = receivers.into_iter().enumerate().map(inbox).collect();
        (Self { registry, bus: None }, inboxes)
    }

    /// Puts a message into a channel.
    ///
    /// A channel that nobody reads yet keeps up to its capacity, each message for `expiry`.
    ///
    /// # Errors
    /// [`LayerError::ChannelFull`] at capacity; [`LayerError::Gone`] for a process's own channel that does not exist;
    /// [`LayerError::Busy`] when the connection's shard had no room within the deadline; [`LayerError::Broker`] when the
    /// channel is another node's and the broker did not take it. Whether it was full there is not told.
    pub async fn send(&self, channel: &ChannelName, message: Message) -> Result<(), LayerError> {
        match self.elsewhere(channel) {
            Some((bus, node)) => bus.send(node, channel, message).await,
            None => match &self.bus {
                Some(bus) if !channel.is_process_local() && bus.broker.has_foreign_channels() => {
                    bus.push(&self.registry.config, channel, message).await
                }
                _ => self.local_send(channel, message).await,
            },
        }
    }

    fn send_to_mailbox(&self, mut mailbox: Arc<Mailbox>, item: Received) -> Result<(), LayerError> {
        loop {
            match self.push(&mailbox, item.clone()) {
                // Swept away between finding it and now: a name that anybody may use is never gone.
                Err(LayerError::Gone { .. }) if !mailbox.name.is_process_local() => {
                    self.registry.forget_mailbox(&mailbox);
                    mailbox = self.registry.open_mailbox(&mailbox.name)?;
                }
                result => return result.map(|_| ()),
            }
        }
    }

    /// Waits for the oldest unread message of a channel.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call has taken nothing.
    ///
    /// # Errors
    /// [`LayerError::NotYours`] for the channel of a connection, [`LayerError::Gone`] for one that was closed.
    pub async fn receive(&self, channel: &ChannelName) -> Result<Received, LayerError> {
        let mailbox = self.registry.open_mailbox(channel)?;
        if mailbox.owner.is_some() {
            return Err(LayerError::NotYours { channel: channel.clone() });
        }
        let gone = || LayerError::Gone { channel: channel.clone() };
        mailbox.receive(self.registry.config.expiry).await.ok_or_else(gone)
    }

    /// Makes a channel that only this process reads: `prefix.NODE!n`. Ends by [`ChannelLayer::close_channel`], or
    /// when it has been empty and unused for `group_expiry`.
    ///
    /// # Errors
    /// [`LayerError::TooManyChannels`] at the bound.
    ///
    /// # Panics
    /// Never for a prefix of a few characters; a prefix that cannot begin a channel's name is a defect of the caller.
    pub fn new_channel(&self, prefix: &str) -> Result<ChannelName, LayerError> {
        let name = self.own_name(prefix);
        self.registry.make_mailbox(name.clone(), None)?;
        Ok(name)
    }

    /// The name of the channel of a connection that is about to be made on this node.
    pub fn reserve_name(&self) -> Reserved {
        Reserved::new(&self.registry)
    }

    /// Ends a channel. Unread messages are dropped, and it leaves its groups.
    pub fn close_channel(&self, channel: &ChannelName) {
        self.registry.remove_mailbox(channel);
        for group in self.registry.group_list() {
            self.registry.leave(&group.name, channel, |_, _| ());
        }
    }

    /// Adds a channel to a group, or renews its age there. A connection's client is told by `subscribed`.
    ///
    /// # Errors
    /// [`LayerError::Gone`] for a process's own channel that does not exist, [`LayerError::Busy`] when its
    /// connection's shard had no room within the deadline; [`LayerError::Broker`] when this node could not follow the
    /// group.
    pub async fn group_add(&self, group: &GroupName, channel: &ChannelName) -> Result<(), LayerError> {
        let _open = self.open(group).await?;
        let mailbox = self.registry.open_mailbox(channel)?;
        let Some(owner) = mailbox.owner else { return self.add_mailbox(group, mailbox) };
        let room = self.room(owner, channel).await?;
        let member = Member::Connection(owner, self.registry.next_number());
        self.registry.join(group, channel, member, |group, state, number, new| {
            // Under the group's lock: no message can come between the membership and the event.
            if new {
                let from_seq = state.next_seq;
                room.send(Event(EventKind::Attach { to: owner, group: group.clone(), from_seq, number }));
            }
        });
        Ok(())
    }

    fn add_mailbox(&self, group: &GroupName, mut mailbox: Arc<Mailbox>) -> Result<(), LayerError> {
        loop {
            let channel = mailbox.name.clone();
            self.registry.join(group, &channel, Member::Mailbox(mailbox.clone(), Instant::now()), |_, _, _, _| ());
            if !mailbox.is_closed() {
                return Ok(());
            }
            // Swept away between finding it and joining; a member is not.
            self.registry.leave(group, &channel, |_, _| ());
            self.registry.forget_mailbox(&mailbox);
            mailbox = self.registry.open_mailbox(&channel)?;
        }
    }

    /// Takes a channel out of a group, if it is there. A connection's client is told by `unsubscribed`.
    ///
    /// # Errors
    /// [`LayerError::Busy`] when its connection's shard had no room within the deadline; it is still a member then.
    pub async fn group_discard(&self, group: &GroupName, channel: &ChannelName) -> Result<(), LayerError> {
        let owner = self.registry.mailbox(channel).and_then(|mailbox| mailbox.owner);
        let room = match owner {
            Some(owner) => Some((owner, self.room(owner, channel).await?)),
            None => None,
        };
        self.registry.leave(group, channel, |group, member| {
            if let (Some((to, room)), Member::Connection(_, number)) = (room, member) {
                room.send(Event(EventKind::Detach { to, group: group.clone(), number: *number }));
            }
        });
        Ok(())
    }

    /// Empties everything: unread messages and histories are dropped and all memberships end.
    ///
    /// # Errors
    /// [`LayerError::Busy`] when a shard had no room within the deadline; some memberships are left then.
    pub async fn flush(&self) -> Result<(), LayerError> {
        for group in self.registry.group_list() {
            let members: Vec<_> = group.lock().members.keys().cloned().collect();
            for channel in members {
                self.group_discard(&group.name, &channel).await?;
            }
            self.registry.forget_if(&group, |_| true);
        }
        for mailbox in self.registry.mailbox_list() {
            mailbox.clear();
        }
        Ok(())
    }

    /// Drops what has expired: messages, memberships of mailboxes, unused channels. Its owner calls it every few
    /// seconds; without it nothing expired is delivered either, it only stays in memory.
    pub fn sweep(&self) {
        let config = &self.registry.config;
        for mailbox in self.registry.mailbox_list() {
            // A buffer of a common name needs no keeping once it is empty; a process's own name was handed out.
            let idle = if mailbox.name.is_process_local() { config.group_expiry } else { config.expiry };
            let (expired, over) = mailbox.sweep(config.expiry, idle);
            self.registry.stats.expired.add(expired);
            if over {
                self.registry.forget_mailbox(&mailbox);
            }
        }
        for group in self.registry.group_list() {
            let expired = group.lock().expired_members(config.group_expiry);
            for channel in expired {
                self.registry.leave(&group.name, &channel, |_, _| ());
            }
            if let Some(history) = &mut group.lock().history {
                history.expire();
            }
            // With a broker, a group is kept while somebody here needs it.
            if self.bus_of(&group.name).is_none() {
                self.registry.forget_if(&group, History::is_over);
            }
        }
    }

    /// Groups whose names begin with `prefix`, by name, each with its number of members; those after `after`. A group
    /// that keeps history is listed without members, too. Of groups with presence, members on all nodes count.
    pub fn groups(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(GroupName, u64)> {
        let mut names = self.registry.rosters.names();
        names.extend(self.registry.group_list().iter().map(|group| group.name.clone()));
        names.retain(|name| name.as_str().starts_with(prefix) && after.is_none_or(|after| name.as_str() > after));
        names.sort();
        names.dedup();
        names.truncate(limit);
        names.into_iter().map(|name| (name.clone(), self.group_len(&name).unwrap_or(0))).collect()
    }

    /// How many members a group has, with presence on all nodes; `None` for a group of which nothing is known.
    pub fn group_len(&self, group: &GroupName) -> Option<u64> {
        let here = self.registry.group(group).map(|group| group.lock().members.len() as u64);
        match self.has_presence(group) {
            true => Some(self.registry.rosters.len(group)).filter(|members| here.is_some() || *members > 0),
            false => here,
        }
    }

    /// Where a group's history is; `None` for a group that keeps none, or of which nothing is known.
    pub fn position(&self, group: &GroupName) -> Option<Position> {
        let group = self.registry.group(group)?;
        let head = group.lock().next_seq - 1;
        group.position(head)
    }

    /// Messages of a group's history behind offset `after`, oldest first: at most `limit`, and at most `bytes` of them but
    /// always one. `None` for a group that keeps none, or of which nothing is known.
    ///
    /// # Panics
    /// Never: what is kept was a message when it came.
    pub fn history(&self, group: &GroupName, after: u64, limit: usize, bytes: usize) -> Option<HistoryPage> {
        let group = self.registry.group(group)?;
        let epoch = group.epoch.clone()?;
        let mut state = group.lock();
        let history = state.history.as_mut()?;
        history.expire();
        let mut left = bytes;
        let mut rest = history.messages(after.saturating_add(1)).peekable();
        let mut texts: Vec<(u64, Bytes)> = Vec::new();
        while texts.len() < limit
            && let Some(message) = rest.next_if(|(_, text)| text.len() <= left || texts.is_empty())
        {
            left = left.saturating_sub(message.1.len());
            texts.push(message);
        }
        let more = rest.peek().is_some();
        drop(rest);
        drop(state);
        let parse = |text| Message::parse(text).expect("what is kept was a message when it came");
        Some(HistoryPage { epoch, messages: texts.into_iter().map(|(at, text)| (at, parse(text))).collect(), more })
    }

    /// The members of a group by name, with presence those on all nodes; those after `after`. `None` for a group of which
    /// nothing is known.
    pub fn members(&self, group: &GroupName, after: Option<&str>, limit: usize) -> Option<Vec<ChannelName>> {
        use std::ops::Bound::{Excluded, Unbounded};
        if self.has_presence(group) {
            return Some(self.registry.rosters.page(group, after, limit));
        }
        let group = self.registry.group(group)?;
        let state = group.lock();
        let from = after.map_or(Unbounded, Excluded);
        Some(state.members.range::<str, _>((from, Unbounded)).take(limit).map(|(name, _)| name.clone()).collect())
    }

    /// Whether a group's members are told who comes and goes; with a broker, who is in it is then known of all nodes.
    pub fn has_presence(&self, group: &GroupName) -> bool {
        self.registry.config.rule_of(group.as_str()).is_some_and(|rule| rule.presence)
    }

    /// Whether a channel is in a group by this node.
    pub fn is_member(&self, group: &GroupName, channel: &ChannelName) -> bool {
        self.registry.group(group).is_some_and(|group| group.lock().members.contains_key(channel))
    }

    /// The channels of live connections by name, those after `after`.
    pub fn connections(&self, after: Option<&str>, limit: usize) -> Vec<ChannelName> {
        let mut names: Vec<_> = self.registry.mailbox_list().into_iter().filter(|m| m.owner.is_some()).collect();
        names.retain(|mailbox| after.is_none_or(|after| mailbox.name.as_str() > after));
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names.iter().take(limit).map(|mailbox| mailbox.name.clone()).collect()
    }

    /// What is known of a live connection; `None` when it has gone, or its shard did not answer in time.
    pub async fn connection(&self, channel: &ChannelName) -> Option<ConnectionInfo> {
        let to = self.registry.mailbox(channel)?.owner?;
        let room = self.room(to, channel).await.ok()?;
        let (answer, reply) = oneshot::channel();
        room.send(Event(EventKind::Inspect { to, answer }));
        timeout(self.registry.config.publish_deadline, reply).await.ok()?.ok()?
    }

    /// Asks a connection's driver to close it with 1008. Says whether there was such a connection.
    ///
    /// # Errors
    /// [`LayerError::Busy`] when its shard had no room within the deadline.
    pub async fn disconnect(&self, channel: &ChannelName) -> Result<bool, LayerError> {
        let Some(to) = self.registry.mailbox(channel).and_then(|mailbox| mailbox.owner) else { return Ok(false) };
        self.room(to, channel).await?.send(Event(EventKind::Kick { to }));
        Ok(true)
    }

    /// Drops the oldest messages of the longest histories: about so many bytes. Whoever wanted to go on there is told that they
    /// are gone.
    pub fn shrink_histories(&self, bytes: u64) {
        self.registry.shrink_histories(bytes);
    }

    /// The counters of this layer.
    pub fn stats(&self) -> &Stats {
        &self.registry.stats
    }

    /// How many groups a broker brings to this node; `None` without a broker.
    pub fn followed(&self) -> Option<usize> {
        self.registry.followed()
    }

    /// The bounds of this layer.
    pub fn config(&self) -> &LayerConfig {
        &self.registry.config
    }

    /// The node whose channel it is, when that is another one and can be reached.
    fn elsewhere(&self, channel: &ChannelName) -> Option<(&Arc<Bus>, NodeId)> {
        let bus = self.bus.as_ref()?;
        let node = channel.node()?;
        (node != self.registry.config.node).then_some((bus, node))
    }

    fn own_name(&self, prefix: &str) -> ChannelName {
        let name = format!("{prefix}.{}!c{}", self.registry.config.node, self.registry.next_number());
        ChannelName::parse(&name).expect("a short prefix, a checked node name and a number make a channel name")
    }

    fn push(&self, mailbox: &Mailbox, item: Received) -> Result<Pushed, LayerError> {
        let stats = &self.registry.stats;
        let (pushed, expired) = mailbox.push(item, self.registry.config.expiry);
        stats.expired.add(expired);
        let channel = || mailbox.name.clone();
        match pushed {
            Pushed::Queued | Pushed::Signal => {
                stats.sends.add(1);
                Ok(pushed)
            }
            Pushed::Full => Err(LayerError::ChannelFull { channel: channel(), capacity: mailbox.capacity }),
            Pushed::OverBudget => {
                Err(LayerError::OutOfRoom { channel: channel(), max: self.registry.config.channel_bytes })
            }
            Pushed::Closed => Err(LayerError::Gone { channel: channel() }),
        }
    }

    async fn room(&self, to: Address, channel: &ChannelName) -> Result<mpsc::Permit<'_, Event>, LayerError> {
        let gone = || LayerError::Gone { channel: channel.clone() };
        match timeout(self.registry.config.publish_deadline, self.registry.shards[to.shard()].reserve()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(gone()),
            Err(_elapsed) => Err(LayerError::Busy { channel: channel.clone() }),
        }
    }
}

impl GroupState {
    fn expired_members(&self, group_expiry: Duration) -> Vec<ChannelName> {
        if self.mailboxes == 0 {
            return Vec::new();
        }
        let expired = |member: &Member| match member {
            Member::Connection(..) => false,
            Member::Mailbox(_, added) => added.elapsed() >= group_expiry,
        };
        self.members.iter().filter(|(_, member)| expired(member)).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use groupcast_protocol::NodeId;

    use super::*;
    use crate::contract::{channel, group, message};

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_while_an_unused_channel_is_swept_away_is_not_lost() {
        let config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
        let (layer, _inboxes) = ChannelLayer::new(config);
        let (a, expiry) = (channel("a"), layer.config().expiry);
        let found = layer.registry.open_mailbox(&a).expect("there is room");
        tokio::time::advance(expiry).await;
        layer.sweep();
        layer.send_to_mailbox(found.clone(), Received { message: message(1), group: None }).expect("it is not gone");
        assert_eq!(layer.receive(&a).await.expect("it was sent").message, message(1));
        layer.add_mailbox(&group("room"), found).expect("it is not gone");
        layer.group_send(&group("room"), &message(2)).await.expect("there is room");
        assert_eq!(layer.receive(&a).await.expect("it was sent").message, message(2));
        let used = layer.registry.open_mailbox(&channel("b")).expect("there is room");
        tokio::time::advance(expiry).await;
        layer.send(&used.name, message(3)).await.expect("there is room");
        layer.sweep();
        assert!(!used.is_closed(), "it is used");
    }
}
