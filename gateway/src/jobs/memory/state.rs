//! The rows of a [`super::MemoryQueue`], and the indexes over them that make a claim cheap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use groupcast_protocol::JobId;

use super::ENDED_MAX;
use crate::jobs::error::JobsError;
use crate::jobs::new_job::{Enqueued, NewJob};
use crate::jobs::once::{KEPT, Once, Told};
use crate::jobs::queue::{
    ClaimAsk, Claimed, DeadLetters, Depth, Filter, Finish, Finished, Lease, LeaseState, RedriveFilter, Sent, Settled,
    Tick, riding_keys,
};
use crate::jobs::record::{JobRecord, JobState};
use crate::jobs::results::ResultKey;
use crate::jobs::row::Row;

/// Keys of requests that are kept, some 400 bytes each; more are refused, since forgetting one could run work twice.
const KEYS_MAX: usize = 100_000;

/// Every change of a row goes through [`State::change`], which keeps the indexes right.
pub(super) struct State {
    rows: BTreeMap<JobId, Row>,
    /// The order of arrival: ids of one millisecond have none.
    arrivals: HashMap<JobId, u64>,
    arrived: u64,
    ready: HashMap<String, BTreeSet<(Reverse<i32>, u64, JobId)>>,
    /// Ready jobs by consumer and coalesce key, in the order of arrival.
    coalescing: BTreeSet<(String, String, u64, JobId)>,
    scheduled: HashMap<String, BTreeSet<(u64, JobId)>>,
    deadlines: BTreeSet<(u64, JobId)>,
    running: HashSet<JobId>,
    unique: HashMap<(String, String), JobId>,
    ended: BTreeSet<(u64, JobId)>,
    /// The results that jobs share, each with a job that refers to it.
    shared: BTreeSet<(ResultKey, JobId)>,
    pending: BTreeSet<(u64, JobId)>,
    /// The consumers that are paused; their number is that of the configured consumers.
    pub(super) paused: BTreeSet<String>,
    ticks: BTreeMap<String, u64>,
    waiting: u64,
    waiting_max: u64,
    /// Keys of requests, with what was answered and until when.
    keys: HashMap<[u8; 32], (Once, Vec<Enqueued>, u64)>,
}

impl State {
    pub(super) fn new(waiting_max: u64) -> Self {
        Self {
            rows: BTreeMap::new(),
            arrivals: HashMap::new(),
            arrived: 0,
            ready: HashMap::new(),
            coalescing: BTreeSet::new(),
            scheduled: HashMap::new(),
            deadlines: BTreeSet::new(),
            running: HashSet::new(),
            unique: HashMap::new(),
            ended: BTreeSet::new(),
            shared: BTreeSet::new(),
            pending: BTreeSet::new(),
            paused: BTreeSet::new(),
            ticks: BTreeMap::new(),
            waiting: 0,
            waiting_max,
            keys: HashMap::new(),
        }
    }

    /// What a request with this key and body is told, if there was one with the key.
    pub(super) fn recall(&self, name: [u8; 32], body: [u8; 32], now: u64) -> Option<Told> {
        let (once, jobs, _) = self.keys.get(&name).filter(|(_, _, until)| now < *until)?;
        Some(Told::of(&once.body, &body, once.answer.clone(), jobs.clone()))
    }

    /// Refuses when as many keys are kept as may be, and all of them live.
    pub(super) fn has_room_for_key(&mut self, now: u64) -> Result<(), JobsError> {
        if self.keys.len() >= KEYS_MAX {
            self.forget_keys(now);
        }
        if self.keys.len() >= KEYS_MAX { Err(JobsError::Busy) } else { Ok(()) }
    }

    pub(super) fn keep(&mut self, once: Once, jobs: Vec<Enqueued>, now: u64) {
        self.keys.insert(once.name, (once, jobs, now.saturating_add(KEPT.as_millis() as u64)));
    }

    pub(super) fn forget_keys(&mut self, now: u64) {
        self.keys.retain(|_, (_, _, until)| now < *until);
    }

    pub(super) fn row(&self, id: JobId) -> Option<&Row> {
        self.rows.get(&id)
    }

    pub(super) fn has_room(&self, jobs: usize) -> Result<(), JobsError> {
        if self.waiting + jobs as u64 > self.waiting_max {
            return Err(JobsError::QueueFull { limit: self.waiting_max });
        }
        Ok(())
    }

    pub(super) fn enqueue(&mut self, job: &NewJob, now: u64) -> Enqueued {
        let key = job.unique_key.clone().map(|key| (job.consumer.clone(), key));
        let earlier = key.and_then(|key| self.unique.get(&key).copied());
        let id = earlier.unwrap_or(job.id);
        let durability = self.rows.get(&id).map_or(job.durability, |row| row.durability);
        if earlier.is_none() {
            self.arrived += 1;
            self.arrivals.insert(id, self.arrived);
            self.insert(Row::new(job, now));
        }
        Enqueued { id, consumer: job.consumer.clone(), durability, existing: earlier.is_some() }
    }

    /// Whether this tick or a later one is noted.
    pub(super) fn has_ticked(&self, tick: &Tick) -> bool {
        self.ticks.get(&tick.schedule).is_some_and(|last| *last >= tick.due_ms)
    }

    pub(super) fn note(&mut self, tick: Tick) {
        self.ticks.insert(tick.schedule, tick.due_ms);
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let tick = |(schedule, due_ms): (&String, &u64)| Tick { schedule: schedule.clone(), due_ms: *due_ms };
        self.ticks.iter().map(tick).collect()
    }

    /// Ends or readies what its time did; answers whether something ended.
    pub(super) fn tidy(&mut self, held: &[Lease], now: u64, mono: u64) -> bool {
        let late: Vec<_> = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        let lost: Vec<_> = self.running.iter().filter(|id| self.rows[*id].lease_until <= mono).copied().collect();
        for id in &late {
            self.change(*id, |row| row.expire(now));
        }
        let mut ended = !late.is_empty();
        for id in lost {
            ended |= self.change(id, |row| row.lose_unless_held(held, now)).unwrap_or(false);
        }
        ended
    }

    pub(super) fn claim(&mut self, consumer: &str, max: usize, now: u64, lease_until: u64) -> Vec<Claimed> {
        let due = self.scheduled.get(consumer).into_iter().flatten().take_while(|(at, _)| *at <= now);
        for id in due.map(|(_, id)| *id).collect::<Vec<_>>() {
            self.change(id, Row::become_ready);
        }
        let next = self.ready.get(consumer).into_iter().flatten().take(max);
        let ids: Vec<_> = next.map(|(_, _, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.change(id, |row| row.claim(now, lease_until))).collect()
    }

    /// Hands out ready jobs that ask for the same as one that is executed, or as one of `jobs`.
    pub(super) fn claim_riders(
        &mut self,
        ask: &ClaimAsk,
        jobs: &[Claimed],
        now: u64,
        lease_until: u64,
    ) -> Vec<Claimed> {
        let mut riders = Vec::new();
        for key in riding_keys(&ask.riding, jobs) {
            let first = (ask.consumer.clone(), key.to_owned(), 0, JobId::from_bytes([0; 16]));
            let same = self
                .coalescing
                .range(first..)
                .take_while(|(consumer, of, ..)| (consumer, of.as_str()) == (&ask.consumer, key));
            let ids: Vec<_> = same.take(ask.riders_max - riders.len()).map(|(.., id)| *id).collect();
            riders.extend(ids.into_iter().filter_map(|id| self.change(id, |row| row.claim(now, lease_until))));
        }
        riders
    }

    /// Whether a job that ended well has this result.
    pub(super) fn refers_to(&self, key: ResultKey) -> bool {
        let first = (key, JobId::from_bytes([0; 16]));
        let is_shared = self.shared.range(first..).next().is_some_and(|(of, _)| *of == key);
        is_shared || self.row(key.job).is_some_and(|row| row.result_key() == Some(key))
    }

    pub(super) fn next_at(&self, consumer: &str) -> Option<u64> {
        self.scheduled.get(consumer)?.first().map(|(at, _)| *at)
    }

    /// Does something to a job while its lease holds.
    pub(super) fn with_lease(&mut self, lease: &Lease, act: impl FnOnce(&mut Row)) -> LeaseState {
        let state = self.row(lease.id).map_or(LeaseState::Lost, |row| row.lease_state(lease));
        match state {
            LeaseState::Held | LeaseState::CancelRequested => self.change(lease.id, act),
            LeaseState::Lost => None,
        };
        state
    }

    pub(super) fn finish(&mut self, end: Finish, now: u64) -> Finished {
        match self.with_lease(&end.lease, |row| row.finish(end.how, now)) {
            LeaseState::Held | LeaseState::CancelRequested => {
                self.row(end.lease.id).map_or(Finished::Fenced, |row| Finished::Accepted(Box::new(row.settled())))
            }
            LeaseState::Lost => Finished::Fenced,
        }
    }

    pub(super) fn list(&self, filter: &Filter, after: Option<JobId>, limit: usize) -> Vec<JobRecord> {
        let rows = self.rows.values().rev();
        let older = rows.filter(|row| after.is_none_or(|after| row.id < after));
        older.filter(|row| row.is_listed_by(filter)).map(Row::record).take(limit).collect()
    }

    /// A dead job whose unique key a live one has stays dead; of several dead ones with a key, the oldest comes back.
    pub(super) fn redrive(&mut self, filter: &RedriveFilter, now: u64) -> Vec<String> {
        let mut dead: Vec<_> = self.rows.values().filter(|row| row.is_redriven_by(filter)).collect();
        dead.sort_by_key(|row| self.arrival(row.id));
        let mut keys = HashSet::new();
        let free = dead
            .into_iter()
            .filter(|row| unique_of(row).is_none_or(|key| !self.unique.contains_key(&key) && keys.insert(key)));
        let found: Vec<_> = free.take(filter.limit).map(|row| (row.id, row.consumer.clone())).collect();
        for (id, _) in found.iter().filter(|_| !filter.dry_run) {
            self.change(*id, |row| row.redrive(now));
        }
        found.into_iter().map(|(_, consumer)| consumer).collect()
    }

    pub(super) fn events_pending(&self, limit: usize) -> Vec<Settled> {
        self.pending.iter().take(limit).map(|(_, id)| self.rows[id].settled()).collect()
    }

    pub(super) fn event_sent(&mut self, sent: Sent) {
        if self.row(sent.id).is_some_and(|row| (row.attempt, row.state) == (sent.attempt, sent.state)) {
            self.change(sent.id, |row| row.event_pending = false);
        }
    }

    pub(super) fn prune(&mut self, before: u64, limit: usize) -> u64 {
        let old: Vec<_> = self.ended.iter().take_while(|(at, _)| *at < before).map(|(_, id)| *id).take(limit).collect();
        let sent: Vec<_> = old.into_iter().filter(|id| !self.rows[id].event_pending).collect();
        sent.iter().for_each(|id| self.remove(*id));
        sent.len() as u64
    }

    pub(super) fn depths(&self) -> Vec<Depth> {
        let mut depths: BTreeMap<(&str, &str), Depth> = BTreeMap::new();
        for row in self.rows.values().filter(|row| !row.state.is_ended()) {
            let fresh = || Depth { consumer: row.consumer.clone(), state: row.state, jobs: 0, oldest_at: u64::MAX };
            let depth = depths.entry((&row.consumer, row.state.as_str())).or_insert_with(fresh);
            depth.jobs += 1;
            depth.oldest_at = depth.oldest_at.min(row.enqueued_at);
        }
        depths.into_values().collect()
    }

    /// Why jobs are dead.
    pub(super) fn dead_letters(&self, limit: usize) -> Vec<DeadLetters> {
        let mut reasons: HashMap<(&str, &str, &str), DeadLetters> = HashMap::new();
        let dead = self.ended.iter().map(|(at, id)| (*at, &self.rows[id]));
        for (at, row) in dead.filter(|(_, row)| row.state == JobState::Dead) {
            let Some(error) = &row.error else { continue };
            let (consumer, code, class) = (row.consumer.clone(), error.code.clone(), error.class);
            let fresh = DeadLetters { consumer, code, class, jobs: 0, oldest: at, newest: at };
            let reason = reasons.entry((&row.consumer, &error.code, error.class.as_str())).or_insert(fresh);
            reason.jobs += 1;
            // They come in the order of their end.
            reason.newest = at;
        }
        let mut reasons: Vec<_> = reasons.into_values().collect();
        reasons.sort_by_key(|reason| Reverse(reason.jobs));
        reasons.truncate(limit);
        reasons
    }

    /// Changes a row, if there is one.
    pub(super) fn change<T>(&mut self, id: JobId, act: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let mut row = self.rows.remove(&id)?;
        self.unindex(&row);
        let value = act(&mut row);
        self.insert(row);
        Some(value)
    }

    fn insert(&mut self, row: Row) {
        self.index(&row);
        self.rows.insert(row.id, row);
        while self.ended.len() > ENDED_MAX {
            let oldest = self.ended.first().map(|(_, id)| *id);
            oldest.into_iter().for_each(|id| self.remove(id));
        }
    }

    fn remove(&mut self, id: JobId) {
        if let Some(row) = self.rows.remove(&id) {
            self.unindex(&row);
            self.arrivals.remove(&id);
        }
    }

    fn arrival(&self, id: JobId) -> u64 {
        self.arrivals.get(&id).copied().unwrap_or(0)
    }

    fn index(&mut self, row: &Row) {
        let arrival = self.arrival(row.id);
        match row.state {
            JobState::Scheduled => {
                self.scheduled.entry(row.consumer.clone()).or_default().insert((row.run_at, row.id));
            }
            JobState::Ready => {
                self.ready.entry(row.consumer.clone()).or_default().insert((Reverse(row.priority), arrival, row.id));
                self.coalescing.extend(coalescing_of(row, arrival));
            }
            JobState::Running => {
                self.running.insert(row.id);
            }
            JobState::Succeeded | JobState::Dead | JobState::Cancelled => {
                self.ended.insert((row.finished_at.unwrap_or(0), row.id));
                self.shared.extend(row.shared_result.map(|key| (key, row.id)));
            }
        }
        if row.state.is_waiting() {
            self.waiting += 1;
            self.deadlines.extend(row.deadline_at.map(|at| (at, row.id)));
        }
        if !row.state.is_ended() {
            self.unique.extend(unique_of(row).map(|key| (key, row.id)));
        }
        if row.event_pending {
            self.pending.insert((arrival, row.id));
        }
    }

    fn unindex(&mut self, row: &Row) {
        let arrival = self.arrival(row.id);
        if let Some(set) = self.scheduled.get_mut(&row.consumer) {
            set.remove(&(row.run_at, row.id));
        }
        if let Some(set) = self.ready.get_mut(&row.consumer) {
            set.remove(&(Reverse(row.priority), arrival, row.id));
        }
        if let Some(entry) = coalescing_of(row, arrival) {
            self.coalescing.remove(&entry);
        }
        if let Some(key) = row.shared_result {
            self.shared.remove(&(key, row.id));
        }
        self.running.remove(&row.id);
        self.ended.remove(&(row.finished_at.unwrap_or(0), row.id));
        self.pending.remove(&(arrival, row.id));
        self.deadlines.remove(&(row.deadline_at.unwrap_or(0), row.id));
        if row.state.is_waiting() {
            self.waiting -= 1;
        }
        if let Some(key) = unique_of(row).filter(|_| !row.state.is_ended()) {
            self.unique.remove(&key);
        }
    }
}

fn coalescing_of(row: &Row, arrival: u64) -> Option<(String, String, u64, JobId)> {
    row.coalesce_key.clone().map(|key| (row.consumer.clone(), key, arrival, row.id))
}

fn unique_of(row: &Row) -> Option<(String, String)> {
    row.unique_key.clone().map(|key| (row.consumer.clone(), key))
}
