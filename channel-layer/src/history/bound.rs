//! The bound over all histories: at it, the oldest messages of the longest histories go.

use std::sync::Arc;

use parking_lot::Mutex;

use super::IDLE_BYTES;
use crate::group::Group;
use crate::registry::Registry;

/// Keeps all histories within `history_bytes`.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    // Held while histories are cut, so that one publisher does it and the others wait: none adds more meanwhile than the
    // message it has in hand.
    cutting: Mutex<()>,
}

impl Registry {
    /// Cuts histories when all of them are over the bound: so far below it that this stays rare.
    pub(crate) fn keep_history_bound(&self) {
        let is_over = || self.stats.history.bytes.value() > self.config.history_bytes as u64;
        if is_over() {
            let _cutting = self.history_bound.cutting.lock();
            if is_over() {
                self.cut_histories(self.config.history_bytes / 8 * 7);
            }
        }
    }

    /// Cuts histories by so many bytes, however many they are.
    pub(crate) fn shrink_histories(&self, bytes: u64) {
        let _cutting = self.history_bound.cutting.lock();
        let target = self.stats.history.bytes.value().saturating_sub(bytes);
        self.cut_histories(usize::try_from(target).unwrap_or(usize::MAX));
    }

    fn cut_histories(&self, target: usize) {
        let groups = self.group_list();
        let idle = self.forget_idle(&groups, target / 2);
        let mut lengths: Vec<(usize, &Arc<Group>)> =
            groups.iter().filter_map(|g| Some((g.history_bytes()?, g))).collect();
        lengths.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let longest_may = level(lengths.iter().map(|(bytes, _)| *bytes), target - idle);
        for (bytes, group) in lengths {
            if bytes <= longest_may {
                break;
            }
            if let Some(history) = &mut group.lock().history {
                history.trim(longest_may);
            }
        }
    }

    /// Groups without members may take `target` for themselves, beside their messages; those that were unused for
    /// longest are forgotten. Says what the others take.
    fn forget_idle(&self, groups: &[Arc<Group>], target: usize) -> usize {
        if self.is_shared() {
            // They are forgotten when nobody here needs them any more.
            return 0;
        }
        let unused_for = |group: &Arc<Group>| {
            let state = group.lock();
            let history = state.history.as_ref().filter(|history| history.idle);
            history.map(|history| (history.unused_for(), group.clone()))
        };
        let mut idle: Vec<_> = groups.iter().filter_map(unused_for).collect();
        let may_stay = target / IDLE_BYTES;
        if idle.len() > may_stay {
            idle.sort_unstable_by_key(|(unused_for, _)| *unused_for);
            for (_, group) in idle.drain(may_stay..) {
                self.forget_if(&group, |_| true);
            }
        }
        idle.len() * IDLE_BYTES
    }
}

/// The length to which the longest have to be cut so that all together have at most `target`; lengths come in
/// descending order.
fn level(lengths: impl ExactSizeIterator<Item = usize> + Clone, target: usize) -> usize {
    let (count, mut rest) = (lengths.len(), lengths.clone().sum::<usize>());
    if rest <= target {
        return usize::MAX;
    }
    for (longer, length) in lengths.enumerate() {
        // If there is room when all longer ones are cut to this length, they share what the others leave.
        if rest + length * longer <= target {
            return (target - rest) / longer;
        }
        rest -= length;
    }
    target / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_cut_to_one_level() {
        let level = |lengths: &[usize], target| level(lengths.iter().copied(), target);
        assert_eq!(level(&[10, 5, 1], 16), usize::MAX);
        assert_eq!(level(&[10, 5, 1], 14), 8);
        assert_eq!(level(&[10, 10, 1], 20), 9);
        assert_eq!(level(&[10, 5, 1], 9), 4);
        assert_eq!(level(&[10, 5, 1], 3), 1);
        assert_eq!(level(&[10, 5, 1], 0), 0);
    }
}
