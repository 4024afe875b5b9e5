//! Enqueues, each with its idempotency key if it has one, in one transaction.

use std::collections::HashMap;

use bytes::Bytes;

use super::db::{Failed, Tx, int};
use super::ops::{self, Room};
use super::rows::list;
use crate::jobs::error::JobsError;
use crate::jobs::new_job::{Enqueued, NewJob};
use crate::jobs::once::{self, KEPT, Once, Told};
use crate::kill_point::{self, KillPoint};

/// Jobs to be stored, all or none.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// The request's key.
    pub(super) once: Option<Once>,
    pub(super) jobs: Vec<NewJob>,
}

/// What became of the asks of one transaction.
pub(super) struct Stored {
    /// For each, in order.
    pub(super) told: Vec<Result<Told, JobsError>>,
    /// How many jobs waited before, if that was counted.
    pub(super) counted: Option<u64>,
    /// How many were added.
    pub(super) added: u64,
}

/// Stores the jobs of several asks. One whose key is known already is told what the first was.
pub(super) async fn enqueue(tx: &Tx<'_>, asks: &[Ask], room: Room, node: &str) -> Result<Stored, Failed> {
    let known = take(tx, asks).await?;
    let (counted, mut left) = room.look(tx).await?;
    let mut admitted = Vec::new();
    let mut told: Vec<Option<Result<Told, JobsError>>> = Vec::with_capacity(asks.len());
    for ask in asks {
        let earlier = ask.once.as_ref().and_then(|once| known.of(once));
        let has_room = ask.jobs.len() as u64 <= left;
        let kept = ask.jobs.iter().try_for_each(|job| tx.keeps(job.durability));
        told.push(match earlier {
            Some(earlier) => Some(earlier),
            None if kept.is_err() => kept.err().map(Err),
            None if !has_room => Some(Err(room.refusal())),
            None => {
                left -= ask.jobs.len() as u64;
                admitted.extend(ask.jobs.iter().map(|job| ops::there(tx, job)));
                None
            }
        });
    }
    let (jobs, added) = ops::enqueue_all(tx, &admitted, node).await?;
    let mut jobs = jobs.into_iter();
    let told: Vec<_> = told
        .into_iter()
        .zip(asks)
        .map(|(told, ask)| told.unwrap_or_else(|| Ok(Told::Stored(jobs.by_ref().take(ask.jobs.len()).collect()))))
        .collect();
    settle(tx, asks, &told).await?;
    kill_point::hit(KillPoint::AfterInsertBeforeSync);
    Ok(Stored { told, counted, added })
}

/// Keys that were taken before. `None`: nothing is known of what it stands for.
struct Known(HashMap<[u8; 32], Option<Kept>>);

/// The body, the answer and the jobs of a key.
type Kept = (Vec<u8>, Bytes, Vec<Enqueued>);

impl Known {
    /// What a request with a key of an earlier one is told.
    fn of(&self, once: &Once) -> Option<Result<Told, JobsError>> {
        let known = self.0.get(&once.name)?;
        let told = |(body, answer, jobs): &Kept| Told::of(body, &once.body, answer.clone(), jobs.clone());
        // It was there a moment ago, and its day ended meanwhile; or it is here twice.
        Some(known.as_ref().map(told).ok_or(JobsError::Busy))
    }
}

/// Writes down the keys that are new; answers the others. Waits for another transaction that has the same key.
async fn take(tx: &Tx<'_>, asks: &[Ask]) -> Result<Known, Failed> {
    let mut fresh: Vec<&Once> = asks.iter().filter_map(|ask| ask.once.as_ref()).collect();
    let mut known = Known(HashMap::new());
    if fresh.is_empty() {
        return Ok(known);
    }
    // In one order, so that no two transactions wait for each other.
    fresh.sort_by_key(|once| once.name);
    let twice = fresh.windows(2).filter(|pair| pair[0].name == pair[1].name).map(|pair| (pair[1].name, None));
    known.0.extend(twice);
    fresh.dedup_by_key(|once| once.name);
    let expires_at = int(tx.now.saturating_add(KEPT.as_millis() as u64));
    let sql = "insert into once select name, body, answer, '[]', $4
        from unnest($1::bytea[], $2::bytea[], $3::bytea[]) as fresh (name, body, answer) order by name
        on conflict (name) do update set body = excluded.body, answer = excluded.answer, jobs = '[]',
            expires_at = excluded.expires_at where once.expires_at <= $5 returning name";
    let names = list(&fresh, |once| &once.name[..]);
    let (bodies, answers) = (list(&fresh, |once| &once.body[..]), list(&fresh, |once| &once.answer[..]));
    let taken = tx.query(sql, &[&names, &bodies, &answers, &expires_at, &int(tx.now)]).await?;
    let taken: Vec<&[u8]> = taken.iter().map(|row| row.get(0)).collect();
    let earlier: Vec<&[u8]> = names.into_iter().filter(|name| !taken.contains(name)).collect();
    for (name, told) in read(tx, &earlier).await? {
        known.0.insert(name, Some(told));
    }
    Ok(known)
}

async fn read(tx: &Tx<'_>, names: &[&[u8]]) -> Result<HashMap<[u8; 32], Kept>, Failed> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "select name, body, answer, jobs from once where name = any($1) and expires_at > $2";
    let mut kept = HashMap::new();
    for row in tx.query(sql, &[&names, &int(tx.now)]).await? {
        let (name, jobs) = (row.get::<_, &[u8]>(0), row.get::<_, &str>(3));
        if let Ok(name) = <[u8; 32]>::try_from(name) {
            let (body, answer): (Vec<u8>, Vec<u8>) = (row.get(1), row.get(2));
            kept.insert(name, (body, Bytes::from(answer), once::from_text(jobs).unwrap_or_default()));
        }
    }
    Ok(kept)
}

/// Writes what the new keys stand for, and takes back those of asks that were refused.
async fn settle(tx: &Tx<'_>, asks: &[Ask], told: &[Result<Told, JobsError>]) -> Result<(), Failed> {
    let (mut names, mut jobs, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (ask, told) in asks.iter().zip(told) {
        match (&ask.once, told) {
            (Some(once), Ok(Told::Stored(stored))) => {
                names.push(&once.name[..]);
                jobs.push(once::to_text(stored));
            }
            (Some(once), Err(_)) => refused.push(&once.name[..]),
            (Some(_) | None, _) => {}
        }
    }
    if !names.is_empty() {
        let sql = "update once set jobs = s.jobs from unnest($1::bytea[], $2::text[]) as s (name, jobs)
            where once.name = s.name";
        tx.execute(sql, &[&names, &jobs]).await?;
    }
    if !refused.is_empty() {
        tx.execute("delete from once where name = any($1) and jobs = '[]'", &[&refused]).await?;
    }
    Ok(())
}

/// What a request with this key and body is told, if there was one with the key.
pub(super) async fn recall(tx: &Tx<'_>, name: [u8; 32], body: [u8; 32]) -> Result<Option<Told>, Failed> {
    let kept = read(tx, &[&name]).await?.remove(&name);
    Ok(kept.map(|(kept, answer, jobs)| Told::of(&kept, &body, answer, jobs)))
}

/// Removes keys whose day is over.
pub(super) async fn forget(tx: &Tx<'_>, limit: usize) -> Result<(), Failed> {
    let sql = "delete from once where name in
        (select name from once where expires_at <= $1 order by expires_at limit $2 for update skip locked)";
    tx.execute(sql, &[&int(tx.now), &i64::try_from(limit).unwrap_or(i64::MAX)]).await?;
    Ok(())
}
