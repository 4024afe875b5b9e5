//! The files of the embedded store, read while no gateway has them: whether they are whole, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use groupcast_protocol::JobId;
use rusqlite::{Connection, OpenFlags};

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) message: Vec<u8>,
    /// Whether it has ended.
    pub(super) has_ended: bool,
    pub(super) attempt: u64,
    pub(super) max_attempts: u64,
    pub(super) crashes: u64,
    pub(super) error: Option<String>,
}

/// Checks the files as a crash left them, on a copy: looking must not repair what the next start has to cope with.
/// Answers how many databases there are.
///
/// # Errors
/// What is wrong.
pub(super) fn check(data: &Path, scratch: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("the files of the store cannot be copied: {error}");
    if !data.exists() {
        return Ok(0);
    }
    fs::create_dir_all(scratch).map_err(failed)?;
    let checked = copy(data, scratch).map_err(failed).and_then(|copies| {
        copies.iter().try_for_each(|copy| whole(copy))?;
        Ok(copies.len() as u64)
    });
    // A copy that cannot be removed is overwritten by the next.
    drop(fs::remove_dir_all(scratch));
    checked
}

/// Copies the databases with their logs; answers the databases.
fn copy(data: &Path, scratch: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut databases = Vec::new();
    for entry in fs::read_dir(data)? {
        let from = entry?.path();
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The `-shm` is made anew from the log.
        if name.ends_with(".db") || name.ends_with(".db-wal") {
            let to = scratch.join(&name);
            fs::copy(&from, &to)?;
            databases.extend(name.ends_with(".db").then_some(to));
        }
    }
    Ok(databases)
}

fn whole(database: &Path) -> Result<(), String> {
    let told = Connection::open(database)
        .and_then(|conn| conn.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0)))
        .unwrap_or_else(|error| error.to_string());
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    if told == "ok" { Ok(()) } else { Err(format!("{name} is damaged: {told}")) }
}

/// All jobs in the files, after the gateway has ended.
///
/// # Errors
/// When they cannot be read.
pub(super) fn jobs(data: &Path) -> Result<Vec<Stored>, String> {
    let path = data.join("jobs.db");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || {
        let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let sql = "select id, message, state, attempt, max_attempts, crashes, error_code from job";
        let mut statement = conn.prepare(sql)?;
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(u64::MAX));
        let rows = statement.query_map([], |row| {
            Ok(Stored {
                id: JobId::from_bytes(row.get(0)?).to_string(),
                message: row.get(1)?,
                has_ended: number(row, 2)? > 2,
                attempt: number(row, 3)?,
                max_attempts: number(row, 4)?,
                crashes: number(row, 5)?,
                error: row.get(6)?,
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|error| format!("the stored jobs cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn a_damaged_file_is_found_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, scratch) = (folder.path().join("data"), folder.path().join("scratch"));
        assert_eq!(check(&data, &scratch), Ok(0), "a store in memory has no files");
        fs::create_dir(&data).expect("a folder");
        let path = data.join("jobs.db");
        let conn = Connection::open(&path).expect("a database");
        conn.execute_batch("create table a (x text); create index b on a (x);").expect("a table");
        for n in 0..500 {
            conn.execute("insert into a values (?1)", [format!("text {n}")]).expect("a row");
        }
        drop(conn);
        assert_eq!(check(&data, &scratch), Ok(1));
        assert!(!scratch.exists());

        let mut file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        file.seek(SeekFrom::Start(5000)).and_then(|_| file.write_all(&[0xAA; 4000])).expect("written");
        let damaged = fs::read(&path).expect("read");
        assert!(check(&data, &scratch).expect_err("it is damaged").contains("jobs.db"));
        assert_eq!(fs::read(&path).expect("read"), damaged);
    }
}
