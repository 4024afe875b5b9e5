//! A SQLite file as a source: threads of its own, each with a guarded connection.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, Statement};

use super::encode::Rows;
use super::guard::{self, Brake};
use super::{Execution, SourceError};
use crate::consumer::context::Stop;
use crate::consumer::params::SqlValue;
use crate::jobs::results::RowSet;
use crate::kill_point::{self, KillPoint};
use crate::threads::{Pool, PoolError};

/// Queries that wait for a thread. More wait where they come from, which is bounded by the consumers' concurrency.
const QUEUE_MAX: usize = 64;

/// A file and its threads.
pub(crate) struct SqliteSource {
    name: Arc<str>,
    path: PathBuf,
    pool: Pool<Slot>,
}

impl SqliteSource {
    /// Starts the threads. The file is opened when it is first read, and again after an error.
    pub(crate) fn start(name: &str, path: PathBuf, threads: usize) -> std::io::Result<Self> {
        let name: Arc<str> = name.into();
        let slot = Slot { name: Arc::clone(&name), path: path.clone(), open: None };
        let make = move || Slot { open: None, name: Arc::clone(&slot.name), path: slot.path.clone() };
        let pool = Pool::start(&format!("source-{name}"), threads, QUEUE_MAX, make)?;
        Ok(Self { name, path, pool })
    }

    /// Runs a query on one of the threads.
    ///
    /// # Cancel safety
    /// Dropped, a query that runs goes on until its [`Stop`] says otherwise.
    pub(crate) async fn run(&self, execution: Execution) -> Result<RowSet, SourceError> {
        let answer = self.pool.run(move |slot| slot.run(&execution)).await;
        answer.unwrap_or_else(|error: PoolError| {
            Err(SourceError::Unavailable { source_name: self.name.to_string(), why: error.to_string() })
        })
    }

    pub(crate) fn load(&self) -> (usize, usize) {
        self.pool.load()
    }

    /// What is wrong with a query, without running it: it must be one statement that reads, and its parameters must be
    /// those that are declared.
    pub(crate) fn problems(&self, sql: &str, declared: &BTreeSet<&str>) -> Vec<String> {
        match guard::open(&self.path, Brake::default()).and_then(|conn| check(&conn, sql, declared)) {
            Ok(problems) => problems,
            Err(error) => vec![describe(&error)],
        }
    }

    /// The columns of a query; `None` when it cannot be prepared.
    pub(crate) fn columns(&self, sql: &str) -> Option<Vec<String>> {
        let conn = guard::open(&self.path, Brake::default()).ok()?;
        let statement = conn.prepare(sql).ok()?;
        Some(statement.column_names().map(str::to_owned).collect())
    }

    /// Whether the file is there. A thread that has it open would go on reading one that was removed.
    pub(crate) fn missing(&self) -> Option<String> {
        let found = std::fs::metadata(&self.path);
        found.err().map(|error| format!("source `{}`: `{}` cannot be read: {error}", self.name, self.path.display()))
    }

    /// Whether the file can be opened.
    pub(crate) fn open_problem(&self) -> Option<String> {
        let opened = guard::open(&self.path, Brake::default())
            .and_then(|conn| conn.query_row("select count(*) from sqlite_schema", [], |_| Ok(())));
        opened.err().map(|error| format!("`{}` cannot be read: {}", self.path.display(), describe(&error)))
    }
}

/// What a thread has.
struct Slot {
    name: Arc<str>,
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    conn: Connection,
    brake: Brake,
}

impl Slot {
    fn run(&mut self, execution: &Execution) -> Result<RowSet, SourceError> {
        let _occupied = execution.stop.life.occupy();
        let stop = guard::earlier(execution.stop.clone(), execution.timeout);
        if stop.is_stopped() {
            return Err(stopped(&stop, execution));
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => open(&self.path).map_err(|error| self.unavailable(&error))?,
        };
        open.brake.set(stop.clone());
        let outcome = read(&open.conn, execution);
        match outcome {
            Err(ReadError::Sqlite(error)) if is_of_the_source(&error) => Err(self.unavailable(&error)),
            Err(ReadError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                self.open = Some(open);
                Err(stopped(&stop, execution))
            }
            Err(ReadError::Sqlite(error)) => {
                self.open = Some(open);
                Err(SourceError::Refused(describe(&error)))
            }
            Err(ReadError::NotRead(why)) => {
                self.open = Some(open);
                Err(SourceError::Refused(why))
            }
            Ok(rows) => {
                self.open = Some(open);
                Ok(rows)
            }
        }
    }

    fn unavailable(&self, error: &rusqlite::Error) -> SourceError {
        SourceError::Unavailable { source_name: self.name.to_string(), why: describe(error) }
    }
}

enum ReadError {
    Sqlite(rusqlite::Error),
    NotRead(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn open(path: &Path) -> rusqlite::Result<Open> {
    let brake = Brake::default();
    Ok(Open { conn: guard::open(path, brake.clone())?, brake })
}

fn read(conn: &Connection, execution: &Execution) -> Result<RowSet, ReadError> {
    let mut statement = conn.prepare_cached(&execution.sql)?;
    if !statement.readonly() {
        return Err(ReadError::NotRead("it writes; named queries only read".into()));
    }
    if statement.column_count() == 0 {
        return Err(ReadError::NotRead("it gives no columns; write one SELECT".into()));
    }
    bind(&mut statement, execution)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let mut rows = Rows::new(columns, execution.max_bytes);
    let mut found = statement.raw_query();
    let mut truncated = false;
    while let Some(row) = found.next()? {
        kill_point::hit(KillPoint::MidRows);
        let values = (0..width).map(|at| row.get_ref(at).unwrap_or(rusqlite::types::ValueRef::Null));
        if rows.len() == execution.max_rows || !rows.push(values) {
            truncated = true;
            break;
        }
    }
    drop(found);
    Ok(rows.finish(truncated))
}

fn bind(statement: &mut Statement<'_>, execution: &Execution) -> Result<(), ReadError> {
    for at in 1..=statement.parameter_count() {
        let name = statement.parameter_name(at).map(|name| name[1..].to_owned());
        let value = name.as_ref().and_then(|name| execution.values.iter().find(|(known, _)| known == name));
        match value {
            Some((_, SqlValue::Text(text))) => statement.raw_bind_parameter(at, text)?,
            Some((_, SqlValue::Integer(n))) => statement.raw_bind_parameter(at, n)?,
            Some((_, SqlValue::Real(n))) => statement.raw_bind_parameter(at, n)?,
            None => {
                let name = name.unwrap_or_else(|| format!("number {at}"));
                return Err(ReadError::NotRead(format!("its parameter `{name}` is not declared")));
            }
        }
    }
    Ok(())
}

fn check(conn: &Connection, sql: &str, declared: &BTreeSet<&str>) -> rusqlite::Result<Vec<String>> {
    let statement = conn.prepare(sql)?;
    let mut problems = Vec::new();
    if !statement.readonly() {
        problems.push("it writes; named queries only read".to_owned());
    }
    if statement.column_count() == 0 {
        problems.push("it gives no columns; write one SELECT".to_owned());
    }
    let mut used = BTreeSet::new();
    for at in 1..=statement.parameter_count() {
        match statement.parameter_name(at) {
            Some(name) => drop(used.insert(&name[1..])),
            None => problems.push(format!("its parameter number {at} has no name; write `:name` for `?`")),
        }
    }
    problems.extend(
        used.difference(declared).map(|name| format!("it uses `:{name}`, which `params.{name}` does not declare")),
    );
    problems.extend(
        declared.difference(&used).map(|name| format!("`params.{name}` is declared, but the SQL does not use it")),
    );
    Ok(problems)
}

/// Whether the fault is the file's and may go away.
fn is_of_the_source(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

fn stopped(stop: &Stop, execution: &Execution) -> SourceError {
    if stop.token.is_cancelled() { SourceError::Cancelled } else { SourceError::TimedOut(execution.timeout) }
}

/// SQLite's own words, without the SQL, which may be long and is not the asker's.
fn describe(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => format!("{msg} (at character {offset} of the SQL)"),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}
