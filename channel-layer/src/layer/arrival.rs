//! What a broker brings to a group of this node: messages, holes, and new beginnings. Called by one task.

use std::sync::Arc;

use groupcast_protocol::frame::{GapReason, ServerFrame};
use groupcast_protocol::{ChannelName, GroupName, Message, websocket};
use tokio::time::Instant;

use super::{ChannelLayer, Room};
use crate::error::LayerError;
use crate::group::{Group, GroupState};
use crate::mailbox::{Pushed, Received};
use crate::shard::{Event, EventKind};

impl ChannelLayer {
    /// Hands a message to the members here. Waits for room as long as it takes: there is nobody to refuse it to.
    pub(crate) async fn arrive(&self, name: &GroupName, message: &Message) {
        while let Err(LayerError::Overloaded { .. }) = self.local_group_send(name, message).await {
            tracing::warn!(group = %name, "a shard has had no room for a long time; messages of the broker wait");
        }
    }

    /// Tells the members that messages are missing: how many, if that is known. With history, everything up to offset `to`
    /// is gone from here.
    pub(crate) async fn tell_hole(&self, name: &GroupName, missed: Option<u64>, to: Option<u64>) {
        let Some(group) = self.registry.group(name) else { return };
        self.with_room(&group, |state, room| {
            let seq = to.filter(|_| state.history.is_some()).unwrap_or(state.next_seq);
            if let (Some(history), Some(to)) = (&mut state.history, to) {
                history.restart(to + 1);
            }
            state.next_seq = seq + 1;
            let frame = gap(&group, missed, seq);
            // As if it were a message: it has its place between those before and behind the hole.
            room.send(frame, |frame| EventKind::Deliver { group: group.clone(), seq, frame, trace: None });
        })
        .await;
    }

    /// A group with history begins at an epoch of the broker, with the message at offset `first`. Members that it has from
    /// another epoch are told that they may have missed anything.
    pub(crate) async fn begin(&self, name: &GroupName, epoch: Box<str>, first: u64) {
        let fresh = self.registry.fresh_group(name, epoch, first);
        let Some(old) = self.registry.group(name) else { return self.registry.put(fresh) };
        self.with_room(&old, |state, room| {
            self.registry.replace(&old, state, &fresh);
            let frame = gap(&fresh, None, first - 1);
            room.send(frame, |frame| EventKind::Renew { old: old.clone(), new: fresh.clone(), from_seq: first, frame });
        })
        .await;
    }

    /// Puts a message into a channel of this node.
    pub(crate) async fn local_send(&self, channel: &ChannelName, message: Message) -> Result<(), LayerError> {
        let mailbox = self.registry.open_mailbox(channel)?;
        let item = Received { message, group: None };
        let Some(owner) = mailbox.owner else { return self.send_to_mailbox(mailbox, item) };
        // The room first: a message is never in a mailbox without its shard being told.
        let room = self.room(owner, channel).await?;
        if self.push(&mailbox, item)? == Pushed::Signal {
            room.send(Event(EventKind::Mail { to: owner }));
        }
        Ok(())
    }

    /// Does something under a group's lock, with room in all its shards. Nothing for a group that is gone meanwhile.
    async fn with_room(&self, group: &Arc<Group>, act: impl FnOnce(&mut GroupState, Room<'_>)) {
        loop {
            let deadline = Instant::now() + self.registry.config.publish_deadline;
            let Ok((wanted, room)) = self.reserve(group, deadline).await else { continue };
            let mut state = group.lock();
            if state.dead {
                return;
            }
            // Somebody may have subscribed on another shard while we waited: then room is needed there, too.
            if state.shard_set().all(|shard| wanted.contains(&shard)) {
                return act(&mut state, room);
            }
        }
    }
}

fn gap(group: &Group, missed: Option<u64>, seq: u64) -> bytes::Bytes {
    let position = group.position(seq);
    let frame = ServerFrame::Gap { group: group.name.clone(), missed, reason: GapReason::BrokerGap, position };
    websocket::text(&frame.encode())
}
