//! The time of a run, in nanoseconds since it began: small enough to be carried by every message.

use std::time::{Duration, Instant};

/// When the run began. Readers and publishers share it, so that delays need no wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(self) -> u64 {
        nanos(self.0.elapsed())
    }

    /// A moment of the run as the runtime's timers want it.
    pub(super) fn at(self, ns: u64) -> tokio::time::Instant {
        (self.0 + Duration::from_nanos(ns)).into()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
