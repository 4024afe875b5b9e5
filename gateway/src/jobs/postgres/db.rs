//! `Db`: transactions on PostgreSQL, each with a deadline, on connections that are replaced when they are lost.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType, Timeouts, Transaction,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::consumer::Durability;
use crate::jobs::error::{JobsError, OpenError};
use crate::jobs::time::Clock;
#[cfg(feature = "kill-points")]
use crate::kill_point::{self, KillPoint};
use crate::postgres::Address;

/// How long a caller waits.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Calls that are under way or wait for a connection; more are refused with [`JobsError::Busy`].
const CALLS_MAX: usize = 1024;

/// How often a transaction is tried that met another one's.
const TRIES: usize = 4;

/// Without the first a commit does not wait for the disk, without the second a page that was half written when the power went
/// stays so. What a commit waits for, `synchronous_commit`, is not the server's to say: each transaction sets it.
const LOSSY_WHEN_OFF: [&str; 2] = ["fsync", "full_page_writes"];

/// What a commit waits for before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sync {
    /// Nothing: a crash of the server may lose it.
    Off,
    /// The server's disk.
    Local,
    /// The server's disk, and its synchronous standbys where it has any.
    Disk,
}

/// Whose clock counts.
#[derive(Clone)]
pub(crate) enum Time {
    /// The server's, so that processes whose clocks differ agree about leases.
    Server(Arc<dyn Clock>),
    /// A clock that a test sets.
    #[cfg(test)]
    Given(Arc<dyn Clock>),
}

/// A handle; clones share the connections. All work is done on the runtime that it was made on, whoever asks.
#[derive(Clone)]
pub(crate) struct Db {
    pool: Pool,
    runtime: Handle,
    calls: Arc<Semaphore>,
    time: Time,
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// An open transaction.
pub(crate) struct Tx<'a> {
    inner: Transaction<'a>,
    /// The time of the store, in milliseconds since 1970.
    pub(crate) now: u64,
    /// The same moment by this process' clock.
    local: u64,
    /// When the server was started: it could take no heartbeat before.
    pub(crate) server_began: u64,
    /// The server's setting that lets a crash of its machine take what was committed, if there is one.
    pub(crate) lossy: Option<&'static str>,
}

/// Why a call failed inside its transaction, which is rolled back.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It is refused.
    Refused(JobsError),
    /// PostgreSQL failed.
    Postgres(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl Db {
    /// Makes the handle; connects when somebody asks for something.
    pub(crate) fn new(address: &Address, schema: &str, connections: usize, time: Time) -> Result<Self, OpenError> {
        let refused = |source: Box<dyn std::error::Error + Send + std::marker::Sync>| OpenError::Postgres {
            address: address.shown(),
            source: source.into(),
        };
        let (config, tls) = address.connector().map_err(|error| refused(error.into()))?;
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        // A statement that outlives its caller would only be in the way of the next.
        let settings = format!(
            "set search_path to \"{schema}\"; set statement_timeout = '8s'; set lock_timeout = '5s';
             set idle_in_transaction_session_timeout = '15s'; set default_transaction_isolation = 'read committed'"
        );
        let timeouts = Timeouts {
            wait: Some(CALL_DEADLINE / 2),
            create: Some(crate::postgres::CONNECT_TIMEOUT),
            recycle: Some(CALL_DEADLINE / 2),
        };
        let builder = Pool::builder(manager).max_size(connections).timeouts(timeouts).runtime(Runtime::Tokio1);
        let prepare = Hook::async_fn(move |client: &mut ClientWrapper, _| {
            let settings = settings.clone();
            async move { client.batch_execute(&settings).await.map_err(HookError::Backend) }.boxed()
        });
        let pool = builder.post_create(prepare).build().map_err(|error| refused(error.into()))?;
        Ok(Self {
            pool,
            runtime: Handle::current(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            time,
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Runs a transaction and answers after its commit. A caller that gives up does not stop it. `work` may be run more
    /// than once, each time from the beginning.
    pub(crate) async fn transact<T, F>(&self, sync: Sync, work: F) -> Result<T, JobsError>
    where
        T: Send + 'static,
        F: for<'t, 'c> Fn(&'t Tx<'c>) -> BoxFuture<'t, Result<T, Failed>> + Send + std::marker::Sync + 'static,
    {
        let db = self.clone();
        self.call(async move { db.transact_here(sync, &work).await }).await
    }

    /// Runs one statement that reads.
    pub(crate) async fn read(
        &self,
        sql: impl Into<Cow<'static, str>>,
        values: Vec<Box<dyn ToSql + Send + std::marker::Sync>>,
    ) -> Result<Vec<Row>, JobsError> {
        let (db, sql) = (self.clone(), sql.into());
        self.call(async move {
            let client = db.client().await?;
            let statement = client.prepare_cached(&sql).await.map_err(explain)?;
            let values: Vec<&(dyn ToSql + std::marker::Sync)> = values.iter().map(|value| &**value as _).collect();
            client.query(&statement, &values).await.map_err(explain)
        })
        .await
    }

    /// Refuses later calls, lets those under way end, and closes the connections.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        if timeout(CALL_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("calls of the job store did not end in time");
        }
        self.pool.close();
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, JobsError>> + Send + 'static,
    ) -> Result<T, JobsError> {
        if self.is_closed() {
            return Err(closed());
        }
        let place = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| JobsError::Busy)?;
        let work = async move {
            let done = timeout(CALL_DEADLINE, work).await;
            drop(place);
            done.unwrap_or(Err(JobsError::TimedOut))
        };
        let done = self.tasks.spawn_on(work, &self.runtime);
        done.await.unwrap_or_else(|_| Err(JobsError::Unavailable { what: "a call did not end".into() }))
    }

    async fn transact_here<T, F>(&self, sync: Sync, work: &F) -> Result<T, JobsError>
    where
        F: for<'t, 'c> Fn(&'t Tx<'c>) -> BoxFuture<'t, Result<T, Failed>>,
    {
        for _ in 1..TRIES {
            match self.transact_once(sync, work).await {
                Err(Failed::Postgres(error)) if is_collision(&error) => {}
                other => return other.map_err(JobsError::from),
            }
        }
        self.transact_once(sync, work).await.map_err(JobsError::from)
    }

    async fn transact_once<T, F>(&self, sync: Sync, work: &F) -> Result<T, Failed>
    where
        F: for<'t, 'c> Fn(&'t Tx<'c>) -> BoxFuture<'t, Result<T, Failed>>,
    {
        let mut client = Discarded::unless_done(self.client().await.map_err(Failed::Refused)?);
        let outcome = self.transact_on(client.get(), sync, work).await;
        // An answer of the server's own says that the transaction has ended, one way or the other.
        let has_ended = match &outcome {
            Ok(_) | Err(Failed::Refused(_)) => true,
            Err(Failed::Postgres(error)) => error.code().is_some(),
        };
        if has_ended {
            client.keep();
        }
        outcome
    }

    async fn transact_on<T, F>(&self, client: &mut Client, sync: Sync, work: &F) -> Result<T, Failed>
    where
        F: for<'t, 'c> Fn(&'t Tx<'c>) -> BoxFuture<'t, Result<T, Failed>>,
    {
        let inner = client.transaction().await?;
        let level = match sync {
            Sync::Off => "off",
            Sync::Local => "local",
            Sync::Disk => "on",
        };
        let sql = "select set_config('synchronous_commit', $1, true),
            (extract(epoch from clock_timestamp()) * 1000)::bigint,
            (extract(epoch from pg_postmaster_start_time()) * 1000)::bigint,
            current_setting('fsync'), current_setting('full_page_writes')";
        let statement = inner.prepare_cached(sql).await?;
        let row = inner.query_one(&statement, &[&level]).await?;
        // Looked at each time: they may change while the server runs, and another server may have the address.
        let lossy = LOSSY_WHEN_OFF.into_iter().zip(3..).find(|(_, at)| row.get::<_, &str>(*at) != "on");
        let (now, local, server_began) = match &self.time {
            Time::Server(clock) => (uint(row.get(1)), clock.wall_ms(), uint(row.get(2))),
            #[cfg(test)]
            Time::Given(clock) => (clock.wall_ms(), clock.wall_ms(), 0),
        };
        let tx = Tx { inner, now, local, server_began, lossy: lossy.map(|(setting, _)| setting) };
        match work(&tx).await {
            Ok(value) => {
                commit(tx.inner).await?;
                Ok(value)
            }
            Err(failed) => {
                tx.inner.rollback().await?;
                Err(failed)
            }
        }
    }

    async fn client(&self) -> Result<Client, JobsError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => JobsError::Busy,
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => explain(error),
            PoolError::Closed => closed(),
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                JobsError::Unavailable { what: "PostgreSQL cannot be reached".into() }
            }
        })
    }
}

impl Tx<'_> {
    /// Refuses what the server does not keep.
    pub(crate) fn keeps(&self, durability: Durability) -> Result<(), JobsError> {
        match (durability, self.lossy) {
            (Durability::Disk, Some(setting)) => Err(JobsError::NotDurable { setting }),
            (Durability::Disk, None) | (Durability::Os | Durability::Memory, _) => Ok(()),
        }
    }

    /// Runs a statement that answers rows.
    pub(crate) async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + std::marker::Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.inner.prepare_cached(sql).await?;
        self.inner.query(&statement, values).await
    }

    /// Runs a statement; answers how many rows it changed.
    pub(crate) async fn execute(&self, sql: &str, values: &[&(dyn ToSql + std::marker::Sync)]) -> Result<u64, Error> {
        let statement = self.inner.prepare_cached(sql).await?;
        self.inner.execute(&statement, values).await
    }

    /// Runs statements as they are.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.inner.batch_execute(sql).await
    }

    /// A time of this process as one of the store.
    pub(crate) fn there(&self, local: u64) -> u64 {
        local.saturating_add(self.now).saturating_sub(self.local)
    }

    /// A time of the store as one of this process.
    pub(crate) fn here(&self, there: u64) -> u64 {
        there.saturating_add(self.local).saturating_sub(self.now)
    }
}

async fn commit(open: Transaction<'_>) -> Result<(), Error> {
    let done = open.commit();
    #[cfg(feature = "kill-points")]
    let done = kill_point::hit_unanswered(KillPoint::AfterCommitBeforeAnswer, done);
    done.await
}

/// A connection whose transaction may be half done when its call gives up: nobody else gets it then.
struct Discarded(Option<Client>);

impl Discarded {
    fn unless_done(client: Client) -> Self {
        Self(Some(client))
    }

    fn get(&mut self) -> &mut Client {
        self.0.as_mut().expect("it is taken by `keep` alone, after the last use")
    }

    fn keep(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(deadpool_postgres::Object::take(client));
        }
    }
}

impl From<Failed> for JobsError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(error) => error,
            Failed::Postgres(error) => explain(error),
        }
    }
}

fn closed() -> JobsError {
    JobsError::Unavailable { what: "it is closed".into() }
}

/// Two transactions wanted the same; the next try finds what the other one did.
fn is_collision(error: &Error) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION]
        .iter()
        .any(|state| error.code() == Some(state))
}

/// What an error of PostgreSQL means to the one who called.
pub(crate) fn explain(error: Error) -> JobsError {
    let unavailable = |what: &str| JobsError::Unavailable { what: what.to_owned() };
    let Some(state) = error.code() else {
        tracing::warn!(error = chain(&error), "the job store lost its connection");
        return unavailable("PostgreSQL cannot be reached");
    };
    match state {
        &SqlState::DISK_FULL => JobsError::StorageFull,
        &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => JobsError::TimedOut,
        &SqlState::TOO_MANY_CONNECTIONS => unavailable("PostgreSQL has no connection left"),
        &SqlState::READ_ONLY_SQL_TRANSACTION => {
            unavailable("PostgreSQL takes no writes: it is a standby, or read-only")
        }
        state if ["08", "57"].iter().any(|class| state.code().starts_with(class)) => {
            unavailable("PostgreSQL is starting or ending")
        }
        _ => JobsError::Postgres(Arc::new(error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// A number as PostgreSQL keeps it.
pub(crate) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number that PostgreSQL kept.
pub(crate) fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
