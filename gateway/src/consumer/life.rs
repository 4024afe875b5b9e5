//! `Life`: whether the work of an attempt still moves, so that a heartbeat is a fact and not a habit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// What the work of one attempt shows of itself, from whatever thread it is on.
///
/// - Work that occupies a thread shows life by asking whether to stop ([`super::context::Stop::is_stopped`]), by saying how
///   far it is, and by beginning. A query of SQLite asks every thousand steps.
/// - Work that occupies no thread lives as long as its attempt has time: it waits for a free thread, or for an answer that
///   has a deadline of its own.
#[derive(Debug, Default)]
pub(crate) struct Life {
    signs: AtomicU64,
    occupied: AtomicUsize,
}

impl Life {
    /// Shows life.
    pub(crate) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Occupies a thread until the guard is dropped.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.occupied.fetch_add(1, Ordering::Relaxed);
        self.sign();
        Occupied(Arc::clone(self))
    }

    /// Occupies a thread while a future is being polled: one that blocks in there shows no life.
    pub(crate) async fn over<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| -> Poll<T> {
            let _occupied = self.occupy();
            future.as_mut().poll(context)
        })
        .await
    }
}

/// A thread is occupied.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<Life>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.occupied.fetch_sub(1, Ordering::Relaxed);
        self.0.sign();
    }
}

/// Watches a life, at every heartbeat.
#[derive(Debug)]
pub(super) struct Vigil {
    life: Arc<Life>,
    signs: u64,
    looked_at: Instant,
    quiet: Duration,
}

impl Vigil {
    /// Begins to watch.
    pub(super) fn new(life: Arc<Life>, now: Instant) -> Self {
        Self { life, signs: 0, looked_at: now, quiet: Duration::ZERO }
    }

    /// Looks, and answers whether there were signs of life in the last two thirds of a lease.
    ///
    /// A look counts for a third of a lease at most, however late it comes: when the process stood still nobody could show
    /// life, and one look is no proof of death.
    pub(super) fn look(&mut self, now: Instant, lease: Duration) -> bool {
        let signs = self.life.signs.load(Ordering::Relaxed);
        let moves = signs != self.signs || self.life.occupied.load(Ordering::Relaxed) == 0;
        let passed = now.saturating_duration_since(self.looked_at).min(lease / 3);
        self.quiet = if moves { Duration::ZERO } else { self.quiet + passed };
        self.signs = signs;
        self.looked_at = now;
        self.is_alive(lease)
    }

    /// How many signs there were.
    #[cfg(test)]
    pub(super) fn signs(&self) -> u64 {
        self.life.signs.load(Ordering::Relaxed)
    }

    /// What the last look found.
    pub(super) fn is_alive(&self, lease: Duration) -> bool {
        self.quiet < lease / 3 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    #[test]
    fn silence_on_a_thread_is_noticed_and_a_sign_makes_good() {
        let (life, now) = (Arc::new(Life::default()), Instant::now());
        let mut vigil = Vigil::new(Arc::clone(&life), now);
        let _occupied = life.occupy();
        let mut look = |after| vigil.look(now + Duration::from_secs(after), LEASE);
        assert!(look(5), "it has begun meanwhile");
        assert!(look(10));
        assert!(!look(15), "ten seconds without a sign");
        assert!(!look(20));
        life.sign();
        assert!(look(25));
        assert!(look(30));
        assert!(!look(35));
    }

    #[test]
    fn whoever_waits_is_alive() {
        let (life, now) = (Arc::new(Life::default()), Instant::now());
        let mut vigil = Vigil::new(Arc::clone(&life), now);
        drop(life.occupy());
        assert!((1..100).all(|n| vigil.look(now + n * LEASE, LEASE)));
    }

    #[test]
    fn neither_many_looks_at_once_nor_one_late_look_are_proof() {
        let (life, now) = (Arc::new(Life::default()), Instant::now());
        let mut vigil = Vigil::new(Arc::clone(&life), now);
        let _occupied = life.occupy();
        assert!((0..100).all(|ms| vigil.look(now + Duration::from_millis(ms), LEASE)));
        assert!(vigil.look(now + 10 * LEASE, LEASE), "the process stood still");
        assert!(!vigil.look(now + 11 * LEASE, LEASE));
    }

    #[tokio::test]
    async fn a_future_occupies_its_thread_only_while_it_is_polled() {
        let life = Arc::new(Life::default());
        let occupied = || life.occupied.load(Ordering::Relaxed);
        let mut inside = 0;
        let pending = life.over(async {
            inside = occupied();
            std::future::pending::<()>().await;
        });
        let mut pending = Box::pin(pending);
        assert!(futures_util::poll!(&mut pending).is_pending());
        assert_eq!(occupied(), 0);
        drop(pending);
        assert_eq!(inside, 1);
    }
}
