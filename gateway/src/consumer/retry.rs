//! Whether and when a failed attempt is repeated. Pure.

use std::time::Duration;

use super::work::Failure;
use crate::jobs::queue::{Claimed, How};
use crate::jobs::{CRASHES_MAX, ErrorClass};

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Before the second attempt, at most; doubles each time.
    pub(crate) base: Duration,
    /// The most.
    pub(crate) max: Duration,
}

impl Policy {
    /// What becomes of a failed attempt. `fraction`, from 0 to 1, is the jitter: full, so that what failed together is
    /// not repeated together.
    pub(crate) fn decide(&self, claimed: &Claimed, failure: &Failure, now: u64, fraction: f64) -> How {
        let error = failure.error();
        let again = match failure.class {
            ErrorClass::Transient => true,
            ErrorClass::Permanent => false,
            ErrorClass::Timeout => claimed.timeouts == 0,
            ErrorClass::Crash => claimed.crashes + 1 < CRASHES_MAX,
        };
        let wait = self.wait(claimed.attempt).mul_f64(fraction).max(failure.retry_after.unwrap_or_default());
        let at = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let in_time = claimed.deadline_at.is_none_or(|deadline| at < deadline);
        if again && in_time && claimed.attempt < claimed.max_attempts {
            How::Retry { at, error }
        } else {
            How::Dead(error)
        }
    }

    fn wait(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::testing::claimed;

    const POLICY: Policy = Policy { base: Duration::from_secs(1), max: Duration::from_secs(300) };

    fn retried_at(attempt: u32, failure: &Failure) -> Option<u64> {
        match POLICY.decide(&Claimed { attempt, ..claimed() }, failure, 0, 1.0) {
            How::Retry { at, .. } => Some(at),
            _ => None,
        }
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let failure = Failure::transient("x", "y");
        let waits: Vec<_> = [1, 2, 3, 9, 10, 90].map(|attempt| retried_at(attempt, &failure)).into();
        assert_eq!(waits, [1000, 2000, 4000, 256_000, 300_000, 300_000].map(Some));
    }

    #[test]
    fn jitter_is_full_and_retry_after_is_kept() {
        let at = |failure: &Failure, fraction| match POLICY.decide(&claimed(), failure, 500, fraction) {
            How::Retry { at, .. } => at,
            how => panic!("{how:?}"),
        };
        let failure = Failure::transient("x", "y");
        assert_eq!((at(&failure, 0.0), at(&failure, 0.25)), (500, 750));
        let later = Failure { retry_after: Some(Duration::from_secs(9)), ..failure };
        assert_eq!(at(&later, 0.5), 9500);
    }

    #[test]
    fn each_class_has_its_end() {
        let decide =
            |claimed: Claimed, failure: Failure| matches!(POLICY.decide(&claimed, &failure, 0, 0.5), How::Dead(_));
        let crash = || Failure::new(ErrorClass::Crash, "panicked", "");
        assert!(decide(claimed(), Failure::permanent("x", "")));
        assert!(decide(Claimed { attempt: 100, ..claimed() }, Failure::transient("x", "")));
        assert!(!decide(claimed(), Failure::timeout("")));
        assert!(decide(Claimed { timeouts: 1, ..claimed() }, Failure::timeout("")));
        assert!(!decide(Claimed { crashes: 1, ..claimed() }, crash()));
        assert!(decide(Claimed { crashes: 2, ..claimed() }, crash()));
        assert!(decide(Claimed { deadline_at: Some(400), ..claimed() }, Failure::transient("x", "")));
    }
}
