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
pub(crate) struct ManualClock {
    mono: std::sync::atomic::AtomicU64,
    /// How far the wall clock was put forward (or back), in milliseconds.
    jumped: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl ManualClock {
    /// Starts at a time in 2025.
    pub(crate) fn new() -> Self {
        Self { mono: 1_763_830_834_000.into(), jumped: 0.into() }
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: std::time::Duration) {
        self.mono.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sets the wall clock, by so many milliseconds, while no time passes.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.jumped.fetch_add(by_ms, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.mono_ms().saturating_add_signed(self.jumped.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn mono_ms(&self) -> u64 {
        self.mono.load(std::sync::atomic::Ordering::SeqCst)
    }
}
