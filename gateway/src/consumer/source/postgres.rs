//! A PostgreSQL server as a source: pooled connections, each query in a read-only transaction with timeouts of its own.

mod ask;
mod cells;
mod failed;
mod named;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::CancelToken;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::failed::{Class, Failed};
use self::named::Numbered;
use super::guard::earlier;
use super::{Execution, SourceError};
use crate::consumer::context::Stop;
use crate::jobs::results::RowSet;
use crate::postgres::{Address, CONNECT_TIMEOUT};

/// As [`named::number`], in types that others have.
#[cfg(feature = "fuzzing")]
pub(in crate::consumer) fn number_for_postgres(sql: &str) -> (String, Vec<String>, bool) {
    let Numbered { sql, names, has_more } = named::number(sql);
    (sql, names, has_more)
}

/// How much longer than the server we wait for it to keep the time that it was given.
const GRACE: Duration = Duration::from_millis(500);

/// How long a cancellation may take on its way to the server.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long resetting a connection may take before it is given to the next.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a check may wait for the server.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A server and its connections. All of it is done on the runtime that it was made on, whoever asks.
pub(crate) struct PostgresSource {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    pool: Pool,
    tls: MakeRustlsConnect,
    role: Option<String>,
    runtime: Handle,
    busy: AtomicUsize,
    waiting: AtomicUsize,
    /// Cancellations on their way.
    cancellations: TaskTracker,
}

impl PostgresSource {
    /// Makes the pool; it connects when a query is run.
    ///
    /// # Errors
    /// When the certificates to be trusted cannot be read.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn new(name: &str, address: &Address, connections: usize, role: Option<&str>) -> Result<Self, String> {
        let (config, tls) = address.connector().map_err(|error| error.to_string())?;
        // What a query has set in its session is not for the next one.
        let recycling_method = RecyclingMethod::Clean;
        let manager = Manager::from_config(config, tls.clone(), ManagerConfig { recycling_method });
        // Waiting for a connection has the deadline of the query.
        let timeouts = Timeouts { wait: None, create: Some(CONNECT_TIMEOUT), recycle: Some(RECYCLE_TIMEOUT) };
        let pool = Pool::builder(manager).max_size(connections).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let inner = Inner {
            name: name.to_owned(),
            pool: pool.map_err(|error| error.to_string())?,
            tls,
            role: role.map(str::to_owned),
            runtime: Handle::current(),
            busy: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            cancellations: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a query.
    ///
    /// # Cancel safety
    /// Dropped, the server is told to stop the query, and the connection is given up: a cancellation may come late.
    pub(crate) async fn run(&self, execution: Execution) -> Result<RowSet, SourceError> {
        let inner = Arc::clone(&self.inner);
        let work = self.inner.runtime.spawn(async move { inner.run(&execution).await });
        AbortOnDropHandle::new(work).await.unwrap_or_else(|error| Err(self.inner.unavailable(error.to_string())))
    }

    /// How many queries run, and how many wait for a connection.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.inner.busy.load(Ordering::Relaxed), self.inner.waiting.load(Ordering::Relaxed))
    }

    /// What is wrong with a query, without running it.
    pub(crate) async fn problems(&self, sql: &str, declared: &BTreeSet<&str>) -> Vec<String> {
        let numbered = named::number(sql);
        let used: BTreeSet<&str> = numbered.names.iter().map(String::as_str).collect();
        let mut problems: Vec<String> = used
            .difference(declared)
            .map(|name| format!("it uses `:{name}`, which `params.{name}` does not declare"))
            .chain(
                declared
                    .difference(&used)
                    .map(|name| format!("`params.{name}` is declared, but the SQL does not use it")),
            )
            .collect();
        let prepared = timeout(CHECK_TIMEOUT, self.inner.prepare_only(&numbered)).await;
        match prepared {
            Ok(Ok(_columns)) => {}
            Ok(Err(failed)) => problems.push(failed.to_string()),
            Err(_) => problems.push("the server did not answer in time".to_owned()),
        }
        problems
    }

    /// The columns of a query; `None` when it cannot be prepared.
    pub(crate) async fn columns(&self, sql: &str) -> Option<Vec<String>> {
        timeout(CHECK_TIMEOUT, self.inner.prepare_only(&named::number(sql))).await.ok()?.ok()
    }

    /// Whether the server can be asked.
    pub(crate) async fn open_problem(&self) -> Option<String> {
        let connected = timeout(CHECK_TIMEOUT, self.inner.pool.get()).await;
        match connected {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("the server cannot be reached: {}", Failed::from(error))),
            Err(_) => Some("the server did not answer in time".to_owned()),
        }
    }
}

impl Inner {
    async fn run(&self, execution: &Execution) -> Result<RowSet, SourceError> {
        let stop = earlier(execution.stop.clone(), execution.timeout);
        if stop.is_stopped() {
            return Err(stopped(&stop, execution));
        }
        let deadline = tokio::time::Instant::from_std(stop.deadline);
        tokio::select! {
            biased;
            () = stop.token.cancelled() => Err(SourceError::Cancelled),
            read = self.read(execution, stop.deadline) => read.map_err(|failed| self.explain(failed, &stop, execution)),
            () = tokio::time::sleep_until(deadline + GRACE) => Err(SourceError::TimedOut(execution.timeout)),
        }
    }

    /// Dropped, or when it fails, the connection it has is given up.
    async fn read(&self, execution: &Execution, deadline: Instant) -> Result<RowSet, Failed> {
        let waiting = Counted::new(&self.waiting);
        let client = self.pool.get().await?;
        drop(waiting);
        let _busy = Counted::new(&self.busy);
        let mut lent = Lent { cancel: client.cancel_token(), client: Some(client), of: self };
        let client = lent.client.as_mut().expect("it was put there a line above");
        let rows = ask::read(client, execution, &self.settings(deadline)).await?;
        lent.give_back();
        Ok(rows)
    }

    /// What a transaction begins with. A statement may wait for locks as long as it may run.
    fn settings(&self, deadline: Instant) -> String {
        let left_ms = deadline.saturating_duration_since(Instant::now()).as_millis().clamp(1, i32::MAX as u128);
        let role = self.role.as_ref().map(|role| format!("set local role {};", quoted(role)));
        format!(
            "set local statement_timeout = {left_ms}; set local lock_timeout = {left_ms};
             set local idle_in_transaction_session_timeout = {left_ms};
             set local timezone = 'UTC'; set local datestyle = 'ISO'; set local intervalstyle = 'postgres'; {}",
            role.unwrap_or_default()
        )
    }

    async fn prepare_only(&self, numbered: &Numbered) -> Result<Vec<String>, Failed> {
        let client = self.pool.get().await?;
        let mut lent = Lent { cancel: client.cancel_token(), client: Some(client), of: self };
        let client = lent.client.as_mut().expect("it was put there a line above");
        let transaction = client.build_transaction().read_only(true).start().await?;
        transaction.batch_execute(&self.settings(Instant::now() + CHECK_TIMEOUT)).await?;
        let (_plan, statement) = ask::prepare(&transaction, numbered).await?;
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        transaction.rollback().await?;
        lent.give_back();
        Ok(columns)
    }

    fn explain(&self, failed: Failed, stop: &Stop, execution: &Execution) -> SourceError {
        match failed.class() {
            Class::Stopped if stop.token.is_cancelled() => SourceError::Cancelled,
            Class::Stopped => SourceError::TimedOut(execution.timeout),
            Class::Transient => self.unavailable(failed.to_string()),
            Class::Permanent => SourceError::Refused(failed.to_string()),
        }
    }

    fn unavailable(&self, why: String) -> SourceError {
        SourceError::Unavailable { source_name: self.name.clone(), why }
    }
}

/// A connection that is used. Unless it is given back it is given up, and what runs on it is cancelled.
struct Lent<'a> {
    client: Option<Client>,
    cancel: CancelToken,
    of: &'a Inner,
}

impl Lent<'_> {
    fn give_back(mut self) {
        drop(self.client.take());
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let client = Client::take(client);
        let (cancel, tls) = (self.cancel.clone(), self.of.tls.clone());
        let told = async move {
            // It has ended by itself, or the server's own timeout ends it.
            if timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await.is_err() {
                tracing::debug!("a query could not be cancelled in time");
            }
            drop(client);
        };
        self.of.cancellations.spawn_on(told, &self.of.runtime);
    }
}

/// One more, until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stopped(stop: &Stop, execution: &Execution) -> SourceError {
    if stop.token.is_cancelled() { SourceError::Cancelled } else { SourceError::TimedOut(execution.timeout) }
}

/// A name as SQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
