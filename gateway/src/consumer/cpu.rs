//! `CpuPool`: threads of low priority for work that computes, so that no socket waits for it.
//!
//! Measured on two cores, echo p99 while reports of 250 ms run: 266 ms inline, 8 ms (at most 193) with `spawn_blocking`,
//! 0.7 ms here. Reading order: this file, `gate` (when work is held back), `inline` (the counter-example).

mod gate;
mod inline;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use self::gate::Gate;
pub(crate) use self::inline::Inline;
use super::work::Failure;
use crate::config::consumer::{CpuMode, JobsConfig};
use crate::jobs::ErrorClass;
use crate::lag::LoopLag;
pub(crate) use crate::threads::Piece;
use crate::threads::{Pool, PoolError};

/// What other threads of the machine are preferred by. The system's scale ends at 19.
const NICE: i32 = 15;

/// A fixed number of threads with a bounded queue.
///
/// At the bound, work waits for room; its job's time bounds the wait. While the runtimes are later than they may be, work
/// that has a thread is held back: see [`Gate`].
pub(crate) struct CpuPool {
    place: Place,
    meter: Arc<Meter>,
}

/// Where work runs.
enum Place {
    Threads { pool: Pool<()>, gate: Arc<Gate> },
    SpawnBlocking,
    Inline(Arc<Inline>),
}

/// How much is computed.
struct Meter {
    lag: LoopLag,
    /// Given and not ended.
    given: AtomicUsize,
    begun: AtomicUsize,
    seconds: Histogram,
}

/// What `/metrics` tells of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLoad {
    /// Pieces of work that are being computed.
    pub busy: usize,
    /// Pieces of work that wait for a thread, or are held back.
    pub queued: usize,
    /// Pieces of work that were held back because the runtimes were late, since the start.
    pub deferred: u64,
}

impl CpuPool {
    /// Starts `cpu_threads` threads (default: one a core) with room for `cpu_queue` pieces of work beside those that run.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(config: &JobsConfig, lag: LoopLag) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.cpu_threads.unwrap_or_else(cores).max(1);
        let place = match config.cpu_mode {
            CpuMode::Pool => Place::Threads {
                pool: Pool::start("cpu", threads, config.cpu_queue, lower_priority)?,
                gate: Arc::new(Gate::new(lag.clone())),
            },
            CpuMode::SpawnBlocking => Place::SpawnBlocking,
            CpuMode::Inline => Place::Inline(Arc::default()),
        };
        // 1 ms to 16 s.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let meter = Meter { lag, given: AtomicUsize::new(0), begun: AtomicUsize::new(0), seconds };
        Ok(Self { place, meter: Arc::new(meter) })
    }

    /// How much there is to do.
    pub(crate) fn load(&self) -> CpuLoad {
        let busy = self.meter.begun.load(Ordering::Relaxed);
        let queued = self.meter.given.load(Ordering::Relaxed).saturating_sub(busy);
        let deferred = match &self.place {
            Place::Threads { gate, .. } => gate.deferred(),
            Place::SpawnBlocking | Place::Inline(_) => 0,
        };
        CpuLoad { busy, queued, deferred }
    }

    /// How long pieces of work computed.
    pub(crate) fn seconds(&self) -> Histogram {
        self.meter.seconds.clone()
    }

    /// What the threads of the sockets have to serve, with `cpu_mode = "inline"`.
    pub(crate) fn inline(&self) -> Option<Arc<Inline>> {
        match &self.place {
            Place::Inline(inline) => Some(Arc::clone(inline)),
            Place::Threads { .. } | Place::SpawnBlocking => None,
        }
    }

    /// Computes. By `piece`, work that does not end can be given up.
    ///
    /// # Cancel safety
    /// Dropped, work that has not begun is skipped, and what has begun runs to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        piece: Piece,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let given = Given::new(Arc::clone(&self.meter));
        let work = move || given.measure(work);
        let done = match &self.place {
            Place::Threads { pool, gate } => {
                let gate = Arc::clone(gate);
                let held_back = move |(): &mut ()| {
                    gate.pass();
                    work()
                };
                pool.run_piece(piece, held_back).await
            }
            Place::SpawnBlocking => tokio::task::spawn_blocking(work).await.map_err(|error| match error.is_panic() {
                true => PoolError::Panicked,
                false => PoolError::Closed,
            }),
            Place::Inline(inline) => inline.run(work).await,
        };
        done.map_err(|error| match error {
            PoolError::Panicked => Failure::new(ErrorClass::Crash, "panicked", "the computation panicked; see the log"),
            PoolError::Full | PoolError::Closed => Failure::transient("overloaded", error.to_string()),
        })
    }

    /// Gives up a thread whose work does not end, and starts another. Answers whether there was anything to give up.
    pub(crate) fn give_up(&self, piece: &Piece) -> std::io::Result<bool> {
        match &self.place {
            Place::Threads { pool, .. } => pool.give_up(piece, "cpu-spare"),
            Place::SpawnBlocking | Place::Inline(_) => Ok(false),
        }
    }
}

/// A piece of work that was given.
struct Given {
    meter: Arc<Meter>,
    /// So that the runtimes are measured closely.
    _computing: crate::lag::Computing,
}

impl Given {
    fn new(meter: Arc<Meter>) -> Self {
        meter.given.fetch_add(1, Ordering::Relaxed);
        let computing = meter.lag.compute();
        Self { meter, _computing: computing }
    }

    fn measure<T>(self, work: impl FnOnce() -> T) -> T {
        let _begun = Begun::new(&self.meter);
        work()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.meter.given.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A piece of work that is being computed; also one that panics.
struct Begun<'a> {
    meter: &'a Meter,
    at: Instant,
}

impl<'a> Begun<'a> {
    fn new(meter: &'a Meter) -> Self {
        meter.begun.fetch_add(1, Ordering::Relaxed);
        Self { meter, at: Instant::now() }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.meter.begun.fetch_sub(1, Ordering::Relaxed);
        self.meter.seconds.observe(self.at.elapsed().as_secs_f64());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_the_threads_of_the_pool_are_nice() {
        let pool = pool(CpuMode::Pool);
        let before = rustix::process::getpriority_process(None).expect("known");
        let inside = pool.run(Piece::default(), || rustix::process::getpriority_process(None).expect("known")).await;
        assert_eq!(inside, Ok(before.max(NICE)));
        assert_eq!(rustix::process::getpriority_process(None).expect("known"), before);
    }

    #[tokio::test]
    async fn a_panic_is_a_crash_of_its_own_work() {
        for mode in [CpuMode::Pool, CpuMode::SpawnBlocking, CpuMode::Inline] {
            let pool = pool(mode);
            let inline = pool.inline().unwrap_or_default();
            let work = async {
                let failed = pool.run(Piece::default(), || panic!("on purpose")).await.map(|(): ()| ());
                assert_eq!(failed.map_err(|failure| failure.class), Err(ErrorClass::Crash), "{mode:?}");
                assert_eq!(pool.run(Piece::default(), || 7).await, Ok(7), "{mode:?}");
            };
            tokio::select! {
                () = work => {}
                () = inline.serve() => {}
            }
            assert_eq!(pool.load(), CpuLoad { busy: 0, queued: 0, deferred: 0 }, "{mode:?}");
        }
    }

    fn pool(cpu_mode: CpuMode) -> CpuPool {
        let config = JobsConfig { cpu_mode, cpu_threads: Some(1), cpu_queue: 1, ..JobsConfig::default() };
        CpuPool::start(&config, LoopLag::default()).expect("threads")
    }
}
