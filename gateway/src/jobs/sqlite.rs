//! `SqliteQueue`: jobs in `jobs.db`, for one gateway.
//!
//! One thread writes and groups what waits into one transaction; others read, and never wait for a sync. What is synced
//! to disk before it is answered: the acceptance of `disk` jobs, the end of their attempts, cancellations and redrives.
//! Claims and progress are not: after a loss of power such an attempt is not known to have begun.

mod keys;
mod letters;
pub(crate) mod lock;
pub(crate) mod open;
mod ops;
mod pauses;
mod private;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub(crate) use self::rows::{int, uint};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use groupcast_protocol::JobId;
use rusqlite::Connection;

use self::lock::DirLock;
use self::ops::Waiting;
use self::writer::{Sync, Writer, explain};
use super::counters::Counters;
use super::error::{JobsError, OpenError};
use super::new_job::{Enqueued, NewJob};
use super::once::{Once, Told};
use super::queue::{
    Answer, CancelOutcome, Capabilities, ClaimAsk, ClaimBatch, DeadLetters, Depth, Filter, Finish, Finished, Lease,
    LeaseState, RedriveFilter, Sent, Settled, Tick, WorkQueue,
};
use super::record::{JobRecord, Progress};
use super::results::ResultKey;
use super::time::Clock;
use crate::config::consumer::Durability;
use crate::threads::{Pool, PoolError};

/// Reads that wait for a reading thread; more are refused with [`JobsError::Busy`].
pub(crate) const READS_MAX: usize = 1024;

/// Threads that read a file, so that a long list does not hold up every look at a job.
const READERS: usize = 2;

/// Jobs in a SQLite file.
pub(crate) struct SqliteQueue {
    writer: Writer<Waiting>,
    reader: Reader,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    _lock: Arc<DirLock>,
}

impl SqliteQueue {
    /// Opens `jobs.db` in a directory that this process has locked, and releases the jobs that a dead process was
    /// running.
    ///
    /// # Errors
    /// When the file cannot be opened or is not safe to write to.
    pub(crate) fn open(
        dir: &Path,
        lock: Arc<DirLock>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        max_queued: u64,
    ) -> Result<Self, OpenError> {
        let path = dir.join("jobs.db");
        let file = path.clone();
        let (now, recovered) = (clock.wall_ms(), Arc::clone(&counters));
        let mut is_first = true;
        let open = move || {
            let failed = |source| OpenError::Sqlite { path: file.clone(), source };
            let conn = open::open_writer(&file, schema::MIGRATIONS)?;
            if std::mem::take(&mut is_first) {
                recovered.recovered.add(release_all(&conn, now).map_err(failed)?);
            }
            let waiting = Waiting::count(&conn, max_queued).map_err(failed)?;
            Ok((conn, waiting))
        };
        let writer = Writer::start("jobs-writer", Box::new(open), Arc::clone(&counters))?;
        let reader = Reader::start("jobs-reader", path)?;
        Ok(Self { writer, reader, clock, counters, _lock: lock })
    }
}

fn release_all(conn: &Connection, now: u64) -> rusqlite::Result<usize> {
    conn.execute_batch("begin immediate")?;
    let released = ops::release_all(conn, now)?;
    conn.execute_batch("commit")?;
    Ok(released)
}

impl WorkQueue for SqliteQueue {
    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'_, Vec<Enqueued>> {
        let sync = sync_for(jobs.iter().map(|job| job.durability));
        let now = self.clock.wall_ms();
        let call = self.writer.call(sync, move |conn, waiting| ops::enqueue(conn, waiting, &jobs, now));
        async move {
            let told = call.await?;
            self.counters.enqueued.add(told.iter().filter(|one| !one.existing).count());
            Ok(told)
        }
        .boxed()
    }

    fn enqueue_once(&self, once: Once, jobs: Vec<NewJob>) -> Answer<'_, Told> {
        let sync = sync_for(jobs.iter().map(|job| job.durability));
        let now = self.clock.wall_ms();
        let call = self.writer.call(sync, move |conn, waiting| keys::enqueue_once(conn, waiting, &once, &jobs, now));
        async move {
            let told = call.await?;
            if let Told::Stored(jobs) = &told {
                self.counters.enqueued.add(jobs.iter().filter(|one| !one.existing).count());
            }
            Ok(told)
        }
        .boxed()
    }

    fn tick(&self, tick: Tick, jobs: Vec<NewJob>) -> Answer<'_, Option<Vec<Enqueued>>> {
        let sync = sync_for(jobs.iter().map(|job| job.durability));
        let now = self.clock.wall_ms();
        let call = self.writer.call(sync, move |conn, waiting| ops::tick(conn, waiting, &tick, &jobs, now));
        async move {
            let told = call.await?;
            self.counters.enqueued.add(told.iter().flatten().filter(|one| !one.existing).count());
            Ok(told)
        }
        .boxed()
    }

    fn recall(&self, name: [u8; 32], body: [u8; 32]) -> Answer<'_, Option<Told>> {
        let now = self.clock.wall_ms();
        self.reader.read(move |conn| keys::recall(conn, name, body, now)).boxed()
    }

    fn ticks(&self) -> Answer<'_, Vec<Tick>> {
        self.reader.read(ops::ticks).boxed()
    }

    fn has_room(&self, jobs: usize) -> Answer<'_, ()> {
        self.writer.call(Sync::Os, move |_, waiting| waiting.has_room(jobs)).boxed()
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, ClaimBatch> {
        let clock = Arc::clone(&self.clock);
        let claim = move |conn: &Connection, waiting: &mut Waiting| {
            Ok(ops::claim(conn, waiting, &ask, clock.wall_ms(), clock.mono_ms())?)
        };
        async move {
            let batch = self.writer.call(Sync::Os, claim).await?;
            self.counters.claimed.add(batch.jobs.len() + batch.riders.len());
            Ok(batch)
        }
        .boxed()
    }

    fn tidy(&self, held: Vec<Lease>) -> Answer<'_, bool> {
        let clock = Arc::clone(&self.clock);
        let tidy = move |conn: &Connection, waiting: &mut Waiting| {
            Ok(ops::tidy(conn, waiting, &held, clock.wall_ms(), clock.mono_ms())?)
        };
        self.writer.call(Sync::Os, tidy).boxed()
    }

    fn extend(&self, leases: Vec<Lease>, by: Duration) -> Answer<'_, Vec<LeaseState>> {
        let clock = Arc::clone(&self.clock);
        let extend = move |conn: &Connection, waiting: &mut Waiting| {
            Ok(ops::extend(conn, waiting, &leases, clock.mono_ms(), by)?)
        };
        self.writer.call(Sync::Os, extend).boxed()
    }

    fn progress(&self, notes: Vec<(Lease, Progress)>) -> Answer<'_, Vec<LeaseState>> {
        let note = move |conn: &Connection, waiting: &mut Waiting| {
            let one = |(lease, progress): &(Lease, Progress)| {
                let (state, _) = ops::with_lease(conn, waiting, lease, |row| row.progress = Some(progress.clone()))?;
                Ok(state)
            };
            notes.iter().map(one).collect()
        };
        self.writer.call(Sync::Os, note).boxed()
    }

    fn finish(&self, ends: Vec<Finish>) -> Answer<'_, Vec<Finished>> {
        let sync = sync_for(ends.iter().map(|end| end.lease.durability));
        let now = self.clock.wall_ms();
        let call = self.writer.call(sync, move |conn, waiting| Ok(ops::finish(conn, waiting, &ends, now)?));
        async move {
            let told = call.await?;
            told.iter().for_each(|one| self.counters.finished(one));
            Ok(told)
        }
        .boxed()
    }

    fn cancel(&self, ids: Vec<JobId>) -> Answer<'_, Vec<CancelOutcome>> {
        let now = self.clock.wall_ms();
        self.writer.call(Sync::Disk, move |conn, waiting| Ok(ops::cancel(conn, waiting, &ids, now)?)).boxed()
    }

    fn get(&self, ids: Vec<JobId>) -> Answer<'_, Vec<Option<JobRecord>>> {
        let get =
            move |conn: &Connection| ids.iter().map(|id| Ok(rows::load(conn, *id)?.map(|row| row.record()))).collect();
        self.reader.read(get).boxed()
    }

    fn list(&self, filter: Filter, after: Option<JobId>, limit: usize) -> Answer<'_, Vec<JobRecord>> {
        self.reader.read(move |conn| ops::list(conn, &filter, after, limit)).boxed()
    }

    fn redrive(&self, filter: RedriveFilter) -> Answer<'_, Vec<String>> {
        let now = self.clock.wall_ms();
        self.writer.call(Sync::Disk, move |conn, waiting| Ok(ops::redrive(conn, waiting, &filter, now)?)).boxed()
    }

    fn events_pending(&self, limit: usize) -> Answer<'_, Vec<Settled>> {
        self.reader.read(move |conn| ops::events_pending(conn, limit)).boxed()
    }

    fn event_sent(&self, sent: Vec<Sent>) -> Answer<'_, ()> {
        self.writer.call(Sync::Os, move |conn, _| Ok(ops::event_sent(conn, &sent)?)).boxed()
    }

    fn refers_to(&self, keys: Vec<ResultKey>) -> Answer<'_, Vec<bool>> {
        let refers = move |conn: &Connection| keys.iter().map(|key| ops::refers_to(conn, *key)).collect();
        self.reader.read(refers).boxed()
    }

    fn result_of(&self, id: JobId) -> Answer<'_, Option<(JobRecord, Option<ResultKey>)>> {
        self.reader.read(move |conn| Ok(rows::load(conn, id)?.map(|row| (row.record(), row.result_key())))).boxed()
    }

    fn prune(&self, ended_before_ms: u64, limit: usize) -> Answer<'_, u64> {
        let now = self.clock.wall_ms();
        let prune = move |conn: &Connection, _: &mut Waiting| {
            keys::forget(conn, now, limit)?;
            Ok(ops::prune(conn, ended_before_ms, limit)?)
        };
        self.writer.call(Sync::Os, prune).boxed()
    }

    fn depths(&self) -> Answer<'_, Vec<Depth>> {
        self.reader.read(ops::depths).boxed()
    }

    fn pause(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        let now = self.clock.wall_ms();
        self.writer.call(Sync::Disk, move |conn, _| Ok(pauses::pause(conn, &consumers, now)?)).boxed()
    }

    fn resume(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        self.writer.call(Sync::Disk, move |conn, _| Ok(pauses::resume(conn, &consumers)?)).boxed()
    }

    fn paused(&self) -> Answer<'_, Vec<String>> {
        self.reader.read(pauses::paused).boxed()
    }

    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<DeadLetters>> {
        self.reader.read(move |conn| letters::dead_letters(conn, limit)).boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { is_shared: false }
    }

    fn ready(&self) -> Answer<'_, ()> {
        // Through the writer: a queue that can only be read is not ready.
        self.writer.call(Sync::Os, |_, _| Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.writer.close().await;
            self.reader.close().await;
        }
        .boxed()
    }
}

fn sync_for(mut levels: impl Iterator<Item = Durability>) -> Sync {
    if levels.any(|level| level == Durability::Disk) { Sync::Disk } else { Sync::Os }
}

/// Threads that read a file, each over a connection of its own.
pub(crate) struct Reader {
    pool: Arc<Pool<ReadState>>,
}

struct ReadState {
    path: PathBuf,
    conn: Option<Connection>,
}

impl Reader {
    /// Starts the threads; each opens the file when it first has something to read.
    pub(crate) fn start(name: &str, path: PathBuf) -> Result<Self, OpenError> {
        let file = path.clone();
        let make = move || ReadState { path: file.clone(), conn: None };
        let pool = Pool::start(name, READERS, READS_MAX, make).map_err(|source| OpenError::Io { path, source })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JobsError> {
        let work = self.pool.try_run(move |state: &mut ReadState| state.read(read));
        let answer = tokio::time::timeout(writer::CALL_DEADLINE, work).await.map_err(|_| JobsError::TimedOut)?;
        answer.map_err(JobsError::from)?.map_err(explain)
    }

    /// Ends the threads.
    pub(crate) async fn close(&self) {
        self.pool.close();
        let pool = Arc::clone(&self.pool);
        // Nothing of the closure can panic.
        let _ = tokio::task::spawn_blocking(move || pool.join()).await;
    }
}

impl ReadState {
    fn read<T>(&mut self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => open::open_reader(&self.path)?,
        };
        // After an error the connection is not kept: the next read opens a new one.
        let value = read(&conn)?;
        self.conn = Some(conn);
        Ok(value)
    }
}

impl From<PoolError> for JobsError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Full => Self::Busy,
            PoolError::Panicked | PoolError::Closed => Self::Unavailable { what: error.to_string() },
        }
    }
}
