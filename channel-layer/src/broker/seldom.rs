//! What may happen any number of times, and is said at most once in a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets somebody speak at most once in an interval.
#[derive(Debug)]
pub(super) struct Seldom {
    every: Duration,
    told: Mutex<Option<Instant>>,
}

impl Seldom {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, told: Mutex::new(None) }
    }

    /// Whether it is time to speak; then it is not for as long as the interval.
    pub(super) fn is_due(&self) -> bool {
        let mut told = self.told.lock();
        if told.is_some_and(|told| told.elapsed() < self.every) {
            return false;
        }
        *told = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn speaks_once_in_an_interval() {
        let seldom = Seldom::new(Duration::from_secs(60));
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(seldom.is_due() && !seldom.is_due());
    }
}
