//! `Writer`: the one thread that writes to a file. What gathers in its queue while it commits is the next commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::open::set_sync;
use crate::jobs::counters::Counters;
use crate::jobs::error::{JobsError, OpenError};

/// Calls that wait for the writer. More are refused with [`JobsError::Busy`]: at the slowest disk we met (189 commits a
/// second) and full batches this is a fraction of a second of work.
pub(crate) const QUEUE_MAX: usize = 1024;

/// Calls in one transaction, so that the first of them does not wait for ever.
const BATCH_MAX: usize = 256;

/// How long a caller waits. What has not begun by then is not begun.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Whether a commit has to survive the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// It has to: the transaction is synced before it is answered.
    Disk,
    /// It has to survive the process only.
    Os,
}

/// Opens the file, and reads what the thread keeps in memory beside it. Called again after an I/O error: a file is never
/// synced a second time after a sync that failed, because the system may have dropped what it could not write.
pub(crate) type Open<S> = Box<dyn FnMut() -> Result<(Connection, S), OpenError> + Send>;

/// The handle of a writing thread. `S` is what it keeps beside the file; a rollback makes it what it was.
pub(crate) struct Writer<S> {
    queue: Mutex<Option<SyncSender<Box<dyn Work<S>>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Clone + Send + 'static> Writer<S> {
    /// Opens the file and starts the thread. The thread ends when the handle is dropped.
    pub(crate) fn start(name: &str, mut open: Open<S>, counters: Arc<Counters>) -> Result<Self, OpenError> {
        let db = Some(open()?);
        let (queue, inbox) = sync_channel(QUEUE_MAX);
        let worker = Worker { inbox, open, db, level: None, is_full: false, counters };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.work());
        let thread = thread.map_err(|source| OpenError::Io { path: name.into(), source })?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `act` in a transaction, alone or with others, and answers after the commit.
    ///
    /// `act` may be run a second time when another call of the same transaction failed.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        sync: Sync,
        act: impl FnMut(&Connection, &mut S) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, JobsError> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + CALL_DEADLINE;
        let call = Call { sync, deadline, act, value: None, reply };
        self.send(Box::new(call))?;
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(JobsError::TimedOut),
        }
    }

    /// Lets the thread finish what it has been given, and waits for its end.
    pub(crate) async fn close(&self) {
        drop(self.queue.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // The thread catches panics, so it has nothing to tell.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn send(&self, work: Box<dyn Work<S>>) -> Result<(), JobsError> {
        let queue = self.queue.lock();
        match queue.as_ref().ok_or_else(closed)?.try_send(work) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(JobsError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(closed()),
        }
    }
}

fn closed() -> JobsError {
    JobsError::Unavailable { what: "it is closed".into() }
}

/// Why a call failed inside its transaction.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It is refused; it wrote nothing, and the others of its transaction go on.
    Refused(JobsError),
    /// SQLite failed; the transaction is rolled back.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

trait Work<S>: Send {
    fn sync(&self) -> Sync;
    fn is_late(&self, now: Instant) -> bool;
    fn run(&mut self, conn: &Connection, state: &mut S) -> Result<(), rusqlite::Error>;
    fn answer(self: Box<Self>, outcome: Result<(), JobsError>);
}

struct Call<T, F> {
    sync: Sync,
    deadline: Instant,
    act: F,
    value: Option<Result<T, JobsError>>,
    reply: oneshot::Sender<Result<T, JobsError>>,
}

impl<S, T: Send, F: FnMut(&Connection, &mut S) -> Result<T, Failed> + Send> Work<S> for Call<T, F> {
    fn sync(&self) -> Sync {
        self.sync
    }

    fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline || self.reply.is_closed()
    }

    fn run(&mut self, conn: &Connection, state: &mut S) -> Result<(), rusqlite::Error> {
        self.value = match (self.act)(conn, state) {
            Ok(value) => Some(Ok(value)),
            Err(Failed::Refused(error)) => Some(Err(error)),
            Err(Failed::Sqlite(error)) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), JobsError>) {
        let told = match outcome {
            Ok(()) => self.value.unwrap_or(Err(JobsError::TimedOut)),
            Err(error) => Err(error),
        };
        // The one who called may have given up.
        let _ = self.reply.send(told);
    }
}

struct Worker<S> {
    inbox: Receiver<Box<dyn Work<S>>>,
    open: Open<S>,
    /// `None` after an I/O error, until the file is open again.
    db: Option<(Connection, S)>,
    level: Option<Sync>,
    /// Whether the disk was found full and nothing was written since.
    is_full: bool,
    counters: Arc<Counters>,
}

/// What went wrong with a transaction.
enum Broken {
    Sqlite(rusqlite::Error),
    Panicked,
    NotSafe,
}

impl<S: Clone> Worker<S> {
    fn work(mut self) {
        while let Ok(first) = self.inbox.recv() {
            let mut batch = vec![first];
            batch.extend(self.inbox.try_iter().take(BATCH_MAX - 1));
            let now = Instant::now();
            let (late, mut batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|work| work.is_late(now));
            late.into_iter().for_each(|work| work.answer(Err(JobsError::TimedOut)));
            if !batch.is_empty() {
                let outcome = self.reopened().and_then(|()| self.commit(&mut batch));
                self.answer(batch, outcome);
            }
        }
    }

    fn answer(&mut self, batch: Vec<Box<dyn Work<S>>>, outcome: Result<(), JobsError>) {
        // A full or failing disk, or a lock on the file, fails everybody alike; anything else is the fault of one, who shall fail alone.
        let one_to_blame = matches!(&outcome, Err(JobsError::Sqlite(error)) if !is_busy(error)) && batch.len() > 1;
        for mut work in batch {
            let told = if one_to_blame {
                self.reopened().and_then(|()| self.commit(std::slice::from_mut(&mut work)))
            } else {
                outcome.clone()
            };
            work.answer(told);
        }
    }

    fn reopened(&mut self) -> Result<(), JobsError> {
        if self.db.is_none() {
            let db = (self.open)().map_err(|error| self.not_open(error))?;
            tracing::warn!("the job store is open again");
            self.db = Some(db);
        }
        Ok(())
    }

    /// A full disk makes opening fail in ways that do not say so.
    fn not_open(&self, error: OpenError) -> JobsError {
        let is_full = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        match error {
            _ if self.is_full => JobsError::StorageFull,
            OpenError::Sqlite { source, .. } if is_full(&source) => JobsError::StorageFull,
            error => JobsError::Unavailable { what: error.to_string() },
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Work<S>>]) -> Result<(), JobsError> {
        let sync = if batch.iter().any(|work| work.sync() == Sync::Disk) { Sync::Disk } else { Sync::Os };
        let calls = batch.len();
        let before = self.db.as_ref().expect("reopened() came before").1.clone();
        match self.transact(batch, sync) {
            Ok(()) => {
                self.is_full = false;
                self.counters.commits.add(1);
                self.counters.committed_calls.add(calls);
                self.counters.syncs.add(usize::from(sync == Sync::Disk));
                Ok(())
            }
            Err(broken) => Err(self.roll_back(broken, before)),
        }
    }

    fn transact(&mut self, batch: &mut [Box<dyn Work<S>>], sync: Sync) -> Result<(), Broken> {
        let (conn, state) = self.db.as_mut().expect("reopened() came before");
        if self.level != Some(sync) {
            self.level = None;
            if !set_sync(conn, sync == Sync::Disk).map_err(Broken::Sqlite)? {
                return Err(Broken::NotSafe);
            }
            self.level = Some(sync);
        }
        conn.execute_batch("begin immediate").map_err(Broken::Sqlite)?;
        let run = AssertUnwindSafe(|| batch.iter_mut().try_for_each(|work| work.run(conn, state)));
        catch_unwind(run).map_err(|_| Broken::Panicked)?.map_err(Broken::Sqlite)?;
        conn.execute_batch("commit").map_err(Broken::Sqlite)
    }

    /// Makes the file and the state as they were, or closes the file if that is not certain.
    fn roll_back(&mut self, broken: Broken, before: S) -> JobsError {
        let is_harmless = matches!(&broken, Broken::Sqlite(error) if is_full_or_busy(error));
        let told = match broken {
            Broken::Sqlite(error) => explain(error),
            Broken::Panicked => JobsError::Unavailable { what: "a call panicked".into() },
            Broken::NotSafe => JobsError::Unavailable { what: "SQLite does not take `synchronous`".into() },
        };
        tracing::error!(error = %told, cause = ?std::error::Error::source(&told), "the job store rolled back");
        self.is_full |= matches!(told, JobsError::StorageFull);
        self.level = None;
        // Opening anew rolls back, reads the state afresh, and is right after any error; but a full disk lets nobody open.
        self.db = self.db.take().filter(|(conn, _)| is_harmless && rolled_back(conn)).map(|(conn, _)| (conn, before));
        told
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn is_full_or_busy(error: &rusqlite::Error) -> bool {
    is_busy(error) || error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// SQLite may have rolled back by itself.
fn rolled_back(conn: &Connection) -> bool {
    conn.is_autocommit() || (conn.execute_batch("rollback").is_ok() && conn.is_autocommit())
}

/// What an error of SQLite means to the one who called.
pub(crate) fn explain(error: rusqlite::Error) -> JobsError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JobsError::StorageFull,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::DatabaseCorrupt) => {
            JobsError::Unavailable { what: error.to_string() }
        }
        _ => JobsError::Sqlite(Arc::new(error)),
    }
}
