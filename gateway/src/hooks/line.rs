//! `Line`: how many calls are under way, and how many wait for their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// See the [module](self).
pub(super) struct Line {
    turns: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// `waiting`, for who reads metrics.
    shown: Gauge,
}

/// One who waits; no more when dropped.
struct Waiting<'a>(&'a Line);

impl Line {
    pub(super) fn new(at_once: usize, waiting_max: usize, shown: Gauge) -> Self {
        Self { turns: Semaphore::new(at_once), waiting: AtomicUsize::new(0), waiting_max, shown }
    }

    /// Waits for a turn, which is over when it is dropped; first come, first served. `None`: too many wait already, or it
    /// did not come in time.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let _waiting = Waiting::enter(self)?;
        timeout_at(deadline, self.turns.acquire()).await.ok()?.ok()
    }
}

impl<'a> Waiting<'a> {
    fn enter(line: &'a Line) -> Option<Self> {
        let enter = |waiting: usize| (waiting < line.waiting_max).then_some(waiting + 1);
        line.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        line.shown.inc();
        Some(Self(line))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.shown.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_bounded_and_so_is_the_line() {
        let line = Line::new(1, 1, Gauge::default());
        let soon = Instant::now() + Duration::from_secs(1);
        let first = line.turn(soon).await.expect("nobody is there");
        let mut second = Box::pin(line.turn(soon));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        assert_eq!(line.shown.get(), 1);
        assert!(line.turn(soon).await.is_none(), "the line is full");
        drop(first);
        let second = second.await.expect("its turn has come");
        assert_eq!(line.shown.get(), 0);
        assert!(line.turn(soon).await.is_none(), "its time is over");
        assert_eq!(line.shown.get(), 0);
        drop(second);
        assert!(line.turn(soon).await.is_some());
    }

    #[tokio::test]
    async fn who_goes_waits_no_more() {
        let line = Line::new(1, 1, Gauge::default());
        let later = Instant::now() + Duration::from_secs(60);
        let _first = line.turn(later).await.expect("nobody is there");
        for _ in 0..3 {
            assert!(line.turn(later).now_or_never().is_none());
        }
        assert_eq!(line.shown.get(), 0);
    }
}
