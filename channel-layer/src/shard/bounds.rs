//! The bounds of logs: at them, the readers that are farthest behind fall off.

use groupcast_protocol::frame::GapReason;

use super::Shard;
use super::catch_up::CatchUp;
use super::cursor::CursorState;

impl Shard {
    pub(super) fn keep_bounds(&mut self, key: usize) {
        let log_bytes = self.registry.config.log_bytes;
        if self.lanes[key].log.bytes() > log_bytes {
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
        let mut logs: Vec<_> = self.lanes.iter().map(|(key, lane)| (lane.log.bytes(), key)).collect();
        logs.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (length, key) in logs {
            if self.log_bytes <= bytes {
                return;
            }
            self.cut(key, length / 4);
        }
    }

    /// Cuts a log to about `keep` bytes. Cursors before the cut go on from the history, or have missed what was cut. What
    /// came in the present sweep is kept, however large, while anybody waits for a turn: nobody has had the time to read
    /// it. ([`Shard::may_apply`] bounds how much that is.)
    fn cut(&mut self, key: usize, keep: usize) {
        let sweep = self.has_ready().then_some(self.sweep);
        let lane = &self.lanes[key];
        // Never the newest frame: a cursor that is behind has something to read.
        let fresh = if Some(lane.fresh.0) == sweep { lane.fresh.1.max(lane.log.start()) } else { lane.log.newest() };
        let before = lane.log.bytes();
        let wanted = lane.log.end().saturating_sub(keep as u64).max(lane.log.start());
        let to = lane.log.border_at_or_after(wanted).min(fresh);
        let off = |cursor: &usize| self.cursors[*cursor].position < to;
        let fallen: Vec<usize> = lane.reading.iter().copied().filter(off).collect();
        for cursor in fallen {
            self.fall_off(cursor, to);
        }
        let lane = &mut self.lanes[key];
        lane.log.cut(to);
        let cut = before - lane.log.bytes();
        self.forgot(cut);
        self.forget_read(key);
    }

    /// Takes a cursor to the history, or past what is about to be cut.
    fn fall_off(&mut self, key: usize, to: u64) {
        let cursor = &self.cursors[key];
        let lane = &self.lanes[cursor.lane];
        let next = lane.log.seq_at(cursor.position) + 1;
        if lane.group.epoch.is_some() {
            // The history has no presence, so what the log has of it is lost to who leaves the log.
            let numbered = lane.next_seq - next;
            let untold = lane.log.frames_between(cursor.position, lane.log.end()) - numbered;
            self.cursors[key].catch_up = Some(Box::new(CatchUp::new(next, GapReason::SlowConsumer)));
            self.set_state(key, CursorState::CatchingUp);
            self.registry.stats.catch_ups.add(1);
            if untold > 0 {
                self.lose(key, 0, GapReason::SlowConsumer);
            }
        } else {
            let missed = lane.log.seq_at(to) + 1 - next;
            self.lose(key, missed, GapReason::SlowConsumer);
            self.cursors[key].position = to;
        }
    }
}
