//! `Consumers`: takes jobs, runs them, reports what came of it. Reading order: this file, `attempt`, `flight`,
//! `courier`, `upkeep`.

mod attempt;
mod courier;
mod flight;
mod step;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::attempt::{Held, Hold};
use self::courier::Courier;
use self::flight::{Asker, Flights};
use self::step::Step;
use super::ask::Ask;
use super::bucket::Bucket;
use super::cache::{Asked, Cached, QueryCache};
use super::cpu::{CpuLoad, CpuPool, Inline};
use super::http::{Calls, HttpConsumer};
use super::outlet::Outlet;
use super::problem::Problem;
use super::queries::Queries;
use super::query::QueryConsumer;
use super::report::ReportConsumer;
use super::retry::Policy;
use super::source::Sources;
use super::work::Consumer;
use crate::config::Role;
use crate::config::consumer::{ConsumerConfig, JobsConfig, Run};
use crate::jobs::Jobs;
use crate::jobs::queue::{ClaimAsk, ClaimBatch, Claimed, Lease};
use crate::kill_point::{self, KillPoint};
use crate::lag::LoopLag;
use crate::telemetry::{Scope, Tracer};

/// A consumer that nobody woke looks for work this often.
const POLL: Duration = Duration::from_secs(1);

/// After the drain's deadline, how long interrupted jobs have to be given back.
const RELEASE: Duration = Duration::from_secs(5);

/// Jobs of one consumer that wait for what others began, a few KB each. More wait in the store, and become an execution
/// of their own.
const RIDERS_MAX: usize = 4096;

/// Riders of one claim: it is one commit, which others wait for.
const RIDERS_OF_A_CLAIM: usize = 256;

/// Jobs whose shared execution has ended and whose ends are being stored: fewer than the store takes calls at once.
const LANDING_MAX: usize = 128;

/// What consumers need.
pub struct Setup {
    /// `[[consumer]]`.
    pub consumers: Vec<ConsumerConfig>,
    /// What this process does: a gateway runs no jobs, a consumer tells nobody.
    pub role: Role,
    /// `[jobs]`.
    pub config: JobsConfig,
    /// Where jobs are kept.
    pub jobs: Jobs,
    /// The named queries.
    pub queries: Arc<Queries>,
    /// What they read from.
    pub sources: Arc<Sources>,
    /// What they gave lately.
    pub cache: Arc<QueryCache>,
    /// Where events go.
    pub outlet: Arc<dyn Outlet>,
    /// How late the runtimes are.
    pub lag: LoopLag,
    /// Begins spans.
    pub(crate) tracer: Tracer,
    /// For each `run = "embedded"`, by the consumer's name, what runs its jobs.
    pub embedded: HashMap<String, Arc<dyn Consumer>>,
}

/// The running consumers. Tasks on the runtime they were started on; dropped, they go on.
pub struct Consumers {
    shared: Arc<Shared>,
    /// Those that claim: they end when they are told to stop.
    claimers: TaskTracker,
    /// Those that look after what runs: they end after it.
    tasks: TaskTracker,
    calls: Calls,
}

/// A slot, or the room of a rider. The one who begins a shared execution and the execution itself have one slot.
type Room = Arc<OwnedSemaphorePermit>;

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Jobs that ended in time.
    pub finished: u64,
    /// Jobs that were interrupted and are ready again.
    pub released: u64,
}

/// What all tasks share.
pub(super) struct Shared {
    jobs: Jobs,
    courier: Courier,
    cpu: Arc<CpuPool>,
    queries: Arc<Queries>,
    cache: Arc<QueryCache>,
    policy: Policy,
    tracer: Tracer,
    /// How long a claim holds without a heartbeat. A heartbeat comes three times as often.
    lease: Duration,
    attempts: TaskTracker,
    /// Claim no more.
    stop: CancellationToken,
    /// Give back what runs.
    interrupt: CancellationToken,
    held: Mutex<HashMap<Lease, Hold>>,
    landing: Semaphore,
    last_beat: Mutex<Instant>,
}

/// A consumer with what runs its jobs.
pub(super) struct Seat {
    config: ConsumerConfig,
    consumer: Arc<dyn Consumer>,
    slots: Arc<Semaphore>,
    riders: Arc<Semaphore>,
    flights: Flights,
}

/// What an attempt waits for.
enum Place {
    /// An execution of its own.
    Alone,
    /// One that serves every job with its key.
    Aboard(Asker),
    /// Nothing: an identical ask was answered shortly before.
    Answered(Cached),
}

impl Consumers {
    /// Starts the consumers on the current runtime, of either kind. Events that a former process left are sent first
    /// thing.
    ///
    /// # Errors
    /// When an embedded consumer is not registered, or the system gives no thread.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(setup: Setup) -> Result<Self, Vec<Problem>> {
        let calls = Calls::default();
        let seats = seats(&setup, &calls)?;
        let cpu = CpuPool::start(&setup.config, setup.lag.clone())
            .map_err(|error| vec![Problem::new("jobs.cpu_threads", error.to_string())])?;
        let inline_bytes = setup.consumers.iter().map(|config| (config.name.clone(), config.inline_bytes.0)).collect();
        let shared = Arc::new(Shared {
            courier: Courier::new(setup.jobs.clone(), setup.outlet, inline_bytes),
            jobs: setup.jobs,
            cpu: Arc::new(cpu),
            queries: setup.queries,
            cache: setup.cache,
            tracer: setup.tracer,
            lease: setup.config.lease.0,
            policy: Policy { base: setup.config.retry_base.0, max: setup.config.retry_max.0 },
            attempts: TaskTracker::new(),
            stop: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            held: Mutex::default(),
            landing: Semaphore::new(LANDING_MAX),
            last_beat: Mutex::new(Instant::now()),
        });
        // Before the first claim: what is written later belongs to what runs.
        let began_ms = shared.jobs.now_ms();
        let (claimers, tasks) = (TaskTracker::new(), TaskTracker::new());
        for seat in seats {
            claimers.spawn(Arc::clone(&shared).serve(Arc::new(seat)));
        }
        tasks.spawn(Arc::clone(&shared).beat());
        tasks.spawn(Arc::clone(&shared).sweep(began_ms));
        tasks.spawn(Arc::clone(&shared).tidy());
        if setup.role != Role::Consumer {
            tasks.spawn(Arc::clone(&shared).resend());
        }
        claimers.close();
        tasks.close();
        Ok(Self { shared, claimers, tasks, calls })
    }

    /// What requests to backends came to.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// How much is computed, and how much waits for it.
    pub fn cpu_load(&self) -> CpuLoad {
        self.shared.cpu.load()
    }

    /// The CPU pool, for metrics.
    pub(crate) fn cpu(&self) -> &Arc<CpuPool> {
        &self.shared.cpu
    }

    /// What the threads of the sockets have to serve, with `cpu_mode = "inline"`.
    pub(crate) fn inline(&self) -> Option<Arc<Inline>> {
        self.shared.cpu.inline()
    }

    /// Claims no more, lets running jobs end until the deadline, then interrupts them: they are ready again for whoever
    /// comes next, the attempt counted and one more allowed in its place.
    pub async fn drain(&self, at_most: Duration) -> Drained {
        let counters = self.shared.jobs.counters();
        let ended =
            || counters.succeeded.get() + counters.dead.get() + counters.cancelled.get() + counters.retried.get();
        let (ended_before, released_before) = (ended(), counters.released.get());
        self.shared.stop.cancel();
        self.shared.attempts.close();
        // First those that claim: what they have in hand becomes an attempt yet.
        let all = async {
            self.claimers.wait().await;
            self.shared.attempts.wait().await;
        };
        let in_time = timeout(at_most, all).await.is_ok();
        if !in_time {
            self.shared.interrupt.cancel();
            if timeout(RELEASE, self.shared.attempts.wait()).await.is_err() {
                tracing::error!("jobs could not be given back in time; the next start releases them");
            }
        }
        self.shared.interrupt.cancel();
        if timeout(RELEASE, self.tasks.wait()).await.is_err() {
            tracing::error!("consumers did not stop in time");
        }
        let drained = Drained { finished: ended() - ended_before, released: counters.released.get() - released_before };
        tracing::info!(finished = drained.finished, released = drained.released, in_time, "consumers have stopped");
        drained
    }
}

fn seats(setup: &Setup, calls: &Calls) -> Result<Vec<Seat>, Vec<Problem>> {
    let (mut seats, mut problems) = (Vec::new(), Vec::new());
    for config in setup.consumers.iter().filter(|_| setup.role != Role::Gateway) {
        let (queries, sources) = (Arc::clone(&setup.queries), Arc::clone(&setup.sources));
        let consumer: Option<Arc<dyn Consumer>> = match config.run {
            Run::Query => Some(Arc::new(QueryConsumer { queries, sources })),
            Run::Report => Some(Arc::new(ReportConsumer { queries, sources })),
            Run::Http => match HttpConsumer::new(config, calls.clone()) {
                Ok(consumer) => Some(Arc::new(consumer)),
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            },
            Run::Embedded => setup.embedded.get(&config.name).cloned(),
        };
        match consumer {
            Some(consumer) => {
                let slots = Arc::new(Semaphore::new(config.concurrency.max(1)));
                let riders = Arc::new(Semaphore::new(RIDERS_MAX));
                seats.push(Seat { config: config.clone(), consumer, slots, riders, flights: Flights::default() });
            }
            None => {
                let message = "the program registers no consumer of this name; `embedded` is for programs that embed \
                    the gateway, `query`, `report` and `http` work everywhere";
                problems.push(Problem::new(format!("consumer.{}.run", config.name), message));
            }
        }
    }
    if problems.is_empty() { Ok(seats) } else { Err(problems) }
}

impl Shared {
    /// Takes one consumer's jobs while it has free slots, at its rate, and those that need none.
    async fn serve(self: Arc<Self>, seat: Arc<Seat>) {
        let wake = self.jobs.wake_of(&seat.config.name);
        let (rate, burst) = (seat.config.rate, seat.config.rate_burst);
        let mut bucket = rate.map(|rate| Bucket::new(rate, burst, Instant::now()));
        if let Err(error) = self.jobs.learn_pauses().await {
            tracing::warn!(%error, "which consumers are paused is not known yet; the first claim tells");
        }
        let mut is_idle = true;
        while let Some(slots) = self.free_slots(&seat, &wake, is_idle).await {
            if !self.beat_if_late().await {
                // A store that takes no heartbeat takes no claim either.
                drop(slots);
                tokio::select! {
                    () = sleep(POLL) => continue,
                    () = self.stop.cancelled() => return,
                }
            }
            let tokens = bucket.as_ref().map_or(u32::MAX, |bucket| bucket.tokens(Instant::now()));
            if let Some(bucket) = bucket.as_ref().filter(|_| tokens == 0 && seat.flights.is_empty()) {
                drop(slots);
                tokio::select! {
                    () = sleep_until(bucket.next_at()) => continue,
                    () = self.stop.cancelled() => return,
                }
            }
            // Held during the claim: what is handed out as a rider finds its flight, also when that lands meanwhile.
            let aboard = seat.flights.hold_all();
            let ask = ClaimAsk {
                consumer: seat.config.name.clone(),
                max: slots.len().min(tokens as usize),
                lease: self.lease,
                held: self.held_leases(),
                riding: aboard.iter().map(|asker| asker.key().to_owned()).collect(),
                riders_max: seat.riders.available_permits().min(RIDERS_OF_A_CLAIM),
            };
            let batch = match self.jobs.claim(ask).await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, consumer = seat.config.name, "claiming jobs failed; trying again");
                    ClaimBatch::default()
                }
            };
            if let Some(bucket) = &mut bucket {
                bucket.take(u32::try_from(batch.jobs.len()).unwrap_or(u32::MAX), Instant::now());
            }
            is_idle = batch.jobs.is_empty() && batch.riders.is_empty();
            let (next_at, had_slots) = (batch.next_at, !slots.is_empty());
            if !is_idle {
                kill_point::hit(KillPoint::AfterClaim);
            }
            self.begin(&seat, batch, slots, aboard);
            if is_idle && had_slots {
                let pause = self.pause_until(next_at);
                // Without a token only riders were asked for.
                let next_token =
                    bucket.as_ref().filter(|_| tokens == 0).map(|bucket| bucket.next_at() - Instant::now());
                let pause = next_token.map_or(pause, |wait| pause.min(wait));
                tokio::select! {
                    () = wake.notified() => {}
                    () = sleep(pause) => {}
                    () = self.stop.cancelled() => return,
                }
            }
        }
    }

    /// All slots that are free; none when there may be riders for what is in flight; `None` when it is time to stop.
    async fn free_slots(&self, seat: &Seat, wake: &Notify, was_idle: bool) -> Option<Vec<OwnedSemaphorePermit>> {
        if self.stop.is_cancelled() {
            return None;
        }
        let may_ride = || !seat.flights.is_empty() && seat.riders.available_permits() > 0;
        let free = || std::iter::from_fn(|| Arc::clone(&seat.slots).try_acquire_owned().ok());
        if !was_idle && may_ride() {
            // The last claim may have left some.
            return Some(free().collect());
        }
        let first = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            slot = Arc::clone(&seat.slots).acquire_owned() => Some(slot.expect("the slots are never closed")),
            () = wake.notified(), if may_ride() => None,
        };
        Some(first.into_iter().chain(free()).collect())
    }

    /// Begins attempts: aboard of what is in flight, or each in a slot.
    fn begin(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        batch: ClaimBatch,
        slots: Vec<OwnedSemaphorePermit>,
        aboard: Vec<Asker>,
    ) {
        let mut slots = slots.into_iter();
        for claimed in batch.jobs.into_iter().chain(batch.riders) {
            let waited = Duration::from_millis(self.jobs.now_ms().saturating_sub(claimed.ready_at));
            self.jobs.counters().times.picked_up(&claimed.consumer, waited);
            let (place, room) = match self.without_slot(seat, &claimed, &aboard) {
                Some(place) => {
                    let room = Arc::clone(&seat.riders).try_acquire_owned().ok().or_else(|| slots.next());
                    (place, room.map(Arc::new))
                }
                None => {
                    let room = slots.next().map(Arc::new);
                    (self.with_slot(seat, &claimed, room.clone()), room)
                }
            };
            self.spawn_attempt(seat, claimed, place, room);
        }
    }

    /// What can be answered by what others have made or begun.
    fn without_slot(&self, seat: &Seat, claimed: &Claimed, aboard: &[Asker]) -> Option<Place> {
        let asked = self.asked(seat, claimed);
        if let Some(cached) = asked.and_then(|asked| self.cache.get(&asked)) {
            self.jobs.counters().cached.add(1);
            return Some(Place::Answered(cached));
        }
        let key = claimed.coalesce_key.as_deref()?;
        let is_held = |asker: &&Asker| asker.key() == key && asker.is_fresh() && !asker.is_lost();
        let held_flight = || aboard.iter().find(is_held).map(Asker::another);
        let asker = seat.flights.join(key).or_else(held_flight)?;
        self.jobs.counters().coalesced.add(1);
        Some(Place::Aboard(asker))
    }

    /// What a job asks for, if it is a question whose answer may be another's, too.
    fn asked(&self, seat: &Seat, claimed: &Claimed) -> Option<Asked> {
        let ask = Ask::parse(&claimed.message).ok()?.of(claimed.asker.as_ref());
        // What is wrong with it is told when it is run.
        Asked::new(&seat.config, &ask, &self.queries).ok().flatten()
    }

    /// What is to be executed: with a key for all jobs that have it, and it keeps its slot to its end, whoever goes.
    fn with_slot(self: &Arc<Self>, seat: &Arc<Seat>, claimed: &Claimed, room: Option<Room>) -> Place {
        let Some(key) = claimed.coalesce_key.as_deref() else { return Place::Alone };
        let freshness = self.asked(seat, claimed).map(|asked| asked.freshness());
        let (pilot, asker) = seat.flights.begin(key, freshness);
        let (shared, seat, claimed) = (Arc::clone(self), Arc::clone(seat), claimed.clone());
        self.attempts.spawn(async move {
            let scope = Scope::job(claimed.lease.id).within(&shared.tracer, claimed.message.trace().clone());
            scope.run(shared.fly(&seat, claimed, pilot)).await;
            drop(room);
        });
        Place::Aboard(asker)
    }

    fn spawn_attempt(self: &Arc<Self>, seat: &Arc<Seat>, claimed: Claimed, place: Place, room: Option<Room>) {
        let (shared, seat) = (Arc::clone(self), Arc::clone(seat));
        let life = match &place {
            Place::Alone | Place::Answered(_) => Arc::default(),
            Place::Aboard(asker) => asker.life(),
        };
        // Held from now on, not only from when the task first runs.
        let held = Held::new(Arc::clone(self), claimed.lease, life);
        self.attempts.spawn(async move {
            let (scope, step) = Step::begin(&shared.tracer, &claimed, shared.jobs.now_ms());
            let outcome = scope.run(shared.attempt(&seat, claimed, held, place)).await;
            step.into_iter().for_each(|step| step.end(outcome));
            drop(room);
        });
    }

    fn pause_until(&self, next_at: Option<u64>) -> Duration {
        let until = next_at.map(|at| Duration::from_millis(at.saturating_sub(self.jobs.now_ms())));
        until.unwrap_or(POLL).min(POLL)
    }
}
