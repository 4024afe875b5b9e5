//! Results in `results.db`, apart from the jobs: large, written once, and deleted in bulk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use groupcast_protocol::JobId;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::{Content, FileInfo, ResultFile, ResultKey, ResultStore, StoredResult, StoredRows, cut};
use crate::jobs::counters::Counters;
use crate::jobs::error::{JobsError, OpenError};
use crate::jobs::queue::Answer;
use crate::jobs::sqlite::open::{Migrations, open_writer};
use crate::jobs::sqlite::writer::{Sync, Writer};
use crate::jobs::sqlite::{Reader, int, uint};
use crate::jobs::time::Clock;

/// `kind`: 0 rows, 1 JSON, 2 files. A JSON value is the only chunk of its result. Bodies carry their SHA-256, so that
/// damage is found when they are read.
const MIGRATIONS: Migrations = &["
create table result (
    job blob not null,
    attempt integer not null,
    token integer not null,
    written_at integer not null,
    kind integer not null,
    columns text not null,
    row_count integer not null,
    truncated integer not null,
    primary key (job, attempt, token)
) strict, without rowid;
create table chunk (
    job blob not null,
    attempt integer not null,
    token integer not null,
    first_row integer not null,
    rows integer not null,
    digest blob not null,
    body blob not null,
    primary key (job, attempt, token, first_row)
) strict;
create table file (
    job blob not null,
    attempt integer not null,
    token integer not null,
    position integer not null,
    format text not null,
    media_type text not null,
    digest blob not null,
    body blob not null,
    primary key (job, attempt, token, position)
) strict;
"];

/// Results in a SQLite file.
pub(crate) struct SqliteResults {
    writer: Writer<()>,
    reader: Reader,
    clock: Arc<dyn Clock>,
}

impl SqliteResults {
    /// Opens `results.db` in a directory that this process has locked.
    ///
    /// # Errors
    /// When the file cannot be opened or is not safe to write to.
    pub(crate) fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = dir.join("results.db");
        let file = path.clone();
        let open = move || Ok((open_writer(&file, MIGRATIONS)?, ()));
        // Counted apart from the commits of the queue, which are what group commit is judged by.
        let writer = Writer::start("results-writer", Box::new(open), Arc::new(Counters::default()))?;
        Ok(Self { writer, reader: Reader::start("results-reader", path)?, clock })
    }
}

impl ResultStore for SqliteResults {
    fn store(&self, key: ResultKey, content: Arc<Content>, sync: bool) -> Answer<'_, ()> {
        let now = self.clock.wall_ms();
        let sync = if sync { Sync::Disk } else { Sync::Os };
        self.writer.call(sync, move |conn, ()| Ok(store(conn, key, &content, now)?)).boxed()
    }

    fn read(&self, key: ResultKey, offset: u64, limit: u64) -> Answer<'_, Option<StoredResult>> {
        let read = self.reader.read(move |conn| read(conn, key, offset, limit));
        async move { read.await?.transpose().map_err(|Damaged| JobsError::Damaged(key.job)) }.boxed()
    }

    fn file(&self, key: ResultKey, format: String) -> Answer<'_, Option<ResultFile>> {
        let read = self.reader.read(move |conn| file(conn, key, &format));
        async move { read.await?.transpose().map_err(|Damaged| JobsError::Damaged(key.job)) }.boxed()
    }

    fn keys(&self, after: Option<ResultKey>, written_before_ms: u64, limit: usize) -> Answer<'_, Vec<ResultKey>> {
        self.reader.read(move |conn| keys(conn, after, written_before_ms, limit)).boxed()
    }

    fn remove(&self, keys: Vec<ResultKey>) -> Answer<'_, ()> {
        let remove = move |conn: &Connection, (): &mut ()| {
            keys.iter().try_for_each(|key| clear(conn, *key))?;
            conn.execute_batch("pragma incremental_vacuum(1000)")?;
            Ok(())
        };
        self.writer.call(Sync::Os, remove).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.writer.close().await;
            self.reader.close().await;
        }
        .boxed()
    }
}

/// Stored bytes whose digest is not theirs.
struct Damaged;

/// Stored bytes, if they are what was written.
type Checked<T> = Result<T, Damaged>;

fn store(conn: &Connection, key: ResultKey, content: &Content, now: u64) -> rusqlite::Result<()> {
    clear(conn, key)?;
    match content {
        Content::Rows(set) => {
            let columns = serde_json::to_string(&set.columns).expect("a list of texts is JSON");
            head(conn, key, now, (0, &columns, set.row_count(), set.truncated))?;
            set.chunks.iter().try_for_each(|one| chunk(conn, key, one.first_row, one.rows, &one.ndjson))
        }
        Content::Json(text) => {
            head(conn, key, now, (1, "", 0, false))?;
            chunk(conn, key, 0, 0, text)
        }
        Content::Files(set) => {
            head(conn, key, now, (2, "", set.rows.unwrap_or(0), set.truncated))?;
            set.files.iter().enumerate().try_for_each(|(at, file)| put_file(conn, key, at, file))
        }
    }
}

fn head(conn: &Connection, key: ResultKey, now: u64, about: (i64, &str, u64, bool)) -> rusqlite::Result<()> {
    let (kind, columns, row_count, truncated) = about;
    let values =
        params![key.job.to_bytes(), key.attempt, int(key.token), int(now), kind, columns, int(row_count), truncated];
    conn.prepare_cached("insert into result values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(values).map(drop)
}

fn chunk(conn: &Connection, key: ResultKey, first_row: u64, rows: u64, body: &[u8]) -> rusqlite::Result<()> {
    let digest = digest(body);
    let values = params![key.job.to_bytes(), key.attempt, int(key.token), int(first_row), int(rows), &digest[..], body];
    conn.prepare_cached("insert into chunk values (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(values).map(drop)
}

fn put_file(conn: &Connection, key: ResultKey, at: usize, file: &ResultFile) -> rusqlite::Result<()> {
    let (digest, body) = (digest(&file.body), &file.body[..]);
    let (format, media_type) = (&file.format, &file.media_type);
    let values =
        params![key.job.to_bytes(), key.attempt, int(key.token), at as i64, format, media_type, &digest[..], body];
    conn.prepare_cached("insert into file values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(values).map(drop)
}

fn clear(conn: &Connection, key: ResultKey) -> rusqlite::Result<()> {
    for table in ["result", "chunk", "file"] {
        let sql = format!("delete from {table} where job = ?1 and attempt = ?2 and token = ?3");
        conn.prepare_cached(&sql)?.execute(params![key.job.to_bytes(), key.attempt, int(key.token)])?;
    }
    Ok(())
}

fn read(conn: &Connection, key: ResultKey, offset: u64, limit: u64) -> rusqlite::Result<Option<Checked<StoredResult>>> {
    let sql = "select kind, columns, row_count, truncated from result where job = ?1 and attempt = ?2 and token = ?3";
    let about = |row: &Row<'_>| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, uint(row.get(2)?), row.get::<_, bool>(3)?))
    };
    let values = params![key.job.to_bytes(), key.attempt, int(key.token)];
    let head = conn.prepare_cached(sql)?.query_row(values, about).optional()?;
    let Some((kind, columns, row_count, truncated)) = head else { return Ok(None) };
    Ok(Some(match kind {
        0 => rows(conn, key, offset.min(row_count), limit.min(row_count))?.map(|(ndjson, rows)| {
            let columns = serde_json::from_str(&columns).unwrap_or_default();
            let offset = offset.min(row_count);
            StoredResult::Rows(StoredRows { columns, offset, rows, ndjson, row_count, truncated })
        }),
        1 => rows(conn, key, 0, 1)?.map(|(text, _)| StoredResult::Json(text)),
        _ => Ok(StoredResult::Files(files(conn, key)?)),
    }))
}

/// The rows `offset..offset + limit`, without loading the chunks before and after them.
fn rows(conn: &Connection, key: ResultKey, offset: u64, limit: u64) -> rusqlite::Result<Checked<(Bytes, u64)>> {
    let end = offset.saturating_add(limit);
    let sql = "select first_row, rows, digest, body from chunk where job = ?1 and attempt = ?2 and token = ?3
        and first_row < ?5 and (first_row + rows > ?4 or rows = 0) order by first_row";
    let mut statement = conn.prepare_cached(sql)?;
    let values = params![key.job.to_bytes(), key.attempt, int(key.token), int(offset), int(end)];
    let mut found = statement.query(values)?;
    let (mut page, mut count) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let (first_row, rows) = (uint(row.get(0)?), uint(row.get(1)?));
        let Ok(body) = checked(row, 2)? else { return Ok(Err(Damaged)) };
        let (from, to) = (offset.max(first_row), end.min(first_row + rows));
        // A JSON value has no rows and is one whole.
        let part = if rows == 0 { body } else { cut(&body, from - first_row, to - first_row) };
        count += to.saturating_sub(from);
        page.extend_from_slice(&part);
    }
    Ok(Ok((page.into(), count)))
}

fn files(conn: &Connection, key: ResultKey) -> rusqlite::Result<Vec<FileInfo>> {
    let sql = "select format, media_type, length(body) from file
        where job = ?1 and attempt = ?2 and token = ?3 order by position";
    let mut statement = conn.prepare_cached(sql)?;
    let values = params![key.job.to_bytes(), key.attempt, int(key.token)];
    let found = statement.query_map(values, |row| {
        Ok(FileInfo { format: row.get(0)?, media_type: row.get(1)?, bytes: uint(row.get(2)?) })
    })?;
    found.collect()
}

fn file(conn: &Connection, key: ResultKey, format: &str) -> rusqlite::Result<Option<Checked<ResultFile>>> {
    let sql = "select format, media_type, digest, body from file
        where job = ?1 and attempt = ?2 and token = ?3 and format = ?4";
    let values = params![key.job.to_bytes(), key.attempt, int(key.token), format];
    let read = |row: &Row<'_>| {
        let (format, media_type) = (row.get(0)?, row.get(1)?);
        Ok(checked(row, 2)?.map(|body| ResultFile { format, media_type, body }))
    };
    conn.prepare_cached(sql)?.query_row(values, read).optional()
}

fn keys(conn: &Connection, after: Option<ResultKey>, before: u64, limit: usize) -> rusqlite::Result<Vec<ResultKey>> {
    let after = after.unwrap_or(ResultKey { job: JobId::from_bytes([0; 16]), attempt: 0, token: 0 });
    let sql = "select job, attempt, token from result where (job, attempt, token) > (?1, ?2, ?3) and written_at < ?4
        order by job, attempt, token limit ?5";
    let mut statement = conn.prepare_cached(sql)?;
    let values = params![after.job.to_bytes(), after.attempt, int(after.token), int(before), limit as i64];
    let found = statement.query_map(values, |row| {
        let job = JobId::from_bytes(row.get(0)?);
        Ok(ResultKey { job, attempt: row.get(1)?, token: uint(row.get(2)?) })
    })?;
    found.collect()
}

/// The body of a row whose digest stands in the column before it.
fn checked(row: &Row<'_>, digest_at: usize) -> rusqlite::Result<Checked<Bytes>> {
    let (expected, body): (Vec<u8>, Vec<u8>) = (row.get(digest_at)?, row.get(digest_at + 1)?);
    Ok(if digest(&body)[..] == expected[..] { Ok(body.into()) } else { Err(Damaged) })
}

fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}
