//! `CpuPool`: threads of low priority for work that computes, so that no socket waits for it.
//!
//! Measured on two cores, echo p99 while reports of 250 ms run: 266 ms inline, 8 ms (at most 193) with `spawn_blocking`,
//! 0.7 ms here.

use super::work::Failure;
use crate::jobs::ErrorClass;
use crate::threads::{Pool, PoolError};

/// What other threads of the machine are preferred by. The system's scale ends at 19.
const NICE: i32 = 15;

/// A fixed number of threads with a bounded queue.
///
/// At the bound, work waits for room; its job's time bounds the wait.
pub(crate) struct CpuPool {
    pool: Pool<()>,
}

impl CpuPool {
    /// Starts `threads` threads (default: one a core) with room for `waiting_max` pieces of work beside those that run.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(threads: Option<usize>, waiting_max: usize) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or_else(cores).max(1);
        Ok(Self { pool: Pool::start("cpu", threads, waiting_max, lower_priority)? })
    }

    /// How many threads compute, and how many pieces of work wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        self.pool.load()
    }

    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        self.pool.run(move |()| work()).await.map_err(|error| match error {
            PoolError::Panicked => Failure::new(ErrorClass::Crash, "panicked", "the computation panicked; see the log"),
            PoolError::Full | PoolError::Closed => Failure::transient("overloaded", error.to_string()),
        })
    }

    /// Gives up a thread whose work does not end, and starts another.
    pub(crate) fn replace_one(&self) -> std::io::Result<()> {
        self.pool.replace_one("cpu-spare")
    }
}

fn lower_priority() {
    // On Linux the priority belongs to the thread; elsewhere to the process, which must keep its own.
    #[cfg(target_os = "linux")]
    {
        let lower = rustix::process::getpriority_process(None).map_or(NICE, |nice| nice.max(NICE));
        if let Err(error) = rustix::process::setpriority_process(None, lower) {
            tracing::warn!(%error, "a CPU thread keeps its normal priority");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_threads_of_the_pool_are_nice() {
        let pool = CpuPool::start(Some(1), 1).expect("threads");
        let before = rustix::process::getpriority_process(None).expect("known");
        let inside = pool.run(|| rustix::process::getpriority_process(None).expect("known")).await;
        assert_eq!(inside, Ok(before.max(NICE)));
        assert_eq!(rustix::process::getpriority_process(None).expect("known"), before);
    }

    #[tokio::test]
    async fn a_panic_is_a_crash_of_its_own_work() {
        let pool = CpuPool::start(Some(1), 1).expect("threads");
        let failed = pool.run(|| panic!("on purpose")).await.map(|(): ()| ());
        assert_eq!(failed.map_err(|failure| failure.class), Err(ErrorClass::Crash));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }
}
