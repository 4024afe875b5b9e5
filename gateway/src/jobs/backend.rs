//! `Backend`: a queue and the results of its jobs.

use std::path::Path;
use std::sync::Arc;

use super::counters::Counters;
use super::error::OpenError;
use super::memory::MemoryQueue;
use super::queue::WorkQueue;
use super::results::ResultStore;
use super::results::memory::{BYTES_MAX, MemoryResults};
use super::results::sqlite::SqliteResults;
use super::sqlite::SqliteQueue;
use super::sqlite::lock::DirLock;
use super::time::Clock;
use crate::config::consumer::JobsConfig;

/// A store of jobs with its store of results.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) queue: Arc<dyn WorkQueue>,
    pub(crate) results: Arc<dyn ResultStore>,
}

impl Backend {
    /// In the files of a data directory.
    pub(crate) fn sqlite(
        config: &JobsConfig,
        dir: &Path,
        clock: &Arc<dyn Clock>,
        counters: &Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let lock = Arc::new(DirLock::take(dir)?);
        let (clock, counters) = (Arc::clone(clock), Arc::clone(counters));
        let results = SqliteResults::open(dir, Arc::clone(&clock))?;
        let queue = SqliteQueue::open(dir, lock, clock, counters, config.max_queued)?;
        Ok(Self { queue: Arc::new(queue), results: Arc::new(results) })
    }

    /// In memory.
    pub(crate) fn memory(config: &JobsConfig, clock: &Arc<dyn Clock>, counters: &Arc<Counters>) -> Self {
        let queue = MemoryQueue::new(Arc::clone(clock), Arc::clone(counters), config.max_queued);
        let results = MemoryResults::new(Arc::clone(clock), BYTES_MAX);
        Self { queue: Arc::new(queue), results: Arc::new(results) }
    }
}
