//! Who comes and goes in groups that tell it.
//!
//! Joining and leaving only notes a change under the group's mutex and lists the group: shards never wait. One task,
//! [`ChannelLayer::announce`], takes what has changed and hands it to the shards like a message, but without a number:
//! presence is in no history, and is no message that can be missed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::frame::ServerFrame;
use groupcast_protocol::{ChannelName, GroupName, websocket};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::group::Group;
use crate::layer::{ChannelLayer, Room};
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

/// Groups whose members have something to be told, each at most once, and none that is dead.
#[derive(Debug, Default)]
pub(crate) struct Unannounced {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: BTreeMap<GroupName, Arc<Group>>,
    /// Whose turn it was last: the next one by name is next.
    last: Option<GroupName>,
}

impl Unannounced {
    pub(crate) fn list(&self, group: Arc<Group>) {
        self.waiting.lock().groups.insert(group.name.clone(), group);
        self.arrived.notify_one();
    }

    pub(crate) fn unlist(&self, group: &Arc<Group>) {
        let mut waiting = self.waiting.lock();
        if waiting.groups.get(&group.name).is_some_and(|listed| Arc::ptr_eq(listed, group)) {
            waiting.groups.remove(&group.name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().groups.len()
    }

    /// The group whose turn it is, which stays on the list. Cancel safe.
    async fn next(&self) -> Arc<Group> {
        loop {
            let arrived = self.arrived.notified();
            let next = self.waiting.lock().next();
            match next {
                Some(group) => return group,
                None => arrived.await,
            }
        }
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Arc<Group>> {
        let after = self.last.take().map_or(Unbounded, Excluded);
        let next = self.groups.range((after, Unbounded)).next().or_else(|| self.groups.first_key_value());
        let (name, group) = next?;
        self.last = Some(name.clone());
        Some(group.clone())
    }
}

impl ChannelLayer {
    /// Tells the members of groups with presence who comes and goes. Its owner spawns it once; it never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not told yet is told by the next call.
    pub async fn announce(&self) {
        loop {
            let group = self.registry.unannounced.next().await;
            let deadline = Instant::now() + self.registry.config.publish_deadline;
            // A shard that has no room for so long must not keep other groups from hearing; this one stays listed.
            if let Ok((wanted, room)) = self.reserve(&group, deadline).await {
                self.tell_changes(&group, &wanted, room);
            }
        }
    }

    fn tell_changes(&self, group: &Arc<Group>, wanted: &[usize], room: Room<'_>) {
        let unannounced = &self.registry.unannounced;
        // Off the list before looking: whatever changes behind our look puts it there again.
        unannounced.unlist(group);
        let (changes, all) = {
            let mut state = group.lock();
            let reached = state.shard_set().all(|shard| wanted.contains(&shard));
            let changes = state.changes.as_mut().filter(|_| reached);
            changes.map_or((Vec::new(), reached), |changes| changes.take())
        };
        if !all {
            unannounced.list(group.clone());
        }
        self.registry.stats.presence_changes.add(changes.len() as u64);
        // Not under the mutex: this task alone tells, so in order; and whoever comes meanwhile is told of by a later turn.
        let frames: Arc<[Bytes]> = changes.into_iter().map(|change| frame_of(&group.name, change)).collect();
        if !frames.is_empty() {
            room.send(frames, |frames| EventKind::Presence { group: group.clone(), frames });
        }
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
