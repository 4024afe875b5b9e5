//! What live queries count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Counters of all sets together.
pub(crate) struct Counters {
    /// Runs that were begun.
    pub(crate) runs: Counter,
    /// Runs that failed.
    pub(crate) failures: Counter,
    /// Changes that were sent, one for each however many subscribers there are.
    pub(crate) changes: Counter,
    /// Calls of `POST /v1/invalidate`.
    pub(crate) invalidations: Counter,
    /// How long runs took, waiting for a thread included.
    pub(crate) seconds: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            runs: Counter::default(),
            failures: Counter::default(),
            changes: Counter::default(),
            invalidations: Counter::default(),
            // 1 ms to 8 s.
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
        }
    }
}
