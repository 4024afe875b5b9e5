//! `Level`: how short memory is. Pure.

/// How short memory is. Each begins at one share of the budget and ends at a lower one, so that it does not flicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Everything goes.
    Easy = 0,
    /// What needs more memory is refused: from 85 % of the budget until below 80 %.
    Tight = 1,
    /// What holds much is let go as well: from 95 % until below 90 %.
    Over = 2,
}

const TIGHT_FROM: u64 = 85;
const TIGHT_UNTIL: u64 = 80;
const OVER_FROM: u64 = 95;
const OVER_UNTIL: u64 = 90;
/// What is let go brings it so far below, that this is rare.
const LET_GO_TO: u64 = 75;

impl Level {
    /// The level that a number means.
    pub(super) fn of(number: u8) -> Self {
        match number {
            0 => Self::Easy,
            1 => Self::Tight,
            _ => Self::Over,
        }
    }

    /// The level after a reading.
    pub(super) fn next(self, used: u64, budget: u64) -> Self {
        let at_least = |percent: u64| u128::from(used) * 100 >= u128::from(budget) * u128::from(percent);
        let (over_at, tight_at) = match self {
            Self::Easy => (OVER_FROM, TIGHT_FROM),
            Self::Tight => (OVER_FROM, TIGHT_UNTIL),
            Self::Over => (OVER_UNTIL, TIGHT_UNTIL),
        };
        match (at_least(over_at), at_least(tight_at)) {
            (true, _) => Self::Over,
            (false, true) => Self::Tight,
            (false, false) => Self::Easy,
        }
    }
}

/// How much has to be let go.
pub(super) fn excess(used: u64, budget: u64) -> u64 {
    used.saturating_sub(budget / 100 * LET_GO_TO)
}

/// What the allocator keeps for itself of what was freed.
///
/// It mostly gives nothing back to the system, so what the system counts falls late or never, though there is room. How
/// much room is told by what we know to have had when the process was largest: what has been freed since is there to be used.
/// If the process grows all the same, something else has taken of it, or threads have room that others cannot use: then so much
/// less is believed, [`DISBELIEF`] bytes for each byte that it grows.
#[derive(Debug, Default)]
pub(super) struct Kept {
    resident_max: u64,
    /// What was known at that time, as far as it is believed.
    known_then: u64,
}

/// Measured with a flood of 32 KiB messages and histories that are cut again and again: with glibc the process then grows by some
/// hundredths of what it has freed, and by all of it only where something else takes the room.
const DISBELIEF: u64 = 4;

impl Kept {
    /// The bytes in use, of so many that the system counts.
    pub(super) fn used(&mut self, resident: u64, known: u64) -> u64 {
        let grown = resident.saturating_sub(self.resident_max);
        self.resident_max += grown;
        self.known_then = known.max(self.known_then.saturating_sub(grown.saturating_mul(DISBELIEF)));
        let freed = self.known_then.saturating_sub(known);
        resident.min(self.resident_max.saturating_sub(freed))
    }
}

/// Whether the process has stopped growing: then what it holds and nobody knows of may well be room that the allocator keeps,
/// and to refuse for ever would be worse than to try.
#[derive(Debug, Default)]
pub(super) struct Calm {
    resident: u64,
    readings: u32,
}

/// Ten seconds.
const CALM_READINGS: u32 = 100;
/// What it may grow by, in hundredths of the budget.
const CALM_GROWTH: u64 = 2;

impl Calm {
    /// Takes a reading.
    pub(super) fn is_calm(&mut self, resident: u64, budget: u64) -> bool {
        if resident > self.resident.saturating_add(budget / 100 * CALM_GROWTH) {
            *self = Self { resident, readings: 0 };
        }
        self.resident = self.resident.min(resident);
        self.readings = self.readings.saturating_add(1);
        self.readings > CALM_READINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_grown_for_ten_seconds_may_try() {
        let mut calm = Calm::default();
        assert!((0..100).all(|_| !calm.is_calm(900, 1000)));
        assert!((0..100).all(|n| calm.is_calm(900 + n % 20, 1000)), "until it grows by more than two hundredths");
        assert!((0..100).all(|_| !calm.is_calm(921, 1000)), "then as long again");
        assert!(calm.is_calm(921, 1000));
    }

    #[test]
    fn what_was_freed_counts_as_free_unless_the_process_grows_all_the_same() {
        let mut kept = Kept::default();
        assert_eq!(kept.used(100, 60), 100);
        assert_eq!(kept.used(100, 20), 60, "the allocator has kept 40");
        assert_eq!(kept.used(90, 20), 60, "and given 10 of them back");
        assert_eq!(kept.used(50, 20), 50, "and more than was known");
        assert_eq!(kept.used(90, 50), 90);
        assert_eq!(kept.used(101, 20), 65, "it grows a little: some of what was freed is used by something else");
        assert_eq!(kept.used(110, 20), 110, "or all of it");
        assert_eq!(kept.used(110, 10), 100);
    }

    #[test]
    fn without_a_budget_there_is_no_level() {
        assert_eq!(Level::Easy.next(u64::MAX / 2, u64::MAX), Level::Easy);
        assert_eq!([0, 1, 2].map(Level::of), [Level::Easy, Level::Tight, Level::Over]);
    }
}
