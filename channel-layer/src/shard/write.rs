//! One vectored write: the rest of a frame, then the outbox, then all that is new in the connection's groups.

use std::io::{ErrorKind, IoSlice};

use super::group::CursorState;
use super::{Shard, Signal, Slot};

/// Slices of one write. More gain nothing: a log is one slice for each 64 KiB.
const SLICES_MAX: usize = 64;

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
        let slot = self.ready.pop_front();
        if slot.is_none() {
            self.appended = 0;
            self.sweep += 1;
        }
        let slot = slot?;
        self.connections[slot].queued = false;
        Some(Slot(slot))
    }

    /// Whether a connection has something to write.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Writes once to a connection's socket.
    pub fn write(&mut self, slot: Slot) -> Wrote {
        let slot = slot.0;
        if self.connections[slot].blocked {
            return Wrote::Blocked;
        }
        if !self.connections[slot].held {
            self.tell_gaps(slot);
            let expiry = self.registry.config.expiry;
            self.connections[slot].take_mail(expiry);
        }
        let mut slices = Vec::with_capacity(8);
        let wanted = self.gather(slot, &mut slices);
        if wanted == 0 {
            return Wrote::All;
        }
        let result = self.connections[slot].sink.try_write(&slices);
        drop(slices);
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

    fn gather<'a>(&'a self, slot: usize, slices: &mut Vec<IoSlice<'a>>) -> usize {
        let connection = &self.connections[slot];
        let mut bytes = 0;
        for frame in connection.partial.iter().chain(&connection.outbox).take(SLICES_MAX) {
            slices.push(IoSlice::new(frame));
            bytes += frame.len();
        }
        if connection.held {
            return bytes;
        }
        for cursor in &connection.dirty {
            if slices.len() >= SLICES_MAX {
                break;
            }
            let cursor = &self.cursors[*cursor];
            bytes += self.groups[cursor.group].log.slices(cursor.position, slices, SLICES_MAX);
        }
        bytes
    }

    /// Moves everything on by what the socket took, in the order of [`Shard::gather`].
    fn advance(&mut self, slot: usize, written: usize) -> Wrote {
        let stats = &self.registry.stats;
        stats.writes.add(1);
        stats.bytes_written.add(written as u64);
        let left = self.advance_outbox(slot, written);
        self.advance_cursors(slot, left);
        let connection = &self.connections[slot];
        let rest = connection.partial.is_some()
            || !connection.outbox.is_empty()
            || (!connection.held && (connection.mail || !connection.dirty.is_empty()));
        if rest {
            self.make_ready(slot);
            Wrote::Part
        } else {
            Wrote::All
        }
    }

    fn advance_outbox(&mut self, slot: usize, mut written: usize) -> usize {
        let connection = &mut self.connections[slot];
        if let Some(partial) = connection.partial.take() {
            if written < partial.len() {
                connection.partial = Some(partial.slice(written..));
                return 0;
            }
            written -= partial.len();
        }
        while written > 0
            && let Some(frame) = connection.outbox.pop_front()
        {
            connection.outbox_bytes -= frame.len();
            if written < frame.len() {
                connection.partial = Some(frame.slice(written..));
                return 0;
            }
            written -= frame.len();
        }
        written
    }

    fn advance_cursors(&mut self, slot: usize, mut written: usize) {
        while written > 0 {
            let key = self.connections[slot].dirty[0];
            let group = self.cursors[key].group;
            let log = &mut self.groups[group].log;
            let cursor = &mut self.cursors[key];
            let taken = (written as u64).min(log.end() - cursor.position);
            written -= taken as usize;
            let reached = cursor.position + taken;
            let border = log.border_at_or_after(reached);
            if reached < border {
                self.connections[slot].partial = Some(log.share(reached..border));
            }
            cursor.position = border;
            if border == log.end() {
                cursor.state = CursorState::AtEnd;
                self.connections[slot].dirty.remove(0);
                self.caught_up(group);
            }
        }
    }
}
