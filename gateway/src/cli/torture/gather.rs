//! What became of the jobs, as the gateway tells it: records and results, read over HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::door::Door;

/// Records that are read at once.
const READERS: usize = 16;

/// Tries to read one; a gateway that is at work may refuse.
const TRIES: u32 = 50;

/// Between two looks whether all is done.
const LOOK: Duration = Duration::from_millis(50);

/// How long nothing may happen while something is to be done.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A list that takes longer is not worth the wait: somebody is to be killed.
const LIST_DEADLINE: Duration = Duration::from_secs(1);

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// The gateway does not know it.
    Absent,
    /// It could not be read.
    Unreadable(String),
    /// It is there.
    Present { record: Value, result: Option<Value> },
}

/// Waits until no job waits or runs: whether that was reached before nothing happened for too long.
pub(super) async fn all_ended(door: &Door, gateway: SocketAddr) -> bool {
    let (mut seen, mut since) = (None, Instant::now());
    while since.elapsed() < SILENCE_MAX {
        if nothing_lives(door, gateway).await {
            return true;
        }
        // Every attempt is counted when it begins.
        let claimed = door.metric(gateway, "groupcast_jobs_claimed_total").await;
        if claimed != seen {
            (seen, since) = (claimed, Instant::now());
        }
        sleep(LOOK).await;
    }
    false
}

async fn nothing_lives(door: &Door, gateway: SocketAddr) -> bool {
    for state in ["scheduled", "ready", "running"] {
        let reply = door.get(gateway, &format!("/v1/jobs?state={state}&limit=1")).await;
        let is_empty = |reply: &super::door::Reply| reply.json()["jobs"].as_array().is_some_and(Vec::is_empty);
        if !reply.is_some_and(|reply| reply.status == 200 && is_empty(&reply)) {
            return false;
        }
    }
    true
}

/// The jobs that run at this moment, with their attempts; none when the gateway does not say.
pub(super) async fn running(door: &Door, gateway: SocketAddr) -> Vec<(String, u64)> {
    let listed = timeout(LIST_DEADLINE, door.get(gateway, "/v1/jobs?state=running&limit=1000")).await;
    let listed = listed.ok().flatten().map(|reply| reply.json()).unwrap_or_default();
    let one = |record: &Value| Some((record["id"].as_str()?.to_owned(), record["attempt"].as_u64()?));
    listed["jobs"].as_array().map(|jobs| jobs.iter().filter_map(one).collect()).unwrap_or_default()
}

/// Whether a job has ended, or is at a later attempt.
pub(super) async fn has_gone_on(door: &Door, gateway: SocketAddr, job: &str, attempt: u64) -> bool {
    let Some(reply) = door.get(gateway, &format!("/v1/jobs/{job}")).await else { return false };
    let record = reply.json();
    let has_ended = matches!(record["state"].as_str(), Some("succeeded" | "dead" | "cancelled"));
    has_ended || record["attempt"].as_u64() > Some(attempt)
}

/// Reads the records of jobs, and the results of those that have one.
pub(super) async fn fates(
    door: &Door,
    gateway: SocketAddr,
    jobs: impl Iterator<Item = String>,
) -> HashMap<String, Fate> {
    let readers = Arc::new(Semaphore::new(READERS));
    let mut reading = JoinSet::new();
    for job in jobs {
        let (door, reader) = (door.clone(), Arc::clone(&readers).acquire_owned().await);
        reading.spawn(async move {
            let _reader = reader;
            let fate = fate(&door, gateway, &job).await;
            (job, fate)
        });
    }
    reading.join_all().await.into_iter().collect()
}

async fn fate(door: &Door, gateway: SocketAddr, job: &str) -> Fate {
    let record = match read(door, gateway, &format!("/v1/jobs/{job}")).await {
        Ok(Some(record)) => record,
        Ok(None) => return Fate::Absent,
        Err(why) => return Fate::Unreadable(why),
    };
    if record["state"] != "succeeded" {
        return Fate::Present { record, result: None };
    }
    match read(door, gateway, &format!("/v1/jobs/{job}/result")).await {
        Ok(result) => Fate::Present { record, result },
        Err(why) => Fate::Unreadable(format!("its result: {why}")),
    }
}

/// `None`: there is no such thing.
async fn read(door: &Door, gateway: SocketAddr, path: &str) -> Result<Option<Value>, String> {
    let mut told = "no answer".to_owned();
    for _ in 0..TRIES {
        match door.get(gateway, path).await {
            Some(reply) if reply.status == 200 => return Ok(Some(reply.json())),
            Some(reply) if matches!(reply.status, 404 | 410) => return Ok(None),
            Some(reply) => told = reply.code(),
            None => {}
        }
        sleep(LOOK).await;
    }
    Err(told)
}
