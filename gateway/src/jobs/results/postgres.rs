//! Results in PostgreSQL, beside the jobs.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use groupcast_protocol::JobId;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Content, FileInfo, ResultFile, ResultKey, ResultStore, StoredResult, StoredRows, cut};
use crate::jobs::error::JobsError;
use crate::jobs::postgres::{Db, Failed, Sync, Tx, Uuid, int, uint};
use crate::jobs::queue::Answer;

/// Results in the tables `result`, `chunk` and `file`, as the SQLite store has them.
pub(crate) struct PostgresResults {
    db: Db,
}

impl PostgresResults {
    /// On the connections of a queue, whose closing ends this one, too.
    pub(crate) fn new(db: &Db) -> Self {
        Self { db: db.clone() }
    }
}

impl ResultStore for PostgresResults {
    fn store(&self, key: ResultKey, content: Arc<Content>, sync: bool) -> Answer<'_, ()> {
        let sync = if sync { Sync::Disk } else { Sync::Local };
        self.db
            .transact(sync, move |tx| {
                let content = Arc::clone(&content);
                async move { store(tx, key, &content).await }.boxed()
            })
            .boxed()
    }

    fn read(&self, key: ResultKey, offset: u64, limit: u64) -> Answer<'_, Option<StoredResult>> {
        self.db.transact(Sync::Off, move |tx| async move { read(tx, key, offset, limit).await }.boxed()).boxed()
    }

    fn file(&self, key: ResultKey, format: String) -> Answer<'_, Option<ResultFile>> {
        self.db
            .transact(Sync::Off, move |tx| {
                let format = format.clone();
                async move { file(tx, key, &format).await }.boxed()
            })
            .boxed()
    }

    fn keys(&self, after: Option<ResultKey>, written_before_ms: u64, limit: usize) -> Answer<'_, Vec<ResultKey>> {
        self.db
            .transact(Sync::Off, move |tx| async move { keys(tx, after, written_before_ms, limit).await }.boxed())
            .boxed()
    }

    fn remove(&self, keys: Vec<ResultKey>) -> Answer<'_, ()> {
        self.db
            .transact(Sync::Off, move |tx| {
                let keys = keys.clone();
                async move {
                    for key in keys {
                        clear(tx, key).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.db.close().boxed()
    }
}

async fn store(tx: &Tx<'_>, key: ResultKey, content: &Content) -> Result<(), Failed> {
    clear(tx, key).await?;
    match content {
        Content::Rows(set) => {
            let columns = serde_json::to_string(&set.columns).expect("a list of texts is JSON");
            head(tx, key, (0, &columns, set.row_count(), set.truncated)).await?;
            for one in &set.chunks {
                chunk(tx, key, one.first_row, one.rows, &one.ndjson).await?;
            }
        }
        Content::Json(text) => {
            head(tx, key, (1, "", 0, false)).await?;
            chunk(tx, key, 0, 0, text).await?;
        }
        Content::Files(set) => {
            head(tx, key, (2, "", set.rows.unwrap_or(0), set.truncated)).await?;
            for (at, file) in set.files.iter().enumerate() {
                put_file(tx, key, at, file).await?;
            }
        }
    }
    Ok(())
}

async fn head(tx: &Tx<'_>, key: ResultKey, about: (i16, &str, u64, bool)) -> Result<(), Failed> {
    let (kind, columns, row_count, truncated) = about;
    let sql = "insert into result values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let (id, attempt, token) = columns_of(key);
    tx.execute(sql, &[&id, &attempt, &token, &int(tx.now), &kind, &columns, &int(row_count), &truncated]).await?;
    Ok(())
}

async fn chunk(tx: &Tx<'_>, key: ResultKey, first_row: u64, rows: u64, body: &[u8]) -> Result<(), Failed> {
    let sql = "insert into chunk values ($1, $2, $3, $4, $5, $6, $7)";
    let (id, attempt, token) = columns_of(key);
    tx.execute(sql, &[&id, &attempt, &token, &int(first_row), &int(rows), &digest(body), &body]).await?;
    Ok(())
}

async fn put_file(tx: &Tx<'_>, key: ResultKey, at: usize, file: &ResultFile) -> Result<(), Failed> {
    let sql = "insert into file values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let ((id, attempt, token), body) = (columns_of(key), &file.body[..]);
    let values: [&(dyn ToSql + std::marker::Sync); 8] =
        [&id, &attempt, &token, &(at as i64), &file.format, &file.media_type, &digest(body), &body];
    tx.execute(sql, &values).await?;
    Ok(())
}

async fn clear(tx: &Tx<'_>, key: ResultKey) -> Result<(), Failed> {
    let (id, attempt, token) = columns_of(key);
    for sql in [
        "delete from result where job = $1 and attempt = $2 and token = $3",
        "delete from chunk where job = $1 and attempt = $2 and token = $3",
        "delete from file where job = $1 and attempt = $2 and token = $3",
    ] {
        tx.execute(sql, &[&id, &attempt, &token]).await?;
    }
    Ok(())
}

async fn read(tx: &Tx<'_>, key: ResultKey, offset: u64, limit: u64) -> Result<Option<StoredResult>, Failed> {
    let sql = "select kind, columns, row_count, truncated from result where job = $1 and attempt = $2 and token = $3";
    let (id, attempt, token) = columns_of(key);
    let head = tx.query(sql, &[&id, &attempt, &token]).await?;
    let Some(head) = head.first() else { return Ok(None) };
    let (kind, row_count, truncated) = (head.get::<_, i16>(0), uint(head.get(2)), head.get(3));
    Ok(Some(match kind {
        0 => {
            let (offset, limit) = (offset.min(row_count), limit.min(row_count));
            let (ndjson, rows) = self::rows(tx, key, offset, limit).await?;
            let columns = serde_json::from_str(head.get(1)).unwrap_or_default();
            StoredResult::Rows(StoredRows { columns, offset, rows, ndjson, row_count, truncated })
        }
        1 => StoredResult::Json(rows(tx, key, 0, 1).await?.0),
        _ => StoredResult::Files(files(tx, key).await?),
    }))
}

/// The rows `offset..offset + limit`, without loading the chunks before and after them.
async fn rows(tx: &Tx<'_>, key: ResultKey, offset: u64, limit: u64) -> Result<(Bytes, u64), Failed> {
    let end = offset.saturating_add(limit);
    let sql = "select first_row, rows, digest, body from chunk where job = $1 and attempt = $2 and token = $3
        and first_row < $5 and (first_row + rows > $4 or rows = 0) order by first_row";
    let (id, attempt, token) = columns_of(key);
    let (mut page, mut count) = (Vec::new(), 0);
    for row in tx.query(sql, &[&id, &attempt, &token, &int(offset), &int(end)]).await? {
        let (first_row, rows) = (uint(row.get(0)), uint(row.get(1)));
        let body = checked(&row, 2, key.job)?;
        let (from, to) = (offset.max(first_row), end.min(first_row + rows));
        // A JSON value has no rows and is one whole.
        let part = if rows == 0 { body } else { cut(&body, from - first_row, to - first_row) };
        count += to.saturating_sub(from);
        page.extend_from_slice(&part);
    }
    Ok((page.into(), count))
}

async fn files(tx: &Tx<'_>, key: ResultKey) -> Result<Vec<FileInfo>, Failed> {
    let sql = "select format, media_type, length(body)::bigint from file
        where job = $1 and attempt = $2 and token = $3 order by position";
    let (id, attempt, token) = columns_of(key);
    let found = tx.query(sql, &[&id, &attempt, &token]).await?;
    let read = |row: &Row| FileInfo { format: row.get(0), media_type: row.get(1), bytes: uint(row.get(2)) };
    Ok(found.iter().map(read).collect())
}

async fn file(tx: &Tx<'_>, key: ResultKey, format: &str) -> Result<Option<ResultFile>, Failed> {
    let sql = "select format, media_type, digest, body from file
        where job = $1 and attempt = $2 and token = $3 and format = $4";
    let (id, attempt, token) = columns_of(key);
    let found = tx.query(sql, &[&id, &attempt, &token, &format]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(ResultFile { format: row.get(0), media_type: row.get(1), body: checked(row, 2, key.job)? }))
}

async fn keys(tx: &Tx<'_>, after: Option<ResultKey>, before: u64, limit: usize) -> Result<Vec<ResultKey>, Failed> {
    let after = after.unwrap_or(ResultKey { job: JobId::from_bytes([0; 16]), attempt: 0, token: 0 });
    let sql = "select job, attempt, token from result where (job, attempt, token) > ($1, $2, $3) and written_at < $4
        order by job, attempt, token limit $5";
    let (id, attempt, token) = columns_of(after);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = tx.query(sql, &[&id, &attempt, &token, &int(tx.there(before)), &limit]).await?;
    let read = |row: &Row| {
        let attempt = u32::try_from(row.get::<_, i64>(1)).unwrap_or(u32::MAX);
        ResultKey { job: row.get::<_, Uuid>(0).0, attempt, token: uint(row.get(2)) }
    };
    Ok(found.iter().map(read).collect())
}

fn columns_of(key: ResultKey) -> (Uuid, i64, i64) {
    (Uuid(key.job), i64::from(key.attempt), int(key.token))
}

/// The body of a row whose digest stands in the column before it.
fn checked(row: &Row, digest_at: usize, job: JobId) -> Result<Bytes, Failed> {
    let (expected, body): (&[u8], Vec<u8>) = (row.get(digest_at), row.get(digest_at + 1));
    if digest(&body) == expected { Ok(body.into()) } else { Err(Failed::Refused(JobsError::Damaged(job))) }
}

fn digest(body: &[u8]) -> Vec<u8> {
    Sha256::digest(body).to_vec()
}
