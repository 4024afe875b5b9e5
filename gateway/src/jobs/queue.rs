//! `WorkQueue`: the contract of every store of jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::BoxFuture;
use groupcast_protocol::{JobId, Message};
use serde::Serialize;
use utoipa::ToSchema;

use super::carried::Carried;
use super::error::JobsError;
use super::new_job::{Asker, Enqueued, NewJob, ReplyTo};
use super::once::{Once, Told};
use super::record::{ErrorClass, JobError, JobRecord, JobState, Progress, ResultInfo, time};
use super::results::ResultKey;
use crate::config::consumer::Durability;

/// What every call gives back.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, JobsError>>;

/// A store of jobs: what is to be done, what is being done, what came of it.
///
/// - **Batches.** Every call takes many and answers in the order asked; one call is one commit at most, and a store may
///   commit several calls together.
/// - **Acceptance.** `enqueue` answers after the commit at the durability that each job asks for, or with an error and
///   nothing stored.
/// - **Fencing.** A claim gives a [`Lease`] with a token. `extend`, `progress` and `finish` do something only while
///   that token is the job's last one; later they answer `Lost` or [`Finished::Fenced`] and change nothing.
/// - **Attempts.** `claim` adds one to `attempt`, and nothing ever takes one away.
/// - **Lost leases.** A job whose lease ran out and is not among those that the one who asks holds, or whose process
///   died, is released by the store: `crashes` goes up by one, and the job is dead (class `crash`) at the third, or when it has no attempt left.
/// - **Heartbeats.** Whoever runs a job extends its lease only while the work shows life. What `ClaimAsk::held` and `tidy`
///   are told is in hand is alive, too: work that hangs is protected by nobody and loses its lease like that of a dead process.
/// - **Events.** A commit that ends a job sets its event as pending. `event_sent` clears it; `events_pending` lists
///   what was not cleared, also after a restart. Where several processes share a store, each lists what it has to tell:
///   of the jobs that it took in, and of those whose process has gone.
/// - **Pauses.** `pause` and `resume` are commits like any other; a paused consumer's `claim` hands out nothing and says
///   so, and everything else goes on: enqueueing, what runs, deadlines.
/// - **The bound.** When `max_queued` jobs wait, `enqueue` refuses with [`JobsError::QueueFull`].
/// - **Time.** Each call has a deadline of its own; a call that gave up may still happen.
pub trait WorkQueue: Send + Sync + 'static {
    /// Stores jobs. A live job of the same consumer and unique key is answered in place of a new one.
    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'_, Vec<Enqueued>>;

    /// Stores the jobs of a request that has an idempotency key, and the key with its answer, in one commit; or tells what
    /// the first request with this key was told. Keys are kept for a day, and removed by `prune`.
    fn enqueue_once(&self, once: Once, jobs: Vec<NewJob>) -> Answer<'_, Told>;

    /// What a request with this key and body would be told, if there was one with the key. Stores nothing.
    fn recall(&self, name: [u8; 32], body: [u8; 32]) -> Answer<'_, Option<Told>>;

    /// Notes that a schedule has ticked and stores the jobs of the tick, in one commit. `None`, and nothing stored, when this tick
    /// or a later one is noted: whoever comes second has nothing to do.
    fn tick(&self, tick: Tick, jobs: Vec<NewJob>) -> Answer<'_, Option<Vec<Enqueued>>>;

    /// The last tick of each schedule that ever ticked.
    fn ticks(&self) -> Answer<'_, Vec<Tick>>;

    /// Refuses with [`JobsError::QueueFull`] when so many jobs more would be refused at this moment.
    fn has_room(&self, jobs: usize) -> Answer<'_, ()>;

    /// Hands out ready jobs of one consumer: higher priority first, then older first. Beyond them, as riders, those that
    /// ask for the same as one that is executed already, or as one of them: older first.
    fn claim(&self, ask: ClaimAsk) -> Answer<'_, ClaimBatch>;

    /// Ends or releases what its time did, of all consumers: deadlines that passed, leases that are lost and not held by
    /// the one who asks. A claim does the same on the way. Answers whether there was any.
    fn tidy(&self, held: Vec<Lease>) -> Answer<'_, bool>;

    /// Prolongs leases from the present moment.
    fn extend(&self, leases: Vec<Lease>, by: Duration) -> Answer<'_, Vec<LeaseState>>;

    /// Notes how far running jobs are.
    fn progress(&self, notes: Vec<(Lease, Progress)>) -> Answer<'_, Vec<LeaseState>>;

    /// Hands an event of a running job to the process that tells those who asked. A hint: it may be lost. A store that one
    /// process alone has has nobody to hand it to.
    fn carry(&self, to: &str, carried: Carried) {
        let _ = (to, carried);
    }

    /// Ends attempts.
    fn finish(&self, ends: Vec<Finish>) -> Answer<'_, Vec<Finished>>;

    /// Cancels waiting jobs at once, and asks for the cancellation of running ones.
    fn cancel(&self, ids: Vec<JobId>) -> Answer<'_, Vec<CancelOutcome>>;

    /// Reads records.
    fn get(&self, ids: Vec<JobId>) -> Answer<'_, Vec<Option<JobRecord>>>;

    /// Lists records, newest first: those that are older than `after`.
    fn list(&self, filter: Filter, after: Option<JobId>, limit: usize) -> Answer<'_, Vec<JobRecord>>;

    /// Makes dead jobs ready again, oldest first, with as many further attempts as they had; answers their consumers. A
    /// job whose `job.failed` is still to be sent stays dead: the event would be lost.
    fn redrive(&self, filter: RedriveFilter) -> Answer<'_, Vec<String>>;

    /// Ended jobs whose event was not sent, oldest first.
    fn events_pending(&self, limit: usize) -> Answer<'_, Vec<Settled>>;

    /// Clears pending events; only where the job's attempt and state are still the ones given.
    fn event_sent(&self, sent: Vec<Sent>) -> Answer<'_, ()>;

    /// Which of these results belong to a job that ended well, be it the one that made them or one that shares them.
    fn refers_to(&self, keys: Vec<ResultKey>) -> Answer<'_, Vec<bool>>;

    /// The result that a job ended with.
    fn result_of(&self, id: JobId) -> Answer<'_, Option<(JobRecord, Option<ResultKey>)>>;

    /// Removes at most `limit` jobs that ended before a time and whose event was sent; answers how many. Removes, besides,
    /// keys whose day is over.
    fn prune(&self, ended_before_ms: u64, limit: usize) -> Answer<'_, u64>;

    /// How many jobs each consumer has in each live state.
    fn depths(&self) -> Answer<'_, Vec<Depth>>;

    /// Lets consumers claim nothing until they are resumed, also after a restart. Idempotent; a store need not know the
    /// names.
    fn pause(&self, consumers: Vec<String>) -> Answer<'_, ()>;

    /// Lets consumers claim again. Idempotent.
    fn resume(&self, consumers: Vec<String>) -> Answer<'_, ()>;

    /// The consumers that are paused, by name.
    fn paused(&self) -> Answer<'_, Vec<String>>;

    /// Why jobs are dead: at most `limit` reasons, those of most jobs first.
    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<DeadLetters>>;

    /// What the store can do that others cannot.
    fn capabilities(&self) -> Capabilities;

    /// Answers when the store works.
    fn ready(&self) -> Answer<'_, ()>;

    /// Stops the store's threads after what they have been given. Idempotent; later calls are refused.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What differs between stores in a way that who uses one has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether other processes work on it, too: what is found there may be in their hands.
    pub is_shared: bool,
}

/// One tick of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The name of the schedule.
    pub schedule: String,
    /// When it was due, in milliseconds since 1970.
    pub due_ms: u64,
}

/// What a consumer asks for.
#[derive(Debug, Clone, Default)]
pub struct ClaimAsk {
    /// Whose jobs.
    pub consumer: String,
    /// At most this many.
    pub max: usize,
    /// How long the claim holds without being extended.
    pub lease: Duration,
    /// What the process works on at this moment, and what shows life. These leases are not lost, however late their heartbeat is: what held
    /// the heartbeat up may have been the store itself.
    pub held: Vec<Lease>,
    /// The coalesce keys of what this process executes for the consumer at this moment.
    pub riding: Vec<String>,
    /// At most this many riders.
    pub riders_max: usize,
}

/// What a consumer gets.
#[derive(Debug, Default)]
pub struct ClaimBatch {
    /// The jobs, to be run in this order.
    pub jobs: Vec<Claimed>,
    /// Jobs beside those: the coalesce key of each is one of [`ClaimAsk::riding`] or of a job in `jobs`.
    pub riders: Vec<Claimed>,
    /// When the consumer's next scheduled job is due, in milliseconds since 1970.
    pub next_at: Option<u64>,
    /// Whether jobs ended by themselves on the way (deadline, crashes), so that events wait to be sent.
    pub ended: bool,
    /// Whether the consumer is paused; then there are no jobs.
    pub paused: bool,
}

/// The keys by which riders are claimed: of what is executed already, and of the jobs just claimed; each once.
pub(crate) fn riding_keys<'a>(riding: &'a [String], jobs: &'a [Claimed]) -> BTreeSet<&'a str> {
    riding.iter().chain(jobs.iter().filter_map(|claimed| claimed.coalesce_key.as_ref())).map(String::as_str).collect()
}

/// A job in the hands of a consumer.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to report about it.
    pub lease: Lease,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// How often it crashed.
    pub crashes: u32,
    /// How often it took too long.
    pub timeouts: u32,
    /// When it is worth nothing any more, in milliseconds since 1970.
    pub deadline_at: Option<u64>,
    /// Since when it could be run, in milliseconds since 1970.
    pub ready_at: u64,
    /// The consumer it is for.
    pub consumer: String,
    /// The message that asked for it.
    pub message: Message,
    /// Who gets its events.
    pub reply_to: ReplyTo,
    /// How many jobs it is away from a client's message.
    pub hops: u8,
    /// What it asks for; equal ones may share an execution.
    pub coalesce_key: Option<String>,
    /// Whose it is.
    pub asker: Option<Asker>,
    /// The process that tells those who asked, if it is another one: the one that took the job in.
    pub told_by: Option<String>,
}

impl Claimed {
    /// Where the result of this attempt is kept.
    pub(crate) fn result_key(&self) -> ResultKey {
        ResultKey { job: self.lease.id, attempt: self.attempt, token: self.lease.token }
    }
}

/// The right to report about one attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Goes up with each claim; only the last one counts.
    pub token: u64,
    /// At which level the job is kept.
    pub durability: Durability,
}

/// Whether a lease still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// It does.
    Held,
    /// It does, and somebody wants the job cancelled.
    CancelRequested,
    /// The job went on without this attempt.
    Lost,
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The attempt.
    pub lease: Lease,
    /// How it ended.
    pub how: How,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum How {
    /// Well. The result is stored already, under the job, attempt and token.
    Succeeded(ResultInfo),
    /// Well, by an execution that served other jobs too. The result is stored already, once for all of them.
    Shared {
        /// As this job's record says it.
        info: ResultInfo,
        /// Where the result is: in the same store, under whichever job stored it.
        stored: ResultKey,
    },
    /// Badly; to be tried again at a time. Becomes `cancelled` if that was asked for meanwhile.
    Retry {
        /// In milliseconds since 1970.
        at: u64,
        /// Why.
        error: JobError,
    },
    /// Badly, for good.
    Dead(JobError),
    /// On request.
    Cancelled,
    /// Not at all: the gateway drains. Ready again; the attempt stays counted, and one more is allowed for it.
    Released,
}

/// What the store made of a [`Finish`].
#[derive(Debug, Clone)]
pub enum Finished {
    /// It is committed.
    Accepted(Box<Settled>),
    /// Too late: the job went on without this attempt, or ended. Nothing was changed.
    Fenced,
}

/// A job after a commit, with what its event needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The record.
    pub record: JobRecord,
    /// Who gets the event.
    pub reply_to: ReplyTo,
    /// How many jobs it is away from a client's message.
    pub hops: u8,
    /// Where its result is.
    pub result: Option<ResultKey>,
    /// When it is tried again, in milliseconds since 1970.
    pub retry_at: Option<u64>,
    /// The process that tells those who asked, if it is another one: the one that took the job in.
    pub told_by: Option<String>,
}

/// A terminal event that was sent. A job that is redriven and then cancelled ends twice at one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The job.
    pub id: JobId,
    /// Its attempt then.
    pub attempt: u32,
    /// How it had ended.
    pub state: JobState,
}

impl From<&JobRecord> for Sent {
    fn from(record: &JobRecord) -> Self {
        Self { id: record.id, attempt: record.attempt, state: record.state }
    }
}

/// What a cancellation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The job was waiting and is cancelled.
    Cancelled,
    /// The job is running and will be cancelled.
    Requested,
    /// The job had ended before.
    Finished,
    /// There is no such job.
    NotFound,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those whose error has this code or class.
    pub reason: Option<String>,
}

/// Which dead jobs to redrive.
#[derive(Debug, Clone, Default)]
pub struct RedriveFilter {
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those whose error has this code or class.
    pub reason: Option<String>,
    /// Only this one.
    pub job: Option<JobId>,
    /// At most this many.
    pub limit: usize,
    /// Count only.
    pub dry_run: bool,
}

/// How much a consumer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// The consumer.
    pub consumer: String,
    /// `scheduled`, `ready` or `running`.
    pub state: JobState,
    /// How many jobs.
    pub jobs: u64,
    /// When the oldest of them was stored, in milliseconds since 1970.
    pub oldest_at: u64,
}

/// The dead jobs of a consumer that have one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetters {
    /// The consumer.
    pub consumer: String,
    /// The code of their error.
    pub code: String,
    /// Its class.
    pub class: ErrorClass,
    /// How many.
    pub jobs: u64,
    /// When the first of them died.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String)]
    pub oldest: u64,
    /// When the last of them died.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String)]
    pub newest: u64,
}

impl DeadLetters {
    /// Adds those of another store.
    pub(super) fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.oldest = self.oldest.min(other.oldest);
        self.newest = self.newest.max(other.newest);
    }
}
