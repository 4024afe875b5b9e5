//! How often something may happen: a token bucket that is one point in time.

use std::time::{Duration, Instant};

/// A rate and how much of it may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Times a second, in the long run; 0 is taken for 1.
    pub per_second: u32,
    /// Times at once after a pause; 0 is taken for 1.
    pub burst: u32,
}

/// What is left of a [`Rate`] (the generic cell rate algorithm).
#[derive(Debug)]
pub(super) struct Allowance {
    /// When the whole burst is there again. In the past: it is.
    full_at: Instant,
}

impl Allowance {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one, if one is left; otherwise says when one will be.
    pub(super) fn take(&mut self, rate: &Rate, now: Instant) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.max(now) + interval;
        match full_at.duration_since(now).checked_sub(interval * rate.burst.max(1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            Some(_) | None => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_after_a_pause_the_burst_again() {
        let rate = Rate { per_second: 10, burst: 3 };
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut left = Allowance::full(start);
        let mut taken = |ms| (0..10).take_while(|_| left.take(&rate, at(ms)).is_ok()).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(350), 2);
        assert_eq!(taken(60_000), 3);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let rate = Rate { per_second: 10, burst: 1 };
        let start = Instant::now();
        let mut left = Allowance::full(start);
        assert_eq!(left.take(&rate, start), Ok(()));
        let interval = Duration::from_millis(100);
        assert!((0..1000).all(|_| left.take(&rate, start) == Err(interval)));
        assert_eq!(left.take(&rate, start + interval), Ok(()));
    }
}
