//! `JobContext`: what a consumer knows about the attempt it runs, and how it says how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groupcast_protocol::{JobId, Message, Trace};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cpu::{CpuPool, Piece};
use super::life::Life;
use super::work::Failure;
use crate::jobs::Progress;
use crate::jobs::queue::Claimed;
use parking_lot::Mutex;

/// One attempt of a job. Cheap to clone.
#[derive(Clone)]
pub struct JobContext {
    inner: Arc<Inner>,
}

struct Inner {
    claimed: Claimed,
    stop: Stop,
    progress: watch::Sender<Option<Progress>>,
    cpu: Arc<CpuPool>,
    /// The pieces of work that are being computed: as many as the consumer gave at once.
    computing: Mutex<Vec<Piece>>,
}

impl JobContext {
    pub(crate) fn new(
        claimed: Claimed,
        stop: Stop,
        progress: watch::Sender<Option<Progress>>,
        cpu: Arc<CpuPool>,
    ) -> Self {
        Self { inner: Arc::new(Inner { claimed, stop, progress, cpu, computing: Mutex::default() }) }
    }

    /// The job's id: the same in every attempt.
    pub fn id(&self) -> JobId {
        self.inner.claimed.lease.id
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.claimed.attempt
    }

    /// How many attempts there may be.
    pub fn max_attempts(&self) -> u32 {
        self.inner.claimed.max_attempts
    }

    /// The name of the consumer.
    pub fn consumer(&self) -> &str {
        &self.inner.claimed.consumer
    }

    /// The message that asked for the job.
    pub fn message(&self) -> &Message {
        &self.inner.claimed.message
    }

    /// The trace of whoever asked for the job, the same in every attempt.
    pub fn trace(&self) -> &Trace {
        self.message().trace()
    }

    /// Whose job it is; `None`: no user's.
    pub(crate) fn asker(&self) -> Option<&crate::jobs::Asker> {
        self.inner.claimed.asker.as_ref()
    }

    /// How much time is left.
    pub fn time_left(&self) -> Duration {
        self.inner.stop.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether to stop: the job was cancelled, or its time is over, or the gateway drains. To ask is a sign of life.
    pub fn is_cancelled(&self) -> bool {
        self.inner.stop.is_stopped()
    }

    /// Waits until the job is cancelled. (The future of [`super::Consumer::run`] is dropped then; this is for tasks of
    /// its own.)
    pub async fn cancelled(&self) {
        self.inner.stop.token.cancelled().await;
    }

    /// Says how far the job is. Cheap: only some of it is sent. A sign of life.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str) {
        self.inner.stop.life.sign();
        self.inner.progress.send_replace(Some(Progress { done, total, unit: unit.to_owned() }));
    }

    /// Computes on a thread of low priority. Waits for a free one while others compute.
    ///
    /// Whoever computes for long asks [`JobContext::is_cancelled`] or says his [`JobContext::progress`] now and then: without
    /// either for two thirds of `[jobs] lease` he is taken for hung, and loses the job.
    ///
    /// # Cancel safety
    /// Dropped, what has begun goes on until it looks at [`JobContext::is_cancelled`].
    ///
    /// # Errors
    /// When the work panics, or the gateway ends.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&JobContext) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (job, piece) = (self.clone(), Piece::default());
        let computing = Computing { job: self.clone(), piece: piece.clone() };
        let counted = move || {
            let _occupied = job.inner.stop.life.occupy();
            let _computing = computing.begun();
            work(&job)
        };
        self.inner.cpu.run(piece, counted).await
    }

    /// The pieces of work given to [`JobContext::compute`] that are being computed.
    pub(crate) fn computing(&self) -> Vec<Piece> {
        self.inner.computing.lock().clone()
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.inner.stop
    }
}

/// When to stop. For code that cannot be dropped: it asks, and shows thereby that it lives.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    pub(crate) token: CancellationToken,
    pub(crate) deadline: Instant,
    pub(crate) life: Arc<Life>,
}

impl Stop {
    /// Stops after a time.
    pub(crate) fn after(time: Duration) -> Self {
        Self { token: CancellationToken::new(), deadline: Instant::now() + time, life: Arc::default() }
    }

    /// Whether it is time.
    pub(crate) fn is_stopped(&self) -> bool {
        self.life.sign();
        self.token.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// A piece of work that is computed, once it has begun.
struct Computing {
    job: JobContext,
    piece: Piece,
}

impl Computing {
    fn begun(self) -> Self {
        self.job.inner.computing.lock().push(self.piece.clone());
        self
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.job.inner.computing.lock().retain(|piece| !piece.is(&self.piece));
    }
}
