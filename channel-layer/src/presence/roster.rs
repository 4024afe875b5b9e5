//! Who is in one group with presence, on all nodes, and what its members here have not been told yet.
//!
//! Decides only. A channel may be in a group by several nodes at once (a mailbox with a common name); it comes with the
//! first and goes with the last of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use groupcast_protocol::ChannelName;

/// Changes that are told at once: little enough for one place in a shard's queue.
const CHANGES_MAX: usize = 256;

/// What a member did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Joined,
    Left,
}

/// A node by which a channel is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder(pub(crate) u32);

impl Holder {
    /// This node.
    pub(crate) const HERE: Self = Self(0);
}

/// The members of one group.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: BTreeMap<ChannelName, Holders>,
    /// How many of them are here. Without any there is nobody to be told.
    here: usize,
    untold: Changes,
}

/// The nodes by which one channel is a member: nearly always one.
#[derive(Debug)]
struct Holders {
    first: Holder,
    others: Vec<Holder>,
}

impl Roster {
    /// Takes a member in; says whether it was none by this node before.
    pub(crate) fn enter(&mut self, member: &ChannelName, by: Holder) -> bool {
        let is_news = match self.members.entry(member.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Holders { first: by, others: Vec::new() });
                true
            }
            Entry::Occupied(entry) => {
                let holders = entry.into_mut();
                if holders.have(by) {
                    return false;
                }
                holders.others.push(by);
                false
            }
        };
        self.here += usize::from(by == Holder::HERE);
        if is_news && self.here > 0 {
            self.untold.note(member, Change::Joined);
        }
        true
    }

    /// Lets a member go; says whether it was one by this node.
    pub(crate) fn exit(&mut self, member: &ChannelName, by: Holder) -> bool {
        let Some(holders) = self.members.get_mut(member).filter(|holders| holders.have(by)) else { return false };
        let is_last = !holders.remove(by);
        if is_last {
            self.members.remove(member);
        }
        self.here -= usize::from(by == Holder::HERE);
        match self.here {
            0 => self.untold = Changes::default(),
            _ if is_last => self.untold.note(member, Change::Left),
            _ => {}
        }
        true
    }

    /// Makes the members by a node exactly these, with at most `room` new ones; says how many have come and gone.
    pub(crate) fn replace(&mut self, wanted: &BTreeSet<ChannelName>, by: Holder, room: usize) -> (usize, usize) {
        let held = self.members.iter().filter(|(_, holders)| holders.have(by)).map(|(member, _)| member);
        let gone: Vec<ChannelName> = held.filter(|member| !wanted.contains(*member)).cloned().collect();
        for member in &gone {
            self.exit(member, by);
        }
        let mut come = 0;
        for member in wanted {
            if come < room && self.enter(member, by) {
                come += 1;
            }
        }
        (come, gone.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members by name, those after `after`.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<ChannelName> {
        let from = after.map_or(Unbounded, Excluded);
        self.members.range::<str, _>((from, Unbounded)).take(limit).map(|(name, _)| name.clone()).collect()
    }

    /// The members by a node.
    pub(crate) fn of(&self, by: Holder) -> Vec<ChannelName> {
        self.members.iter().filter(|(_, holders)| holders.have(by)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether the group has to be put on the list of those that have something to tell; says so once.
    pub(crate) fn has_to_be_listed(&mut self) -> bool {
        self.untold.has_to_be_listed()
    }

    /// Takes what the members here have not been told, a bounded part at a time; says whether that was all, and then the
    /// group is listed no more.
    pub(crate) fn take_untold(&mut self) -> (Vec<(ChannelName, Change)>, bool) {
        self.untold.take()
    }
}

impl Holders {
    fn have(&self, holder: Holder) -> bool {
        self.first == holder || self.others.contains(&holder)
    }

    /// Takes one out; says whether others are left.
    fn remove(&mut self, holder: Holder) -> bool {
        if self.first != holder {
            self.others.retain(|other| *other != holder);
            return true;
        }
        match self.others.pop() {
            Some(other) => self.first = other,
            None => return false,
        }
        true
    }
}

/// What has changed in a group since its members were last told. Coming and going cancel out, so there is at most one
/// change for each channel that is a member or was one when they were told.
#[derive(Debug, Default)]
struct Changes {
    untold: BTreeMap<ChannelName, Change>,
    /// Whether the group is on the list of those that have something to tell.
    listed: bool,
}

impl Changes {
    fn has_to_be_listed(&mut self) -> bool {
        let has_to = !self.listed && !self.untold.is_empty();
        self.listed |= has_to;
        has_to
    }

    fn take(&mut self) -> (Vec<(ChannelName, Change)>, bool) {
        let mut taken = Vec::with_capacity(self.untold.len().min(CHANGES_MAX));
        while taken.len() < CHANGES_MAX
            && let Some(change) = self.untold.pop_first()
        {
            taken.push(change);
        }
        self.listed = !self.untold.is_empty();
        (taken, !self.listed)
    }

    fn note(&mut self, member: &ChannelName, change: Change) {
        match self.untold.entry(member.clone()) {
            Entry::Occupied(other) => drop(other.remove()),
            Entry::Vacant(entry) => drop(entry.insert(change)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::channel;

    const THERE: Holder = Holder(1);

    #[test]
    fn a_channel_comes_with_the_first_node_and_goes_with_the_last() {
        let (mut roster, watcher, inbox) = (Roster::default(), channel("watcher"), channel("inbox"));
        assert!(roster.enter(&watcher, Holder::HERE));
        roster.take_untold();
        assert!(roster.enter(&inbox, THERE) && !roster.enter(&inbox, THERE));
        assert_eq!(roster.take_untold(), (vec![(inbox.clone(), Change::Joined)], true));
        assert!(roster.enter(&inbox, Holder::HERE) && roster.exit(&inbox, THERE) && !roster.exit(&inbox, THERE));
        assert_eq!((roster.take_untold(), roster.len()), ((vec![], true), 2), "it is here");
        assert!(roster.exit(&inbox, Holder::HERE));
        assert_eq!((roster.take_untold().0, roster.len()), (vec![(inbox, Change::Left)], 1));
    }

    #[test]
    fn without_members_here_nothing_is_kept_for_them() {
        let (mut roster, watcher, other) = (Roster::default(), channel("watcher"), channel("other"));
        assert!(roster.enter(&other, THERE));
        assert!(!roster.has_to_be_listed());
        assert!(roster.enter(&watcher, Holder::HERE) && roster.has_to_be_listed() && !roster.has_to_be_listed());
        assert!(roster.exit(&watcher, Holder::HERE));
        assert_eq!((roster.take_untold().0, roster.page(None, 9)), (vec![], vec![other]));
    }

    #[test]
    fn what_a_node_has_is_replaced() {
        let (mut roster, names) = (Roster::default(), ["a", "b", "c"].map(channel));
        assert!(roster.enter(&channel("watcher"), Holder::HERE) && roster.enter(&names[0], THERE));
        assert!(roster.enter(&names[1], THERE));
        roster.take_untold();
        assert_eq!(roster.replace(&names[1..].iter().cloned().collect(), THERE, 9), (1, 1));
        let told = vec![(names[0].clone(), Change::Left), (names[2].clone(), Change::Joined)];
        assert_eq!(roster.take_untold().0, told);
        assert_eq!((roster.of(THERE), roster.replace(&BTreeSet::new(), THERE, 9)), (names[1..].to_vec(), (0, 2)));
        assert_eq!(roster.replace(&names.iter().cloned().collect(), THERE, 1), (1, 0), "there is room for one");
        assert_eq!(roster.page(Some("b"), 9), [channel("watcher")]);
    }
}
