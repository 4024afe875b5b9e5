//! What can go wrong with stored work: when a store is opened, and when it is called.

use std::path::PathBuf;
use std::sync::Arc;

use groupcast_protocol::{ErrorCode, JobId, Refusal};

use super::record::JobState;

/// Why a call to the queue failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JobsError {
    /// As many jobs wait as `[jobs] max_queued` allows.
    #[error("{limit} jobs are waiting, as many as `[jobs] max_queued` allows; nothing was stored, try again later")]
    QueueFull {
        /// The bound.
        limit: u64,
    },
    /// The store has more calls waiting than it takes.
    #[error("the job store is busy; nothing was stored, try again later")]
    Busy,
    /// The disk is full.
    #[error("the disk of the job store is full; nothing was stored, try again when there is space")]
    StorageFull,
    /// The store does not answer in time. What was asked may still happen.
    #[error("the job store did not answer in time; try again")]
    TimedOut,
    /// The store cannot be used.
    #[error("the job store cannot be used: {what}")]
    Unavailable {
        /// What is the matter.
        what: String,
    },
    /// The server does not keep what it commits.
    #[error(
        "PostgreSQL runs with `{setting} = off`, so a crash of its machine may take what is to be on disk; nothing was \
         stored, set `{setting} = on` at the server, or `durability = \"os\"` for the consumer"
    )]
    NotDurable {
        /// The setting of the server.
        setting: &'static str,
    },
    /// SQLite refused.
    #[error("the job store failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// PostgreSQL refused.
    #[error("the job store failed")]
    Postgres(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Stored bytes are not what was written.
    #[error("the stored result of job {0} is damaged; run the job again")]
    Damaged(JobId),
    /// No such job.
    #[error("there is no job {0}; it may have ended longer ago than `[jobs] retention`")]
    NotFound(JobId),
    /// The job has not ended.
    #[error("job {id} is {state}, its result is not there yet; wait for it with `GET /v1/jobs/{id}?wait=10`")]
    NotReady {
        /// The job.
        id: JobId,
        /// Where it is.
        state: JobState,
    },
    /// The job ended without a result.
    #[error("job {id} is {state} and has no result; its record says why")]
    NoResult {
        /// The job.
        id: JobId,
        /// How it ended.
        state: JobState,
    },
    /// The job ended well, its result is gone.
    #[error("the result of job {0} is no longer kept; run the job again")]
    Expired(JobId),
}

impl JobsError {
    /// The code that a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::QueueFull { .. } | Self::Busy => ErrorCode::Overloaded,
            Self::StorageFull => ErrorCode::StorageFull,
            Self::TimedOut
            | Self::Unavailable { .. }
            | Self::NotDurable { .. }
            | Self::Sqlite(_)
            | Self::Postgres(_) => ErrorCode::Unavailable,
            Self::NotFound(_) | Self::NoResult { .. } => ErrorCode::NotFound,
            Self::NotReady { .. } => ErrorCode::NotReady,
            Self::Expired(_) | Self::Damaged(_) => ErrorCode::Expired,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.code().is_retriable()
    }
}

impl From<JobsError> for Refusal {
    fn from(error: JobsError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory.
    #[error(
        "the data directory `{}` is in use by another gateway; stop that one, or give this one a `[server] data_dir` of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// A file or directory cannot be made or opened.
    #[error("`{}` cannot be opened; check that it exists and that this user may write to it", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused a file.
    #[error("the job store `{}` cannot be opened", path.display())]
    Sqlite {
        /// Which one.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The SQLite library is one with a known defect.
    #[error("SQLite {found} is linked, which can damage write-ahead logs; build with the bundled one, 3.51.3 or later")]
    SqliteTooOld {
        /// Its version.
        found: String,
    },
    /// A setting did not take.
    #[error("SQLite did not accept `{pragma}` for `{}` (it says {found}), so what is stored would not be safe", path.display())]
    Pragma {
        /// The file.
        path: PathBuf,
        /// The setting.
        pragma: &'static str,
        /// What it reads back as.
        found: String,
    },
    /// A newer program wrote the file.
    #[error(
        "`{}` has layout {found}, this program knows up to {known}; use the program that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// The address of the server is missing, or none.
    #[error("`[jobs] url` {0}")]
    Address(String),
    /// The server cannot be reached, or refuses.
    #[error("the job store in PostgreSQL at {address} cannot be opened")]
    Postgres {
        /// Host, port and database.
        address: String,
        /// The cause.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The server does not keep what it commits.
    #[error(
        "the server at {address} runs with `{setting} = off`, so a crash of its machine may take what `durability = \"disk\"` \
         promises; set `{setting} = on` there, or `durability = \"os\"` for the consumers"
    )]
    NotDurable {
        /// Host, port and database.
        address: String,
        /// The setting of the server.
        setting: &'static str,
    },
    /// The database cannot keep every text.
    #[error("the database at {address} has the encoding {encoding}; jobs need one with the encoding UTF8")]
    Encoding {
        /// Host, port and database.
        address: String,
        /// Its encoding.
        encoding: String,
    },
    /// A newer program made the tables.
    #[error(
        "the schema `{schema}` at {address} has layout {found}, this program knows up to {known}; use the program that \
         made it, or a newer one"
    )]
    NewerSchema {
        /// Host, port and database.
        address: String,
        /// The schema.
        schema: String,
        /// Its layout.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// The configuration asks for a store that this program does not have.
    #[error("`[jobs] store = \"{0}\"` is not part of this program; use `sqlite`")]
    NotBuilt(&'static str),
    /// The store is on a server, not in a directory.
    #[error("a job store on a server is not opened but connected to; use `Jobs::connect`")]
    NotHere,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_the_codes_of_the_contract() {
        let id = JobId::new(1, 1);
        for (error, code) in [
            (JobsError::QueueFull { limit: 1 }, "overloaded"),
            (JobsError::Busy, "overloaded"),
            (JobsError::StorageFull, "storage_full"),
            (JobsError::TimedOut, "unavailable"),
            (JobsError::NotFound(id), "not_found"),
            (JobsError::NotReady { id, state: JobState::Running }, "not_ready"),
            (JobsError::NoResult { id, state: JobState::Dead }, "not_found"),
            (JobsError::Expired(id), "expired"),
        ] {
            assert_eq!(Refusal::from(error).code.as_str(), code);
        }
    }
}
