//! `Seats`: how many connections somebody has at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Counts by key. Of keys without connections none is kept, so the connections bound it.
#[derive(Debug)]
pub(super) struct Seats {
    max: AtomicUsize,
    taken: DashMap<u64, usize>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    key: u64,
}

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), taken: DashMap::new() }
    }

    /// Allows so many from here on.
    pub(super) fn allow(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Takes one of the key's places, if one is left.
    pub(super) fn take(seats: &Arc<Self>, key: u64) -> Option<Seat> {
        let max = seats.max.load(Ordering::Relaxed);
        let mut taken = seats.taken.entry(key).or_insert(0);
        if *taken >= max {
            return None;
        }
        *taken += 1;
        Some(Seat { seats: Arc::clone(seats), key })
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.taken.len()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(mut taken) = self.seats.taken.get_mut(&self.key) {
            *taken -= 1;
        }
        self.seats.taken.remove_if(&self.key, |_, taken| *taken == 0);
    }
}
