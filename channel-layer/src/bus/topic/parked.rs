//! Messages that are not the next ones of their groups, until the broker has said what it knows of them.

use std::collections::VecDeque;
use std::sync::Arc;

use groupcast_protocol::{Envelope, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::dropped::{Dropped, Reason};

/// Bytes of messages that wait, of all groups together.
const BYTES_MAX: usize = 16 << 20;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 256;
/// Messages of one group that wait.
const MESSAGES_MAX: usize = 4096;

/// The room for all groups of a node. Where there is none, the newest are dropped: if they are the broker's, members are told
/// that they are missing.
#[derive(Debug)]
pub(in crate::bus) struct Parking<'a> {
    room: Arc<Semaphore>,
    dropped: &'a Dropped,
}

/// Messages of one group, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Parked {
    waiting: VecDeque<Waiting>,
    /// How many of them came before the broker was last asked.
    asked: usize,
}

#[derive(Debug)]
struct Waiting {
    envelope: Envelope,
    _room: OwnedSemaphorePermit,
}

impl<'a> Parking<'a> {
    pub(in crate::bus) fn new(dropped: &'a Dropped) -> Self {
        Self { room: Arc::new(Semaphore::new(BYTES_MAX)), dropped }
    }

    /// Counts messages at places that the broker does not know, or that nobody can have asked it about.
    pub(super) fn note_misplaced(&self, messages: u64) {
        self.dropped.note_many(Reason::Misplaced, messages);
    }
}

impl Parked {
    pub(super) fn push(&mut self, envelope: Envelope, parking: &Parking<'_>) {
        let bytes = u32::try_from(envelope.message.raw().len() + OVERHEAD).unwrap_or(u32::MAX);
        match parking.room.clone().try_acquire_many_owned(bytes) {
            Ok(room) if self.waiting.len() < MESSAGES_MAX => self.waiting.push_back(Waiting { envelope, _room: room }),
            _ => parking.note_misplaced(1),
        }
    }

    pub(super) fn asking(&mut self) {
        self.asked = self.waiting.len();
    }

    /// Whether there are any that the broker was not asked about.
    pub(super) fn has_news(&self) -> bool {
        self.asked < self.waiting.len()
    }

    /// Forgets those that the broker must have known when it was asked, and did not.
    pub(super) fn deny(&mut self, head: &Position, parking: &Parking<'_>) {
        let is_known = |at: &Position| at.epoch == head.epoch && at.offset <= head.offset;
        let (before, mut number) = (self.waiting.len(), 0);
        self.waiting.retain(|Waiting { envelope, .. }| {
            number += 1;
            number > self.asked || is_known(&envelope.position)
        });
        let denied = before - self.waiting.len();
        self.asked -= denied;
        parking.note_misplaced(denied as u64);
    }

    /// Something of an epoch has come that stands before these. A broker keeps the order, so they are not its own.
    pub(super) fn contradict(&mut self, epoch: &str, parking: &Parking<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let before = self.waiting.len();
        self.waiting.retain(|Waiting { envelope, .. }| *envelope.position.epoch != *epoch);
        self.asked = self.asked.min(self.waiting.len());
        parking.note_misplaced((before - self.waiting.len()) as u64);
    }

    /// Hands out all, in order; what is given back goes on waiting.
    pub(super) fn sift(&mut self, mut take: impl FnMut(Envelope) -> Option<Envelope>) {
        let (mut rest, mut asked) = (VecDeque::new(), 0);
        for (n, Waiting { envelope, _room }) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            if let Some(envelope) = take(envelope) {
                asked += usize::from(n < self.asked);
                rest.push_back(Waiting { envelope, _room });
            }
        }
        (self.waiting, self.asked) = (rest, asked);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::tests::{envelope, misplaced};
    use super::*;

    #[test]
    fn there_is_a_bound_for_a_group_and_one_for_all() {
        let dropped = Dropped::default();
        let parking = Parking::new(&dropped);
        let mut one = Parked::default();
        for n in 0..MESSAGES_MAX + 3 {
            one.push(envelope(&format!("a:{}", n + 7), n), &parking);
        }
        assert_eq!((one.waiting.len(), misplaced(&dropped)), (MESSAGES_MAX, 3));
        let mut others: Vec<Parked> = (0..20).map(|_| Parked::default()).collect();
        others.iter_mut().for_each(|other| (0..MESSAGES_MAX).for_each(|n| other.push(envelope("a:7", n), &parking)));
        let all: usize = others.iter().map(|other| other.waiting.len()).sum();
        assert!((1..BYTES_MAX / OVERHEAD).contains(&all), "{all}");
        drop((one, others));
        assert_eq!(parking.room.available_permits(), BYTES_MAX, "what is gone takes no room");
    }
}
