//! `MemoryQueue`: jobs that need not survive the process.

mod state;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use groupcast_protocol::JobId;
use parking_lot::Mutex;

use self::state::State;
use super::counters::Counters;
use super::error::JobsError;
use super::new_job::{Enqueued, NewJob};
use super::once::{Once, Told};
use super::queue::{
    Answer, CancelOutcome, Capabilities, ClaimAsk, ClaimBatch, DeadLetters, Depth, Filter, Finish, Finished, Lease,
    LeaseState, RedriveFilter, Sent, Settled, Tick, WorkQueue,
};
use super::record::{JobRecord, Progress};
use super::results::ResultKey;
use super::time::Clock;

/// How many ended jobs are kept; over it the oldest go, whatever `[jobs] retention` says.
pub(crate) const ENDED_MAX: usize = 10_000;

/// Jobs in one map under a mutex. Every call is done at once.
pub(crate) struct MemoryQueue {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl MemoryQueue {
    /// An empty queue in which at most `max_queued` jobs wait.
    pub(crate) fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>, max_queued: u64) -> Self {
        Self { state: Mutex::new(State::new(max_queued)), clock, counters }
    }

    fn store(&self, state: &mut State, jobs: &[NewJob]) -> Result<Vec<Enqueued>, JobsError> {
        state.has_room(jobs.len())?;
        let now = self.clock.wall_ms();
        let told: Vec<_> = jobs.iter().map(|job| state.enqueue(job, now)).collect();
        self.counters.enqueued.add(told.iter().filter(|one| !one.existing).count());
        Ok(told)
    }

    fn done<T: Send + 'static>(&self, act: impl FnOnce(&mut State) -> T) -> Answer<'_, T> {
        self.attempt(|state| Ok(act(state)))
    }

    fn attempt<T: Send + 'static>(&self, act: impl FnOnce(&mut State) -> Result<T, JobsError>) -> Answer<'_, T> {
        ready(act(&mut self.state.lock())).boxed()
    }
}

impl WorkQueue for MemoryQueue {
    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'_, Vec<Enqueued>> {
        self.attempt(|state| self.store(state, &jobs))
    }

    fn tick(&self, tick: Tick, jobs: Vec<NewJob>) -> Answer<'_, Option<Vec<Enqueued>>> {
        self.attempt(|state| {
            if state.has_ticked(&tick) {
                return Ok(None);
            }
            let told = self.store(state, &jobs)?;
            state.note(tick);
            Ok(Some(told))
        })
    }

    fn enqueue_once(&self, once: Once, jobs: Vec<NewJob>) -> Answer<'_, Told> {
        self.attempt(|state| {
            let now = self.clock.wall_ms();
            if let Some(told) = state.recall(once.name, once.body, now) {
                return Ok(told);
            }
            state.has_room(jobs.len())?;
            state.has_room_for_key(now)?;
            let told: Vec<_> = jobs.iter().map(|job| state.enqueue(job, now)).collect();
            self.counters.enqueued.add(told.iter().filter(|one| !one.existing).count());
            state.keep(once, told.clone(), now);
            Ok(Told::Stored(told))
        })
    }

    fn recall(&self, name: [u8; 32], body: [u8; 32]) -> Answer<'_, Option<Told>> {
        self.done(|state| state.recall(name, body, self.clock.wall_ms()))
    }

    fn ticks(&self) -> Answer<'_, Vec<Tick>> {
        self.done(|state| state.ticks())
    }

    fn has_room(&self, jobs: usize) -> Answer<'_, ()> {
        self.attempt(|state| state.has_room(jobs))
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, ClaimBatch> {
        self.done(|state| {
            let (now, mono) = (self.clock.wall_ms(), self.clock.mono_ms());
            let ended = state.tidy(&ask.held, now, mono);
            let lease_until = mono.saturating_add(u64::try_from(ask.lease.as_millis()).unwrap_or(u64::MAX));
            if state.paused.contains(&ask.consumer) {
                return ClaimBatch { ended, paused: true, ..ClaimBatch::default() };
            }
            let jobs = state.claim(&ask.consumer, ask.max, now, lease_until);
            let riders = state.claim_riders(&ask, &jobs, now, lease_until);
            self.counters.claimed.add(jobs.len() + riders.len());
            ClaimBatch { jobs, riders, next_at: state.next_at(&ask.consumer), ended, paused: false }
        })
    }

    fn tidy(&self, held: Vec<Lease>) -> Answer<'_, bool> {
        self.done(|state| state.tidy(&held, self.clock.wall_ms(), self.clock.mono_ms()))
    }

    fn extend(&self, leases: Vec<Lease>, by: Duration) -> Answer<'_, Vec<LeaseState>> {
        let mono = self.clock.mono_ms();
        self.done(|state| leases.iter().map(|lease| state.with_lease(lease, |row| row.extend(mono, by))).collect())
    }

    fn progress(&self, notes: Vec<(Lease, Progress)>) -> Answer<'_, Vec<LeaseState>> {
        self.done(|state| {
            let note = |(lease, progress)| state.with_lease(&lease, |row| row.progress = Some(progress));
            notes.into_iter().map(note).collect()
        })
    }

    fn finish(&self, ends: Vec<Finish>) -> Answer<'_, Vec<Finished>> {
        let now = self.clock.wall_ms();
        self.done(|state| {
            let told: Vec<_> = ends.into_iter().map(|end| state.finish(end, now)).collect();
            told.iter().for_each(|one| self.counters.finished(one));
            told
        })
    }

    fn cancel(&self, ids: Vec<JobId>) -> Answer<'_, Vec<CancelOutcome>> {
        let now = self.clock.wall_ms();
        self.done(|state| {
            let cancel = |id: JobId| state.change(id, |row| row.cancel(now)).unwrap_or(CancelOutcome::NotFound);
            ids.into_iter().map(cancel).collect()
        })
    }

    fn get(&self, ids: Vec<JobId>) -> Answer<'_, Vec<Option<JobRecord>>> {
        self.done(|state| ids.into_iter().map(|id| state.row(id).map(|row| row.record())).collect())
    }

    fn list(&self, filter: Filter, after: Option<JobId>, limit: usize) -> Answer<'_, Vec<JobRecord>> {
        self.done(|state| state.list(&filter, after, limit))
    }

    fn redrive(&self, filter: RedriveFilter) -> Answer<'_, Vec<String>> {
        let now = self.clock.wall_ms();
        self.done(|state| state.redrive(&filter, now))
    }

    fn events_pending(&self, limit: usize) -> Answer<'_, Vec<Settled>> {
        self.done(|state| state.events_pending(limit))
    }

    fn event_sent(&self, sent: Vec<Sent>) -> Answer<'_, ()> {
        self.done(|state| sent.into_iter().for_each(|one| state.event_sent(one)))
    }

    fn refers_to(&self, keys: Vec<ResultKey>) -> Answer<'_, Vec<bool>> {
        self.done(|state| keys.into_iter().map(|key| state.refers_to(key)).collect())
    }

    fn result_of(&self, id: JobId) -> Answer<'_, Option<(JobRecord, Option<ResultKey>)>> {
        self.done(|state| state.row(id).map(|row| (row.record(), row.result_key())))
    }

    fn prune(&self, ended_before_ms: u64, limit: usize) -> Answer<'_, u64> {
        self.done(|state| {
            state.forget_keys(self.clock.wall_ms());
            state.prune(ended_before_ms, limit)
        })
    }

    fn depths(&self) -> Answer<'_, Vec<Depth>> {
        self.done(|state| state.depths())
    }

    fn pause(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        self.done(|state| state.paused.extend(consumers))
    }

    fn resume(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        self.done(|state| state.paused.retain(|name| !consumers.contains(name)))
    }

    fn paused(&self) -> Answer<'_, Vec<String>> {
        self.done(|state| state.paused.iter().cloned().collect())
    }

    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<DeadLetters>> {
        self.done(|state| state.dead_letters(limit))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { is_shared: false }
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.done(|_| ())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}
