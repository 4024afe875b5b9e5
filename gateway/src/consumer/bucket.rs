//! `Bucket`: how many jobs a consumer may begin at a moment. Pure but for the clock's type.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// A bucket of tokens: each job takes one, one comes back every interval, and no more than `burst` gather.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again. What is missing is this far away.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate, burst: Option<u32>, now: Instant) -> Self {
        Self { interval: rate.interval(), burst: burst.unwrap_or_else(|| rate.in_a_second()), full_at: now }
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos().div_ceil(self.interval.as_nanos().max(1));
        self.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Takes tokens, of which there must be enough.
    pub(crate) fn take(&mut self, tokens: u32, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval * tokens;
    }

    /// When there is a token again.
    pub(crate) fn next_at(&self) -> Instant {
        // The last of the burst's tokens is the first to come back.
        self.full_at.checked_sub(self.interval * (self.burst - 1)).unwrap_or(self.full_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let began = Instant::now();
        let mut bucket = Bucket::new("10/s".parse().expect("a rate"), None, began);
        assert_eq!(bucket.tokens(began), 10);
        bucket.take(10, began);
        assert_eq!((bucket.tokens(began), bucket.next_at()), (0, began + 100 * MS));
        assert_eq!(bucket.tokens(began + 99 * MS), 0);
        assert_eq!(bucket.tokens(began + 100 * MS), 1);
        bucket.take(1, began + 100 * MS);
        assert_eq!((bucket.tokens(began + 199 * MS), bucket.tokens(began + 350 * MS)), (0, 2));
    }

    #[test]
    fn no_more_than_the_burst_gathers() {
        let began = Instant::now();
        let mut bucket = Bucket::new("600/m".parse().expect("a rate"), Some(3), began);
        bucket.take(2, began);
        let later = began + Duration::from_secs(3600);
        assert_eq!(bucket.tokens(later), 3);
        bucket.take(3, later);
        assert_eq!((bucket.tokens(later), bucket.next_at()), (0, later + 100 * MS));
    }

    #[test]
    fn in_a_long_time_it_is_the_rate_and_a_burst() {
        let (mut now, began) = (Instant::now(), Instant::now());
        let mut bucket = Bucket::new("7/s".parse().expect("a rate"), Some(2), now);
        let mut taken = 0;
        while now < began + Duration::from_secs(100) {
            let tokens = bucket.tokens(now);
            bucket.take(tokens, now);
            taken += tokens;
            now = bucket.next_at().max(now + MS);
        }
        assert!((700..=702).contains(&taken), "{taken}");
    }
}
