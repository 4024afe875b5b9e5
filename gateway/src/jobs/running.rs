//! The side of [`Jobs`] that runs work: claim, report, send events, sweep. Used by `crate::consumer` alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::JobId;
use tokio::sync::Notify;

use super::backend::Backend;
use super::carried::Carried;
use super::error::JobsError;
use super::handle::Jobs;
use super::queue::{ClaimAsk, ClaimBatch, Claimed, Finish, Finished, How, Lease, LeaseState, Sent, Settled};
use super::record::Progress;
use super::results::{Content, ResultKey, StoredResult};
use super::watch::Watch;
use crate::config::consumer::Durability;

/// Jobs or results removed in one transaction.
const SWEEP_BATCH: usize = 500;

/// A result that no job refers to is left alone this long: its job may be about to.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

impl Jobs {
    /// Hands out ready jobs of a consumer, from every store.
    pub(crate) async fn claim(&self, ask: ClaimAsk) -> Result<ClaimBatch, JobsError> {
        let mut all = ClaimBatch::default();
        for backend in self.backends() {
            let (max, riders_max) = (ask.max - all.jobs.len(), ask.riders_max - all.riders.len());
            match backend.queue.claim(ClaimAsk { max, riders_max, ..ask.clone() }).await {
                Ok(batch) => {
                    all.jobs.extend(batch.jobs);
                    all.riders.extend(batch.riders);
                    all.next_at = [all.next_at, batch.next_at].into_iter().flatten().min();
                    all.ended |= batch.ended;
                    // The durable store, asked last, has the last word.
                    all.paused = batch.paused;
                }
                // What is claimed already must be run.
                Err(error) if all.jobs.is_empty() && all.riders.is_empty() => return Err(error),
                Err(error) => tracing::warn!(%error, consumer = ask.consumer, "claiming stored jobs failed"),
            }
        }
        if self.inner.durable.is_some() {
            self.pause_memory(&ask.consumer, all.paused).await;
        }
        if all.ended {
            self.inner.watch.events.notify_one();
        }
        Ok(all)
    }

    /// Learns from the durable store which consumers are paused; for before the first claim. Later each claim tells.
    pub(crate) async fn learn_pauses(&self) -> Result<(), JobsError> {
        for consumer in self.paused().await? {
            self.pause_memory(&consumer, true).await;
        }
        Ok(())
    }

    /// Makes the store in memory do as the durable one says: another process may have paused or resumed the consumer.
    async fn pause_memory(&self, consumer: &str, is_paused: bool) {
        let (memory, names) = (&self.inner.memory.queue, vec![consumer.to_owned()]);
        // A set in memory takes everything.
        drop(if is_paused { memory.pause(names).await } else { memory.resume(names).await });
    }

    /// Ends or releases what its time did, in every store.
    pub(crate) async fn tidy(&self, held: Vec<Lease>) -> Result<(), JobsError> {
        for backend in self.backends() {
            if backend.queue.tidy(held.clone()).await? {
                self.inner.watch.events.notify_one();
            }
        }
        Ok(())
    }

    /// Prolongs leases; answers the state of each, and whether every store answered.
    pub(crate) async fn extend(&self, leases: Vec<Lease>, by: Duration) -> (Vec<(Lease, LeaseState)>, bool) {
        let (mut told, mut all_answered) = (Vec::new(), true);
        let (memory, durable): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| lease.durability == Durability::Memory);
        for (backend, leases) in [(Some(&self.inner.memory), memory), (self.inner.durable.as_ref(), durable)] {
            let Some(backend) = backend.filter(|_| !leases.is_empty()) else { continue };
            match backend.queue.extend(leases.clone(), by).await {
                Ok(states) => told.extend(leases.into_iter().zip(states)),
                Err(error) => {
                    tracing::warn!(%error, "prolonging leases failed");
                    all_answered = false;
                }
            }
        }
        (told, all_answered)
    }

    /// Notes how far a running job is.
    pub(crate) async fn progress(&self, lease: Lease, progress: Progress) -> Result<(), JobsError> {
        self.of(lease.durability)?.queue.progress(vec![(lease, progress)]).await.map(drop)
    }

    /// Hands an event of a job that runs here to the process that took it in. It may be lost.
    pub(crate) fn carry(&self, durability: Durability, to: &str, carried: Carried) {
        if let Ok(backend) = self.of(durability) {
            backend.queue.carry(to, carried);
        }
    }

    /// At which attempt jobs are that have not ended, as far as they are known.
    pub(crate) async fn attempts(&self, ids: Vec<JobId>) -> Result<HashMap<JobId, u32>, JobsError> {
        let Some(backend) = &self.inner.durable else { return Ok(HashMap::new()) };
        let records = backend.queue.get(ids).await?;
        let live = records.into_iter().flatten().filter(|record| !record.state.is_ended());
        Ok(live.map(|record| (record.id, record.attempt)).collect())
    }

    /// Writes a result under an attempt, to be referred to by a [`Finish`] afterwards; answers where it is.
    pub(crate) async fn store_result(&self, claimed: &Claimed, content: Arc<Content>) -> Result<ResultKey, JobsError> {
        let (lease, key) = (claimed.lease, claimed.result_key());
        let sync = lease.durability == Durability::Disk;
        self.of(lease.durability)?.results.store(key, content, sync).await?;
        Ok(key)
    }

    /// Ends an attempt.
    pub(crate) async fn finish(&self, lease: Lease, how: How) -> Result<Finished, JobsError> {
        let told = self.of(lease.durability)?.queue.finish(vec![Finish { lease, how }]).await?;
        let told = told.into_iter().next().unwrap_or(Finished::Fenced);
        if let Finished::Accepted(settled) = &told
            && settled.record.state.is_ended()
        {
            self.inner.watch.ended(lease.id);
        }
        Ok(told)
    }

    /// Ended jobs whose event was not sent.
    pub(crate) async fn events_pending(&self, limit: usize) -> Result<Vec<Settled>, JobsError> {
        let mut all = Vec::new();
        for backend in self.backends() {
            all.extend(backend.queue.events_pending(limit).await?);
        }
        Ok(all)
    }

    /// Clears a pending event.
    pub(crate) async fn event_sent(&self, settled: &Settled) -> Result<(), JobsError> {
        let record = &settled.record;
        self.inner.watch.ended(record.id);
        self.of(record.durability)?.queue.event_sent(vec![Sent::from(record)]).await
    }

    /// Reads a whole result, for its event.
    pub(crate) async fn whole_result(&self, settled: &Settled) -> Result<Option<StoredResult>, JobsError> {
        let Some(key) = settled.result else { return Ok(None) };
        self.of(settled.record.durability)?.results.read(key, 0, u64::MAX).await
    }

    /// Removes what is older than the retention, and results that nobody refers to: such as have been there for long,
    /// and all from before `began_ms`, when nothing ran here yet.
    pub(crate) async fn sweep(&self, began_ms: u64) -> Result<(u64, u64), JobsError> {
        let now = self.inner.clock.wall_ms();
        let ago = |age: Duration| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let orphans_before = ago(ORPHAN_AGE).max(began_ms);
        let (mut jobs, mut results) = (0, 0);
        for backend in self.backends() {
            jobs += prune(backend, ago(self.inner.retention)).await?;
            // Another process may be about to refer to what is there.
            let orphans_before = if backend.queue.capabilities().is_shared { ago(ORPHAN_AGE) } else { orphans_before };
            results += sweep_results(backend, orphans_before).await?;
        }
        Ok((jobs, results))
    }

    /// Who waits for what.
    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.inner.watch
    }

    /// What wakes a consumer.
    pub(crate) fn wake_of(&self, consumer: &str) -> Arc<Notify> {
        self.inner.watch.wake_of(consumer)
    }

    /// Whether a job runs in this process.
    pub(crate) fn is_running(&self, id: JobId) -> bool {
        self.inner.watch.is_running(id)
    }

    /// The wall clock of the stores.
    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.clock.wall_ms()
    }

    fn of(&self, durability: Durability) -> Result<&Backend, JobsError> {
        let durable = || self.inner.durable.as_ref();
        match durability {
            Durability::Memory => Some(&self.inner.memory),
            Durability::Os | Durability::Disk => durable(),
        }
        .ok_or_else(|| JobsError::Unavailable { what: "this gateway keeps jobs in memory alone".into() })
    }
}

async fn prune(backend: &Backend, before_ms: u64) -> Result<u64, JobsError> {
    let mut gone = 0;
    loop {
        let batch = backend.queue.prune(before_ms, SWEEP_BATCH).await?;
        gone += batch;
        if batch < SWEEP_BATCH as u64 {
            return Ok(gone);
        }
    }
}

async fn sweep_results(backend: &Backend, before_ms: u64) -> Result<u64, JobsError> {
    let (mut after, mut gone) = (None, 0);
    loop {
        let keys = backend.results.keys(after, before_ms, SWEEP_BATCH).await?;
        let Some(last) = keys.last().copied() else { return Ok(gone) };
        let referred = backend.queue.refers_to(keys.clone()).await?;
        let orphans: Vec<_> = keys.into_iter().zip(referred).filter(|(_, held)| !held).map(|(key, _)| key).collect();
        gone += orphans.len() as u64;
        if !orphans.is_empty() {
            backend.results.remove(orphans).await?;
        }
        after = Some(last);
    }
}
