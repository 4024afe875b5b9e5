//! `Gate`: holds work back while the runtimes are late.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::jobs::Count;
use crate::lag::LoopLag;

/// When nothing has begun for so long, something begins: the runtimes may be late for reasons that have nothing to do with
/// this work, and then it must not wait for ever.
const HELD_MAX: Duration = Duration::from_secs(1);

/// Between two looks at the lag.
const LOOK: Duration = Duration::from_millis(10);

/// What each piece of work passes before it begins, on the thread that will do it.
///
/// While the lag is over its budget nothing begins, but for one piece in [`HELD_MAX`] after the last.
pub(super) struct Gate {
    lag: LoopLag,
    deferred: Count,
    last_begun: Mutex<Instant>,
    /// Never notified: only a wait that lets the others look meanwhile.
    look: Condvar,
}

impl Gate {
    pub(super) fn new(lag: LoopLag) -> Self {
        Self { lag, deferred: Count::default(), last_begun: Mutex::new(Instant::now()), look: Condvar::new() }
    }

    /// Pieces of work that had to wait.
    pub(super) fn deferred(&self) -> u64 {
        self.deferred.get()
    }

    /// Returns when work may begin. Blocks.
    pub(super) fn pass(&self) {
        let mut last_begun = self.last_begun.lock();
        let mut is_held = false;
        while self.lag.is_over() {
            let held = last_begun.elapsed();
            if held >= HELD_MAX {
                break;
            }
            if !std::mem::replace(&mut is_held, true) {
                self.deferred.add(1);
            }
            self.look.wait_for(&mut last_begun, LOOK.min(HELD_MAX - held));
        }
        *last_begun = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_begins_one_by_one_while_a_runtime_is_late_for_ever() {
        let lag = LoopLag::new(Duration::from_millis(1));
        let gate = Gate::new(lag.clone());
        let start = Instant::now();
        gate.pass();
        assert_eq!(gate.deferred(), 0, "no runtime is late");
        let mut measured = Box::pin(lag.measure("stuck".to_owned()));
        assert!(futures_util::poll!(&mut measured).is_pending());
        while !lag.is_over() {
            std::thread::yield_now();
        }
        // Its runtime is this thread, which does not come back to it.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| gate.pass());
            }
        });
        assert!(start.elapsed() >= 2 * HELD_MAX, "{:?}", start.elapsed());
        assert_eq!(gate.deferred(), 2);
        drop(measured);
        gate.pass();
        assert_eq!(gate.deferred(), 2, "no runtime is late any more");
    }
}
