//! What a group keeps for those who come back: its newest messages, each under its offset.
//!
//! One for each group of this node, shared by all its readers, and there as long as it keeps anything, members or not.
//! Entries are the ready frames that the logs have, so bytes are kept once. Who reads it when is the shard's; the bound
//! over all groups is in `history/bound.rs`.

mod bound;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::Position;
use groupcast_protocol::frame::{Recovery, Unrecovered};
use tokio::time::Instant;

use crate::config::HistoryRule;
use crate::stats::HistoryUse;

pub(crate) use bound::Bound;

/// What an entry takes beside its frame: its place in a list that grows by doubling, and the frame's counter.
const ENTRY_BYTES: usize = 192;
/// What a group without members counts for: names, maps, counters. So a bound in bytes bounds their number.
const IDLE_BYTES: usize = 1024;

/// The newest messages of one group, without holes.
#[derive(Debug)]
pub(crate) struct History {
    rule: HistoryRule,
    /// The offset of the oldest entry; that of the next message when there is none.
    first: u64,
    entries: VecDeque<Entry>,
    /// What the entries count for.
    bytes: usize,
    /// Whether the group has no members, and so counts by itself.
    idle: bool,
    /// When a message was last taken, or the group lost its last member.
    used: Instant,
    total: Arc<HistoryUse>,
}

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    /// Bytes of the message, which ends one byte before the frame does.
    message_bytes: usize,
    at: Instant,
}

impl History {
    pub(crate) fn new(rule: HistoryRule, total: Arc<HistoryUse>) -> Self {
        let mut history =
            Self { rule, first: 1, entries: VecDeque::new(), bytes: 0, idle: false, used: Instant::now(), total };
        history.set_idle(true);
        history
    }

    /// Keeps the message with the next offset, in the frame that it goes to subscribers in.
    pub(crate) fn push(&mut self, frame: Bytes, message_bytes: usize) {
        let at = Instant::now();
        self.used = at;
        let bytes = frame.len() + ENTRY_BYTES;
        self.bytes += bytes;
        self.total.bytes.add(bytes as u64);
        self.total.messages.add(1);
        self.entries.push_back(Entry { frame, message_bytes, at });
        while self.entries.len() > self.rule.messages {
            self.drop_oldest();
        }
        self.expire_at(at);
    }

    /// Forgets all messages; the next one has this offset.
    pub(crate) fn restart(&mut self, first: u64) {
        self.trim(0);
        self.first = first;
    }

    /// Drops what is older than it may be.
    pub(crate) fn expire(&mut self) {
        if !self.entries.is_empty() {
            self.expire_at(Instant::now());
        }
    }

    /// Drops the oldest entries until the rest counts for at most `bytes`.
    pub(crate) fn trim(&mut self, bytes: usize) {
        while self.bytes > bytes {
            self.drop_oldest();
        }
    }

    /// What the entries count for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the oldest message that is kept; that of the next one when there is none.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The offset of the newest message.
    pub(crate) fn head(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Whether everything behind `after` is still here.
    pub(crate) fn recovery(&self, epoch: &str, after: &Position) -> Recovery {
        let unrecovered = match after {
            Position { epoch: of, .. } if **of != *epoch => Unrecovered::EpochChanged,
            Position { offset, .. } if *offset > self.head() => Unrecovered::Ahead,
            Position { offset, .. } if offset + 1 < self.first => Unrecovered::Trimmed,
            Position { .. } => return Recovery::Recovered,
        };
        Recovery::Unrecovered(unrecovered)
    }

    /// The frames from an offset on that is kept.
    pub(crate) fn frames(&self, from: u64) -> impl Iterator<Item = (u64, &Bytes)> {
        self.range(from).map(|(offset, entry)| (offset, &entry.frame))
    }

    /// The texts of the messages from an offset on, or from the oldest that is kept.
    pub(crate) fn messages(&self, from: u64) -> impl Iterator<Item = (u64, Bytes)> {
        self.range(from.max(self.first)).map(|(offset, entry)| {
            let end = entry.frame.len() - 1;
            (offset, entry.frame.slice(end - entry.message_bytes..end))
        })
    }

    /// Tells whether the group has members.
    pub(crate) fn set_idle(&mut self, idle: bool) {
        if self.idle == idle {
            return;
        }
        self.idle = idle;
        self.used = Instant::now();
        if idle {
            self.total.bytes.add(IDLE_BYTES as u64);
        } else {
            self.total.bytes.sub(IDLE_BYTES as u64);
        }
    }

    /// Whether the group has had no members and no messages for so long that its position may be forgotten, too.
    pub(crate) fn is_over(&self) -> bool {
        self.idle && self.entries.is_empty() && self.unused_for() >= self.rule.age.saturating_mul(2)
    }

    fn expire_at(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| now.duration_since(entry.at) >= self.rule.age) {
            self.drop_oldest();
        }
    }

    fn unused_for(&self) -> Duration {
        self.used.elapsed()
    }

    fn range(&self, from: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let skip = usize::try_from(from - self.first).map_or(self.entries.len(), |skip| skip.min(self.entries.len()));
        // This way round, so that nothing is counted behind the last entry.
        self.entries.range(skip..).zip(from..).map(|(entry, offset)| (offset, entry))
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            let bytes = entry.frame.len() + ENTRY_BYTES;
            self.first += 1;
            self.bytes -= bytes;
            self.total.bytes.sub(bytes as u64);
            self.total.messages.sub(1);
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.trim(0);
        self.set_idle(false);
    }
}
