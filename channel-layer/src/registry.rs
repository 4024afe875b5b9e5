//! The groups and channels of this node: who is a member, and which shards have to hear of a message.
//!
//! DashMap guards never leave one expression. What a shard does with an event is the shard's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use groupcast_protocol::{ChannelName, GroupName};
use tokio::sync::mpsc;

use crate::bus::Interest;
use crate::config::LayerConfig;
use crate::error::LayerError;
use crate::group::{Group, GroupState, Member};
use crate::history::{Bound, History};
use crate::mailbox::{Budget, Mailbox};
use crate::presence::{Rosters, Unannounced};
use crate::shard::{Address, Event};
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
    pub(crate) history_bound: Bound,
    pub(crate) unannounced: Unannounced,
    /// Who is in groups with presence, on all nodes.
    pub(crate) rosters: Rosters,
    /// There when a broker carries the messages of groups: what is to be told that a group has no members.
    interest: OnceLock<Arc<Interest>>,
    next_group: AtomicU64,
    next_number: AtomicU64,
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
            history_bound: Bound::default(),
            unannounced: Unannounced::default(),
            rosters: Rosters::default(),
            interest: OnceLock::new(),
            next_group: AtomicU64::new(1),
            next_number: AtomicU64::new(1),
        }
    }

    pub(crate) fn report_emptied_to(&self, interest: Arc<Interest>) {
        self.interest.set(interest).expect("a layer has one bus, and gets it when it is made");
    }

    /// How many groups a broker brings to this node.
    pub(crate) fn followed(&self) -> Option<usize> {
        self.interest.get().map(|interest| interest.len())
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.interest.get().is_some()
    }

    pub(crate) fn has_members(&self, name: &GroupName) -> bool {
        self.group(name).is_some_and(|group| !group.lock().members.is_empty())
    }

    pub(crate) fn group(&self, name: &GroupName) -> Option<Arc<Group>> {
        self.groups.get(name).map(|group| group.value().clone())
    }

    /// The group a message is sent to. One that keeps history is made when nobody is in it: somebody may come back.
    pub(crate) fn group_for_message(&self, name: &GroupName) -> Option<Arc<Group>> {
        let found = self.group(name);
        let keeps_history = || self.config.rule_of(name.as_str()).is_some_and(|rule| rule.history.is_some());
        found.or_else(|| keeps_history().then(|| self.group_or_new(name)))
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

    /// Forgets a mailbox that has been closed; the next one of its name is another.
    pub(crate) fn forget_mailbox(&self, mailbox: &Arc<Mailbox>) {
        self.channels.remove_if(&mailbox.name, |_, found| Arc::ptr_eq(found, mailbox));
    }

    /// A fresh number for the channel of a connection or caller, or for a membership.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a channel a member. Under the group's lock, `then` learns the membership's own number and whether it is
    /// new; so nothing can be sent between joining and what `then` does.
    pub(crate) fn join<T>(
        &self,
        name: &GroupName,
        channel: &ChannelName,
        member: Member,
        then: impl FnOnce(&Arc<Group>, &mut GroupState, u64, bool) -> T,
    ) -> T {
        loop {
            let group = self.group_or_new(name);
            let mut state = group.lock();
            if state.dead {
                drop(state);
                self.bury(&group);
                continue;
            }
            let new = state.add(channel, member);
            let number = state.connection_number(channel).unwrap_or_default();
            if new {
                self.stats.memberships.add(1);
                self.stats.groups.add(u64::from(state.members.len() == 1));
            }
            let has_to_tell = new && group.has_presence && self.rosters.enter_here(name, channel);
            let result = then(&group, &mut state, number, new);
            drop(state);
            if has_to_tell {
                self.unannounced.list(group);
            }
            return result;
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
        let mut state = group.lock();
        let member = state.remove(channel)?;
        let has_to_tell = group.has_presence && self.rosters.exit_here(name, channel);
        let result = then(&group, &member);
        self.stats.memberships.sub(1);
        let empty = state.members.is_empty();
        self.stats.groups.sub(u64::from(empty));
        let dead = state.dead;
        drop(state);
        if has_to_tell {
            self.unannounced.list(group.clone());
        }
        if empty && let Some(interest) = self.interest.get() {
            interest.emptied(name);
        }
        if dead {
            self.bury(&group);
            self.unannounced.unlist(&group);
        } else if empty {
            // What is kept of it counts for more from here on.
            self.keep_history_bound();
        }
        Some(result)
    }

    /// Forgets a group without members if `is_over` says so of its history.
    pub(crate) fn forget_if(&self, group: &Arc<Group>, is_over: impl FnOnce(&History) -> bool) {
        let mut state = group.lock();
        if !state.members.is_empty() || !state.history.as_deref().is_some_and(is_over) {
            return;
        }
        state.dead = true;
        state.history = None;
        drop(state);
        self.bury(group);
        self.unannounced.unlist(group);
    }

    /// Forgets a group that is not followed any more, and has no members.
    pub(crate) fn forget(&self, name: &GroupName) {
        if let Some(group) = self.group(name) {
            self.forget_if(&group, |_| true);
        }
    }

    /// A group with history that begins in an epoch of the broker, with the message at offset `first`. It is nobody's yet.
    pub(crate) fn fresh_group(&self, name: &GroupName, epoch: Box<str>, first: u64) -> Arc<Group> {
        let group = self.make_group(name, Some(epoch));
        let mut state = group.lock();
        state.next_seq = first;
        if let Some(history) = &mut state.history {
            history.restart(first);
        }
        drop(state);
        Arc::new(group)
    }

    /// Lets a group be found.
    pub(crate) fn put(&self, group: Arc<Group>) {
        self.groups.insert(group.name.clone(), group);
    }

    /// Puts a fresh group in the place of an old one, whose members are its own from here on. Called under the old one's
    /// lock: nobody joins between.
    pub(crate) fn replace(&self, old: &Arc<Group>, state: &mut GroupState, fresh: &Arc<Group>) {
        let mut new = fresh.lock();
        new.members = std::mem::take(&mut state.members);
        new.per_shard = state.per_shard.clone();
        new.mailboxes = state.mailboxes;
        let is_empty = new.members.is_empty();
        if let Some(history) = &mut new.history {
            history.set_idle(is_empty);
        }
        drop(new);
        state.history = None;
        state.dead = true;
        self.groups.insert(fresh.name.clone(), fresh.clone());
        if fresh.has_presence {
            self.unannounced.unlist(old);
            self.unannounced.list(fresh.clone());
        }
    }

    /// What is to be told of a dead group is to be told of the one that has its name, if any.
    pub(crate) fn pass_on(&self, dead: &Arc<Group>) {
        if let Some(heir) = self.group(&dead.name).filter(|group| !Arc::ptr_eq(group, dead)) {
            self.unannounced.list(heir);
        }
    }

    /// Lists a group whose members here have something to be told of other nodes.
    pub(crate) fn list_by_name(&self, name: &GroupName) {
        if let Some(group) = self.group(name) {
            self.unannounced.list(group);
        }
    }

    /// Takes a dead group out of the map.
    pub(crate) fn bury(&self, group: &Arc<Group>) {
        self.groups.remove_if(&group.name, |_, found| Arc::ptr_eq(found, group));
    }

    fn group_or_new(&self, name: &GroupName) -> Arc<Group> {
        if let Some(group) = self.group(name) {
            return group;
        }
        self.groups.entry(name.clone()).or_insert_with(|| Arc::new(self.make_group(name, None))).value().clone()
    }

    fn make_group(&self, name: &GroupName, epoch: Option<Box<str>>) -> Group {
        let id = self.next_group.fetch_add(1, Ordering::Relaxed);
        let rule = self.config.rule_of(name.as_str());
        let history = rule.and_then(|rule| rule.history).map(|rule| History::new(rule, self.stats.history.clone()));
        let own_epoch = || format!("{:x}-{id:x}", self.config.epoch_seed).into();
        let epoch = history.is_some().then(|| epoch.unwrap_or_else(own_epoch));
        let state = GroupState::new(self.shards.len(), history);
        Group::new(name.clone(), id, epoch, rule.is_some_and(|rule| rule.presence), state)
    }
}
