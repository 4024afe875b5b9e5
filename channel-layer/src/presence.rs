//! Who comes and goes in groups that tell it.
//!
//! Joining and leaving only notes a change under the group's mutex and lists the group: shards never wait. One task,
//! [`ChannelLayer::announce`], takes what has changed and hands it to the shards like a message, but without a number:
//! presence is in no history, and is no message that can be missed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::frame::ServerFrame;
use groupcast_protocol::{ChannelName, GroupName, websocket};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::group::Group;
use crate::layer::ChannelLayer;
use crate::shard::EventKind;

/// Changes that are told at once: little enough for one place in a shard's queue.
const CHANGES_MAX: usize = 256;

/// What a member did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Joined,
    Left,
}

/// What has changed in a group since its members were last told. Coming and going cancel out, so there is at most one
/// change for each channel that is a member or was one when they were told.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    untold: BTreeMap<ChannelName, Change>,
    /// Whether the group is on the list of those that have something to tell.
    listed: bool,
}

impl Changes {
    pub(crate) fn joined(&mut self, member: &ChannelName) {
        self.note(member, Change::Joined);
    }

    pub(crate) fn left(&mut self, member: &ChannelName) {
        self.note(member, Change::Left);
    }

    /// Whether the group has to be put on the list; says so once.
    pub(crate) fn has_to_be_listed(&mut self) -> bool {
        let has_to = !self.listed && !self.untold.is_empty();
        self.listed |= has_to;
        has_to
    }

    /// Takes what has changed, a bounded part at a time; says whether that was all, and then is listed no more.
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

/// Groups whose members have something to be told, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Unannounced {
    groups: Mutex<VecDeque<Arc<Group>>>,
    arrived: Notify,
}

impl Unannounced {
    pub(crate) fn list(&self, group: Arc<Group>) {
        self.groups.lock().push_back(group);
        self.arrived.notify_one();
    }

    /// The group whose turn it is, which stays on the list. Cancel safe.
    async fn first(&self) -> Arc<Group> {
        loop {
            let arrived = self.arrived.notified();
            let first = self.groups.lock().front().cloned();
            match first {
                Some(group) => return group,
                None => arrived.await,
            }
        }
    }

    /// Goes on to the next group. The first one comes again later, unless it has been told all.
    fn next(&self, told_all: bool) {
        let mut groups = self.groups.lock();
        let first = groups.pop_front();
        groups.extend(first.filter(|_| !told_all));
    }
}

impl ChannelLayer {
    /// Tells the members of groups with presence who comes and goes. Its owner spawns it once; it never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not told yet is told by the next call.
    pub async fn announce(&self) {
        loop {
            let group = self.registry.unannounced.first().await;
            let all = self.tell_changes(&group).await;
            self.registry.unannounced.next(all);
        }
    }

    /// Tells a group what has changed; says whether that was all.
    async fn tell_changes(&self, group: &Arc<Group>) -> bool {
        let deadline = Instant::now() + self.registry.config.publish_deadline;
        // A shard that has no room for so long must not keep other groups from hearing.
        let Ok((wanted, room)) = self.reserve(group, deadline).await else { return false };
        let (changes, all) = {
            let mut state = group.lock();
            if !state.shard_set().all(|shard| wanted.contains(&shard)) {
                return false;
            }
            state.changes.as_mut().map(|changes| changes.take()).unwrap_or_default()
        };
        self.registry.stats.presence_changes.add(changes.len() as u64);
        // Not under the mutex: this task alone tells, so in order; and whoever comes meanwhile is told of by a later turn.
        let frames: Arc<[Bytes]> = changes.into_iter().map(|change| frame_of(&group.name, change)).collect();
        room.send(frames, |frames| EventKind::Presence { group: group.clone(), frames });
        all
    }
}

fn frame_of(group: &GroupName, (member, change): (ChannelName, Change)) -> Bytes {
    let group = group.clone();
    let frame = match change {
        Change::Joined => ServerFrame::Joined { group, member },
        Change::Left => ServerFrame::Left { group, member },
    };
    websocket::text(&frame.encode())
}
