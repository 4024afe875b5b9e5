//! Which consumers are paused, in `jobs.db`.

use rusqlite::{Connection, params};

use super::rows::int;

/// What every claim asks.
const IS_PAUSED: &str = "select 1 from paused where consumer = ?1";

/// Lets consumers claim nothing. The time of the first pause is kept, for who looks into the file.
pub(super) fn pause(conn: &Connection, consumers: &[String], now: u64) -> rusqlite::Result<()> {
    let sql = "insert into paused (consumer, paused_at) values (?1, ?2) on conflict do nothing";
    let mut statement = conn.prepare_cached(sql)?;
    consumers.iter().try_for_each(|name| statement.execute(params![name, int(now)]).map(drop))
}

/// Lets consumers claim again.
pub(super) fn resume(conn: &Connection, consumers: &[String]) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached("delete from paused where consumer = ?1")?;
    consumers.iter().try_for_each(|name| statement.execute([name]).map(drop))
}

/// Whether a consumer is paused.
pub(super) fn is_paused(conn: &Connection, consumer: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached(IS_PAUSED)?.exists([consumer])
}

/// The paused ones, by name.
pub(super) fn paused(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare_cached("select consumer from paused order by consumer")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}
