//! `Bucket`: one limit, with a bucket of tokens for each key.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter};

use super::store::Store;
use crate::config::Rate;

/// Who pauses may do as much at once as in so many seconds: people come in bursts, and so do pages that load.
const BURST_SECONDS: u32 = 2;

/// See the [module](self).
pub(super) struct Bucket<C: Clock> {
    rate: Rate,
    limiter: RateLimiter<u64, Store, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock> Bucket<C> {
    /// Full buckets, of which at most `keys_max` are kept.
    pub(super) fn new(rate: Rate, keys_max: usize, clock: C) -> Self {
        let burst = NonZeroU32::new(rate.in_a_second().saturating_mul(BURST_SECONDS)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(rate.interval()).expect("the interval of a rate is longer than 0");
        Self { rate, limiter: RateLimiter::new(quota.allow_burst(burst), Store::new(keys_max), clock) }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token; without one, says when there is one.
    pub(super) fn take(&self, key: u64) -> Result<(), Duration> {
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// Forgets the keys whose buckets are full.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
    }

    /// How many keys are kept.
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }
}
