//! `Sources`: the databases that named queries read from.

mod encode;
mod guard;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::sqlite::SqliteSource;
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
    by_name: HashMap<String, SqliteSource>,
}

impl Sources {
    /// Starts the threads. Files are opened when they are first read, so that a source may come later than the gateway.
    ///
    /// # Errors
    /// Every problem found.
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
                sql: "select 1 from sqlite_schema limit 1".into(),
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

    pub(crate) fn get(&self, name: &str) -> Option<&SqliteSource> {
        self.by_name.get(name)
    }
}

/// How long a source may take to show that it can be read.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

fn open(name: &str, config: &SourceConfig, base_dir: &Path) -> Result<SqliteSource, (&'static str, String)> {
    if config.kind == SourceKind::Postgres {
        return Err(("kind", "`postgres` is not part of this program; use `sqlite`".into()));
    }
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
