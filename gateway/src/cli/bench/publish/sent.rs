//! What one publisher has sent to one group, and what of it was not taken.

use std::ops::Range;

use super::super::ledger::Published;

/// Messages are numbered from 0.
#[derive(Debug, Default, Clone)]
pub(in super::super) struct Sent {
    count: u64,
    /// Ascending.
    refused: Vec<u64>,
}

impl Sent {
    /// The number of one more message.
    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        self.count - 1
    }

    /// The gateway has not taken it, or has not said whether it has.
    pub(super) fn refused(&mut self, sequence: u64) {
        self.refused.push(sequence);
    }
}

/// What all publishers have sent to one group, each at its number.
pub(in super::super) struct ToGroup<'a>(pub(in super::super) Vec<&'a Sent>);

impl Published for ToGroup<'_> {
    fn sent(&self, publisher: usize) -> u64 {
        self.0[publisher].count
    }

    fn refused(&self, publisher: usize, range: Range<u64>) -> u64 {
        let refused = &self.0[publisher].refused;
        let below = |bound: u64| refused.partition_point(|sequence| *sequence < bound);
        (below(range.end) - below(range.start)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_within_a_range() {
        let mut sent = Sent::default();
        for n in 0..10 {
            assert_eq!(sent.next(), n);
        }
        [2, 3, 7].into_iter().for_each(|n| sent.refused(n));
        let group = ToGroup(vec![&sent]);
        assert_eq!(group.sent(0), 10);
        assert_eq!([0..2, 2..4, 3..8, 8..10, 3..3].map(|range| group.refused(0, range)), [0, 2, 2, 0, 0]);
    }
}
