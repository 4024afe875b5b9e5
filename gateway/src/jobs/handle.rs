//! `Jobs`: the handle over the stores, as the rest of the gateway uses it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::JobId;
use tokio::time::{Instant, sleep, timeout_at};

use super::backend::Backend;
use super::counters::Counters;
use super::error::{JobsError, OpenError};
use super::new_job::{Enqueued, NewJob};
use super::once::{Once, Told};
use super::queue::{CancelOutcome, DeadLetters, Depth, Filter, RedriveFilter, Tick};
use super::record::{JobRecord, JobState};
use super::results::{ResultFile, ResultKey, StoredResult};
use super::time::{Clock, SystemClock};
use super::watch::Watch;
use crate::config::ServerConfig;
use crate::config::consumer::{Durability, JobsConfig, StoreKind};

/// Records in one answer of [`Jobs::list`]: a page of the HTTP API, and the one that says that there is another.
pub const LIST_MAX: usize = 1001;

/// How long a redrive waits for events that are under way.
const EVENTS_LEAVE: Duration = Duration::from_millis(500);

/// Work that is kept: enqueue, look at, wait for, cancel, redrive. Cheap to clone.
///
/// Jobs of durability `memory` are kept in memory, all others in the data directory. Every call has a deadline of its
/// own and answers [`JobsError::TimedOut`] after it.
#[derive(Clone)]
pub struct Jobs {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) durable: Option<Backend>,
    pub(super) memory: Backend,
    pub(super) watch: Arc<Watch>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention: Duration,
}

impl Jobs {
    /// Opens the stores in a data directory, which nobody else may use meanwhile, and releases the jobs that a dead
    /// process was running. Blocks: for use before the gateway serves.
    ///
    /// # Errors
    /// When the directory is in use, or its files cannot be opened or are not safe to write to.
    pub fn open(config: &JobsConfig, data_dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(config, data_dir, Arc::new(SystemClock::new()))
    }

    /// Keeps jobs in memory alone, for a gateway whose consumers all have `durability = "memory"`, or that has none.
    /// Other jobs are refused.
    pub fn in_memory(config: &JobsConfig) -> Self {
        Self::new(config, None, Arc::new(SystemClock::new()), Arc::default(), Arc::default())
    }

    pub(crate) fn open_with(config: &JobsConfig, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let counters = Arc::new(Counters::default());
        let durable = match config.store {
            StoreKind::Sqlite => Backend::sqlite(config, data_dir, &clock, &counters)?,
            StoreKind::Postgres => return Err(OpenError::NotHere),
        };
        Ok(Self::new(config, Some(durable), clock, counters, Arc::default()))
    }

    /// Connects to the server of `store = "postgres"` as the process of this name and role, and brings its tables up to
    /// date. `durability` is what the jobs are to survive, at most.
    /// What the stores do beside the calls is done on the runtime that this is called on.
    ///
    /// # Errors
    /// When the server cannot be reached within seconds, or is not one that jobs can be kept in.
    pub async fn connect(
        config: &JobsConfig,
        server: &ServerConfig,
        durability: Durability,
    ) -> Result<Self, OpenError> {
        #[cfg(feature = "postgres")]
        {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let (counters, watch) = (Arc::default(), Arc::default());
            let durable = Backend::postgres(config, server, durability, &clock, &counters, &watch).await?;
            Ok(Self::new(config, Some(durable), clock, counters, watch))
        }
        #[cfg(not(feature = "postgres"))]
        {
            let _ = (config, server, durability);
            Err(OpenError::NotBuilt("postgres"))
        }
    }

    /// Whether [`Jobs::connect`] would find a server that keeps jobs as these are to be kept. Changes nothing there, and
    /// blocks, on a runtime of its own. A store in files is not looked at: it may be in use.
    ///
    /// # Errors
    /// As [`Jobs::connect`], without what is in the schema.
    pub fn check(config: &JobsConfig, durability: Durability) -> Result<(), OpenError> {
        match config.store {
            StoreKind::Sqlite => Ok(()),
            #[cfg(feature = "postgres")]
            StoreKind::Postgres => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| OpenError::Address(format!("cannot be tried: {error}")))?;
                runtime.block_on(Backend::look(config, durability))
            }
            #[cfg(not(feature = "postgres"))]
            StoreKind::Postgres => {
                let _ = durability;
                Err(OpenError::NotBuilt("postgres"))
            }
        }
    }

    fn new(
        config: &JobsConfig,
        durable: Option<Backend>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        watch: Arc<Watch>,
    ) -> Self {
        let memory = Backend::memory(config, &clock, &counters);
        let retention = config.retention.0;
        Self { inner: Arc::new(Inner { durable, memory, watch, counters, clock, retention }) }
    }

    /// Stores jobs, and answers in their order after the commit at the level that each asks for.
    ///
    /// # Errors
    /// Nothing was stored, with two exceptions: after [`JobsError::TimedOut`] it may have been, and in a batch that mixes
    /// `memory` with other jobs, the others are stored although the `memory` ones are refused, if somebody else took the
    /// room in memory meanwhile.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, JobsError> {
        let in_memory: Vec<bool> = jobs.iter().map(|job| job.durability == Durability::Memory).collect();
        let (memory, durable): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.durability == Durability::Memory);
        if !memory.is_empty() && !durable.is_empty() {
            self.inner.memory.queue.has_room(memory.len()).await?;
        }
        let durable = match durable.is_empty() {
            true => Vec::new(),
            false => self.durable()?.queue.enqueue(durable).await?,
        };
        let memory = match memory.is_empty() {
            true => Vec::new(),
            false => self.inner.memory.queue.enqueue(memory).await?,
        };
        let told = woven(&in_memory, memory, durable);
        self.wake(&told);
        Ok(told)
    }

    /// Stores the jobs of a request that has an idempotency key, and the key in the same commit; or tells what the first
    /// request with the key was told. The key of jobs of which all are `memory` is kept in memory; of a batch that mixes,
    /// the repeat is told of those that are not.
    ///
    /// # Errors
    /// As [`Jobs::enqueue`]; a key whose jobs were refused is forgotten.
    pub async fn enqueue_once(&self, once: Once, jobs: Vec<NewJob>) -> Result<Told, JobsError> {
        let in_memory: Vec<bool> = jobs.iter().map(|job| job.durability == Durability::Memory).collect();
        let (memory, durable): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.durability == Durability::Memory);
        let told = if durable.is_empty() {
            self.inner.memory.queue.enqueue_once(once, memory).await?
        } else {
            self.inner.memory.queue.has_room(memory.len()).await?;
            match self.durable()?.queue.enqueue_once(once, durable).await? {
                Told::Stored(durable) if !memory.is_empty() => {
                    let memory = self.inner.memory.queue.enqueue(memory).await?;
                    Told::Stored(woven(&in_memory, memory, durable))
                }
                told => told,
            }
        };
        if let Told::Stored(jobs) = &told {
            self.wake(jobs);
        }
        Ok(told)
    }

    /// What a request with this key and body would be told, if one with the key made jobs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recall(&self, name: [u8; 32], body: [u8; 32]) -> Result<Option<Told>, JobsError> {
        for backend in self.backends() {
            if let Some(told) = backend.queue.recall(name, body).await? {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }

    /// Notes that a schedule has ticked and stores the jobs of the tick, in one commit. `None`, and nothing stored, when this tick
    /// or a later one is noted. Without a durable store ticks are noted in memory.
    ///
    /// # Errors
    /// As [`Jobs::enqueue`]. Jobs of durability `memory` are stored after the commit, and a process that ends in between loses
    /// them as it loses all in memory.
    pub async fn tick(&self, tick: Tick, jobs: Vec<NewJob>) -> Result<Option<Vec<Enqueued>>, JobsError> {
        let (memory, durable): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.durability == Durability::Memory);
        if self.inner.durable.is_none() && durable.is_empty() {
            return Ok(self.inner.memory.queue.tick(tick, memory).await?.inspect(|told| self.wake(told)));
        }
        let backend = self.durable()?;
        self.inner.memory.queue.has_room(memory.len()).await?;
        let Some(mut told) = backend.queue.tick(tick, durable).await? else { return Ok(None) };
        if !memory.is_empty() {
            told.extend(self.inner.memory.queue.enqueue(memory).await?);
        }
        self.wake(&told);
        Ok(Some(told))
    }

    /// The last tick of each schedule that ever ticked.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn ticks(&self) -> Result<Vec<Tick>, JobsError> {
        self.inner.durable.as_ref().unwrap_or(&self.inner.memory).queue.ticks().await
    }

    fn wake(&self, told: &[Enqueued]) {
        told.iter().filter(|one| !one.existing).for_each(|one| self.inner.watch.wake(&one.consumer));
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn get(&self, id: JobId) -> Result<Option<JobRecord>, JobsError> {
        for backend in self.backends() {
            if let Some(record) = backend.queue.get(vec![id]).await?.pop().flatten() {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Reads a record once the job has ended, or when the time is over.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn wait(&self, id: JobId, at_most: Duration) -> Result<Option<JobRecord>, JobsError> {
        let deadline = Instant::now() + at_most;
        let waiting = self.inner.watch.wait_for(id);
        loop {
            // Registered before the look, so that an end between look and wait is not missed.
            let mut ended = std::pin::pin!(waiting.notify.notified());
            ended.as_mut().enable();
            let record = self.get(id).await?;
            let now = Instant::now();
            if record.as_ref().is_none_or(|record| record.state.is_ended()) || now >= deadline {
                return Ok(record);
            }
            // What ends without anybody's report (a deadline, another node) is seen by looking.
            let look = deadline.min(now + Duration::from_secs(1));
            let _ = timeout_at(look, ended).await;
        }
    }

    /// Lists records, newest first: at most `limit` ([`LIST_MAX`]) that are older than `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, filter: Filter, after: Option<JobId>, limit: usize) -> Result<Vec<JobRecord>, JobsError> {
        let limit = limit.min(LIST_MAX);
        let mut all = Vec::new();
        for backend in self.backends() {
            all.extend(backend.queue.list(filter.clone(), after, limit).await?);
        }
        all.sort_by_key(|record| std::cmp::Reverse(record.id));
        all.truncate(limit);
        Ok(all)
    }

    /// Cancels a job: at once if it waits, soon if it runs. Its `job.cancelled` follows.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, JobsError> {
        for backend in self.backends() {
            let outcome = backend.queue.cancel(vec![id]).await?.pop().unwrap_or(CancelOutcome::NotFound);
            match outcome {
                CancelOutcome::NotFound => continue,
                CancelOutcome::Requested => self.inner.watch.cancel(id),
                CancelOutcome::Cancelled => {
                    self.inner.watch.events.notify_one();
                    self.inner.watch.ended(id);
                }
                CancelOutcome::Finished => {}
            }
            return Ok(outcome);
        }
        Ok(CancelOutcome::NotFound)
    }

    /// Makes dead jobs ready again; answers how many. One whose `job.failed` is still to be sent is left for the next
    /// time.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn redrive(&self, filter: RedriveFilter) -> Result<u64, JobsError> {
        self.let_events_leave(&filter).await?;
        let mut left = filter.clone();
        let mut redriven = 0;
        for backend in self.backends() {
            let consumers = backend.queue.redrive(left.clone()).await?;
            redriven += consumers.len();
            left.limit -= consumers.len().min(left.limit);
            if !filter.dry_run {
                consumers.iter().for_each(|consumer| self.inner.watch.wake(consumer));
            }
        }
        Ok(redriven as u64)
    }

    /// Reads a result; of rows at most `limit` from `offset`, without loading the others.
    ///
    /// # Errors
    /// [`JobsError::NotFound`], [`JobsError::NotReady`], [`JobsError::NoResult`] for a job that failed,
    /// [`JobsError::Expired`], or when the store cannot be read.
    pub async fn read_result(&self, id: JobId, offset: u64, limit: u64) -> Result<StoredResult, JobsError> {
        let (backend, key) = self.result_key(id).await?;
        backend.results.read(key, offset, limit).await?.ok_or(JobsError::Expired(id))
    }

    /// Reads a file of a result, such as `html`. `None` if the result has no such file.
    ///
    /// # Errors
    /// As [`Jobs::read_result`].
    pub async fn file(&self, id: JobId, format: &str) -> Result<Option<ResultFile>, JobsError> {
        let (backend, key) = self.result_key(id).await?;
        if let Some(file) = backend.results.file(key, format.to_owned()).await? {
            return Ok(Some(file));
        }
        // No such file, or no result at all?
        backend.results.read(key, 0, 0).await?.map(|_| None).ok_or(JobsError::Expired(id))
    }

    /// Answers when the stores work; else says what is the matter.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub async fn ready(&self) -> Result<(), String> {
        for backend in self.backends() {
            backend.queue.ready().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// How many jobs each consumer has in each live state.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn depths(&self) -> Result<Vec<Depth>, JobsError> {
        let mut all = Vec::new();
        for backend in self.backends() {
            all.extend(backend.queue.depths().await?);
        }
        Ok(all)
    }

    /// Lets a consumer claim nothing until it is resumed: in every process that shares the store, and after a restart.
    /// What runs, ends; enqueueing goes on.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn pause(&self, consumer: &str) -> Result<(), JobsError> {
        // The durable store first: what it does not take, memory must not say.
        for backend in self.durable_first() {
            backend.queue.pause(vec![consumer.to_owned()]).await?;
        }
        Ok(())
    }

    /// Lets a consumer claim again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn resume(&self, consumer: &str) -> Result<(), JobsError> {
        for backend in self.durable_first() {
            backend.queue.resume(vec![consumer.to_owned()]).await?;
        }
        self.inner.watch.wake(consumer);
        Ok(())
    }

    /// The consumers that are paused, by name. The durable store knows, if there is one: others may share it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn paused(&self) -> Result<Vec<String>, JobsError> {
        self.inner.durable.as_ref().unwrap_or(&self.inner.memory).queue.paused().await
    }

    /// Why jobs are dead, those reasons first that most jobs have: at most [`LIST_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetters>, JobsError> {
        let mut all = Vec::<DeadLetters>::new();
        for backend in self.backends() {
            for found in backend.queue.dead_letters(LIST_MAX).await? {
                let is_same = |known: &&mut DeadLetters| {
                    (&known.consumer, &known.code, known.class) == (&found.consumer, &found.code, found.class)
                };
                // A consumer's jobs are in both stores only when its durability was changed.
                match all.iter_mut().find(is_same) {
                    Some(known) => known.add(&found),
                    None => all.push(found),
                }
            }
        }
        all.sort_by_key(|letters| std::cmp::Reverse(letters.jobs));
        all.truncate(LIST_MAX);
        Ok(all)
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Commits what was given, and lets go of the files and the data directory. Later calls are refused.
    pub async fn close(&self) {
        for backend in self.backends() {
            backend.queue.close().await;
            backend.results.close().await;
        }
    }

    /// Lets the events of jobs that are to be redriven leave; they are under way as a rule.
    async fn let_events_leave(&self, filter: &RedriveFilter) -> Result<(), JobsError> {
        let is_meant = |consumer: &str| filter.consumer.as_ref().is_none_or(|name| name == consumer);
        let until = Instant::now() + EVENTS_LEAVE;
        loop {
            let pending = self.events_pending(LIST_MAX).await?;
            let mut records = pending.iter().map(|settled| &settled.record);
            let one_is = records.any(|record| record.state == JobState::Dead && is_meant(&record.consumer));
            if !one_is || Instant::now() >= until {
                return Ok(());
            }
            self.inner.watch.events.notify_one();
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn result_key(&self, id: JobId) -> Result<(&Backend, ResultKey), JobsError> {
        for backend in self.backends() {
            match backend.queue.result_of(id).await? {
                None => {}
                Some((_, Some(key))) => return Ok((backend, key)),
                Some((record, None)) if record.state.is_ended() => {
                    return Err(JobsError::NoResult { id, state: record.state });
                }
                Some((record, None)) => return Err(JobsError::NotReady { id, state: record.state }),
            }
        }
        Err(JobsError::NotFound(id))
    }

    /// Memory first: it answers at once.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        std::iter::once(&self.inner.memory).chain(&self.inner.durable)
    }

    /// For what the durable store decides.
    fn durable_first(&self) -> impl Iterator<Item = &Backend> {
        self.inner.durable.iter().chain(std::iter::once(&self.inner.memory))
    }

    fn durable(&self) -> Result<&Backend, JobsError> {
        let what = || "this gateway keeps jobs in memory alone; give the consumer `durability = \"memory\"`".to_owned();
        self.inner.durable.as_ref().ok_or_else(|| JobsError::Unavailable { what: what() })
    }
}

/// What the two stores told, in the order of the jobs.
fn woven(in_memory: &[bool], memory: Vec<Enqueued>, durable: Vec<Enqueued>) -> Vec<Enqueued> {
    let (mut memory, mut durable) = (memory.into_iter(), durable.into_iter());
    in_memory.iter().filter_map(|is| if *is { memory.next() } else { durable.next() }).collect()
}
