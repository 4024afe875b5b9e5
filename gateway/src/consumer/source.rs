//! `Sources`: the databases that named queries read from.

mod encode;
mod guard;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "postgres")]
use self::postgres::PostgresSource;
#[cfg(all(feature = "fuzzing", feature = "postgres"))]
pub(super) use self::postgres::number_for_postgres;
use self::sqlite::SqliteSource;
use super::context::Stop;
use super::params::Bound;
use super::problem::Problem;
use super::work::Failure;
use crate::config::query::{SourceConfig, SourceKind};
use crate::jobs::ErrorClass;
use crate::jobs::results::RowSet;

/// A query with everything it takes to run it.
pub(crate) struct Execution {
    pub(crate) sql: Arc<str>,
    pub(crate) values: Bound,
    /// More rows than this are cut.
    pub(crate) max_rows: u64,
    /// More bytes of JSON rows than this are cut.
    pub(crate) max_bytes: usize,
    /// Counted from when a thread takes it.
    pub(crate) timeout: Duration,
    pub(crate) stop: Stop,
}

/// Why a query gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    /// The source cannot be read at the moment.
    #[error("source `{source_name}` cannot be read: {why}")]
    Unavailable {
        /// The source.
        source_name: String,
        /// The cause.
        why: String,
    },
    /// It took too long.
    #[error("the query took longer than {0:?}; ask for less, or raise its `timeout`")]
    TimedOut(Duration),
    /// Its job was cancelled.
    #[error("the query was cancelled")]
    Cancelled,
    /// The database does not do it.
    #[error("the query failed: {0}")]
    Refused(String),
}

/// The sources of the configuration, with their threads.
pub struct Sources {
    by_name: HashMap<String, Source>,
}

/// One source.
pub(crate) enum Source {
    Sqlite(SqliteSource),
    #[cfg(feature = "postgres")]
    Postgres(PostgresSource),
}

impl Sources {
    /// Starts the threads, and makes the pools on the current runtime. Files are opened and servers called when they are
    /// first read, so that a source may come later than the gateway.
    ///
    /// # Errors
    /// Every problem found.
    ///
    /// # Panics
    /// Outside of a runtime, if a source is a server.
    pub fn open(configs: &BTreeMap<String, SourceConfig>, base_dir: &Path) -> Result<Self, Vec<Problem>> {
        let (mut by_name, mut problems) = (HashMap::new(), Vec::new());
        for (name, config) in configs {
            match open(name, config, base_dir) {
                Ok(source) => drop(by_name.insert(name.clone(), source)),
                Err((key, message)) => problems.push(Problem::new(format!("source.{name}.{key}"), message)),
            }
        }
        if problems.is_empty() { Ok(Self { by_name }) } else { Err(problems) }
    }

    /// Answers when every source can be read; else names what cannot.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn ready(&self) -> Result<(), String> {
        for source in self.by_name.values() {
            if let Some(problem) = source.missing() {
                return Err(problem);
            }
            let probe = Execution {
                sql: source.probe().into(),
                values: Bound::new(),
                max_rows: 1,
                max_bytes: 100,
                timeout: READY_TIMEOUT,
                stop: Stop::after(READY_TIMEOUT),
            };
            let answer = tokio::time::timeout(READY_TIMEOUT, source.run(probe)).await;
            match answer {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                // Busy is not unreachable: the threads are at work.
                Err(_) => tracing::debug!("a source has no free thread to be asked whether it is ready"),
            }
        }
        Ok(())
    }

    /// How many threads of each source are at work, and how much waits: for metrics.
    pub fn loads(&self) -> impl Iterator<Item = (&str, (usize, usize))> {
        self.by_name.iter().map(|(name, source)| (name.as_str(), source.load()))
    }

    /// Runs a query.
    pub(crate) async fn run(&self, source: &str, execution: Execution) -> Result<RowSet, SourceError> {
        match self.by_name.get(source) {
            Some(source) => source.run(execution).await,
            None => Err(SourceError::Refused(format!("there is no source `{source}`"))),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Source> {
        self.by_name.get(name)
    }
}

impl Source {
    /// Runs a query.
    ///
    /// # Cancel safety
    /// Dropped, a query that runs is stopped by its [`Stop`] at the latest.
    pub(crate) async fn run(&self, execution: Execution) -> Result<RowSet, SourceError> {
        match self {
            Self::Sqlite(source) => source.run(execution).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(source) => source.run(execution).await,
        }
    }

    /// What is wrong with a query, without running it: it must be one statement that reads, and its parameters must be
    /// those that are declared.
    pub(crate) async fn problems(&self, sql: &str, declared: &BTreeSet<&str>) -> Vec<String> {
        match self {
            Self::Sqlite(source) => source.problems(sql, declared),
            #[cfg(feature = "postgres")]
            Self::Postgres(source) => source.problems(sql, declared).await,
        }
    }

    /// The columns that a query without problems gives; `None` when the source cannot be asked.
    pub(crate) async fn columns(&self, sql: &str) -> Option<Vec<String>> {
        match self {
            Self::Sqlite(source) => source.columns(sql),
            #[cfg(feature = "postgres")]
            Self::Postgres(source) => source.columns(sql).await,
        }
    }

    /// The key that says where the source is, and why it cannot be read from there.
    pub(crate) async fn open_problem(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Sqlite(source) => source.open_problem().map(|why| ("path", why)),
            #[cfg(feature = "postgres")]
            Self::Postgres(source) => source.open_problem().await.map(|why| ("url", why)),
        }
    }

    fn missing(&self) -> Option<String> {
        match self {
            Self::Sqlite(source) => source.missing(),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
        }
    }

    /// What shows that it can be read.
    fn probe(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "select 1 from sqlite_schema limit 1",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "select 1",
        }
    }

    fn load(&self) -> (usize, usize) {
        match self {
            Self::Sqlite(source) => source.load(),
            #[cfg(feature = "postgres")]
            Self::Postgres(source) => source.load(),
        }
    }
}

/// How long a source may take to show that it can be read.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

fn open(name: &str, config: &SourceConfig, base_dir: &Path) -> Result<Source, (&'static str, String)> {
    match config.kind {
        SourceKind::Sqlite => open_file(name, config, base_dir).map(Source::Sqlite),
        #[cfg(feature = "postgres")]
        SourceKind::Postgres => open_server(name, config).map(Source::Postgres),
        #[cfg(not(feature = "postgres"))]
        SourceKind::Postgres => Err(("kind", "`postgres` is not part of this program; use `sqlite`".into())),
    }
}

#[cfg(feature = "postgres")]
fn open_server(name: &str, config: &SourceConfig) -> Result<PostgresSource, (&'static str, String)> {
    let address = config.address().ok_or(("url", "is missing; name the server".to_owned()))?;
    let address = address.expose().parse();
    let address = address.map_err(|error: crate::postgres::AddressError| ("url", error.to_string()))?;
    if config.pool == 0 {
        return Err(("pool", "is 0; it must be at least 1".into()));
    }
    PostgresSource::new(name, &address, config.pool, config.role.as_deref()).map_err(|why| ("url", why))
}

fn open_file(name: &str, config: &SourceConfig, base_dir: &Path) -> Result<SqliteSource, (&'static str, String)> {
    let Some(path) = &config.path else {
        return Err(("path", "is missing; name the SQLite file".into()));
    };
    if config.threads == 0 {
        return Err(("threads", "is 0; it must be at least 1".into()));
    }
    SqliteSource::start(name, base_dir.join(path), config.threads).map_err(|error| ("threads", error.to_string()))
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let message = error.to_string();
        match error {
            SourceError::Unavailable { .. } => Self::transient("source_unavailable", message),
            SourceError::TimedOut(_) => Self::timeout(message),
            SourceError::Cancelled => Self::new(ErrorClass::Permanent, "cancelled", message),
            SourceError::Refused(_) => Self::permanent("query_failed", message),
        }
    }
}
