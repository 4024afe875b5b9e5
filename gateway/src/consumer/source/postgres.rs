//! A PostgreSQL server as a source: pooled connections, each query in a read-only transaction with timeouts of its own.

mod cells;
mod named;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts, Transaction,
};
use futures_util::TryStreamExt;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{CancelToken, Error, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::cells::{Kind, TooBig, Value};
use self::named::Numbered;
use super::encode::Rows;
use super::guard::earlier;
use super::{Execution, SourceError};
use crate::consumer::context::Stop;
use crate::consumer::params::SqlValue;
use crate::jobs::results::RowSet;
use crate::postgres::{Address, CONNECT_TIMEOUT};

/// Rows that the server sends at once: what is over a budget is not even sent, apart from the rest of these.
const FETCH_ROWS: u64 = 256;

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
            Ok(Err(Failed::Postgres(error))) => problems.push(describe(&error)),
            Ok(Err(Failed::Pool(error))) => problems.push(of_pool(&error)),
            Ok(Err(Failed::NotRead(why))) => problems.push(why),
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
            Ok(Err(error)) => Some(format!("the server cannot be reached: {}", of_pool(&error))),
            Err(_) => Some("the server did not answer in time".to_owned()),
        }
    }
}

/// Why a query gave no rows.
enum Failed {
    Postgres(Error),
    Pool(PoolError),
    NotRead(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
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
        let client = self.pool.get().await.map_err(Failed::Pool)?;
        drop(waiting);
        let _busy = Counted::new(&self.busy);
        let mut lent = Lent { cancel: client.cancel_token(), client: Some(client), of: self };
        let client = lent.client.as_mut().expect("it was put there a line above");
        let rows = read(client, execution, &self.settings(deadline)).await?;
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
        let client = self.pool.get().await.map_err(Failed::Pool)?;
        let mut lent = Lent { cancel: client.cancel_token(), client: Some(client), of: self };
        let client = lent.client.as_mut().expect("it was put there a line above");
        let transaction = client.build_transaction().read_only(true).start().await?;
        transaction.batch_execute(&self.settings(Instant::now() + CHECK_TIMEOUT)).await?;
        let (_plan, statement) = prepare(&transaction, numbered).await?;
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        transaction.rollback().await?;
        lent.give_back();
        Ok(columns)
    }

    fn explain(&self, failed: Failed, stop: &Stop, execution: &Execution) -> SourceError {
        let error = match failed {
            Failed::NotRead(why) => return SourceError::Refused(why),
            Failed::Pool(error) => return self.unavailable(of_pool(&error)),
            Failed::Postgres(error) => error,
        };
        let Some(code) = error.code() else { return self.unavailable(describe(&error)) };
        match Class::of(code) {
            _ if has_changed(&error) => self.unavailable(describe(&error)),
            Class::Stopped if stop.token.is_cancelled() => SourceError::Cancelled,
            Class::Stopped => SourceError::TimedOut(execution.timeout),
            Class::Transient => self.unavailable(describe(&error)),
            Class::Permanent => SourceError::Refused(describe(&error)),
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

async fn read(client: &mut Client, execution: &Execution, settings: &str) -> Result<RowSet, Failed> {
    let numbered = named::number(&execution.sql);
    let values = values(&numbered, execution)?;
    let transaction = client.build_transaction().read_only(true).start().await?;
    transaction.batch_execute(settings).await?;
    let (plan, statement) = prepare(&transaction, &numbered).await?;
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let rows = fetch(&transaction, &statement, &values, &plan, execution).await?;
    transaction.rollback().await?;
    Ok(rows)
}

/// Prepares a query: as it is, to learn of its columns as they are at this moment, and then so that they can be read,
/// which is kept with the connection.
async fn prepare(transaction: &Transaction<'_>, numbered: &Numbered) -> Result<(Plan, Statement), Failed> {
    if numbered.has_more {
        return Err(Failed::NotRead("it is more than one statement; write one SELECT".into()));
    }
    let plan = Plan::new(&transaction.prepare(&numbered.sql).await?, numbered)?;
    let statement = transaction.prepare_typed_cached(&plan.sql, &plan.params).await?;
    Ok((plan, statement))
}

/// Fetches until all is there, or a budget is spent.
async fn fetch(
    transaction: &Transaction<'_>,
    statement: &Statement,
    values: &[&(dyn ToSql + Sync)],
    plan: &Plan,
    execution: &Execution,
) -> Result<RowSet, Failed> {
    let portal = transaction.bind(statement, values).await?;
    let mut rows = Rows::new(plan.columns.clone(), execution.max_bytes);
    loop {
        // One more than may be kept tells that there are more.
        let wanted = FETCH_ROWS.min(execution.max_rows.saturating_sub(rows.len()).saturating_add(1));
        let mut page = pin!(transaction.query_portal_raw(&portal, wanted as i32).await?);
        let mut came = 0;
        while let Some(row) = page.try_next().await? {
            came += 1;
            let cells = plan.read(&row)?;
            if rows.len() == execution.max_rows || !rows.push(cells.into_iter()) {
                return Ok(rows.finish(true));
            }
        }
        if came < wanted {
            return Ok(rows.finish(false));
        }
    }
}

/// How a query is asked so that its values can be read.
struct Plan {
    columns: Vec<String>,
    kinds: Vec<Kind>,
    sql: String,
    params: Vec<Type>,
}

impl Plan {
    fn new(statement: &Statement, numbered: &Numbered) -> Result<Self, Failed> {
        if statement.columns().is_empty() {
            return Err(Failed::NotRead("it gives no columns; write one SELECT".into()));
        }
        let kinds: Vec<_> = statement.columns().iter().map(|column| Kind::of(column.type_())).collect();
        // By position: two columns may have one name.
        let names: Vec<_> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
        let expressions: Vec<_> =
            kinds.iter().zip(&names).map(|(kind, name)| kind.expression(&format!("q.{name}"))).collect();
        // A line of its own for what follows, since the query may end in a comment.
        let sql = format!("select {} from ({}\n) as q({})", expressions.join(", "), numbered.sql, names.join(", "));
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        Ok(Self { columns, kinds, sql, params: statement.params().to_vec() })
    }

    fn read<'a>(&self, row: &'a Row) -> Result<Vec<Value<'a>>, Failed> {
        let cell = |(at, kind): (usize, &Kind)| match kind.read(row, at)? {
            Ok(value) => Ok(value),
            Err(TooBig) => {
                let why = format!("a value of column `{}` is too big; ask for a part of it", self.columns[at]);
                Err(Failed::NotRead(why))
            }
        };
        self.kinds.iter().enumerate().map(cell).collect()
    }
}

fn values(numbered: &Numbered, execution: &Execution) -> Result<Vec<Text>, Failed> {
    let value = |name: &String| {
        let value = execution.values.iter().find(|(known, _)| known == name).map(|(_, value)| Text::new(value));
        value.ok_or_else(|| Failed::NotRead(format!("its parameter `{name}` is not declared")))
    };
    numbered.names.iter().map(value).collect()
}

/// A value as text: the server reads it as whatever type the query wants there.
#[derive(Debug)]
struct Text(String);

impl Text {
    fn new(value: &SqlValue) -> Self {
        Self(match value {
            SqlValue::Text(text) => text.clone(),
            SqlValue::Integer(n) => n.to_string(),
            SqlValue::Real(n) => n.to_string(),
        })
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(kind, out)
    }
}

/// What an error means for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Cancelled, or out of time.
    Stopped,
    /// May go away by itself.
    Transient,
    Permanent,
}

impl Class {
    /// PostgreSQL's manual, appendix A.
    fn of(code: &SqlState) -> Self {
        match code.code() {
            "57014" => Self::Stopped,
            "40001" | "40P01" | "55P03" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => Self::Transient,
            // Connections, resources, and what the system beneath does not do.
            code if ["08", "53", "58"].iter().any(|class| code.starts_with(class)) => Self::Transient,
            _ => Self::Permanent,
        }
    }
}

/// Whether the types of a table changed under a prepared statement: on the next connection it is prepared anew.
fn has_changed(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

fn stopped(stop: &Stop, execution: &Execution) -> SourceError {
    if stop.token.is_cancelled() { SourceError::Cancelled } else { SourceError::TimedOut(execution.timeout) }
}

/// The server's own words, without the SQL, which may be long and is not the asker's.
fn describe(error: &Error) -> String {
    let of_server = |error: &DbError| {
        let hint = error.hint().map(|hint| format!(" ({hint})"));
        format!("{}{}", error.message(), hint.unwrap_or_default())
    };
    error.as_db_error().map_or_else(|| with_cause(error), of_server)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_cause(cause)),
        None => error.to_string(),
    }
}

fn of_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        PoolError::Timeout(_) => "it did not answer in time".to_owned(),
        other => other.to_string(),
    }
}

/// A name as SQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
