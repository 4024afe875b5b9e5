//! Ticks of schedules.

use super::db::{Failed, Tx, int, uint};
use super::ops::{self, Room};
use crate::jobs::new_job::{Enqueued, NewJob};
use crate::jobs::queue::Tick;

/// Notes a tick and stores its jobs, or finds that it is noted. Of two processes at once the second waits for the first.
pub(super) async fn tick(
    tx: &Tx<'_>,
    tick: &Tick,
    jobs: &[NewJob],
    max: u64,
    node: &str,
) -> Result<Option<Vec<Enqueued>>, Failed> {
    let sql = "insert into tick (schedule, due_ms) values ($1, $2)
        on conflict (schedule) do update set due_ms = excluded.due_ms where tick.due_ms < excluded.due_ms";
    if tx.execute(sql, &[&tick.schedule, &int(tick.due_ms)]).await? == 0 {
        return Ok(None);
    }
    jobs.iter().try_for_each(|job| tx.keeps(job.durability)).map_err(Failed::Refused)?;
    let room = Room::Counted { max };
    let (_, left) = room.look(tx).await?;
    if jobs.len() as u64 > left {
        return Err(Failed::Refused(room.refusal()));
    }
    let jobs: Vec<NewJob> = jobs.iter().map(|job| ops::there(tx, job)).collect();
    let (told, _) = ops::enqueue_all(tx, &jobs, node).await?;
    Ok(Some(told))
}

/// The last tick of each schedule.
pub(super) async fn ticks(tx: &Tx<'_>) -> Result<Vec<Tick>, Failed> {
    let rows = tx.query("select schedule, due_ms from tick order by schedule collate \"C\"", &[]).await?;
    Ok(rows.iter().map(|row| Tick { schedule: row.get(0), due_ms: uint(row.get(1)) }).collect())
}
