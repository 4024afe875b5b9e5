//! Idempotency keys in `jobs.db`, in the commit of the jobs that they stand for.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::ops::{self, Waiting};
use super::rows::int;
use super::writer::Failed;
use crate::jobs::new_job::NewJob;
use crate::jobs::once::{self, KEPT, Once, Told};

/// Stores jobs with their key, or tells what the first request with the key was told.
pub(super) fn enqueue_once(
    conn: &Connection,
    waiting: &mut Waiting,
    once: &Once,
    jobs: &[NewJob],
    now: u64,
) -> Result<Told, Failed> {
    if let Some(told) = recall(conn, once.name, once.body, now)? {
        return Ok(told);
    }
    let told = ops::enqueue(conn, waiting, jobs, now)?;
    let expires_at = now.saturating_add(KEPT.as_millis() as u64);
    // One whose day is over may still be there.
    conn.prepare_cached("insert or replace into once values (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        once.name,
        once.body,
        &once.answer[..],
        once::to_text(&told),
        int(expires_at)
    ])?;
    Ok(Told::Stored(told))
}

/// What a request with this key and body is told, if there was one with the key.
pub(super) fn recall(conn: &Connection, name: [u8; 32], body: [u8; 32], now: u64) -> rusqlite::Result<Option<Told>> {
    let sql = "select body, answer, jobs from once where name = ?1 and expires_at > ?2";
    let read = |row: &rusqlite::Row<'_>| {
        let (kept, answer, jobs): (Vec<u8>, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Told::of(&kept, &body, Bytes::from(answer), once::from_text(&jobs).unwrap_or_default()))
    };
    conn.prepare_cached(sql)?.query_row(params![name, int(now)], read).optional()
}

/// Removes keys whose day is over.
pub(super) fn forget(conn: &Connection, now: u64, limit: usize) -> rusqlite::Result<()> {
    let sql =
        "delete from once where name in (select name from once where expires_at <= ?1 order by expires_at limit ?2)";
    conn.prepare_cached(sql)?.execute(params![int(now), limit as i64]).map(drop)
}
