//! What the queues count, for `/metrics` and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use super::queue::Finished;
use super::record::JobState;
use super::times::JobTimes;

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Jobs stored.
    pub enqueued: Count,
    /// Attempts begun.
    pub claimed: Count,
    /// Attempts that shared the execution of another job.
    pub coalesced: Count,
    /// Jobs answered by the result of an earlier one.
    pub cached: Count,
    /// Jobs that ended well.
    pub succeeded: Count,
    /// Attempts that failed and will be repeated.
    pub retried: Count,
    /// Jobs that failed for good, by their consumer's report.
    pub dead: Count,
    /// Running jobs that were cancelled.
    pub cancelled: Count,
    /// Attempts given up by a drain.
    pub released: Count,
    /// Reports that came too late and were refused.
    pub fenced: Count,
    /// Transactions of the durable queue.
    pub commits: Count,
    /// Calls in those transactions: more than `commits` when calls were grouped.
    pub committed_calls: Count,
    /// Transactions that were synced to disk.
    pub syncs: Count,
    /// Jobs released at the start because their process had died.
    pub recovered: Count,
    /// Events that the outlet did not take in time; they are sent again.
    pub events_failed: Count,
    /// Attempts whose work showed no life, so that their leases were prolonged no more.
    pub hung: Count,
    /// CPU threads given up because their work ignored the end of its time.
    pub threads_lost: Count,
    /// How long jobs waited and ran.
    pub(crate) times: JobTimes,
}

impl Counters {
    pub(crate) fn finished(&self, finished: &Finished) {
        match finished {
            Finished::Fenced => self.fenced.add(1),
            Finished::Accepted(settled) => match settled.record.state {
                JobState::Succeeded => self.succeeded.add(1),
                JobState::Scheduled => self.retried.add(1),
                JobState::Dead => self.dead.add(1),
                JobState::Cancelled => self.cancelled.add(1),
                JobState::Ready | JobState::Running => self.released.add(1),
            },
        }
    }
}
