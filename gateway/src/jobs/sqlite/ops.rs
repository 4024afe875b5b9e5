//! What the calls of the queue do inside a transaction of `jobs.db`.

use std::time::Duration;

use groupcast_protocol::JobId;
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::pauses;
use super::rows::{id, insert, int, load, read, save, state, state_code, uint};
use super::writer::Failed;
use crate::jobs::error::JobsError;
use crate::jobs::new_job::{Enqueued, NewJob};
use crate::jobs::queue::{
    CancelOutcome, ClaimAsk, ClaimBatch, Depth, Filter, Finish, Finished, Lease, LeaseState, RedriveFilter, Sent,
    Settled, Tick, riding_keys,
};
use crate::jobs::record::{JobRecord, JobState};
use crate::jobs::results::ResultKey;
use crate::jobs::row::Row;
use crate::kill_point::{self, KillPoint};

/// How many jobs a claim ends or readies on the way, so that no transaction grows without bound.
const TIDY_MAX: usize = 500;

const DUE: &str = "select id from job where state = 0 and consumer = ?1 and run_at <= ?2 order by run_at limit ?3";
const LATE: &str = "select id from job where state < 2 and deadline_at is not null and deadline_at <= ?1 limit ?2";
const LOST: &str = "select id from job where state = 2 and lease_until <= ?1 limit ?2";
const READY: &str = "select id from job where state = 1 and consumer = ?1 order by priority desc, rowid limit ?2";
const RIDERS: &str = "select id from job where state = 1 and consumer = ?1 and coalesce_key = ?2
    and coalesce_key is not null order by rowid limit ?3";
const SHARED: &str = "select 1 from job where shared_result = ?1 and shared_result is not null limit 1";
const NEXT: &str = "select min(run_at) from job where state = 0 and consumer = ?1";

/// What every claim asks, and every sweep of results.
#[cfg(test)]
pub(super) const CLAIM_QUERIES: [&str; 7] = [DUE, LATE, LOST, READY, RIDERS, SHARED, NEXT];

/// What the writing thread keeps in memory: a count over the file would be slow.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Jobs that are scheduled or ready.
    pub(super) jobs: u64,
    /// How many there may be.
    pub(super) max: u64,
}

impl Waiting {
    /// Counts.
    pub(super) fn count(conn: &Connection, max: u64) -> rusqlite::Result<Self> {
        let one = |state: i64| -> rusqlite::Result<i64> {
            conn.query_row(&format!("select count(*) from job where state = {state}"), [], |row| row.get(0))
        };
        Ok(Self { jobs: uint(one(0)? + one(1)?), max })
    }

    /// Refuses what is too much.
    pub(super) fn has_room(&self, jobs: usize) -> Result<(), Failed> {
        let is_full = self.jobs + jobs as u64 > self.max;
        if is_full { Err(Failed::Refused(JobsError::QueueFull { limit: self.max })) } else { Ok(()) }
    }

    fn moved(&mut self, from: JobState, to: JobState) {
        self.jobs = self.jobs + u64::from(to.is_waiting()) - u64::from(from.is_waiting());
    }
}

/// Stores jobs, all or none.
pub(super) fn enqueue(
    conn: &Connection,
    waiting: &mut Waiting,
    jobs: &[NewJob],
    now: u64,
) -> Result<Vec<Enqueued>, Failed> {
    waiting.has_room(jobs.len())?;
    let told = jobs.iter().map(|job| enqueue_one(conn, waiting, job, now).map_err(Failed::from)).collect();
    kill_point::hit(KillPoint::AfterInsertBeforeSync);
    told
}

fn enqueue_one(conn: &Connection, waiting: &mut Waiting, job: &NewJob, now: u64) -> rusqlite::Result<Enqueued> {
    let told = |id, durability, existing| Enqueued { id, consumer: job.consumer.clone(), durability, existing };
    if let Some(key) = &job.unique_key
        && let Some(row) = live_with_key(conn, &job.consumer, key)?
    {
        return Ok(told(row.id, row.durability, true));
    }
    insert(conn, &Row::new(job, now))?;
    waiting.jobs += 1;
    Ok(told(job.id, job.durability, false))
}

fn live_with_key(conn: &Connection, consumer: &str, key: &str) -> rusqlite::Result<Option<Row>> {
    let sql = "select * from job where consumer = ?1 and unique_key = ?2 and state < 3 and unique_key is not null";
    conn.prepare_cached(sql)?.query_row([consumer, key], read).optional()
}

/// Notes a tick and stores its jobs, or finds that it is noted.
pub(super) fn tick(
    conn: &Connection,
    waiting: &mut Waiting,
    tick: &Tick,
    jobs: &[NewJob],
    now: u64,
) -> Result<Option<Vec<Enqueued>>, Failed> {
    // Before the note: a refusal must leave nothing behind in a transaction that others go on with.
    waiting.has_room(jobs.len())?;
    let sql = "insert into tick (schedule, due_ms) values (?1, ?2)
        on conflict (schedule) do update set due_ms = excluded.due_ms where due_ms < excluded.due_ms";
    let noted = conn.prepare_cached(sql)?.execute(params![tick.schedule, int(tick.due_ms)])?;
    if noted == 0 { Ok(None) } else { enqueue(conn, waiting, jobs, now).map(Some) }
}

/// The last tick of each schedule.
pub(super) fn ticks(conn: &Connection) -> rusqlite::Result<Vec<Tick>> {
    let mut statement = conn.prepare_cached("select schedule, due_ms from tick order by schedule")?;
    let rows = statement.query_map([], |row| Ok(Tick { schedule: row.get(0)?, due_ms: uint(row.get(1)?) }))?;
    rows.collect()
}

/// Ends and releases what its time did.
pub(super) fn tidy(
    conn: &Connection,
    waiting: &mut Waiting,
    held: &[Lease],
    now: u64,
    mono: u64,
) -> rusqlite::Result<bool> {
    let late = ids(conn, LATE, params![int(now), TIDY_MAX as i64])?;
    let lost = ids(conn, LOST, params![int(mono), TIDY_MAX as i64])?;
    change_all(conn, waiting, &late, |row| row.expire(now))?;
    let lost = change_all(conn, waiting, &lost, |row| row.lose_unless_held(held, now))?;
    Ok(!late.is_empty() || lost.contains(&true))
}

/// Ends and readies what its time did, then hands out.
pub(super) fn claim(
    conn: &Connection,
    waiting: &mut Waiting,
    ask: &ClaimAsk,
    now: u64,
    mono: u64,
) -> rusqlite::Result<ClaimBatch> {
    let ended = tidy(conn, waiting, &ask.held, now, mono)?;
    let due = ids(conn, DUE, params![ask.consumer, int(now), TIDY_MAX as i64])?;
    change_all(conn, waiting, &due, Row::become_ready)?;
    if pauses::is_paused(conn, &ask.consumer)? {
        return Ok(ClaimBatch { ended, paused: true, ..ClaimBatch::default() });
    }
    let ready = ids(conn, READY, params![ask.consumer, ask.max as i64])?;
    let lease_until = mono.saturating_add(u64::try_from(ask.lease.as_millis()).unwrap_or(u64::MAX));
    let jobs = change_all(conn, waiting, &ready, |row| row.claim(now, lease_until))?;
    let mut riders = Vec::new();
    for key in riding_keys(&ask.riding, &jobs) {
        let room = (ask.riders_max - riders.len()) as i64;
        let same = ids(conn, RIDERS, params![ask.consumer, key, room])?;
        riders.extend(change_all(conn, waiting, &same, |row| row.claim(now, lease_until))?);
    }
    let next_at: Option<i64> = conn.prepare_cached(NEXT)?.query_row([&ask.consumer], |row| row.get(0))?;
    Ok(ClaimBatch { jobs, riders, next_at: next_at.map(uint), ended, paused: false })
}

/// Releases the running jobs of a process that died; answers how many.
pub(super) fn release_all(conn: &Connection, now: u64) -> rusqlite::Result<usize> {
    let mut waiting = Waiting { jobs: 0, max: 0 };
    let mut released = 0;
    loop {
        let running = ids(conn, "select id from job where state = 2 limit ?1", params![TIDY_MAX as i64])?;
        if running.is_empty() {
            return Ok(released);
        }
        released += running.len();
        change_all(conn, &mut waiting, &running, |row| row.lose(now))?;
    }
}

/// Prolongs leases.
pub(super) fn extend(
    conn: &Connection,
    waiting: &mut Waiting,
    leases: &[Lease],
    mono: u64,
    by: Duration,
) -> rusqlite::Result<Vec<LeaseState>> {
    let extend = |lease| with_lease(conn, waiting, lease, |row| row.extend(mono, by)).map(|(state, _)| state);
    leases.iter().map(extend).collect()
}

/// Does something to a job while its lease holds; answers the row as it is then.
pub(super) fn with_lease(
    conn: &Connection,
    waiting: &mut Waiting,
    lease: &Lease,
    act: impl FnOnce(&mut Row),
) -> rusqlite::Result<(LeaseState, Option<Row>)> {
    let Some(mut row) = load(conn, lease.id)? else { return Ok((LeaseState::Lost, None)) };
    let state = row.lease_state(lease);
    if state != LeaseState::Lost {
        change(conn, waiting, &mut row, act)?;
    }
    Ok((state, Some(row)))
}

/// Ends attempts.
pub(super) fn finish(
    conn: &Connection,
    waiting: &mut Waiting,
    ends: &[Finish],
    now: u64,
) -> rusqlite::Result<Vec<Finished>> {
    let finish = |end: &Finish| {
        let told = with_lease(conn, waiting, &end.lease, |row| row.finish(end.how.clone(), now))?;
        Ok(match told {
            (LeaseState::Held | LeaseState::CancelRequested, Some(row)) => Finished::Accepted(Box::new(row.settled())),
            (LeaseState::Held | LeaseState::CancelRequested, None) | (LeaseState::Lost, _) => Finished::Fenced,
        })
    };
    ends.iter().map(finish).collect()
}

/// Cancels.
pub(super) fn cancel(
    conn: &Connection,
    waiting: &mut Waiting,
    ids: &[JobId],
    now: u64,
) -> rusqlite::Result<Vec<CancelOutcome>> {
    let cancel = |id: &JobId| match load(conn, *id)? {
        Some(mut row) => change(conn, waiting, &mut row, |row| row.cancel(now)),
        None => Ok(CancelOutcome::NotFound),
    };
    ids.iter().map(cancel).collect()
}

/// Makes dead jobs ready.
pub(super) fn redrive(
    conn: &Connection,
    waiting: &mut Waiting,
    filter: &RedriveFilter,
    now: u64,
) -> rusqlite::Result<Vec<String>> {
    // A dead job whose unique key a live one has stays dead; of several dead ones with a key, the oldest comes back.
    let sql = "select id from job as dead where state = 4 and state > 2 and event_pending = 0
        and (?1 is null or consumer = ?1) and (?2 is null or error_code = ?2 or error_class = ?2)
        and (?4 is null or id = ?4) and (unique_key is null or not exists (select 1 from job as other where other.consumer = dead.consumer
            and other.unique_key = dead.unique_key and other.unique_key is not null and other.state < 3))
        order by rowid limit ?3";
    let job = filter.job.map(JobId::to_bytes);
    let found = ids(conn, sql, params![filter.consumer, filter.reason, filter.limit as i64, job])?;
    let mut keys = std::collections::HashSet::new();
    let mut consumers = Vec::new();
    for id in found {
        let Some(mut row) = load(conn, id)? else { continue };
        let key = row.unique_key.clone().map(|key| (row.consumer.clone(), key));
        if key.is_some_and(|key| !keys.insert(key)) {
            continue;
        }
        consumers.push(row.consumer.clone());
        if !filter.dry_run {
            change(conn, waiting, &mut row, |row| row.redrive(now))?;
        }
    }
    Ok(consumers)
}

/// Removes ended jobs.
pub(super) fn prune(conn: &Connection, before: u64, limit: usize) -> rusqlite::Result<u64> {
    let sql = "delete from job where id in
        (select id from job where state > 2 and finished_at < ?1 and event_pending = 0 order by finished_at limit ?2)";
    let gone = conn.prepare_cached(sql)?.execute(params![int(before), limit as i64])?;
    conn.execute_batch("pragma incremental_vacuum(1000)")?;
    Ok(gone as u64)
}

/// Clears pending events.
pub(super) fn event_sent(conn: &Connection, sent: &[Sent]) -> rusqlite::Result<()> {
    let sql = "update job set event_pending = 0 where id = ?1 and attempt = ?2 and state = ?3 and event_pending = 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut clear = |one: &Sent| statement.execute(params![one.id.to_bytes(), one.attempt, state_code(one.state)]);
    sent.iter().try_for_each(|one| clear(one).map(drop))
}

/// Whether a job that ended well has this result.
pub(super) fn refers_to(conn: &Connection, key: ResultKey) -> rusqlite::Result<bool> {
    let is_shared = conn.prepare_cached(SHARED)?.exists([key.to_bytes()])?;
    Ok(is_shared || load(conn, key.job)?.and_then(|row| row.result_key()) == Some(key))
}

/// Ended jobs whose event was not sent.
pub(super) fn events_pending(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<Settled>> {
    let mut statement = conn.prepare_cached("select * from job where event_pending = 1 order by rowid limit ?1")?;
    let rows = statement.query_map([limit as i64], read)?;
    rows.map(|row| row.map(|row| row.settled())).collect()
}

/// Lists records, newest first.
pub(super) fn list(
    conn: &Connection,
    filter: &Filter,
    after: Option<JobId>,
    limit: usize,
) -> rusqlite::Result<Vec<JobRecord>> {
    let after = after.map_or([0xFF; 16], JobId::to_bytes);
    let limit = limit as i64;
    let mut values: Vec<&dyn ToSql> = vec![&after, &limit];
    if let Some(consumer) = &filter.consumer {
        values.push(consumer);
    }
    if let Some(reason) = &filter.reason {
        values.push(reason);
    }
    let mut statement = conn.prepare_cached(&list_sql(filter))?;
    let rows = statement.query_map(&values[..], read)?;
    rows.map(|row| row.map(|row| row.record())).collect()
}

/// What a list asks.
pub(super) fn list_sql(filter: &Filter) -> String {
    // The range of states repeats what the state implies, so that a partial index can be used.
    let (index, state) = match filter.state.map(|state| (state_code(state), state.is_ended())) {
        None => ("", String::new()),
        Some((code, true)) => ("", format!(" and state = {code} and state > 2")),
        // Named, because the index of the consumer leads through its whole history.
        Some((code, false)) => (" indexed by job_live_state", format!(" and state = {code} and state < 3")),
    };
    let consumer = if filter.consumer.is_some() { " and consumer = ?3" } else { "" };
    // Values are bound in this order, and those that are not asked for are not bound at all.
    let reason = match (&filter.reason, &filter.consumer) {
        (None, _) => "",
        (Some(_), None) => " and (error_code = ?3 or error_class = ?3)",
        (Some(_), Some(_)) => " and (error_code = ?4 or error_class = ?4)",
    };
    format!("select * from job{index} where id < ?1{state}{consumer}{reason} order by id desc limit ?2")
}

/// Counts live jobs.
pub(super) fn depths(conn: &Connection) -> rusqlite::Result<Vec<Depth>> {
    let one = |code: i64| {
        format!("select consumer, state, count(*), min(enqueued_at) from job where state = {code} group by consumer")
    };
    let sql = [one(0), one(1), one(2)].join(" union all ");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| {
        let (jobs, oldest_at) = (uint(row.get(2)?), uint(row.get(3)?));
        Ok(Depth { consumer: row.get(0)?, state: state(row.get(1)?)?, jobs, oldest_at })
    })?;
    rows.collect()
}

fn ids(conn: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| id(row, "id"))?;
    rows.collect()
}

fn change_all<T>(
    conn: &Connection,
    waiting: &mut Waiting,
    ids: &[JobId],
    mut act: impl FnMut(&mut Row) -> T,
) -> rusqlite::Result<Vec<T>> {
    let mut values = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(mut row) = load(conn, *id)? {
            values.push(change(conn, waiting, &mut row, &mut act)?);
        }
    }
    Ok(values)
}

fn change<T>(
    conn: &Connection,
    waiting: &mut Waiting,
    row: &mut Row,
    act: impl FnOnce(&mut Row) -> T,
) -> rusqlite::Result<T> {
    let before = row.state;
    let value = act(row);
    save(conn, row)?;
    waiting.moved(before, row.state);
    Ok(value)
}
