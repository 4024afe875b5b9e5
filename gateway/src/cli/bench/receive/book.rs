//! What the connections of one thread have seen.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::super::ledger::{Entry, Ledger, Published, Tally};
use super::super::stamp::Stamp;
use super::Shared;
use crate::cli::delays::histogram;

/// Reasons that are kept word by word; the others only count.
const REASONS_MAX: usize = 5;

/// What the connections of one thread have seen.
#[derive(Debug)]
pub(in super::super) struct Book {
    shared: Arc<Shared>,
    entries: Vec<Entries>,
    /// Delays of measured messages, in nanoseconds.
    pub(in super::super) delays: Histogram<u64>,
    /// From the first packet to `subscribed`.
    pub(in super::super) connects: Histogram<u64>,
    /// Bytes that were read while it was measured.
    pub(in super::super) bytes: u64,
    pub(in super::super) misrouted: u64,
    /// Why connections failed, the first few.
    pub(in super::super) reasons: Vec<String>,
    /// Where the last stamp was found.
    hint: usize,
}

/// A connection's place in the book.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Connection(usize);

#[derive(Debug)]
struct Entries {
    group: u32,
    ledger: Ledger,
    /// Deliveries that came or were told missing.
    settled: u64,
    failed: bool,
}

impl Book {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            entries: Vec::new(),
            delays: histogram(),
            connects: histogram(),
            bytes: 0,
            misrouted: 0,
            reasons: Vec::new(),
            hint: 0,
        }
    }

    pub(super) fn not_opened(&mut self, why: String) {
        self.fail(why);
    }

    pub(super) fn opened(&mut self, group: u32, took: u64) -> Connection {
        self.connects.saturating_record(took);
        self.entries.push(Entries { group, ledger: Ledger::default(), settled: 0, failed: false });
        self.shared.window.joined(group);
        self.shared.opened.fetch_add(1, Relaxed);
        self.shared.changed.notify_one();
        Connection(self.entries.len() - 1)
    }

    pub(super) fn closed(&mut self, connection: Connection, why: String) {
        let entries = &mut self.entries[connection.0];
        entries.failed = true;
        self.shared.window.left(entries.group, entries.settled);
        self.fail(why);
    }

    fn fail(&mut self, why: String) {
        if self.reasons.len() < REASONS_MAX && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
        self.shared.failed.fetch_add(1, Relaxed);
        self.shared.changed.notify_one();
    }

    /// Begins entering what one read of a connection has brought.
    pub(super) fn turn(&mut self, connection: Connection, bytes: usize) -> Turn<'_> {
        let now = self.shared.clock.now();
        Turn { book: self, connection: connection.0, now, bytes, settled: 0, measured: 0 }
    }

    /// Closes all ledgers against what was published to each group.
    pub(in super::super) fn tally<P: Published>(&self, published: impl Fn(u32) -> P, publishers: usize) -> Tally {
        let mut tally = Tally::default();
        for Entries { group, ledger, failed, .. } in &self.entries {
            let published = published(*group);
            tally += match failed {
                false => ledger.close(&published, publishers),
                true => ledger.close_early(&published, publishers),
            };
        }
        tally
    }
}

/// What one read has brought. The clock is asked and the window told once for all of it.
pub(super) struct Turn<'a> {
    book: &'a mut Book,
    connection: usize,
    now: u64,
    bytes: usize,
    settled: u64,
    measured: u64,
}

impl Turn<'_> {
    /// Enters a text frame.
    pub(super) fn take(&mut self, text: &[u8]) {
        match Stamp::find(text, &mut self.book.hint) {
            Some(stamp) => self.message(stamp),
            None if text.starts_with(br#"{"type":"gap""#) => self.gap(text),
            // `joined`, `left`, `closing`: not ours to judge.
            None => {}
        }
    }

    fn message(&mut self, stamp: Stamp) {
        let entries = &mut self.book.entries[self.connection];
        if stamp.group != entries.group {
            self.book.misrouted += 1;
            return;
        }
        if entries.ledger.take(stamp.publisher, stamp.sequence) == Entry::Duplicate {
            return;
        }
        self.settled += 1;
        if stamp.measured {
            self.measured += 1;
            self.book.delays.saturating_record(self.now.saturating_sub(stamp.sent));
        }
    }

    fn gap(&mut self, text: &[u8]) {
        let gap = serde_json::from_slice::<Value>(text).unwrap_or_default();
        let missed = gap.get("missed").and_then(Value::as_u64);
        self.book.entries[self.connection].ledger.tell(missed);
        self.settled += missed.unwrap_or(0);
    }

    /// Lets publishers know.
    pub(super) fn end(self) {
        self.book.entries[self.connection].settled += self.settled;
        if self.measured > 0 {
            self.book.bytes += self.bytes as u64;
            self.book.shared.deliveries.fetch_add(self.measured, Relaxed);
        }
        if self.settled > 0 {
            self.book.shared.window.settle(self.settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    struct All(u64);

    impl Published for All {
        fn sent(&self, _publisher: usize) -> u64 {
            self.0
        }

        fn refused(&self, _publisher: usize, _range: Range<u64>) -> u64 {
            0
        }
    }

    fn message(group: u32, sequence: u64, measured: bool) -> Vec<u8> {
        let mut text = Vec::new();
        Stamp { publisher: 0, group, sequence, measured, sent: 0 }.write(128, &mut text);
        text
    }

    #[test]
    fn messages_gaps_and_strays_are_entered_where_they_belong() {
        let shared = Arc::new(Shared::new(2));
        let mut book = Book::new(shared.clone());
        let connection = book.opened(1, 1000);
        for _ in 0..5 {
            shared.window.begin(1);
        }
        let mut turn = book.turn(connection, 700);
        for text in [message(1, 0, false), message(1, 1, true), message(1, 1, true), message(0, 2, true)] {
            turn.take(&text);
        }
        turn.take(br#"{"type":"gap","group":"g","missed":2,"reason":"slow_consumer"}"#);
        turn.take(br#"{"type":"joined","group":"g","member":"m"}"#);
        turn.end();
        assert_eq!((shared.window.settled(), shared.deliveries.load(Relaxed)), (4, 1));
        assert_eq!((book.delays.len(), book.misrouted, book.bytes), (1, 1, 700));
        let tally = book.tally(|_| All(5), 1);
        assert_eq!((tally.lost, tally.told_missing, tally.duplicated), (1, 2, 1));

        book.closed(connection, "closed".to_owned());
        assert_eq!(book.tally(|_| All(5), 1).lost, 0, "what came after its end is not the connection's");
        assert_eq!((shared.window.settled(), shared.window.members(1)), (5, 0));
        assert_eq!(book.reasons, ["closed"]);
    }
}
