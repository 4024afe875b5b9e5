//! What one connection got of its group, checked message by message.
//!
//! Each publisher numbers its messages to a group without a hole, so whatever is missing between two that came is
//! lost, unless it comes late (then it is reordered), was refused when it was published, or a `gap` told of it.

use std::ops::Range;

/// The book of one connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: Vec<Line>,
    duplicated: u64,
    reordered: u64,
    /// Messages that gaps told of.
    told: u64,
    /// A gap told of an unknown number.
    told_unknown: bool,
}

/// What came from one publisher.
#[derive(Debug, Default, Clone)]
struct Line {
    /// The sequence number after the highest one that came.
    next: u64,
    /// What is missing below that, ascending.
    missing: Vec<Range<u64>>,
}

/// What a message is to the connection that it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is new.
    InOrder,
    /// It is new, and came after a later one.
    Late,
    /// It has come before.
    Duplicate,
}

/// What became of all messages to one connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lost: u64,
    pub(super) told_missing: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}

/// What was published to a connection's group, as far as it matters here.
pub(super) trait Published {
    /// How many messages a publisher has sent; they are numbered from 0.
    fn sent(&self, publisher: usize) -> u64;
    /// How many in this range were refused, or never answered, so that nobody has to have them.
    fn refused(&self, publisher: usize, range: Range<u64>) -> u64;
}

impl Ledger {
    /// Enters a message.
    pub(super) fn take(&mut self, publisher: u32, sequence: u64) -> Entry {
        let publisher = publisher as usize;
        if self.lines.len() <= publisher {
            self.lines.resize_with(publisher + 1, Line::default);
        }
        let entry = self.lines[publisher].take(sequence);
        self.duplicated += u64::from(entry == Entry::Duplicate);
        self.reordered += u64::from(entry == Entry::Late);
        entry
    }

    /// Enters a `gap`; `None` when it did not tell how many messages it is about.
    pub(super) fn tell(&mut self, missed: Option<u64>) {
        self.told += missed.unwrap_or(0);
        self.told_unknown |= missed.is_none();
    }

    /// The end: what came, against what was published.
    pub(super) fn close(&self, published: &impl Published, publishers: usize) -> Tally {
        let none = Line::default();
        let missing = |publisher: usize| {
            let line = self.lines.get(publisher).unwrap_or(&none);
            let tail = line.next..published.sent(publisher).max(line.next);
            let ranges = line.missing.iter().cloned().chain([tail]);
            ranges.map(|range| (range.end - range.start) - published.refused(publisher, range)).sum::<u64>()
        };
        let missing: u64 = (0..publishers).map(missing).sum();
        let told_missing = if self.told_unknown { missing } else { missing.min(self.told) };
        let Self { duplicated, reordered, .. } = *self;
        Tally { lost: missing - told_missing, told_missing, duplicated, reordered }
    }

    /// The end of a connection that failed: what it would have got later is not counted.
    pub(super) fn close_early(&self, published: &impl Published, publishers: usize) -> Tally {
        self.close(&UpToNow { ledger: self, published }, publishers)
    }
}

impl Line {
    fn take(&mut self, sequence: u64) -> Entry {
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push(self.next..sequence);
            }
            self.next = sequence + 1;
            return Entry::InOrder;
        }
        let at = self.missing.partition_point(|range| range.end <= sequence);
        match self.missing.get(at).cloned() {
            Some(range) if range.start <= sequence => {
                let rest = [range.start..sequence, sequence + 1..range.end];
                self.missing.splice(at..=at, rest.into_iter().filter(|part| !part.is_empty()));
                Entry::Late
            }
            _ => Entry::Duplicate,
        }
    }
}

struct UpToNow<'a, P> {
    ledger: &'a Ledger,
    published: &'a P,
}

impl<P: Published> Published for UpToNow<'_, P> {
    fn sent(&self, publisher: usize) -> u64 {
        self.ledger.lines.get(publisher).map_or(0, |line| line.next)
    }

    fn refused(&self, publisher: usize, range: Range<u64>) -> u64 {
        self.published.refused(publisher, range)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.told_missing += other.told_missing;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many were sent by each of the publishers, and these of the first one were refused.
    struct Sent(Vec<u64>, Vec<u64>);

    impl Published for Sent {
        fn sent(&self, publisher: usize) -> u64 {
            self.0[publisher]
        }

        fn refused(&self, publisher: usize, range: Range<u64>) -> u64 {
            self.1.iter().filter(|n| publisher == 0 && range.contains(n)).count() as u64
        }
    }

    fn check(came: &[u64], gaps: &[Option<u64>], sent: u64, refused: &[u64]) -> [u64; 4] {
        let mut ledger = Ledger::default();
        for sequence in came {
            ledger.take(0, *sequence);
        }
        gaps.iter().for_each(|missed| ledger.tell(*missed));
        let tally = ledger.close(&Sent(vec![sent], refused.to_vec()), 1);
        [tally.lost, tally.told_missing, tally.duplicated, tally.reordered]
    }

    #[test]
    fn complete_and_in_order_is_nothing_to_tell() {
        assert_eq!(check(&[0, 1, 2], &[], 3, &[]), [0, 0, 0, 0]);
        assert_eq!(check(&[], &[], 0, &[]), [0, 0, 0, 0]);
    }

    #[test]
    fn a_hole_is_lost_at_the_beginning_in_the_middle_and_at_the_end() {
        assert_eq!(check(&[1, 2], &[], 3, &[]), [1, 0, 0, 0]);
        assert_eq!(check(&[0, 5], &[], 6, &[]), [4, 0, 0, 0]);
        assert_eq!(check(&[0, 1], &[], 5, &[]), [3, 0, 0, 0]);
        assert_eq!(check(&[], &[], 2, &[]), [2, 0, 0, 0]);
    }

    #[test]
    fn a_late_one_is_reordered_once_and_not_lost() {
        assert_eq!(check(&[0, 2, 1, 3], &[], 4, &[]), [0, 0, 0, 1]);
        assert_eq!(check(&[4, 2, 0, 3, 1], &[], 5, &[]), [0, 0, 0, 4]);
        assert_eq!(check(&[4, 2], &[], 5, &[]), [3, 0, 0, 1]);
    }

    #[test]
    fn a_second_one_is_a_duplicate_also_of_a_late_one() {
        assert_eq!(check(&[0, 0, 1, 1, 1], &[], 2, &[]), [0, 0, 3, 0]);
        assert_eq!(check(&[0, 2, 1, 1], &[], 3, &[]), [0, 0, 1, 1]);
    }

    #[test]
    fn what_a_gap_told_is_told_and_the_rest_is_lost() {
        assert_eq!(check(&[0, 6], &[Some(5)], 7, &[]), [0, 5, 0, 0]);
        assert_eq!(check(&[0, 6], &[Some(2), Some(1)], 7, &[]), [2, 3, 0, 0]);
        assert_eq!(check(&[0, 6], &[None], 9, &[]), [0, 7, 0, 0]);
        // More than was missing is told of nothing.
        assert_eq!(check(&[0, 1], &[Some(5)], 2, &[]), [0, 0, 0, 0]);
    }

    #[test]
    fn what_was_refused_is_missed_by_nobody() {
        assert_eq!(check(&[0, 3], &[], 6, &[1, 2, 5]), [1, 0, 0, 0]);
    }

    #[test]
    fn publishers_are_numbered_on_their_own() {
        let mut ledger = Ledger::default();
        for (publisher, sequence) in [(1, 0), (0, 0), (1, 1), (0, 1)] {
            assert_eq!(ledger.take(publisher, sequence), Entry::InOrder);
        }
        assert_eq!(ledger.close(&Sent(vec![2, 2, 3], vec![]), 3).lost, 3);
    }

    #[test]
    fn of_a_connection_that_failed_only_holes_count() {
        let mut ledger = Ledger::default();
        ledger.take(0, 0);
        ledger.take(0, 2);
        assert_eq!(ledger.close_early(&Sent(vec![100, 100], vec![]), 2).lost, 1);
    }
}
