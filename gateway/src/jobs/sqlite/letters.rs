//! Why jobs of `jobs.db` are dead.

use rusqlite::Connection;

use super::rows::{class, uint};
use crate::jobs::queue::DeadLetters;

/// Answered from the index `job_dead` alone, so that it costs no look at the jobs themselves.
pub(super) const DEAD_LETTERS: &str = "select consumer, error_code, error_class, count(*), min(finished_at),
    max(finished_at) from job where state = 4 and error_code is not null group by consumer, error_code, error_class
    order by 4 desc, 6 desc limit ?1";

/// Counts dead jobs by their reason.
pub(super) fn dead_letters(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<DeadLetters>> {
    let mut statement = conn.prepare_cached(DEAD_LETTERS)?;
    let rows = statement.query_map([limit as i64], |row| {
        let class = class(&row.get::<_, String>(2)?)?;
        let (jobs, oldest, newest) = (uint(row.get(3)?), uint(row.get(4)?), uint(row.get(5)?));
        Ok(DeadLetters { consumer: row.get(0)?, code: row.get(1)?, class, jobs, oldest, newest })
    })?;
    rows.collect()
}
