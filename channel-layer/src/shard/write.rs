//! One vectored write: the outbox (first the rest of a frame), then all that is new in the connection's groups.

use std::io::ErrorKind;

use groupcast_protocol::Format;

use super::cursor::CursorState;
use super::{Shard, Signal, Slot};
use crate::log::Slices;

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Everything there was.
    All,
    /// A part; the connection is ready again.
    Part,
    /// The socket takes no more at the moment, or is broken. The driver has been told.
    Blocked,
}

impl Shard {
    /// The next connection that has something to write.
    pub fn next_ready(&mut self) -> Option<Slot> {
        loop {
            let slot = match self.ready.pop_front() {
                Some(slot) => slot,
                None => self.next_sweep()?,
            };
            // It may have gone, and another one may have come to its place: that one has nothing against a turn.
            if let Some(connection) = self.connections.get_mut(slot) {
                connection.queued = false;
                return Some(Slot(slot));
            }
        }
    }

    /// Everybody has had a turn: those who go on with a history have another one.
    fn next_sweep(&mut self) -> Option<usize> {
        self.appended = 0;
        self.sweep += 1;
        std::mem::swap(&mut self.ready, &mut self.again);
        self.ready.pop_front()
    }

    /// Whether a connection has something to write.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.again.is_empty()
    }

    /// Writes once to a connection's socket.
    pub fn write(&mut self, slot: Slot) -> Wrote {
        let slot = slot.0;
        if self.connections[slot].blocked {
            return Wrote::Blocked;
        }
        if !self.connections[slot].held {
            self.prepare(slot);
        }
        let mut slices = Slices::new();
        self.gather(slot, &mut slices);
        if slices.bytes() == 0 {
            return Wrote::All;
        }
        let result = self.connections[slot].sink.try_write(slices.as_slice());
        match result {
            Ok(0) => {
                self.fail(slot, ErrorKind::WriteZero.into());
                Wrote::Blocked
            }
            Ok(written) => self.advance(slot, written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.connections[slot].blocked = true;
                self.connections[slot].sink.signal(Signal::Blocked);
                Wrote::Blocked
            }
            Err(error) => {
                self.fail(slot, error);
                Wrote::Blocked
            }
        }
    }

    /// Queues what has to come before the logs go on.
    fn prepare(&mut self, slot: usize) {
        if self.connections[slot].catching_up > 0 {
            self.refill(slot);
        }
        if self.connections[slot].lost {
            self.tell_gaps(slot);
        }
        if self.connections[slot].tells_positions {
            self.tell_positions(slot);
        }
        if self.connections[slot].mail {
            let expiry = self.registry.config.expiry;
            self.connections[slot].take_mail(expiry);
        }
    }

    fn gather<'a>(&'a self, slot: usize, slices: &mut Slices<'a>) {
        let connection = &self.connections[slot];
        for frame in &connection.outbox {
            if slices.is_full() {
                return;
            }
            slices.push(frame);
        }
        if connection.held {
            return;
        }
        for cursor in connection.dirty() {
            let cursor = &self.cursors[*cursor];
            match &cursor.catch_up {
                Some(catch_up) => catch_up.slices(slices),
                None => self.lanes[cursor.lane].log.slices(cursor.position, slices),
            }
            if slices.is_full() {
                return;
            }
        }
    }

    /// Moves everything on by what the socket took, in the order of [`Shard::gather`].
    fn advance(&mut self, slot: usize, written: usize) -> Wrote {
        let stats = &self.registry.stats;
        stats.writes.add(1);
        stats.bytes_written.add(written as u64);
        let left = self.connections[slot].advance_outbox(written);
        self.advance_cursors(slot, left);
        let connection = &self.connections[slot];
        let rest = !connection.outbox.is_empty()
            || (!connection.held && (connection.mail || connection.tells_positions || connection.dirty > 0));
        if rest {
            if connection.catching_up > 0 && connection.may_write() {
                self.connections[slot].queued = true;
                self.again.push_back(slot);
            } else {
                self.make_ready(slot);
            }
            Wrote::Part
        } else {
            Wrote::All
        }
    }

    fn advance_cursors(&mut self, slot: usize, mut written: usize) {
        if written == 0 {
            return;
        }
        let mut at = 0;
        while written > 0 {
            let key = self.connections[slot].dirty()[at];
            written = match self.cursors[key].state {
                CursorState::CatchingUp => self.advance_catch_up(slot, key, written),
                CursorState::Behind => self.advance_log(slot, key, written),
                // Nothing of theirs was gathered.
                CursorState::Waiting | CursorState::AtEnd => written,
            };
            at += 1;
        }
        self.forget_clean(slot);
        let connection = &mut self.connections[slot];
        connection.tells_positions = connection.format == Format::EventsOfMany;
    }

    fn advance_log(&mut self, slot: usize, key: usize, written: usize) -> usize {
        let cursor = &mut self.cursors[key];
        let lane = &mut self.lanes[cursor.lane];
        let taken = (written as u64).min(lane.log.end() - cursor.position);
        let reached = cursor.position + taken;
        let border = lane.log.border_at_or_after(reached);
        if reached < border {
            self.connections[slot].queue_rest(lane.log.share(reached..border));
        }
        cursor.position = border;
        if border == lane.log.end() {
            cursor.state = CursorState::AtEnd;
            lane.behind -= 1;
            let key = cursor.lane;
            self.forget_read(key);
        }
        written - taken as usize
    }
}
