//! The groups and channels of this node: who is a member, and which shards have to hear of a message.
//!
//! DashMap guards never leave one expression. What a shard does with an event is the shard's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use groupcast_protocol::{ChannelName, GroupName};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::LayerConfig;
use crate::error::LayerError;
use crate::mailbox::{Budget, Mailbox};
use crate::shard::{Address, Event, EventKind};
use crate::stats::Stats;

/// What all clones of a layer and all its shards share.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) config: LayerConfig,
    pub(crate) stats: Stats,
    /// The way into each shard. Bounded by `config.shard_queue`; a full one makes publishers wait.
    pub(crate) shards: Vec<mpsc::Sender<Event>>,
    groups: DashMap<GroupName, Arc<Group>>,
    channels: DashMap<ChannelName, Arc<Mailbox>>,
    budget: Arc<Budget>,
    next_group: AtomicU64,
    next_number: AtomicU64,
}

/// One group of this node. It exists while it has members.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// Unlike the name, never used again: a late event cannot hit a group of the same name.
    pub(crate) id: u64,
    // Held to change members or to number and hand over a message; never over an await.
    state: Mutex<GroupState>,
}

#[derive(Debug)]
pub(crate) struct GroupState {
    /// The number of the next message. Cursors start here.
    pub(crate) next_seq: u64,
    /// How many connections each shard has in the group.
    pub(crate) per_shard: Box<[u32]>,
    pub(crate) members: BTreeMap<ChannelName, Member>,
    /// How many members are mailboxes; mostly none, and then nobody looks for them.
    pub(crate) mailboxes: usize,
    /// The last member has left and the map forgets the group: whoever finds it has to look again.
    dead: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Member {
    /// A live connection: its shard has a cursor for it. The number tells this membership from earlier ones, of which
    /// the shard may still hear.
    Connection(Address, u64),
    /// A mailbox, and when it was last added.
    Mailbox(Arc<Mailbox>, Instant),
}

impl Registry {
    pub(crate) fn new(config: LayerConfig, shards: Vec<mpsc::Sender<Event>>) -> Self {
        Self {
            budget: Arc::new(Budget::new(config.channel_bytes)),
            config,
            stats: Stats::default(),
            shards,
            groups: DashMap::new(),
            channels: DashMap::new(),
            next_group: AtomicU64::new(1),
            next_number: AtomicU64::new(1),
        }
    }

    pub(crate) fn group(&self, name: &GroupName) -> Option<Arc<Group>> {
        self.groups.get(name).map(|group| group.value().clone())
    }

    pub(crate) fn group_list(&self) -> Vec<Arc<Group>> {
        self.groups.iter().map(|group| group.value().clone()).collect()
    }

    pub(crate) fn mailbox(&self, name: &ChannelName) -> Option<Arc<Mailbox>> {
        self.channels.get(name).map(|mailbox| mailbox.value().clone())
    }

    pub(crate) fn mailbox_list(&self) -> Vec<Arc<Mailbox>> {
        self.channels.iter().map(|mailbox| mailbox.value().clone()).collect()
    }

    /// The mailbox of a name that anybody may use: made when it does not exist, unless the name belongs to a process.
    pub(crate) fn open_mailbox(&self, name: &ChannelName) -> Result<Arc<Mailbox>, LayerError> {
        if let Some(mailbox) = self.mailbox(name) {
            return Ok(mailbox);
        }
        if name.is_process_local() {
            return Err(LayerError::Gone { channel: name.clone() });
        }
        self.make_mailbox(name.clone(), None)
    }

    pub(crate) fn make_mailbox(&self, name: ChannelName, owner: Option<Address>) -> Result<Arc<Mailbox>, LayerError> {
        // Connections have a bound of their own, at the door; senders to made-up names must not use it up.
        let connections = usize::try_from(self.stats.connections.value()).unwrap_or(usize::MAX);
        if owner.is_none() && self.channels.len().saturating_sub(connections) >= self.config.channels_max {
            return Err(LayerError::TooManyChannels { channel: name, max: self.config.channels_max });
        }
        let capacity = self.config.capacity_of(name.as_str());
        let make = || Arc::new(Mailbox::new(name.clone(), capacity, owner, self.budget.clone()));
        Ok(self.channels.entry(name.clone()).or_insert_with(make).value().clone())
    }

    /// Ends a channel: its messages are dropped, its readers woken, a later `send` finds it gone.
    pub(crate) fn remove_mailbox(&self, name: &ChannelName) {
        if let Some((_, mailbox)) = self.channels.remove(name) {
            mailbox.close();
        }
    }

    /// A fresh number for the channel of a connection or caller, or for a membership.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a channel a member. Under the group's lock, `then` learns the number of the first message that is for
    /// the member, the membership's own number, and whether it is new; so nothing can be sent between joining and what
    /// `then` does.
    pub(crate) fn join<T>(
        &self,
        name: &GroupName,
        channel: &ChannelName,
        member: Member,
        then: impl FnOnce(&Arc<Group>, u64, u64, bool) -> T,
    ) -> T {
        loop {
            let group = self.group_or_new(name);
            let mut state = group.state.lock();
            if state.dead {
                drop(state);
                self.groups.remove_if(name, |_, found| Arc::ptr_eq(found, &group));
                continue;
            }
            let new = state.add(channel, member);
            let number = state.connection_number(channel).unwrap_or_default();
            if new {
                self.stats.memberships.add(1);
                self.stats.groups.add(u64::from(state.members.len() == 1));
            }
            return then(&group, state.next_seq, number, new);
        }
    }

    /// Ends a membership. `then` runs under the group's lock if there was one.
    pub(crate) fn leave<T>(
        &self,
        name: &GroupName,
        channel: &ChannelName,
        then: impl FnOnce(&Arc<Group>, &Member) -> T,
    ) -> Option<T> {
        let group = self.group(name)?;
        let mut state = group.state.lock();
        let member = state.remove(channel)?;
        let result = then(&group, &member);
        state.dead = state.members.is_empty();
        let dead = state.dead;
        self.stats.memberships.sub(1);
        self.stats.groups.sub(u64::from(dead));
        drop(state);
        if dead {
            self.groups.remove_if(name, |_, found| Arc::ptr_eq(found, &group));
        }
        Some(result)
    }

    fn group_or_new(&self, name: &GroupName) -> Arc<Group> {
        if let Some(group) = self.group(name) {
            return group;
        }
        let make = || {
            let state = GroupState {
                next_seq: 1,
                per_shard: vec![0; self.shards.len()].into(),
                members: BTreeMap::new(),
                mailboxes: 0,
                dead: false,
            };
            let id = self.next_group.fetch_add(1, Ordering::Relaxed);
            Arc::new(Group { name: name.clone(), id, state: Mutex::new(state) })
        };
        self.groups.entry(name.clone()).or_insert_with(make).value().clone()
    }
}

impl Group {
    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }
}

impl GroupState {
    /// The shards that have connections in the group, in ascending order.
    pub(crate) fn shard_set(&self) -> impl Iterator<Item = usize> + '_ {
        self.per_shard.iter().enumerate().filter(|(_, count)| **count > 0).map(|(shard, _)| shard)
    }

    /// Numbers a message and hands it to the shards whose room has been reserved; every shard of the group's is
    /// among them.
    pub(crate) fn hand_over(&mut self, group: &Arc<Group>, frame: &Bytes, room: Vec<mpsc::Permit<'_, Event>>) {
        let seq = self.next_seq;
        self.next_seq += 1;
        for permit in room {
            permit.send(Event(EventKind::Deliver { group: group.clone(), seq, frame: frame.clone() }));
        }
    }

    /// The number of a connection's membership.
    pub(crate) fn connection_number(&self, channel: &ChannelName) -> Option<u64> {
        match self.members.get(channel)? {
            Member::Connection(_, number) => Some(*number),
            Member::Mailbox(..) => None,
        }
    }

    fn add(&mut self, channel: &ChannelName, member: Member) -> bool {
        if let Some(Member::Connection(..)) = self.members.get(channel) {
            return false;
        }
        // A mailbox that is added again is as young as if it were new.
        if self.members.insert(channel.clone(), member.clone()).is_some() {
            return false;
        }
        match member {
            Member::Connection(address, _) => self.per_shard[address.shard] += 1,
            Member::Mailbox(mailbox, _) => {
                mailbox.joined();
                self.mailboxes += 1;
            }
        }
        true
    }

    fn remove(&mut self, channel: &ChannelName) -> Option<Member> {
        let member = self.members.remove(channel)?;
        match &member {
            Member::Connection(address, _) => self.per_shard[address.shard] -= 1,
            Member::Mailbox(mailbox, _) => {
                mailbox.left();
                self.mailboxes -= 1;
            }
        }
        Some(member)
    }
}
