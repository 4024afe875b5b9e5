//! What a server has pushed and the layer has no room for yet, in order, bounded by its size.
//!
//! The client library hands pushes over without waiting, and a burst that lay in the socket comes at once: thousands of
//! messages before anybody else has had a turn. They wait here.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::broker::BrokerEvent;

/// As much as Redis itself keeps for a client that does not read (`client-output-buffer-limit pubsub 32mb`). Beyond it the
/// connection is given up, as Redis gives up such a client.
const BYTES_MAX: usize = 32 << 20;
/// What an event costs beside its payload.
const OVERHEAD: usize = 128;

/// Events on their way to the layer.
pub(super) struct Backlog {
    events: mpsc::Sender<BrokerEvent>,
    waiting: Mutex<Waiting>,
    grown: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(usize, BrokerEvent)>,
    bytes: usize,
}

/// There is more than may wait.
pub(super) struct Overflow;

impl Backlog {
    pub(super) fn new(events: mpsc::Sender<BrokerEvent>) -> Self {
        Self { events, waiting: Mutex::default(), grown: Notify::new() }
    }

    /// Hands an event to the layer, or keeps it behind those that wait.
    pub(super) fn take(&self, event: BrokerEvent, payload: usize) -> Result<(), Overflow> {
        let mut waiting = self.waiting.lock();
        let event = match waiting.events.is_empty() {
            true => match self.events.try_send(event) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(event) | TrySendError::Closed(event)) => event,
            },
            false => event,
        };
        let bytes = payload + OVERHEAD;
        if waiting.bytes + bytes > BYTES_MAX {
            return Err(Overflow);
        }
        waiting.bytes += bytes;
        waiting.events.push_back((bytes, event));
        self.grown.notify_one();
        Ok(())
    }

    /// Moves what waits on, for ever, or until nobody takes events any more. Cancel safe.
    pub(super) async fn run(&self) {
        loop {
            self.grown.notified().await;
            while !self.waiting.lock().events.is_empty() {
                let Ok(room) = self.events.reserve().await else { return };
                let mut waiting = self.waiting.lock();
                if let Some((bytes, event)) = waiting.events.pop_front() {
                    waiting.bytes -= bytes;
                    room.send(event);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn what_waits_keeps_its_order_and_has_a_bound() {
        let (events, mut inbox) = mpsc::channel(2);
        let backlog = Backlog::new(events);
        let note = |n: u8| BrokerEvent::Note(Bytes::from(vec![n]));
        for n in 0..100 {
            assert!(backlog.take(note(n), 1).is_ok());
        }
        let read = async {
            for n in 0..100 {
                assert_eq!(inbox.recv().await, Some(note(n)));
            }
        };
        tokio::select! {
            () = read => {}
            () = backlog.run() => panic!("the inbox is open"),
        }
        let half = BYTES_MAX / 2;
        let taken = (0..9).map(|n| backlog.take(note(n), half).is_ok());
        assert_eq!(
            taken.filter(|taken| *taken).count(),
            3,
            "two in the inbox, and one in the backlog: two would be too many"
        );
    }
}
