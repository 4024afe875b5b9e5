//! Opens the SQLite files of the data directory: settings read back, layout brought up to date.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::private;
use crate::jobs::error::OpenError;

/// Changes of a layout, oldest first; `user_version` says how many a file has had. Entries are only ever added.
pub(crate) type Migrations = &'static [&'static str];

/// 3.51.3 is the first version without a defect in the reset of write-ahead logs that can damage a file.
const SQLITE_MIN: i32 = 3_051_003;

/// How long a statement waits for somebody else who has the file open, such as a person with `sqlite3`.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens a file for writing and brings its layout up to date.
pub(crate) fn open_writer(path: &Path, migrations: Migrations) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::SqliteTooOld { found: rusqlite::version().to_owned() });
    }
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    private::create_file(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(BUSY).map_err(failed)?;
    // Before the first table, or it has no effect: lets a pruned file shrink.
    conn.pragma_update(None, "auto_vacuum", "incremental").map_err(failed)?;
    set(&conn, path, "journal_mode", "wal", "wal")?;
    set(&conn, path, "synchronous", "full", "2")?;
    conn.pragma_update(None, "fullfsync", true).map_err(failed)?;
    conn.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    conn.pragma_update(None, "trusted_schema", false).map_err(failed)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(64);
    migrate(&mut conn, path, migrations)?;
    #[cfg(feature = "kill-points")]
    die_in_checkpoints(&mut conn).map_err(failed)?;
    Ok(conn)
}

/// Has the process end in the middle of a checkpoint, if that is armed. Checkpoints come more often than SQLite's own, so
/// that a short life has some.
#[cfg(feature = "kill-points")]
fn die_in_checkpoints(conn: &mut Connection) -> rusqlite::Result<()> {
    use crate::kill_point::{KillPoint, hit_soon};
    const PAGES: std::ffi::c_int = 200;
    conn.wal_hook(Some(|wal: &mut rusqlite::hooks::Wal, pages| {
        if pages < PAGES {
            return Ok(());
        }
        hit_soon(KillPoint::MidCheckpoint);
        wal.checkpoint()
    }))
}

/// Opens a file that exists for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(conn)
}

/// Sets `synchronous` and reads it back; between transactions only.
pub(crate) fn set_sync(conn: &Connection, full: bool) -> Result<bool, rusqlite::Error> {
    conn.pragma_update(None, "synchronous", if full { "full" } else { "normal" })?;
    let found: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    Ok(found == if full { 2 } else { 1 })
}

fn set(conn: &Connection, path: &Path, pragma: &'static str, value: &str, expected: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    // Some settings answer with a row, some do not; what counts is what reads back.
    conn.pragma_update(None, pragma, value).map_err(failed)?;
    let found = conn
        .pragma_query_value(None, pragma, |row| {
            let value: rusqlite::types::Value = row.get(0)?;
            Ok(match value {
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Integer(n) => n.to_string(),
                other => format!("{other:?}"),
            })
        })
        .map_err(failed)?;
    if found == expected { Ok(()) } else { Err(OpenError::Pragma { path: path.to_owned(), pragma, found }) }
}

fn migrate(conn: &mut Connection, path: &Path, migrations: Migrations) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let known = migrations.len() as i64;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for (at, migration) in migrations.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let step = conn.transaction().map_err(failed)?;
        step.execute_batch(migration).map_err(failed)?;
        step.pragma_update(None, "user_version", at as i64 + 1).map_err(failed)?;
        step.commit().map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migrations = &["create table a (x integer) strict"];
    const TWO: Migrations = &["create table a (x integer) strict", "alter table a add column y integer"];

    #[test]
    fn a_file_moves_up_and_never_down() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.db");
        open_writer(&path, ONE).expect("made").execute("insert into a values (1)", []).expect("written");
        let conn = open_writer(&path, TWO).expect("moved up");
        let kept: (i64, Option<i64>) =
            conn.query_row("select x, y from a", [], |row| Ok((row.get(0)?, row.get(1)?))).expect("kept");
        assert_eq!(kept, (1, None));
        drop(conn);
        assert!(matches!(open_writer(&path, ONE), Err(OpenError::Newer { found: 2, known: 1, .. })));
    }

    #[test]
    fn the_settings_take() {
        let dir = tempfile::tempdir().expect("a directory");
        let conn = open_writer(&dir.path().join("x.db"), ONE).expect("made");
        assert!(set_sync(&conn, true).expect("set"));
        assert!(set_sync(&conn, false).expect("set"));
        let vacuum: i64 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).expect("read");
        assert_eq!(vacuum, 2);
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.db");
        std::fs::write(&path, "this is not a database, it only lies where one is expected".repeat(9)).expect("written");
        assert!(matches!(open_writer(&path, ONE), Err(OpenError::Sqlite { .. })));
    }
}
