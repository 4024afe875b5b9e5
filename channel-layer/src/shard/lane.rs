//! A group on one shard, for the connections that want one format: its log, and a cursor for each of them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use groupcast_protocol::frame::GapReason;
use groupcast_protocol::{Format, Trace};

use super::Shard;
use super::catch_up::CatchUp;
use super::cursor::{Cursor, CursorState, mark_dirty};
use crate::deflate::deflated;
use crate::group::Group;
use crate::log::FrameLog;
use crate::witness::Delivery;

/// A group in one format. It exists while it has cursors.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) group: Arc<Group>,
    pub(super) format: Format,
    pub(super) log: FrameLog,
    /// The number of the next message. A smaller one is from before the lane existed.
    pub(super) next_seq: u64,
    /// Cursors that read the log.
    pub(super) reading: Vec<usize>,
    /// Cursors whose first message has not come by yet.
    waiting: Vec<usize>,
    /// Cursors that read the history.
    catching_up: Vec<usize>,
    /// In which sweep something was last added, and where the log ended before that.
    pub(super) fresh: (u64, u64),
    /// How many cursors are not at the end of the log. At 0 the log is forgotten.
    pub(super) behind: usize,
}

/// The lanes of a group, by format.
pub(super) type Lanes = [Option<usize>; Format::COUNT];

/// Where a new cursor begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// The number of its membership.
    pub(super) number: u64,
    /// The number of the first message that is for it.
    pub(super) from_seq: u64,
    /// The number before which it has everything, when it is to have what the history has, too.
    pub(super) replay_from: Option<u64>,
    /// Whether the client asked for it; else it was added from outside.
    pub(super) asked: bool,
}

impl Lane {
    pub(super) fn list(&mut self, state: CursorState) -> &mut Vec<usize> {
        match state {
            CursorState::AtEnd | CursorState::Behind => &mut self.reading,
            CursorState::Waiting => &mut self.waiting,
            CursorState::CatchingUp => &mut self.catching_up,
        }
    }

    /// All cursors, in whatever state.
    pub(super) fn cursors(&self) -> Vec<usize> {
        [&self.reading, &self.waiting, &self.catching_up].into_iter().flatten().copied().collect()
    }

    fn readers(&self) -> usize {
        self.reading.len() + self.waiting.len() + self.catching_up.len()
    }

    fn is_empty(&self) -> bool {
        self.reading.is_empty() && self.waiting.is_empty() && self.catching_up.is_empty()
    }
}

impl Shard {
    pub(super) fn add_cursor(&mut self, slot: usize, group: Arc<Group>, start: Start) {
        let Start { number, from_seq, replay_from, asked } = start;
        let key = self.lane_of(group, self.connections[slot].next_format(), from_seq);
        let lane = &self.lanes[key];
        let position = lane.log.end();
        let catch_up = replay_from.map(|next| Box::new(CatchUp::new(next, GapReason::HistoryExpired)));
        let state = match catch_up {
            Some(_) => CursorState::CatchingUp,
            None if from_seq <= lane.next_seq => CursorState::AtEnd,
            None => CursorState::Waiting,
        };
        let connection = &mut self.connections[slot];
        let (index, place) = (0, connection.cursors.len() as u32);
        let cursor = Cursor {
            connection: slot,
            lane: key,
            index,
            place,
            state,
            asked,
            number,
            from_seq,
            position,
            catch_up,
            lost: None,
        };
        let cursor = self.cursors.insert(cursor);
        if connection.cursors.is_empty() {
            // Most are in one group: no room for more.
            connection.cursors.reserve_exact(1);
        }
        connection.cursors.push(cursor);
        connection.tells_positions |= connection.format == Format::EventsOfMany;
        if state == CursorState::CatchingUp {
            mark_dirty(connection, &mut self.cursors, cursor);
            self.make_ready(slot);
        }
        self.enlist(cursor);
    }

    /// Expects messages from `from_seq` on. An addition from outside is older than the lane if somebody subscribed while
    /// it was on its way; who subscribed later goes back to waiting for his first message.
    pub(super) fn rewind(&mut self, group: &Group, format: Format, from_seq: u64) {
        let Some(key) = self.lanes_of.get(&group.id).and_then(|lanes| lanes[format as usize]) else { return };
        let lane = &mut self.lanes[key];
        if from_seq >= lane.next_seq {
            return;
        }
        lane.next_seq = from_seq;
        for cursor in lane.reading.clone() {
            if self.cursors[cursor].from_seq > from_seq {
                self.finish_reading(cursor);
                self.set_state(cursor, CursorState::Waiting);
                self.forget_clean(self.cursors[cursor].connection);
            }
        }
        self.forget_read(key);
    }

    /// Gives a connection what one of its cursors has not read yet: who came and went, if anything.
    pub(super) fn finish_reading(&mut self, key: usize) {
        let cursor = &self.cursors[key];
        if cursor.state == CursorState::Behind {
            let rest = self.lanes[cursor.lane].log.copy(cursor.position);
            self.connections[cursor.connection].queue(rest);
        }
    }

    /// The membership is older than the cursor: messages from `from_seq` on are for it.
    pub(super) fn reach_back(&mut self, cursor: usize, from_seq: u64) {
        let first = &mut self.cursors[cursor].from_seq;
        *first = from_seq.min(*first);
        let key = self.cursors[cursor].lane;
        self.admit_waiting(key);
    }

    pub(super) fn drop_cursor(&mut self, cursor: usize) {
        self.delist(cursor);
        self.leave_connection(cursor);
        let Cursor { lane: key, .. } = self.cursors.remove(cursor);
        self.forget_read(key);
        let lane = &self.lanes[key];
        if lane.is_empty() {
            let (group, format) = (lane.group.id, lane.format);
            self.lanes.remove(key);
            if let Some(lanes) = self.lanes_of.get_mut(&group) {
                lanes[format as usize] = None;
                if lanes.iter().all(Option::is_none) {
                    self.lanes_of.remove(&group);
                }
            }
        }
    }

    /// When no cursor is behind any more, the log is forgotten.
    pub(super) fn forget_read(&mut self, key: usize) {
        let lane = &mut self.lanes[key];
        if lane.behind == 0 {
            let bytes = lane.log.bytes();
            lane.log.clear();
            self.forgot(bytes);
        }
    }

    pub(super) fn deliver(&mut self, group: &Group, seq: u64, frame: &Bytes) {
        let Some(lanes) = self.lanes_of.get(&group.id).copied() else { return };
        for key in lanes.into_iter().flatten() {
            self.deliver_to_lane(key, seq, frame);
        }
    }

    /// Frames without a number, for all who are there.
    /// The same for a message of a trace, of which somebody may be told, once for all who read here.
    #[cold]
    pub(super) fn deliver_traced(&mut self, group: &Group, seq: u64, frame: &Bytes, trace: &Trace) {
        let began = Instant::now();
        self.deliver(group, seq, frame);
        let Some(witness) = &self.witness else { return };
        let lanes = self.lanes_of.get(&group.id).copied().unwrap_or_default();
        let readers = |key: usize| self.lanes[key].readers();
        let recipients = lanes.into_iter().flatten().map(readers).sum();
        if recipients > 0 {
            witness.delivered(Delivery { trace, group: &group.name, recipients, took: began.elapsed() });
        }
    }

    pub(super) fn deliver_presence(&mut self, group: &Group, frames: &[Bytes]) {
        let Some(lanes) = self.lanes_of.get(&group.id).copied() else { return };
        for key in lanes.into_iter().flatten() {
            for frame in frames {
                let lane = &self.lanes[key];
                let (frame, seq) = (lane.format.of_websocket(frame, None), lane.next_seq - 1);
                let log_from = lane.log.end() + frame.len() as u64;
                for cursor in lane.catching_up.clone() {
                    self.queue_presence(cursor, frame.clone(), log_from);
                }
                if !self.lanes[key].reading.is_empty() {
                    self.append(key, &frame, seq, seq);
                }
            }
        }
    }

    fn deliver_to_lane(&mut self, key: usize, seq: u64, frame: &Bytes) {
        let lane = &mut self.lanes[key];
        if seq < lane.next_seq {
            return;
        }
        lane.next_seq = seq;
        self.admit_waiting(key);
        let lane = &mut self.lanes[key];
        lane.next_seq = seq + 1;
        if !lane.reading.is_empty() {
            match lane.format {
                Format::WebSocket => self.append(key, frame, seq - 1, seq),
                // Once for all who read it here.
                Format::Deflated => self.append(key, &deflated(frame), seq - 1, seq),
                format @ (Format::Events | Format::EventsOfMany) => {
                    let frame = format.of_websocket(frame, lane.group.at(seq));
                    self.append(key, &frame, seq - 1, seq);
                }
            }
        }
        self.admit_waiting(key);
    }

    fn append(&mut self, key: usize, frame: &Bytes, before: u64, seq: u64) {
        let lane = &mut self.lanes[key];
        if lane.fresh.0 != self.sweep {
            lane.fresh = (self.sweep, lane.log.end());
        }
        lane.log.append(frame, before, seq);
        self.log_bytes += frame.len();
        self.registry.stats.log_bytes.add(frame.len() as u64);
        self.appended += frame.len();
        self.mark_behind(key);
        self.keep_bounds(key);
    }

    pub(super) fn forgot(&mut self, bytes: usize) {
        self.log_bytes -= bytes;
        self.registry.stats.log_bytes.sub(bytes as u64);
    }

    fn lane_of(&mut self, group: Arc<Group>, format: Format, next_seq: u64) -> usize {
        let lanes = self.lanes_of.entry(group.id).or_default();
        *lanes[format as usize].get_or_insert_with(|| {
            self.lanes.insert(Lane {
                group,
                format,
                log: FrameLog::default(),
                next_seq,
                reading: vec![],
                waiting: vec![],
                catching_up: vec![],
                fresh: (0, 0),
                behind: 0,
            })
        })
    }

    /// Starts the cursors whose first message is the next one.
    fn admit_waiting(&mut self, key: usize) {
        let lane = &mut self.lanes[key];
        if lane.waiting.is_empty() {
            return;
        }
        for cursor in std::mem::take(&mut lane.waiting) {
            let state = &mut self.cursors[cursor];
            if state.from_seq <= lane.next_seq {
                state.state = CursorState::AtEnd;
                state.position = lane.log.end();
            }
            let list = lane.list(state.state);
            state.index = list.len() as u32;
            list.push(cursor);
        }
    }

    fn mark_behind(&mut self, key: usize) {
        let lane = &mut self.lanes[key];
        // All are on their connections' lists already: nothing to do for a message that joins a backlog.
        if lane.behind == lane.reading.len() {
            return;
        }
        lane.behind = lane.reading.len();
        for cursor in &lane.reading {
            let state = &mut self.cursors[*cursor];
            if state.state != CursorState::Behind {
                state.state = CursorState::Behind;
                let slot = state.connection;
                let connection = &mut self.connections[slot];
                mark_dirty(connection, &mut self.cursors, *cursor);
                if connection.may_write() {
                    connection.queued = true;
                    self.ready.push_back(slot);
                }
            }
        }
    }
}
