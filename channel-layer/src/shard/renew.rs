//! A group begins anew, in another epoch: its members go on in what is a group of its own to the shard.

use std::sync::Arc;

use bytes::Bytes;

use super::cursor::CursorState;
use super::lane::Start;
use super::{Shard, Slot};
use crate::group::Group;

/// What a member has not read of the epoch that is over is still given to him, if it is little: of more he is told that it
/// may be lost, as of all the rest.
const REST_BYTES_MAX: u64 = 64 << 10;

impl Shard {
    /// Moves all members of a group that is over to the one that takes its place, behind the frame that says so.
    pub(super) fn renew(&mut self, old: &Group, new: &Arc<Group>, from_seq: u64, frame: &Bytes) {
        let Some(lanes) = self.lanes_of.get(&old.id).copied() else { return };
        for lane in lanes.into_iter().flatten() {
            for cursor in self.lanes[lane].cursors() {
                self.move_on(cursor, new, from_seq, frame);
            }
        }
    }

    fn move_on(&mut self, key: usize, new: &Arc<Group>, from_seq: u64, frame: &Bytes) {
        let cursor = &self.cursors[key];
        let (slot, number, asked) = (cursor.connection, cursor.number, cursor.asked);
        let lane = &self.lanes[cursor.lane];
        let format = lane.format;
        if cursor.state == CursorState::Behind && lane.log.end() - cursor.position <= REST_BYTES_MAX {
            self.finish_reading(key);
        }
        self.drop_cursor(key);
        self.push(Slot(slot), format.of_websocket(frame, new.at(from_seq - 1)));
        // By way of the history: the shard may have seen some of it already, for who has subscribed since.
        let replay_from = Some(from_seq);
        self.add_cursor(slot, new.clone(), Start { number, from_seq, replay_from, asked });
    }
}
