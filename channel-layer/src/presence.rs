//! Who comes and goes in groups that tell it.
//!
//! Joining and leaving only notes a change under the group's mutex and lists the group: shards never wait. One task,
//! [`ChannelLayer::announce`], takes what has changed and hands it to the shards like a message, but without a number:
//! presence is in no history, and is no message that can be missed. Who is in a group, on this node and on others, is its
//! [`roster`]; what other nodes have to know waits in [`outgoing`] for `bus::gossip`.

mod outgoing;
mod roster;
mod rosters;
mod unannounced;

use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::frame::ServerFrame;
use groupcast_protocol::{ChannelName, GroupName, websocket};
use tokio::time::Instant;

use crate::group::Group;
use crate::layer::{ChannelLayer, Room};
use crate::shard::EventKind;

pub(crate) use outgoing::Taken;
pub(crate) use roster::{Change, Holder};
pub(crate) use rosters::Rosters;
pub(crate) use unannounced::Unannounced;

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
        let state = group.lock();
        if state.dead {
            drop(state);
            return self.registry.pass_on(group);
        }
        // Under the group's lock: who comes on another shard meanwhile is told by a later turn.
        let (changes, all) = match state.shard_set().all(|shard| wanted.contains(&shard)) {
            true => self.registry.rosters.take_untold(&group.name),
            false => (Vec::new(), false),
        };
        drop(state);
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
