//! What has changed among the members of this node, and other nodes have not been told yet.

use std::collections::BTreeMap;

use groupcast_protocol::{ChannelName, GroupName};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::roster::Change;

/// Changes that wait. They wait for long only while the broker is gone; of more, all are dropped, and the other nodes
/// will ask for the whole.
const CHANGES_MAX: usize = 65_536;

/// Changes on their way to other nodes: for each channel in a group, what it did last. Unlike what members are told, coming
/// and going do not cancel out: who is asked for the whole in between has told of one that came.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    waiting: Mutex<Waiting>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<(GroupName, ChannelName), Change>,
    is_lost: bool,
}

/// A part of what has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// By group, then by channel.
    pub(crate) changes: Vec<((GroupName, ChannelName), Change)>,
    /// Whether changes were dropped before these.
    pub(crate) is_lost: bool,
}

impl Outgoing {
    pub(super) fn note(&self, group: &GroupName, member: &ChannelName, change: Change) {
        let mut waiting = self.waiting.lock();
        if waiting.changes.len() >= CHANGES_MAX {
            *waiting = Waiting { changes: BTreeMap::new(), is_lost: true };
        }
        waiting.changes.insert((group.clone(), member.clone()), change);
        drop(waiting);
        self.grown.notify_one();
    }

    /// Takes at most so many.
    pub(crate) fn take(&self, limit: usize) -> Taken {
        let mut waiting = self.waiting.lock();
        let mut changes = Vec::with_capacity(waiting.changes.len().min(limit));
        while changes.len() < limit
            && let Some(change) = waiting.changes.pop_first()
        {
            changes.push(change);
        }
        Taken { changes, is_lost: std::mem::take(&mut waiting.is_lost) }
    }

    /// Waits until something has changed. Cancel safe.
    pub(crate) async fn grown(&self) {
        self.grown.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{channel, group};

    #[test]
    fn the_last_change_counts_and_too_many_are_dropped_for_the_whole() {
        let (outgoing, room) = (Outgoing::default(), group("room"));
        outgoing.note(&room, &channel("a"), Change::Joined);
        outgoing.note(&room, &channel("a"), Change::Left);
        let taken = Taken { changes: vec![((room.clone(), channel("a")), Change::Left)], is_lost: false };
        assert_eq!(outgoing.take(9), taken);
        for n in 0..=CHANGES_MAX {
            outgoing.note(&room, &channel(&format!("c{n}")), Change::Joined);
        }
        let taken = outgoing.take(CHANGES_MAX);
        assert_eq!((taken.changes.len(), taken.is_lost), (1, true));
        assert_eq!(outgoing.take(9), Taken::default());
    }
}
