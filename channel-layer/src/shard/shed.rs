//! Who goes when memory is short.

use std::cmp::Reverse;

use super::connection::Connection;
use super::cursor::CursorState;
use super::{Shard, Signal};

/// Who has less waiting stays: little is won by his going.
const WAITING_MIN: usize = 16 << 10;

impl Shard {
    /// Signals [`Signal::Shed`] to connections whose sockets take nothing, those with most waiting first, until what waits for
    /// them is as much as `bytes`. Says how many they are.
    pub fn shed(&self, bytes: u64) -> usize {
        let stuck = self.connections.iter().map(|(_, connection)| connection).filter(|c| c.blocked && !c.ended);
        let mut waiting: Vec<(usize, &Connection)> = stuck.map(|c| (self.waiting(c), c)).collect();
        waiting.retain(|(bytes, _)| *bytes >= WAITING_MIN);
        waiting.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut left = bytes;
        let mut shed = 0;
        for (bytes, connection) in waiting {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(bytes as u64);
            connection.sink.signal(Signal::Shed);
            shed += 1;
        }
        shed
    }

    /// Bytes that are kept for a connection, alone or with others.
    fn waiting(&self, connection: &Connection) -> usize {
        let behind = connection.dirty().iter().map(|key| {
            let cursor = &self.cursors[*key];
            match cursor.state {
                CursorState::Behind => self.lanes[cursor.lane].log.end().saturating_sub(cursor.position) as usize,
                // What it reads is in a history, and stays there without it.
                CursorState::Waiting | CursorState::AtEnd | CursorState::CatchingUp => 0,
            }
        });
        connection.outbox_bytes + behind.sum::<usize>()
    }
}
