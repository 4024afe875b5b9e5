//! Reading a group's history at the pace of one socket, until the log has what comes next.
//!
//! Those who come back begin here, and those who fall off the log go on here. The history is read in batches; numbers
//! have no holes, and a cursor leaves the history for the log exactly at the number it would read next: so nothing is
//! missing and nothing comes twice, whatever is published, cut or trimmed meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;
use groupcast_protocol::frame::GapReason;

use super::Shard;
use super::cursor::CursorState;
use crate::log::{SLICES_MAX, Slices};

/// What one batch may take: most of what one write takes, but not all, so that the connection's other groups go on; and
/// little enough that a socket that stalls costs little.
const BATCH_FRAMES: usize = SLICES_MAX / 4 * 3;
const BATCH_BYTES: usize = 32 << 10;

/// A cursor's place in its group's history.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The number of the message to read next.
    pub(super) next: u64,
    /// The newest message that is written or has begun to be, or is told to be lost.
    pub(super) written: u64,
    /// Why it may find that the history does not reach back to `next`.
    pub(super) reason: GapReason,
    /// What has been read and is not written. A frame without a number has that of the one before it.
    pub(super) queue: VecDeque<(u64, Bytes)>,
    /// Where the log goes on behind the last frame without a number that it was given: before it, the log has that one,
    /// too.
    log_from: u64,
}

impl CatchUp {
    pub(super) fn new(next: u64, reason: GapReason) -> Self {
        Self { next, written: next - 1, reason, queue: VecDeque::new(), log_from: 0 }
    }

    /// Adds what is in the queue to a vectored write, as far as there is room.
    pub(super) fn slices<'a>(&'a self, out: &mut Slices<'a>) {
        for (_, frame) in &self.queue {
            if out.is_full() {
                return;
            }
            out.push(frame);
        }
    }
}

impl Shard {
    /// Reads the next batch for a connection: for the first of its cursors that catches up, so that one connection
    /// holds one batch. Cursors for which the log has what comes next go on there.
    pub(super) fn refill(&mut self, slot: usize) {
        let mut at = 0;
        while let Some(key) = self.connections[slot].dirty().get(at).copied() {
            if self.cursors[key].state == CursorState::CatchingUp {
                if !self.is_drained(key) || self.read_history(key) {
                    break;
                }
                self.leave_history(key);
            }
            at += 1;
        }
        self.forget_clean(slot);
    }

    /// A presence frame for those who catch up: it waits behind what they have read, or is told to be lost. In the log, what
    /// is behind it begins at `log_from`.
    pub(super) fn queue_presence(&mut self, key: usize, frame: Bytes, log_from: u64) {
        let Some(catch_up) = &mut self.cursors[key].catch_up else { return };
        if catch_up.queue.len() < BATCH_FRAMES {
            catch_up.queue.push_back((catch_up.next - 1, frame));
            catch_up.log_from = log_from;
        } else {
            self.lose(key, 0, GapReason::SlowConsumer);
        }
    }

    /// Moves on by what the socket took of the batch; says how much is left of that.
    pub(super) fn advance_catch_up(&mut self, slot: usize, key: usize, mut written: usize) -> usize {
        let Some(catch_up) = &mut self.cursors[key].catch_up else { return written };
        while written > 0
            && let Some((seq, frame)) = catch_up.queue.pop_front()
        {
            catch_up.written = seq;
            if written < frame.len() {
                self.connections[slot].queue_rest(frame.slice(written..));
                return 0;
            }
            written -= frame.len();
        }
        written
    }

    fn is_drained(&self, key: usize) -> bool {
        self.cursors[key].catch_up.as_ref().is_none_or(|catch_up| catch_up.queue.is_empty())
    }

    /// Reads a batch, unless the cursor can go on elsewhere.
    fn read_history(&mut self, key: usize) -> bool {
        let cursor = &mut self.cursors[key];
        let lane = &self.lanes[cursor.lane];
        let Some(catch_up) = &mut cursor.catch_up else { return false };
        // The lane alone does not tell what comes live: while the shard had no members left but those whose removal it has
        // not heard of, it was passed over.
        let comes_live = catch_up.next >= lane.next_seq.max(cursor.from_seq);
        let border = lane.log.border_before(catch_up.next);
        if comes_live || border.is_some_and(|border| border >= catch_up.log_from) {
            return false;
        }
        let mut state = lane.group.lock();
        let Some(history) = &mut state.history else { return false };
        history.expire();
        if border.is_some() && history.first() > catch_up.next {
            // Better told twice who came than not to have a message that is still here.
            return false;
        }
        let missed = history.first().saturating_sub(catch_up.next);
        catch_up.next += missed;
        let mut bytes = 0;
        for (seq, frame) in history.frames(catch_up.next).take(BATCH_FRAMES) {
            bytes += frame.len();
            if bytes > BATCH_BYTES && !catch_up.queue.is_empty() {
                break;
            }
            catch_up.queue.push_back((seq, frame.clone()));
            catch_up.next = seq + 1;
        }
        drop(state);
        for (seq, frame) in &mut catch_up.queue {
            *frame = lane.format.of_websocket(frame, lane.group.at(*seq));
        }
        self.registry.stats.replayed.add(catch_up.queue.len() as u64);
        let reason = std::mem::replace(&mut catch_up.reason, GapReason::HistoryExpired);
        if missed > 0 {
            catch_up.written += missed;
            self.lose(key, missed, reason);
        }
        // What is left of a history may be nothing; then the next message is the one that comes next.
        !self.is_drained(key)
    }

    /// Goes on in the log, or waits for the shard to see what the history had already.
    fn leave_history(&mut self, key: usize) {
        let cursor = &mut self.cursors[key];
        let lane = &self.lanes[cursor.lane];
        let Some(catch_up) = cursor.catch_up.take() else { return };
        let next = catch_up.next;
        let log_end = lane.log.end();
        let border = lane.log.border_before(next);
        (cursor.from_seq, cursor.position) = (next, border.unwrap_or(log_end));
        let state = match border {
            Some(_) => CursorState::Behind,
            None if next > lane.next_seq => CursorState::Waiting,
            None => CursorState::AtEnd,
        };
        self.set_state(key, state);
    }
}
