//! One attempt of one job: started, run within its time, finished.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::flight::{Asker, Landed, Pilot};

use super::{Place, Seat, Shared};
use crate::clock;
use crate::consumer::cache::{Asked, Cached};
use crate::consumer::context::{JobContext, Stop};
use crate::consumer::event;
use crate::consumer::life::{Life, Vigil};
use crate::consumer::product::Product;
use crate::consumer::work::Failure;
use crate::jobs::queue::{Claimed, Finished, How, Lease};
use crate::jobs::results::Content;
use crate::jobs::{ErrorClass, JobState, JobsError, Progress};
use crate::kill_point::{self, KillPoint};

/// Progress is sent this often, or when so much more of the whole is done.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
const PROGRESS_SHARE: u64 = 20;

/// Pauses between tries to report an end that the store did not take. What is not reported by then is found by its lease.
const REPORT_PAUSES: [u64; 6] = [100, 200, 500, 1000, 2000, 4000];

/// The longest attempt, whatever the configuration says: the clock cannot count for ever.
const TIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How an attempt ended.
enum End {
    Returned(Landed),
    Cached(Cached),
    TimedOut,
    Cancelled,
    Interrupted,
    /// Its work showed no life until its lease was over: the job is somebody else's.
    Lost,
}

impl Shared {
    /// Runs an attempt to its end. Answers a word for what came of it.
    pub(super) async fn attempt(&self, seat: &Seat, claimed: Claimed, held: Held, place: Place) -> &'static str {
        // Until its event is sent: so that nobody else sends it.
        let _running = self.jobs.watch().runs(claimed.lease.id, held.cancel.clone());
        self.courier.tell(&claimed, event::started(&claimed)).await;
        let began = Instant::now();
        let ran = |outcome| {
            self.jobs.counters().times.ran(&claimed.consumer, outcome, began.elapsed());
            outcome
        };
        let (end, _turn) = match place {
            Place::Alone => (self.run(seat, &claimed, &held).await, None),
            Place::Answered(cached) => (End::Cached(cached), None),
            Place::Aboard(asker) => {
                let end = self.wait_for(seat, &claimed, &held, asker).await;
                // What lands for thousands is not to fill the queue of the store.
                (end, Some(self.landing.acquire().await.expect("the landing is never closed")))
            }
        };
        let Some((how, product)) = self.judge(&claimed, end).await else { return ran("hung") };
        let Some(finished) = self.report(&claimed, how).await else { return ran("unreported") };
        let outcome = ran(outcome(&finished));
        self.announce(&claimed, finished, product.as_deref().map(Product::content)).await;
        outcome
    }

    /// Executes what several jobs wait for, until nobody does. `claimed` is the one that began it.
    pub(super) async fn fly(&self, seat: &Seat, claimed: Claimed, pilot: Pilot) {
        let time = seat.config.timeout.0.min(TIME_MAX);
        let stop = Stop { token: pilot.stop().child_token(), life: Arc::clone(pilot.life()), ..Stop::after(time) };
        let _stopped = stop.token.clone().drop_guard();
        let job = JobContext::new(claimed.clone(), stop, pilot.progress(), Arc::clone(&self.cpu));
        let landed = tokio::select! {
            biased;
            landed = self.execute(seat, &claimed, &job) => landed,
            () = pilot.stop().cancelled() => {
                let grace = if pilot.is_lost() { Duration::ZERO } else { grace(time) };
                return self.watch_for_lost_threads(job, grace);
            }
            () = sleep(time) => {
                self.watch_for_lost_threads(job, grace(time));
                Err(timed_out())
            }
        };
        pilot.land(landed);
    }

    /// Waits for an execution that others may wait for, too.
    async fn wait_for(&self, seat: &Seat, claimed: &Claimed, held: &Held, asker: Asker) -> End {
        let time = self.time_for(seat, claimed);
        let over = CancellationToken::new();
        let publish = self.publish_progress(claimed, asker.progress(), over.clone());
        let wait = async {
            let end = tokio::select! {
                biased;
                landed = asker.landed() => End::Returned(landed),
                () = held.lost.cancelled() => {
                    asker.lose();
                    End::Lost
                }
                () = held.cancel.cancelled() => End::Cancelled,
                () = self.interrupt.cancelled() => End::Interrupted,
                () = sleep(time) => End::TimedOut,
            };
            // Gone at once, and not only when the end is stored.
            drop(asker);
            over.cancel();
            end
        };
        tokio::join!(wait, publish).0
    }

    async fn run(&self, seat: &Seat, claimed: &Claimed, held: &Held) -> End {
        let time = self.time_for(seat, claimed);
        let stop = Stop { life: Arc::clone(&held.life), ..Stop::after(time) };
        // Whatever ends the attempt, work on other threads is told.
        let _stopped = stop.token.clone().drop_guard();
        let (progress, told) = watch::channel(None);
        let job = JobContext::new(claimed.clone(), stop, progress, Arc::clone(&self.cpu));
        let over = CancellationToken::new();
        let publish = self.publish_progress(claimed, told, over.clone());
        let work = async {
            let end = tokio::select! {
                biased;
                returned = self.execute(seat, claimed, &job) => End::Returned(returned),
                () = held.lost.cancelled() => End::Lost,
                () = held.cancel.cancelled() => End::Cancelled,
                () = self.interrupt.cancelled() => End::Interrupted,
                () = sleep(time) => End::TimedOut,
            };
            over.cancel();
            end
        };
        let (end, ()) = tokio::join!(work, publish);
        match end {
            End::Returned(_) | End::Cached(_) => {}
            End::TimedOut | End::Cancelled | End::Interrupted => {
                self.watch_for_lost_threads(job, grace(time));
            }
            // It has been silent for long enough.
            End::Lost => self.watch_for_lost_threads(job, Duration::ZERO),
        }
        end
    }

    fn time_for(&self, seat: &Seat, claimed: &Claimed) -> Duration {
        let left = |at: u64| Duration::from_millis(at.saturating_sub(self.jobs.now_ms()));
        claimed.deadline_at.map_or(TIME_MAX, left).min(seat.config.timeout.0).min(TIME_MAX)
    }

    /// Sends some of the progress, in order, and the last of it, until the attempt is over.
    async fn publish_progress(
        &self,
        claimed: &Claimed,
        mut told: watch::Receiver<Option<Progress>>,
        over: CancellationToken,
    ) {
        let (mut last_at, mut last_done) = (None::<Instant>, 0);
        loop {
            let is_over = tokio::select! {
                biased;
                () = over.cancelled() => true,
                changed = told.changed() => changed.is_err(),
            };
            let latest = told.has_changed().unwrap_or(false) || !is_over;
            let progress = if latest { told.borrow_and_update().clone() } else { None };
            if let Some(progress) = progress {
                let moved = progress.done.saturating_sub(last_done);
                let share = progress.total.is_some_and(|total| moved * PROGRESS_SHARE >= total.max(1));
                let wait = last_at.map(|at| PROGRESS_EVERY.saturating_sub(at.elapsed())).unwrap_or_default();
                if !is_over && !share && !wait.is_zero() {
                    // Not yet; what comes meanwhile takes its place.
                    told.mark_changed();
                    let _ = timeout(wait, over.cancelled()).await;
                    continue;
                }
                last_done = progress.done;
                last_at = Some(Instant::now());
                self.courier.tell(claimed, event::progress(claimed, &progress)).await;
                // The record is behind the event by one progress at most.
                if let Err(error) = self.jobs.progress(claimed.lease, progress).await {
                    tracing::debug!(%error, "progress was not noted");
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// Runs the consumer; a panic of it is a failure. What may answer others later is kept for them.
    async fn execute(&self, seat: &Seat, claimed: &Claimed, job: &JobContext) -> Landed {
        let asked = self.asked(seat, claimed);
        let freshness = asked.as_ref().map(Asked::freshness);
        let run = AssertUnwindSafe(seat.consumer.run(job)).catch_unwind();
        let returned = job.stop().life.over(run).await;
        let outcome = returned.unwrap_or_else(|panic| Err(panicked(&*panic)))?;
        let product = Arc::new(Product::new(outcome, claimed)?);
        if let (Some(asked), Some(freshness)) = (asked, freshness) {
            self.cache.put(asked, Arc::clone(&product), freshness);
        }
        Ok(product)
    }

    /// What the end means for the job; a good result is stored first. `None`: it has no say any more.
    async fn judge(&self, claimed: &Claimed, end: End) -> Option<(How, Option<Arc<Product>>)> {
        let failure = match end {
            End::Lost => return None,
            End::Cancelled => return Some((How::Cancelled, None)),
            End::Interrupted => return Some((How::Released, None)),
            End::Returned(Ok(product)) => match self.keep(claimed, &product, None).await {
                Ok(how) => return Some((how, Some(product))),
                Err(failure) => failure,
            },
            End::Cached(Cached { product, age }) => match self.keep(claimed, &product, Some(age)).await {
                Ok(how) => return Some((how, Some(product))),
                Err(failure) => failure,
            },
            End::Returned(Err(failure)) => failure,
            End::TimedOut => timed_out(),
        };
        Some((self.policy.decide(claimed, &failure, self.jobs.now_ms(), clock::random_fraction()), None))
    }

    async fn keep(&self, claimed: &Claimed, product: &Product, age: Option<Duration>) -> Result<How, Failure> {
        let stored = product.store(&self.jobs, claimed, age).await;
        let how = stored.map_err(|error| Failure::transient(error.code().as_str(), error.to_string()))?;
        kill_point::hit(KillPoint::AfterResultBeforeAck);
        Ok(how)
    }

    /// Commits the end. `None`: the store took it neither at once nor later.
    async fn report(&self, claimed: &Claimed, how: How) -> Option<Finished> {
        let mut pauses = REPORT_PAUSES.into_iter();
        loop {
            let error = match self.jobs.finish(claimed.lease, how.clone()).await {
                Ok(finished) => return Some(finished),
                Err(error) => error,
            };
            let pause = pauses.next().filter(|_| error.is_retriable());
            let Some(pause) = pause else {
                log_unreported(claimed, &error);
                return None;
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn announce(&self, claimed: &Claimed, finished: Finished, content: Option<&Content>) {
        let settled = match finished {
            Finished::Accepted(settled) => settled,
            Finished::Fenced => {
                tracing::warn!(job = %claimed.lease.id, attempt = claimed.attempt, "the job went on without this attempt");
                return;
            }
        };
        kill_point::hit(KillPoint::AfterAckBeforePublish);
        if settled.record.state == JobState::Scheduled {
            // Its consumer may be asleep for longer than until the retry.
            self.jobs.watch().wake(&settled.record.consumer);
        }
        self.courier.deliver(&settled, content).await;
    }

    /// A thread whose work goes on for so long after the end of its attempt is replaced, so that the others' work is not
    /// held up by it.
    fn watch_for_lost_threads(&self, job: JobContext, grace: Duration) {
        if job.computing().is_empty() {
            return;
        }
        let (cpu, jobs, interrupt) = (Arc::clone(&self.cpu), self.jobs.clone(), self.interrupt.clone());
        // Not tracked: it only looks, and a drain must not wait for it.
        tokio::spawn(async move {
            let waited = timeout(grace, interrupt.cancelled()).await;
            for piece in job.computing().iter().filter(|_| waited.is_err()) {
                let replaced = cpu.give_up(piece);
                jobs.counters().threads_lost.add(usize::from(!matches!(replaced, Ok(false))));
                tracing::error!(job = %job.id(), consumer = job.consumer(), ?replaced, "a CPU thread does not end its work");
            }
        });
    }
}

/// A word for metrics.
fn outcome(finished: &Finished) -> &'static str {
    match finished {
        Finished::Fenced => "fenced",
        Finished::Accepted(settled) => match settled.record.state {
            JobState::Succeeded => "succeeded",
            JobState::Scheduled => "retried",
            JobState::Dead => "dead",
            JobState::Cancelled => "cancelled",
            JobState::Ready | JobState::Running => "released",
        },
    }
}

fn log_unreported(claimed: &Claimed, error: &JobsError) {
    let (job, attempt) = (claimed.lease.id, claimed.attempt);
    tracing::error!(%error, %job, attempt, "the end of an attempt could not be stored; the job will be run again");
}

/// How long work that was told to end may take for it.
fn grace(time: Duration) -> Duration {
    time.max(Duration::from_secs(1))
}

fn timed_out() -> Failure {
    Failure::timeout("the attempt took longer than it may; see the consumer's `timeout`")
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(panic = text, "a consumer panicked");
    // What it said may hold secrets: the log has it, the job's record does not.
    Failure::new(ErrorClass::Crash, "panicked", "the consumer panicked; the gateway's log says where")
}

/// The job's lease is prolonged while this exists and its work lives.
pub(super) struct Held {
    shared: Arc<Shared>,
    lease: Lease,
    /// Stops the attempt.
    cancel: CancellationToken,
    /// Ends it without a report.
    lost: CancellationToken,
    life: Arc<Life>,
}

impl Held {
    /// `life` is that of the work: of the job alone, or of the execution that it shares.
    pub(super) fn new(shared: Arc<Shared>, lease: Lease, life: Arc<Life>) -> Self {
        let (cancel, lost) = (CancellationToken::new(), CancellationToken::new());
        let now = tokio::time::Instant::now();
        let vigil = Vigil::new(Arc::clone(&life), now);
        let hold = Hold { cancel: cancel.clone(), lost: lost.clone(), vigil, prolonged_at: now };
        shared.held.lock().insert(lease, hold);
        Self { shared, lease, cancel, lost, life }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.lock().remove(&self.lease);
    }
}

/// What the heartbeat knows of a job in hand.
pub(super) struct Hold {
    pub(super) cancel: CancellationToken,
    pub(super) lost: CancellationToken,
    pub(super) vigil: Vigil,
    /// When the lease was taken or prolonged last.
    pub(super) prolonged_at: tokio::time::Instant,
}
