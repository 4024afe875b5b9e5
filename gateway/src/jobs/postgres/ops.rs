//! What the calls of the queue do inside a transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use groupcast_protocol::JobId;
use tokio_postgres::types::ToSql;

use super::db::{Failed, Tx, int, uint};
use super::hints::Hint;
use super::pauses;
use super::rows::{Kept, Uuid, columns, durability, insert, list, read_all, save, state, state_code, text};
use crate::jobs::error::JobsError;
use crate::jobs::new_job::{Enqueued, NewJob};
use crate::jobs::queue::{
    CancelOutcome, ClaimAsk, ClaimBatch, Claimed, Depth, Finish, Finished, How, Lease, LeaseState, RedriveFilter, Sent,
    Settled, riding_keys,
};
use crate::jobs::record::Progress;
use crate::jobs::results::ResultKey;
use crate::jobs::row::Row;

/// How many jobs a claim ends or readies on the way, so that no transaction grows without bound.
const TIDY_MAX: i64 = 500;

/// How often jobs are inserted whose unique key a job had that ended meanwhile.
const INSERTS: usize = 5;

const LATE: &str = concat!(
    "select ",
    columns!(),
    " from job where state < 2 and deadline_at is not null and deadline_at <= $1 order by deadline_at limit $2
      for update skip locked"
);
const LOST: &str = concat!(
    "select ",
    columns!(),
    " from job where state = 2 and lease_until <= $1 order by lease_until limit $2 for update skip locked"
);
const DUE: &str = concat!(
    "select ",
    columns!(),
    " from job where state = 0 and consumer = $1 and run_at <= $2 order by run_at limit $3 for update skip locked"
);
const READY: &str = concat!(
    "select ",
    columns!(),
    " from job where state = 1 and consumer = $1 order by priority desc, seq limit $2 for update skip locked"
);
const RIDERS: &str = concat!(
    "select ",
    columns!(),
    " from job where state = 1 and consumer = $1 and coalesce_key = $2 and coalesce_key is not null
      order by seq limit $3 for update skip locked"
);
const NEXT: &str = "select min(run_at) from job where state = 0 and consumer = $1";
/// In the order of ids, so that no two transactions wait for each other.
const LOCK: &str = concat!("select ", columns!(), " from job where id = any($1) order by id for update");
const WAITING: &str = "select count(*) from job where state < 2";

/// Jobs that wait, so far as is known without counting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Room {
    /// So many more fit for certain.
    Enough,
    /// It has to be counted.
    Counted {
        /// How many may wait.
        max: u64,
    },
}

impl Room {
    /// How many jobs waited, if that has to be counted, and how many more may.
    pub(super) async fn look(self, tx: &Tx<'_>) -> Result<(Option<u64>, u64), Failed> {
        match self {
            Self::Enough => Ok((None, u64::MAX)),
            Self::Counted { max } => {
                let waiting = waiting(tx).await?;
                Ok((Some(waiting), max.saturating_sub(waiting)))
            }
        }
    }

    /// What who finds no room is told.
    pub(super) fn refusal(self) -> JobsError {
        match self {
            Self::Enough => JobsError::Busy,
            Self::Counted { max } => JobsError::QueueFull { limit: max },
        }
    }
}

/// A job with the times of the store.
pub(super) fn there(tx: &Tx<'_>, job: &NewJob) -> NewJob {
    let (run_at, deadline_at) = (job.run_at.map(|at| tx.there(at)), job.deadline_at.map(|at| tx.there(at)));
    NewJob { run_at, deadline_at, ..job.clone() }
}

/// Stores jobs; answers how many of them are new, too.
pub(super) async fn enqueue_all(tx: &Tx<'_>, jobs: &[NewJob], node: &str) -> Result<(Vec<Enqueued>, u64), Failed> {
    let mut told: Vec<Option<Enqueued>> = vec![None; jobs.len()];
    let mut added = 0;
    for _ in 0..INSERTS {
        let left: Vec<usize> = (0..jobs.len()).filter(|at| told[*at].is_none()).collect();
        if left.is_empty() {
            break;
        }
        let rows: Vec<Row> = left.iter().map(|at| Row::new(&jobs[*at], tx.now)).collect();
        let fresh = insert(tx, &rows, node).await?;
        added += fresh.len() as u64;
        let live = live_with_keys(tx, left.iter().map(|at| &jobs[*at]).filter(|job| !fresh.contains(&job.id))).await?;
        for at in left {
            let job = &jobs[at];
            let earlier = || live.get(&(job.consumer.as_str(), job.unique_key.as_deref()?)).copied();
            let known = if fresh.contains(&job.id) { Some((job.id, job.durability)) } else { earlier() };
            told[at] = known.map(|(id, durability)| {
                let existing = id != job.id;
                Enqueued { id, consumer: job.consumer.clone(), durability, existing }
            });
        }
    }
    // Its unique key was another job's each time, and that had ended each time before it could be named.
    let told: Option<Vec<Enqueued>> = told.into_iter().collect();
    told.map(|told| (told, added)).ok_or(Failed::Refused(JobsError::Busy))
}

type Keys<'a> = HashMap<(&'a str, &'a str), (JobId, crate::config::consumer::Durability)>;

async fn live_with_keys<'a>(tx: &Tx<'_>, jobs: impl Iterator<Item = &'a NewJob>) -> Result<Keys<'a>, Failed> {
    let keys: HashSet<(&str, &str)> =
        jobs.filter_map(|job| Some((job.consumer.as_str(), job.unique_key.as_deref()?))).collect();
    if keys.is_empty() {
        return Ok(Keys::new());
    }
    let keys: Vec<_> = keys.into_iter().collect();
    let sql = "select job.consumer, job.unique_key, job.id, job.durability from job
        join unnest($1::text[], $2::bytea[]) as k (consumer, key) on job.consumer = k.consumer and job.unique_key = k.key
        where job.state < 3 and job.unique_key is not null";
    let found = tx.query(sql, &[&list(&keys, |key| key.0), &list(&keys, |key| key.1.as_bytes())]).await?;
    let mut live = Keys::new();
    for row in &found {
        let (consumer, key) = (row.get::<_, &str>(0), text(row.get(1))?);
        if let Some(known) = keys.iter().find(|known| **known == (consumer, key.as_str())) {
            live.insert(*known, (row.get::<_, Uuid>(2).0, durability(row.get(3))?));
        }
    }
    Ok(live)
}

/// How many jobs wait.
pub(super) async fn waiting(tx: &Tx<'_>) -> Result<u64, Failed> {
    Ok(uint(tx.query(WAITING, &[]).await?[0].get(0)))
}

/// What a claim or a tidying did.
pub(super) struct Tidied<T> {
    pub(super) value: T,
    /// What ended on the way.
    pub(super) ended: Vec<Hint>,
}

/// Ends and releases what its time did; `lease` is how long a heartbeat may be late.
pub(super) async fn tidy(tx: &Tx<'_>, held: &[Lease]) -> Result<Tidied<bool>, Failed> {
    let (late, lost) = tokio::try_join!(late(tx), lost(tx))?;
    let (ended, did) = end_and_lose(tx, late, lost, held).await?;
    Ok(Tidied { value: did, ended })
}

async fn late(tx: &Tx<'_>) -> Result<Vec<Kept>, Failed> {
    read_all(&tx.query(LATE, &[&int(tx.now), &TIDY_MAX]).await?)
}

async fn lost(tx: &Tx<'_>) -> Result<Vec<Kept>, Failed> {
    read_all(&tx.query(LOST, &[&int(tx.now), &TIDY_MAX]).await?)
}

async fn end_and_lose(
    tx: &Tx<'_>,
    mut late: Vec<Kept>,
    mut lost: Vec<Kept>,
    held: &[Lease],
) -> Result<(Vec<Hint>, bool), Failed> {
    late.iter_mut().for_each(|kept| kept.row.expire(tx.now));
    // While the server was down nobody could send a heartbeat: a lease is what is left of it after the server's start.
    lost.retain(|kept| {
        let length = kept.row.lease_until.saturating_sub(kept.row.started_at.unwrap_or(0));
        tx.now >= tx.server_began.saturating_add(length.min(GRACE_MAX))
    });
    lost.retain_mut(|kept| kept.row.lose_unless_held(held, tx.now));
    let changed: Vec<&Row> = late.iter().chain(&lost).map(|kept| &kept.row).collect();
    save(tx, &changed).await?;
    let ended = late.iter().chain(&lost).filter(|kept| kept.row.state.is_ended()).map(Hint::ended).collect();
    Ok((ended, !changed.is_empty()))
}

/// The longest that leases hold on after a start of the server.
const GRACE_MAX: u64 = 15_000;

/// Ends and readies what its time did, then hands out.
pub(super) async fn claim(tx: &Tx<'_>, ask: &ClaimAsk, node: &str) -> Result<Tidied<ClaimBatch>, Failed> {
    let due = async {
        let values: [&(dyn ToSql + Sync); 3] = [&ask.consumer, &int(tx.now), &TIDY_MAX];
        read_all(&tx.query(DUE, &values).await?)
    };
    let (late, lost, mut due) = tokio::try_join!(late(tx), lost(tx), due)?;
    // What is late is not made ready, too.
    due.retain(|kept| !late.iter().any(|other| other.row.id == kept.row.id));
    let (ended, did) = end_and_lose(tx, late, lost, &ask.held).await?;
    due.iter_mut().for_each(|kept| kept.row.become_ready());
    save(tx, &list(&due, |kept| &kept.row)).await?;
    if pauses::is_paused(tx, &ask.consumer).await? {
        let batch = ClaimBatch { ended: did, paused: true, ..ClaimBatch::default() };
        return Ok(Tidied { value: batch, ended });
    }
    let max = i64::try_from(ask.max).unwrap_or(i64::MAX);
    let ready_values: [&(dyn ToSql + Sync); 2] = [&ask.consumer, &max];
    let next_values: [&(dyn ToSql + Sync); 1] = [&ask.consumer];
    let (ready, next) = tokio::try_join!(tx.query(READY, &ready_values), tx.query(NEXT, &next_values))?;
    let next_at: Option<i64> = next[0].get(0);
    let mut ready = read_all(&ready)?;
    let lease_until = tx.now.saturating_add(u64::try_from(ask.lease.as_millis()).unwrap_or(u64::MAX));
    let jobs: Vec<Claimed> = ready.iter_mut().map(|kept| claimed(tx, kept, lease_until, node)).collect();
    save(tx, &list(&ready, |kept| &kept.row)).await?;
    let riders = riders(tx, ask, &jobs, lease_until, node).await?;
    let batch = ClaimBatch { jobs, riders, next_at: next_at.map(|at| tx.here(uint(at))), ended: did, paused: false };
    Ok(Tidied { value: batch, ended })
}

/// Hands out ready jobs that ask for the same as one that is executed, or as one of `jobs`.
async fn riders(
    tx: &Tx<'_>,
    ask: &ClaimAsk,
    jobs: &[Claimed],
    lease_until: u64,
    node: &str,
) -> Result<Vec<Claimed>, Failed> {
    let mut riders = Vec::new();
    for key in riding_keys(&ask.riding, jobs) {
        let room = i64::try_from(ask.riders_max - riders.len()).unwrap_or(i64::MAX);
        if room == 0 {
            break;
        }
        let mut same = read_all(&tx.query(RIDERS, &[&ask.consumer, &key, &room]).await?)?;
        riders.extend(same.iter_mut().map(|kept| claimed(tx, kept, lease_until, node)));
        save(tx, &list(&same, |kept| &kept.row)).await?;
    }
    Ok(riders)
}

fn claimed(tx: &Tx<'_>, kept: &mut Kept, lease_until: u64, node: &str) -> Claimed {
    let claimed = kept.row.claim(tx.now, lease_until);
    let deadline_at = claimed.deadline_at.map(|at| tx.here(at));
    Claimed { deadline_at, told_by: told_by(kept, node), ..claimed }
}

/// Prolongs leases.
pub(super) async fn extend(tx: &Tx<'_>, leases: &[Lease], by: Duration) -> Result<Vec<LeaseState>, Failed> {
    let until = tx.now.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    let sql = "with held as (
            select job.id from job join unnest($1::uuid[], $2::bigint[]) as l (id, token)
                on job.id = l.id and job.token = l.token where job.state = 2 order by job.id for update of job)
        update job set lease_until = $3 from held where job.id = held.id
        returning job.id, job.token, job.cancel_requested";
    let (ids, tokens) = lease_columns(leases);
    states(leases, &tx.query(sql, &[&ids, &tokens, &int(until)]).await?)
}

/// Notes how far running jobs are.
pub(super) async fn progress(tx: &Tx<'_>, notes: &[(Lease, Progress)]) -> Result<Vec<LeaseState>, Failed> {
    let sql = "with held as (
            select job.id, l.note from job join unnest($1::uuid[], $2::bigint[], $3::text[]) as l (id, token, note)
                on job.id = l.id and job.token = l.token where job.state = 2 order by job.id for update of job)
        update job set progress = held.note from held where job.id = held.id
        returning job.id, job.token, job.cancel_requested";
    let leases = list(notes, |(lease, _)| *lease);
    let (ids, tokens) = lease_columns(&leases);
    let json = |progress| serde_json::to_string(progress).expect("records have string keys and finite numbers");
    let texts = list(notes, |(_, progress)| json(progress));
    states(&leases, &tx.query(sql, &[&ids, &tokens, &texts]).await?)
}

fn lease_columns(leases: &[Lease]) -> (Vec<Uuid>, Vec<i64>) {
    (list(leases, |lease| Uuid(lease.id)), list(leases, |lease| int(lease.token)))
}

fn states(leases: &[Lease], held: &[tokio_postgres::Row]) -> Result<Vec<LeaseState>, Failed> {
    let held: HashMap<(JobId, u64), bool> =
        held.iter().map(|row| ((row.get::<_, Uuid>(0).0, uint(row.get(1))), row.get(2))).collect();
    Ok(list(leases, |lease| match held.get(&(lease.id, lease.token)) {
        None => LeaseState::Lost,
        Some(false) => LeaseState::Held,
        Some(true) => LeaseState::CancelRequested,
    }))
}

/// Ends attempts.
pub(super) async fn finish(tx: &Tx<'_>, ends: &[Finish], node: &str) -> Result<(Vec<Finished>, Vec<Hint>), Failed> {
    let mut rows = locked(tx, list(ends, |end| end.lease.id)).await?;
    let mut hints = Vec::new();
    let mut told = Vec::with_capacity(ends.len());
    for end in ends {
        let held = rows.get_mut(&end.lease.id).filter(|kept| kept.row.lease_state(&end.lease) != LeaseState::Lost);
        told.push(match held {
            None => Finished::Fenced,
            Some(kept) => {
                kept.row.finish(there_again(tx, end.how.clone()), tx.now);
                if kept.row.state.is_ended() {
                    hints.push(Hint::ended(kept));
                }
                Finished::Accepted(Box::new(settled(kept, node)))
            }
        });
    }
    save(tx, &rows.values().map(|kept| &kept.row).collect::<Vec<_>>()).await?;
    Ok((told, hints))
}

/// What an event needs.
pub(super) fn settled(kept: &Kept, node: &str) -> Settled {
    Settled { told_by: told_by(kept, node), ..kept.row.settled() }
}

/// The process that tells, if it is not this one.
fn told_by(kept: &Kept, node: &str) -> Option<String> {
    (kept.origin != node).then(|| kept.origin.clone())
}

fn there_again(tx: &Tx<'_>, how: How) -> How {
    match how {
        How::Retry { at, error } => How::Retry { at: tx.there(at), error },
        How::Succeeded(_) | How::Shared { .. } | How::Dead(_) | How::Cancelled | How::Released => how,
    }
}

/// Cancels.
pub(super) async fn cancel(tx: &Tx<'_>, ids: &[JobId]) -> Result<(Vec<CancelOutcome>, Vec<Hint>), Failed> {
    let mut rows = locked(tx, ids.to_vec()).await?;
    let mut hints = Vec::new();
    let mut told = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(kept) = rows.get_mut(id) else {
            told.push(CancelOutcome::NotFound);
            continue;
        };
        let outcome = kept.row.cancel(tx.now);
        match outcome {
            CancelOutcome::Cancelled => hints.push(Hint::ended(kept)),
            CancelOutcome::Requested => hints.push(Hint::Cancel(*id)),
            CancelOutcome::Finished | CancelOutcome::NotFound => {}
        }
        told.push(outcome);
    }
    save(tx, &rows.values().map(|kept| &kept.row).collect::<Vec<_>>()).await?;
    Ok((told, hints))
}

async fn locked(tx: &Tx<'_>, ids: Vec<JobId>) -> Result<HashMap<JobId, Kept>, Failed> {
    let rows = read_all(&tx.query(LOCK, &[&list(&ids, |id| Uuid(*id))]).await?)?;
    Ok(rows.into_iter().map(|kept| (kept.row.id, kept)).collect())
}

/// Makes dead jobs ready.
pub(super) async fn redrive(tx: &Tx<'_>, filter: &RedriveFilter) -> Result<Vec<String>, Failed> {
    // A dead job whose unique key a live one has stays dead; of several dead ones with a key, the oldest comes back.
    let sql = concat!(
        "select ",
        columns!(),
        " from job where state = 4 and state > 2 and not event_pending
          and ($1::text is null or consumer = $1) and ($2::text is null or error_code = $2 or error_class = $2)
          and ($4::uuid is null or id = $4)
          and (unique_key is null or not exists (select 1 from job as other where other.consumer = job.consumer
              and other.unique_key = job.unique_key and other.unique_key is not null and other.state < 3))
          order by seq limit $3 for update skip locked"
    );
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let job = filter.job.map(Uuid);
    let mut found = read_all(&tx.query(sql, &[&filter.consumer, &filter.reason, &limit, &job]).await?)?;
    let mut keys = HashSet::new();
    found.retain(|kept| {
        let key = kept.row.unique_key.clone().map(|key| (kept.row.consumer.clone(), key));
        key.is_none_or(|key| keys.insert(key))
    });
    if !filter.dry_run {
        found.iter_mut().for_each(|kept| kept.row.redrive(tx.now));
        save(tx, &list(&found, |kept| &kept.row)).await?;
    }
    Ok(found.into_iter().map(|kept| kept.row.consumer).collect())
}

/// Clears pending events.
pub(super) async fn event_sent(tx: &Tx<'_>, sent: &[Sent]) -> Result<(), Failed> {
    let sql = "with told as (
            select job.id from job join unnest($1::uuid[], $2::bigint[], $3::smallint[]) as s (id, attempt, state)
                on job.id = s.id and job.attempt = s.attempt and job.state = s.state
            where job.event_pending order by job.id for update of job)
        update job set event_pending = false from told where job.id = told.id";
    let (ids, states) = (list(sent, |one| Uuid(one.id)), list(sent, |one| state_code(one.state)));
    tx.execute(sql, &[&ids, &list(sent, |one| i64::from(one.attempt)), &states]).await?;
    Ok(())
}

/// Removes ended jobs, and keys whose day is over.
pub(super) async fn prune(tx: &Tx<'_>, before: u64, limit: usize) -> Result<u64, Failed> {
    super::keys::forget(tx, limit).await?;
    let sql = "delete from job where id in (select id from job
        where state > 2 and finished_at < $1 and not event_pending order by finished_at limit $2 for update skip locked)";
    Ok(tx.execute(sql, &[&int(tx.there(before)), &i64::try_from(limit).unwrap_or(i64::MAX)]).await?)
}

/// Which results belong to a job that ended well.
pub(super) async fn refers_to(tx: &Tx<'_>, keys: &[ResultKey]) -> Result<Vec<bool>, Failed> {
    let own =
        "select job.id, job.attempt, job.token from job where id = any($1) and state = 3 and shared_result is null";
    let own = tx.query(own, &[&list(keys, |key| Uuid(key.job))]).await?;
    let own: HashSet<(JobId, i64, i64)> =
        own.iter().map(|row| (row.get::<_, Uuid>(0).0, row.get(1), row.get(2))).collect();
    let shared = "select distinct shared_result from job where shared_result = any($1) and shared_result is not null";
    let shared = tx.query(shared, &[&list(keys, |key| key.to_bytes().to_vec())]).await?;
    let shared: HashSet<Vec<u8>> = shared.iter().map(|row| row.get(0)).collect();
    Ok(list(keys, |key| {
        own.contains(&(key.job, i64::from(key.attempt), int(key.token))) || shared.contains(&key.to_bytes()[..])
    }))
}

/// Counts live jobs.
pub(super) async fn depths(tx: &Tx<'_>) -> Result<Vec<Depth>, Failed> {
    let sql = "select consumer, state, count(*), min(enqueued_at) from job where state < 3 group by consumer, state";
    let read = |row: &tokio_postgres::Row| {
        let (jobs, oldest_at) = (uint(row.get(2)), uint(row.get(3)));
        Ok(Depth { consumer: row.get(0), state: state(row.get(1))?, jobs, oldest_at })
    };
    tx.query(sql, &[]).await?.iter().map(read).collect()
}
