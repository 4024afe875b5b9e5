//! Why jobs are dead.

use super::db::{Failed, Tx, uint};
use super::rows::class;
use crate::jobs::queue::DeadLetters;

/// Counts dead jobs by their reason. Answered from the index `job_dead` alone where it is vacuumed.
pub(super) async fn dead_letters(tx: &Tx<'_>, limit: usize) -> Result<Vec<DeadLetters>, Failed> {
    let sql = "select consumer, error_code, error_class, count(*), min(finished_at), max(finished_at) from job
        where state = 4 and error_code is not null group by consumer, error_code, error_class
        order by 4 desc, 6 desc limit $1";
    let read = |row: &tokio_postgres::Row| {
        let (jobs, oldest, newest) = (uint(row.get(3)), uint(row.get(4)), uint(row.get(5)));
        let class = class(row.get(2))?;
        Ok(DeadLetters { consumer: row.get(0), code: row.get(1), class, jobs, oldest, newest })
    };
    tx.query(sql, &[&i64::try_from(limit).unwrap_or(i64::MAX)]).await?.iter().map(read).collect()
}
