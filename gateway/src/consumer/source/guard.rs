//! What a query may do: read, within limits. Read-only alone still allowed ATTACH, temporary tables, pragmas and a value
//! of 900 MB.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::consumer::context::Stop;

/// Between two looks at the clock. At 1,000 steps a deadline of 300 ms was met within 1 ms.
const STEPS: i32 = 1000;

/// The largest text or blob, also on the way to a result.
const VALUE_BYTES_MAX: i32 = 16 << 20;

/// What stops the query that runs on a connection.
#[derive(Clone, Default)]
pub(super) struct Brake(Arc<Mutex<Option<Stop>>>);

impl Brake {
    /// Stops what runs from here on, when `stop` says so.
    pub(super) fn set(&self, stop: Stop) {
        *self.0.lock() = Some(stop);
    }

    fn is_stopped(&self) -> bool {
        self.0.lock().as_ref().is_some_and(Stop::is_stopped)
    }
}

/// Opens a file for guarded reading.
pub(super) fn open(path: &Path, brake: Brake) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    // Somebody may be writing to the file; the query's own deadline is looked at between the waits.
    conn.busy_timeout(Duration::from_millis(100))?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
        (Limit::SQLITE_LIMIT_COLUMN, 1000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 250),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, most)?;
    }
    conn.set_prepared_statement_cache_capacity(64);
    // A handler, and not `interrupt()`: that can hit the statement after the one that was meant.
    conn.progress_handler(STEPS, Some(move || brake.is_stopped()))?;
    // Last, because it forbids the pragmas above.
    conn.authorizer(Some(allow))?;
    Ok(conn)
}

fn allow(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if !is_forbidden(function_name) => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

/// Functions that reach beyond the database, where a build has them.
fn is_forbidden(function: &str) -> bool {
    ["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_log"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(function))
}

/// The earlier of two ends.
pub(super) fn earlier(stop: Stop, timeout: Duration) -> Stop {
    let deadline = Instant::now().checked_add(timeout).map_or(stop.deadline, |end| end.min(stop.deadline));
    Stop { deadline, ..stop }
}
