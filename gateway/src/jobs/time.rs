//! The times a store goes by.

use std::time::Instant;

use crate::clock;

/// The wall clock for what is kept and shown, a monotonic one for leases: a jump of the wall clock must not take a
/// lease away.
pub(crate) trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> u64;

    /// Milliseconds since some moment of this process.
    fn mono_ms(&self) -> u64;
}

/// The clocks of the system.
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts at the present moment.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        clock::now_ms()
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock that tests set.
#[cfg(test)]
pub(crate) struct ManualClock(std::sync::atomic::AtomicU64);

#[cfg(test)]
impl ManualClock {
    /// Starts at a time in 2025.
    pub(crate) fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(1_763_830_834_000))
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn mono_ms(&self) -> u64 {
        self.wall_ms()
    }
}
