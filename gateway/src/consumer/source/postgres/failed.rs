//! Why a query gave no rows, in words, and whether it would another time.

use std::fmt;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// Why a query gave no rows; shown, in the server's own words.
pub(super) enum Failed {
    Postgres(Error),
    Pool(PoolError),
    NotRead(String),
}

/// What an error means for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Cancelled, or out of time.
    Stopped,
    /// May go away by itself.
    Transient,
    Permanent,
}

impl Class {
    /// PostgreSQL's manual, appendix A.
    pub(super) fn of(code: &SqlState) -> Self {
        match code.code() {
            "57014" => Self::Stopped,
            "40001" | "40P01" | "55P03" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => Self::Transient,
            // Connections, resources, and what the system beneath does not do.
            code if ["08", "53", "58"].iter().any(|class| code.starts_with(class)) => Self::Transient,
            _ => Self::Permanent,
        }
    }
}

impl Failed {
    /// What it means for the job. Without a code the connection has broken.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::NotRead(_) => Class::Permanent,
            Self::Pool(_) => Class::Transient,
            Self::Postgres(error) if has_changed(error) => Class::Transient,
            Self::Postgres(error) => error.code().map_or(Class::Transient, Class::of),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(error) => f.write_str(&describe(error)),
            Self::Pool(PoolError::Backend(error)) => f.write_str(&describe(error)),
            Self::Pool(PoolError::Timeout(_)) => f.write_str("it did not answer in time"),
            Self::Pool(other) => other.fmt(f),
            Self::NotRead(why) => f.write_str(why),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<PoolError> for Failed {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

/// Whether the types of a table changed under a prepared statement: on the next connection it is prepared anew.
fn has_changed(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
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
