//! The rosters of all groups with presence: changed under a group's lock by who comes and goes here, and by the task that
//! hears of other nodes.
//!
//! DashMap guards never leave one expression. Locks are taken in this order: the group's, the roster's, `outgoing`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use dashmap::DashMap;
use groupcast_protocol::{ChannelName, GroupName};

use super::outgoing::Outgoing;
use super::roster::{Change, Holder, Roster};
use crate::stats::Counter;

/// Members of other nodes that are known, each as often as it is in a group. Of more, who comes is not listed.
const ELSEWHERE_MAX: u64 = 1_000_000;

/// Who is in which group with presence.
#[derive(Debug, Default)]
pub(crate) struct Rosters {
    map: DashMap<GroupName, Roster>,
    /// There when other nodes are told.
    outgoing: OnceLock<Outgoing>,
    here: Counter,
    elsewhere: Counter,
}

impl Rosters {
    /// What other nodes have to be told, from the first call on.
    pub(crate) fn outgoing(&self) -> &Outgoing {
        self.outgoing.get_or_init(Outgoing::default)
    }

    /// Notes who has come here; says whether the group has to be listed as one that has something to tell.
    pub(crate) fn enter_here(&self, group: &GroupName, member: &ChannelName) -> bool {
        self.with_or_new(group, |roster| {
            if roster.enter(member, Holder::HERE) {
                self.here.add(1);
                self.note(group, member, Change::Joined);
            }
            roster.has_to_be_listed()
        })
    }

    /// As [`Rosters::enter_here`], of who has gone.
    pub(crate) fn exit_here(&self, group: &GroupName, member: &ChannelName) -> bool {
        let has_to = self.with(group, |roster| {
            if roster.exit(member, Holder::HERE) {
                self.here.sub(1);
                self.note(group, member, Change::Left);
            }
            roster.has_to_be_listed()
        });
        self.forget_empty(group);
        has_to.unwrap_or(false)
    }

    /// Notes what has changed at another node; says whether the group has to be listed.
    pub(crate) fn change(&self, group: &GroupName, changes: &[(ChannelName, Change)], by: Holder) -> bool {
        let has_to = self.with_or_new(group, |roster| {
            for (member, change) in changes {
                match change {
                    Change::Joined if self.elsewhere.value() >= ELSEWHERE_MAX => {}
                    Change::Joined => self.elsewhere.add(roster.enter(member, by).into()),
                    Change::Left => self.elsewhere.sub(roster.exit(member, by).into()),
                }
            }
            roster.has_to_be_listed()
        });
        self.forget_empty(group);
        has_to
    }

    /// Makes the members by another node exactly these; says which groups have to be listed.
    pub(crate) fn replace(&self, members: &BTreeMap<GroupName, BTreeSet<ChannelName>>, by: Holder) -> Vec<GroupName> {
        let none = BTreeSet::new();
        let mut names: BTreeSet<GroupName> = self.names().into_iter().collect();
        names.extend(members.keys().cloned());
        let replace = |group: &GroupName| {
            let wanted = members.get(group).unwrap_or(&none);
            let has_to = self.with_or_new(group, |roster| self.replace_in(roster, wanted, by));
            self.forget_empty(group);
            has_to
        };
        names.into_iter().filter(replace).collect()
    }

    /// Takes what the members here have not been told of a group, a bounded part; says whether that was all.
    pub(crate) fn take_untold(&self, group: &GroupName) -> (Vec<(ChannelName, Change)>, bool) {
        self.with(group, Roster::take_untold).unwrap_or((Vec::new(), true))
    }

    /// How many members a group has on all nodes.
    pub(crate) fn len(&self, group: &GroupName) -> u64 {
        self.map.get(group).map_or(0, |roster| roster.len() as u64)
    }

    /// Members of a group on all nodes, by name, those after `after`.
    pub(crate) fn page(&self, group: &GroupName, after: Option<&str>, limit: usize) -> Vec<ChannelName> {
        self.map.get(group).map(|roster| roster.page(after, limit)).unwrap_or_default()
    }

    /// The groups that have members anywhere.
    pub(crate) fn names(&self) -> Vec<GroupName> {
        self.map.iter().map(|roster| roster.key().clone()).collect()
    }

    /// The members of a group on this node.
    pub(crate) fn of_here(&self, group: &GroupName) -> Vec<ChannelName> {
        self.map.get(group).map(|roster| roster.of(Holder::HERE)).unwrap_or_default()
    }

    /// Memberships of this node, and of others.
    pub(crate) fn count(&self) -> (u64, u64) {
        (self.here.value(), self.elsewhere.value())
    }

    fn replace_in(&self, roster: &mut Roster, wanted: &BTreeSet<ChannelName>, by: Holder) -> bool {
        let room = ELSEWHERE_MAX.saturating_sub(self.elsewhere.value());
        let (come, gone) = roster.replace(wanted, by, room as usize);
        self.elsewhere.add(come as u64);
        self.elsewhere.sub(gone as u64);
        roster.has_to_be_listed()
    }

    fn note(&self, group: &GroupName, member: &ChannelName, change: Change) {
        if let Some(outgoing) = self.outgoing.get() {
            outgoing.note(group, member, change);
        }
    }

    fn with<T>(&self, group: &GroupName, act: impl FnOnce(&mut Roster) -> T) -> Option<T> {
        self.map.get_mut(group).map(|mut roster| act(&mut roster))
    }

    fn with_or_new<T>(&self, group: &GroupName, act: impl FnOnce(&mut Roster) -> T) -> T {
        act(&mut self.map.entry(group.clone()).or_default())
    }

    fn forget_empty(&self, group: &GroupName) {
        self.map.remove_if(group, |_, roster| roster.is_empty());
    }
}
