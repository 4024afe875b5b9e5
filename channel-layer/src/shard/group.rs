//! A group on one shard: its log, and a cursor for each connection that is in it.

use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use crate::log::FrameLog;
use crate::registry::Group;

/// A group as one shard knows it. It exists while it has cursors.
#[derive(Debug)]
pub(super) struct LocalGroup {
    pub(super) group: Arc<Group>,
    pub(super) log: FrameLog,
    /// The number of the next message. A smaller one is from before the group existed here.
    next_seq: u64,
    pub(super) cursors: Vec<usize>,
    /// Cursors whose first message has not come by yet.
    waiting: Vec<usize>,
    /// In which sweep something was last added, and where the log ended before that.
    fresh: (u64, u64),
    /// How many cursors are not at the end of the log. At 0 the log is forgotten.
    pub(super) behind: usize,
}

/// A connection's position in a group's log.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) connection: usize,
    pub(super) group: usize,
    /// The number of its membership.
    pub(super) number: u64,
    /// The number of the first message that is for it.
    from_seq: u64,
    /// Where it is in the log; always on a frame's border.
    pub(super) position: u64,
    /// Messages that were cut off before it, and that it has not been told of.
    pub(super) missed: u64,
    /// Its place in the group's list.
    index: usize,
    pub(super) state: CursorState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorState {
    /// Its first message has not come by.
    Waiting,
    /// Everything is written.
    AtEnd,
    /// There is something to write, and it is on its connection's list.
    Behind,
}

impl Shard {
    pub(super) fn add_cursor(&mut self, connection: usize, group: Arc<Group>, from_seq: u64, number: u64) {
        let key = match self.group_keys.get(&group.id) {
            Some(key) => *key,
            None => self.add_group(group, from_seq),
        };
        let local = &mut self.groups[key];
        let ready = from_seq <= local.next_seq;
        let state = if ready { CursorState::AtEnd } else { CursorState::Waiting };
        let position = local.log.end();
        let cursor = Cursor { connection, group: key, number, from_seq, position, missed: 0, index: 0, state };
        let cursor = self.cursors.insert(cursor);
        self.connections[connection].cursors.push(cursor);
        let list = if ready { &mut local.cursors } else { &mut local.waiting };
        self.cursors[cursor].index = list.len();
        list.push(cursor);
    }

    /// Expects messages from `from_seq` on. An addition from outside is older than the group here if somebody
    /// subscribed while it was on its way; who subscribed later goes back to waiting for his first message.
    pub(super) fn rewind(&mut self, group: &Group, from_seq: u64) {
        let Some(key) = self.group_keys.get(&group.id).copied() else { return };
        let local = &mut self.groups[key];
        if from_seq >= local.next_seq {
            return;
        }
        local.next_seq = from_seq;
        for cursor in std::mem::take(&mut local.cursors) {
            let state = &mut self.cursors[cursor];
            let ready = state.from_seq <= from_seq;
            let list = if ready { &mut local.cursors } else { &mut local.waiting };
            if !ready {
                state.state = CursorState::Waiting;
            }
            state.index = list.len();
            list.push(cursor);
        }
    }

    /// The membership is older than the cursor: messages from `from_seq` on are for it.
    pub(super) fn reach_back(&mut self, cursor: usize, from_seq: u64) {
        let first = &mut self.cursors[cursor].from_seq;
        *first = from_seq.min(*first);
        let key = self.cursors[cursor].group;
        self.admit_waiting(key);
    }

    pub(super) fn drop_cursor(&mut self, cursor: usize) {
        let Cursor { connection, group, index, state, .. } = self.cursors.remove(cursor);
        let local = &mut self.groups[group];
        let list = if state == CursorState::Waiting { &mut local.waiting } else { &mut local.cursors };
        list.swap_remove(index);
        if let Some(moved) = list.get(index) {
            self.cursors[*moved].index = index;
        }
        let connection = &mut self.connections[connection];
        connection.cursors.retain(|c| *c != cursor);
        connection.dirty.retain(|c| *c != cursor);
        if state == CursorState::Behind {
            self.caught_up(group);
        }
        let local = &self.groups[group];
        if local.cursors.is_empty() && local.waiting.is_empty() {
            let bytes = local.log.bytes();
            let local = self.groups.remove(group);
            self.group_keys.remove(&local.group.id);
            self.forgot(bytes);
        }
    }

    /// One cursor less is behind; when none is, the log is forgotten.
    pub(super) fn caught_up(&mut self, group: usize) {
        let local = &mut self.groups[group];
        local.behind -= 1;
        if local.behind == 0 {
            let bytes = local.log.bytes();
            local.log.clear();
            self.forgot(bytes);
        }
    }

    pub(super) fn deliver(&mut self, group: &Group, seq: u64, frame: &Bytes) {
        let Some(key) = self.group_keys.get(&group.id).copied() else { return };
        let local = &mut self.groups[key];
        if seq < local.next_seq {
            return;
        }
        local.next_seq = seq;
        self.admit_waiting(key);
        let local = &mut self.groups[key];
        local.next_seq = seq + 1;
        if !local.cursors.is_empty() {
            if local.fresh.0 != self.sweep {
                local.fresh = (self.sweep, local.log.end());
            }
            local.log.append(frame);
            self.log_bytes += frame.len();
            self.registry.stats.log_bytes.add(frame.len() as u64);
            self.appended += frame.len();
            self.mark_behind(key);
            self.keep_bounds(key);
        }
        self.admit_waiting(key);
    }

    fn forgot(&mut self, bytes: usize) {
        self.log_bytes -= bytes;
        self.registry.stats.log_bytes.sub(bytes as u64);
    }

    fn add_group(&mut self, group: Arc<Group>, next_seq: u64) -> usize {
        let id = group.id;
        let log = FrameLog::default();
        let key = self.groups.insert(LocalGroup {
            group,
            log,
            next_seq,
            cursors: vec![],
            waiting: vec![],
            fresh: (0, 0),
            behind: 0,
        });
        self.group_keys.insert(id, key);
        key
    }

    /// Starts the cursors whose first message is the next one.
    fn admit_waiting(&mut self, key: usize) {
        let local = &mut self.groups[key];
        if local.waiting.is_empty() {
            return;
        }
        for cursor in std::mem::take(&mut local.waiting) {
            let state = &mut self.cursors[cursor];
            let ready = state.from_seq <= local.next_seq;
            let list = if ready { &mut local.cursors } else { &mut local.waiting };
            if ready {
                state.state = CursorState::AtEnd;
                state.position = local.log.end();
            }
            state.index = list.len();
            list.push(cursor);
        }
    }

    fn mark_behind(&mut self, key: usize) {
        let local = &mut self.groups[key];
        // All are on their connections' lists already: nothing to do for a message that joins a backlog.
        if local.behind == local.cursors.len() {
            return;
        }
        local.behind = local.cursors.len();
        for cursor in &local.cursors {
            let state = &mut self.cursors[*cursor];
            if state.state != CursorState::Behind {
                state.state = CursorState::Behind;
                let connection = &mut self.connections[state.connection];
                connection.dirty.push(*cursor);
                if connection.may_write() {
                    connection.queued = true;
                    self.ready.push_back(state.connection);
                }
            }
        }
    }

    fn keep_bounds(&mut self, key: usize) {
        let log_bytes = self.registry.config.log_bytes;
        if self.groups[key].log.bytes() > log_bytes {
            self.cut(key, log_bytes / 2);
        }
        let shard_bytes = self.registry.config.shard_log_bytes;
        if self.log_bytes > shard_bytes {
            self.cut_longest(shard_bytes / 4 * 3);
        }
    }

    /// Cuts the longest logs, which have the readers that are farthest behind, until all are within `bytes`: so far
    /// below the budget that this stays rare.
    fn cut_longest(&mut self, bytes: usize) {
        let mut logs: Vec<_> = self.groups.iter().map(|(key, local)| (local.log.bytes(), key)).collect();
        logs.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (length, key) in logs {
            if self.log_bytes <= bytes {
                return;
            }
            self.cut(key, length / 4);
        }
    }

    /// Cuts a log to about `keep` bytes, and notes what the cursors before the cut have missed. What came in the present
    /// sweep is kept, however large: nobody has had the time to read it. ([`Shard::may_apply`] bounds how much that is.)
    fn cut(&mut self, key: usize, keep: usize) {
        let sweep = self.sweep;
        let local = &mut self.groups[key];
        // Never the newest frame: a cursor that is behind has something to read.
        let fresh = if local.fresh.0 == sweep { local.fresh.1.max(local.log.start()) } else { local.log.newest() };
        let before = local.log.bytes();
        let wanted = local.log.end().saturating_sub(keep as u64).max(local.log.start());
        let to = local.log.border_at_or_after(wanted).min(fresh);
        for cursor in &local.cursors {
            let cursor = &mut self.cursors[*cursor];
            if cursor.position < to {
                cursor.missed += local.log.frames_between(cursor.position, to);
                cursor.position = to;
            }
        }
        local.log.cut(to);
        let cut = before - local.log.bytes();
        self.forgot(cut);
    }
}
