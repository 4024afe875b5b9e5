//! `Memory`: how much of what it may have the process has, and what follows from that.
//!
//! A task of the server reads it ten times a second ([`Memory::read`]); everybody else asks for the level, which costs a load.

mod budget;
mod level;
mod reading;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use groupcast_protocol::{ErrorCode, Refusal};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use self::budget::bytes as budget_bytes;
pub(crate) use self::level::Level;
use self::level::{Calm, Kept};

/// How often memory is looked at: what comes in meanwhile, at a gigabyte a second, is 100 MB, and looking costs some 20 µs.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);
/// When whoever is refused may try again: by then something may have been shed.
const AGAIN: Duration = Duration::from_secs(2);

/// See the [module](self).
pub(crate) struct Memory {
    level: AtomicU8,
    budget: AtomicU64,
    used: AtomicU64,
    refused: AtomicU64,
    shed: AtomicU64,
    seen: Mutex<(Kept, Calm)>,
    /// How many bytes each shard is to get rid of; a change says so.
    orders: watch::Sender<u64>,
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            level: AtomicU8::new(Level::Easy as u8),
            budget: AtomicU64::new(budget),
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            seen: Mutex::default(),
            orders: watch::channel(0).0,
        }
    }

    /// Allows so many bytes from here on.
    pub(super) fn allow(&self, budget: u64) {
        self.budget.store(budget, Ordering::Relaxed);
    }

    /// Looks at what the process has. `known` are the bytes of what we know to have: logs, histories, results. Nothing changes
    /// where the system does not tell.
    pub(crate) fn read(&self, known: u64) -> Level {
        if let Some(resident) = reading::resident_bytes() {
            self.note(resident, known);
        }
        self.level()
    }

    fn note(&self, resident: u64, known: u64) {
        let (kept, calm) = &mut *self.seen.lock();
        let used = kept.used(resident, known);
        self.used.store(used, Ordering::Relaxed);
        let before = self.level();
        let after = match (before.next(used, self.budget()), calm.is_calm(resident, self.budget())) {
            (Level::Tight, true) => Level::Easy,
            (level, _) => level,
        };
        self.level.store(after as u8, Ordering::Relaxed);
        let (used_mib, budget_mib) = (used >> 20, self.budget() >> 20);
        match (before, after) {
            (Level::Easy, Level::Tight | Level::Over) | (Level::Tight, Level::Over) => {
                tracing::warn!(used_mib, budget_mib, level = ?after, "memory runs short: what needs more is refused");
            }
            (Level::Tight | Level::Over, Level::Easy) => {
                tracing::info!(used_mib, budget_mib, "there is memory again");
            }
            (Level::Over, Level::Tight)
            | (Level::Easy, Level::Easy)
            | (Level::Tight, Level::Tight)
            | (Level::Over, Level::Over) => {}
        }
    }

    pub(crate) fn level(&self) -> Level {
        Level::of(self.level.load(Ordering::Relaxed))
    }

    /// Refuses what needs more memory, while there is little.
    ///
    /// # Errors
    /// `overloaded`.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        match self.level() {
            Level::Easy => Ok(()),
            Level::Tight | Level::Over => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let why = "the gateway has little memory left and does nothing that needs more; try again later";
                Err(Refusal::new(ErrorCode::Overloaded, why).again_in(AGAIN))
            }
        }
    }

    /// How many bytes have to be let go.
    pub(crate) fn excess(&self) -> u64 {
        level::excess(self.used(), self.budget())
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How often something was refused for want of memory.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that were closed for want of memory.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Tells each shard to get rid of so many bytes.
    pub(crate) fn order(&self, bytes: u64) {
        // Nobody listens once the shards have ended.
        let _ = self.orders.send(bytes);
    }

    /// Orders as they come, for a shard.
    pub(crate) fn orders(&self) -> watch::Receiver<u64> {
        self.orders.subscribe()
    }

    /// Counts connections that were closed.
    pub(crate) fn count_shed(&self, connections: usize) {
        self.shed.fetch_add(connections as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_needs_more_is_refused_from_the_first_bound_on_until_there_is_room_again() {
        let memory = Memory::new(100 * MIB);
        let allowed = |used: u64| {
            memory.note(used * MIB, 0);
            (memory.check().is_ok(), memory.level())
        };
        assert_eq!(allowed(84), (true, Level::Easy));
        assert_eq!(allowed(85), (false, Level::Tight));
        assert_eq!(allowed(81), (false, Level::Tight));
        assert_eq!(allowed(95), (false, Level::Over));
        assert!((20 * MIB..21 * MIB).contains(&memory.excess()), "{}", memory.excess());
        assert_eq!(allowed(91), (false, Level::Over));
        assert_eq!(allowed(89), (false, Level::Tight));
        assert_eq!(allowed(79), (true, Level::Easy));
        memory.note(70 * MIB, 0);
        assert_eq!((memory.excess(), memory.refused()), (0, 5));
    }

    #[test]
    fn another_budget_counts_with_the_next_reading() {
        let memory = Memory::new(100 * MIB);
        memory.note(90 * MIB, 0);
        memory.allow(1000 * MIB);
        memory.note(90 * MIB, 0);
        assert!(memory.check().is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_some_memory_and_the_machine_more() {
        let memory = Memory::new(u64::MAX);
        let before = reading::resident_bytes().expect("Linux tells");
        let some = vec![1_u8; 64 << 20];
        memory.read(0);
        assert!(memory.used() > before.saturating_sub(16 * MIB) + 32 * MIB, "{} of {}", memory.used(), before);
        drop(some);
    }
}
