//! Where a message goes: to the sockets of its group, to the consumers that claim it, or to both.
//!
//! HTTP, WebSocket and consumers all send by this one path, so that all keep the same rules.

mod step;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use groupcast_channel_layer::broker::BrokerError;
use groupcast_channel_layer::broker::foreign::{Intake, Taken};
use groupcast_channel_layer::{ChannelLayer, LayerError, Sent};
use groupcast_protocol::frame::{Accepted, AcceptedJob};
use groupcast_protocol::raw_object::RawObject;
use groupcast_protocol::{ChannelName, ErrorCode, GroupName, JobId, Message, MessageId, Position, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::step::Step;
use crate::auth::{By, Caller};
use crate::clock;
use crate::config::Mode;
use crate::consumer::{Claims, EVENT_PREFIX, Outlet, OutletError};
use crate::idempotency::{self, KeyOf};
use crate::jobs::{CancelOutcome, Enqueued, Jobs, NewJob, Once, ReplyTo, Tick, Told};
use crate::kill_point::{self, KillPoint};
use crate::telemetry::{Scope, Tracer};

/// Sends messages and asks queries. A cheap handle.
#[derive(Clone)]
pub struct Dispatch {
    layer: ChannelLayer,
    claims: Arc<Claims>,
    jobs: Jobs,
    tracer: Tracer,
}

impl Dispatch {
    /// Brings the layer and the consumers together.
    pub fn new(layer: ChannelLayer, claims: Arc<Claims>, jobs: Jobs) -> Self {
        Self { layer, claims, jobs, tracer: Tracer::off() }
    }

    /// The same with a record of what is sent.
    #[must_use]
    pub(crate) fn traced_by(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Begins spans.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// `group_send` of a client or service: stored as jobs where consumers claim it, otherwise sent to the group.
    ///
    /// # Errors
    /// `forbidden` for a type that only consumers send, for the group of a live query and for what the caller may not do, `unknown_query` and `bad_params` for work that cannot be done,
    /// `overloaded`, `storage_full` and `unavailable` when it could not be taken. Nobody has got anything then.
    /// `idempotency_conflict` when the key is kept with another body.
    pub async fn group_send(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<KeyOf>,
    ) -> Result<Accepted, Refusal> {
        Self::check(by, group, &message)?;
        self.route(by, group, message.with_trace(by.trace.clone()), key).await
    }

    /// Whether somebody may send a message to a group.
    ///
    /// # Errors
    /// `forbidden`, as [`Dispatch::group_send`].
    pub(crate) fn check(by: &By, group: &GroupName, message: &Message) -> Result<(), Refusal> {
        refuse_job_events(&by.caller, message)?;
        if group.is_of_live_query() {
            return Err(Refusal::group_of_live_query(group));
        }
        by.caller.check_send(group, message.kind())
    }

    /// Whether consumers claim a message of this group.
    pub fn is_work(&self, group: &GroupName, message: &Message) -> bool {
        self.claims.is_work(group, message)
    }

    /// Whether the group's sockets see a message: then it has its place in the sender's order.
    pub fn is_shown(&self, group: &GroupName, message: &Message) -> bool {
        self.claims.is_shown(group, message)
    }

    /// `send` to one channel.
    ///
    /// # Errors
    /// `forbidden` for a type that only consumers send, `channel_full`, `not_found` for a connection that is gone.
    pub async fn send(&self, by: &By, channel: &ChannelName, message: Message) -> Result<MessageId, Refusal> {
        Self::check_channel(by, channel, &message)?;
        self.layer.send(channel, message.with_trace(by.trace.clone())).await.map_err(refusal)?;
        Ok(clock::new_id())
    }

    /// Whether somebody may send a message to a channel.
    ///
    /// # Errors
    /// `forbidden`, as [`Dispatch::send`].
    pub(crate) fn check_channel(by: &By, channel: &ChannelName, message: &Message) -> Result<(), Refusal> {
        refuse_job_events(&by.caller, message)?;
        by.caller.check_send_to_channel(channel, message.kind())
    }

    /// Sends the message of a schedule's tick as a client's would be. `None` when the tick was sent before, by whichever gateway.
    ///
    /// # Errors
    /// As [`Dispatch::group_send`]. The tick is not noted then.
    pub(crate) async fn tick(
        &self,
        tick: Tick,
        group: &GroupName,
        message: Message,
    ) -> Result<Option<Accepted>, Refusal> {
        let claimed = self.claims.claim(&By::gateway(), group, &message, ReplyTo::Group(group.clone()))?;
        let shown = claimed.is_empty() || claimed.iter().any(|claimed| claimed.mode == Mode::Both);
        let jobs = claimed.into_iter().map(|claimed| claimed.job).collect();
        let Some(stored) = self.jobs.tick(tick, jobs).await? else { return Ok(None) };
        let jobs = stored.into_iter().map(accepted_job).collect();
        if !shown {
            return Ok(Some(Accepted { jobs, ..accepted(Some(group.clone()), self.count(group)) }));
        }
        let sent = self.show(group, &message).await;
        Ok(Some(at(sent.position, Accepted { jobs, ..accepted(Some(group.clone()), sent.members) })))
    }

    /// Asks a named query as a job whose events go to `reply`.
    ///
    /// # Errors
    /// `forbidden`, `unknown_query`, `bad_params`, and what storing a job can meet.
    pub async fn query(
        &self,
        by: &By,
        name: &str,
        params: &RawObject,
        reply: ReplyTo,
        key: Option<KeyOf>,
    ) -> Result<Accepted, Refusal> {
        by.caller.check_query(name)?;
        let params: &RawValue = serde_json::from_str(params.as_str())
            .map_err(|error| Refusal::new(ErrorCode::BadParams, format!("the parameters are not JSON: {error}")))?;
        let job = self.claims.query(by, name, Some(params), reply)?;
        let (accepted, _) = self.store(accepted(None, None), vec![job], key).await?;
        Ok(accepted)
    }

    /// Cancels a job of the caller's.
    ///
    /// # Errors
    /// `not_found`, also for a job that is somebody else's; and `finished`.
    pub async fn cancel(&self, by: &By, job: JobId) -> Result<(), Refusal> {
        let absent = || Refusal::new(ErrorCode::NotFound, format!("there is no job {job}"));
        if !by.caller.owns(None) {
            let record = self.jobs.get(job).await?;
            record.filter(|record| by.caller.owns(record.asker.as_ref())).ok_or_else(absent)?;
        }
        match self.jobs.cancel(job).await? {
            CancelOutcome::Cancelled | CancelOutcome::Requested => Ok(()),
            CancelOutcome::Finished => {
                Err(Refusal::new(ErrorCode::Finished, format!("job {job} has ended already; nothing was cancelled")))
            }
            CancelOutcome::NotFound => Err(absent()),
        }
    }

    /// Takes a message in, as a step of its trace if that is recorded.
    async fn route(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<KeyOf>,
    ) -> Result<Accepted, Refusal> {
        let message = Scope::mark(message);
        let Some(step) = Step::publish(&self.tracer, group, &message) else {
            return self.take_in(by, group, message, key).await;
        };
        let taken = self.take_in(by, group, message.with_trace(step.trace()), key).await;
        step.end(&taken);
        taken
    }

    async fn take_in(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<KeyOf>,
    ) -> Result<Accepted, Refusal> {
        let claimed = self.claims.claim(by, group, &message, ReplyTo::Group(group.clone()))?;
        if claimed.is_empty() {
            if let Some(told) = self.recall(group, key).await? {
                return told;
            }
            let sent = self.layer.group_send(group, &message).await.map_err(refusal)?;
            return Ok(at(sent.position, accepted(Some(group.clone()), sent.members)));
        }
        let shown = claimed.iter().any(|claimed| claimed.mode == Mode::Both);
        let jobs = claimed.into_iter().map(|claimed| claimed.job).collect();
        let accepted = accepted(Some(group.clone()), self.count(group));
        let (accepted, is_repeat) = self.store(accepted, jobs, key).await?;
        if is_repeat || !shown {
            return Ok(accepted);
        }
        let sent = self.show(group, &message).await;
        Ok(at(sent.position, Accepted { members: sent.members, ..accepted }))
    }

    /// What a message that is no work is told because its key is one of work in the same group.
    async fn recall(
        &self,
        group: &GroupName,
        key: Option<KeyOf>,
    ) -> Result<Option<Result<Accepted, Refusal>>, Refusal> {
        let Some(KeyOf { name, body }) = key.filter(|_| self.claims.listens(group)) else { return Ok(None) };
        let told = self.jobs.recall(name, body).await?;
        Ok(told.map(|told| answer(accepted(Some(group.clone()), self.count(group)), told).map(|told| told.0)))
    }

    /// The same for all gateways that claim the same messages.
    pub(crate) fn claims_digest(&self) -> String {
        self.claims.digest()
    }

    /// Groups whose messages consumers claim, by their exact names.
    pub(crate) fn claimed_groups(&self) -> Vec<GroupName> {
        self.claims.groups()
    }

    /// Stores the work of another program, once by its id; says whether the group's sockets are to see it, too.
    async fn keep_foreign(&self, group: &GroupName, message: &Message, id: &[u8]) -> Result<bool, Refusal> {
        let claimed = self.claims.claim(&By::gateway(), group, message, ReplyTo::Group(group.clone()))?;
        let shown = claimed.is_empty() || claimed.iter().any(|claimed| claimed.mode == Mode::Both);
        let jobs = claimed.into_iter().map(|claimed| claimed.job).collect();
        let key = KeyOf::foreign(group.as_str(), id, message.raw());
        self.store(accepted(Some(group.clone()), None), jobs, Some(key)).await?;
        Ok(shown)
    }

    /// Shows stored work, or a tick that is noted, to the group's sockets. That they may not have seen it is no reason to refuse what is stored:
    /// the sender would send it again.
    async fn show(&self, group: &GroupName, message: &Message) -> Sent {
        self.layer.group_send(group, message).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "work was stored and could not be shown to its group");
            Sent { members: self.count(group), position: None }
        })
    }

    /// How many are in a group; unknown when other nodes may have some.
    fn count(&self, group: &GroupName) -> Option<u64> {
        let count = || self.layer.group_len(group).unwrap_or(0);
        (!self.layer.is_shared()).then(count)
    }

    /// Stores jobs, with their key if there is one. Answers what was accepted, and whether it is a repeat's answer.
    async fn store(
        &self,
        accepted: Accepted,
        jobs: Vec<NewJob>,
        key: Option<KeyOf>,
    ) -> Result<(Accepted, bool), Refusal> {
        let told = match key {
            None => Told::Stored(self.jobs.enqueue(jobs).await?),
            Some(KeyOf { name, body }) => {
                let once = Once { name, body, answer: Kept::of(&accepted).to_bytes() };
                self.jobs.enqueue_once(once, jobs).await?
            }
        };
        kill_point::hit(KillPoint::AfterSyncBefore202);
        answer(accepted, told)
    }
}

/// What is kept of an answer beside its jobs.
#[derive(Serialize, Deserialize)]
struct Kept {
    message_id: MessageId,
    members: Option<u64>,
}

impl Kept {
    fn of(accepted: &Accepted) -> Self {
        Self { message_id: accepted.message_id, members: accepted.members }
    }

    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has string keys and whole numbers").into()
    }
}

/// The answer to a request whose jobs are stored, and whether it is a repeat's.
fn answer(accepted: Accepted, told: Told) -> Result<(Accepted, bool), Refusal> {
    match told {
        Told::Stored(jobs) => {
            let existing = !jobs.is_empty() && jobs.iter().all(|job| job.existing);
            Ok((Accepted { jobs: jobs.into_iter().map(accepted_job).collect(), existing, ..accepted }, false))
        }
        Told::Repeated { answer, jobs } => {
            let kept = serde_json::from_slice(&answer).unwrap_or(Kept::of(&accepted));
            let jobs = jobs.into_iter().map(accepted_job).collect();
            let first = Accepted { message_id: kept.message_id, members: kept.members, jobs, ..accepted };
            Ok((idempotency::repeated(first), true))
        }
        Told::Conflict => Err(idempotency::conflict()),
    }
}

fn accepted_job(job: Enqueued) -> AcceptedJob {
    AcceptedJob { id: job.id, consumer: job.consumer, durability: job.durability.into(), existing: job.existing }
}

/// What Django sends by its own channel layer goes the way of a client's message, except that nobody waits for the answer:
/// what cannot be done is told in the log.
impl Intake for Dispatch {
    fn take<'a>(
        &'a self,
        group: &'a GroupName,
        message: &'a Message,
        id: &'a [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = Taken> + Send + 'a>> {
        Box::pin(async move {
            if refuse_job_events(&Caller::Everybody, message).is_err() || group.is_of_live_query() {
                tracing::warn!(%group, kind = message.kind(), "a message of another program was dropped: only consumers send such");
                return Taken::Done;
            }
            if !self.claims.is_work(group, message) {
                return Taken::Show;
            }
            match self.keep_foreign(group, message, id).await {
                Ok(true) => Taken::Show,
                Ok(false) => Taken::Done,
                Err(refusal) if refusal.code.is_retriable() => {
                    tracing::warn!(%group, error = refusal.message, "work of another program waits at the broker");
                    Taken::Later
                }
                Err(refusal) => {
                    tracing::warn!(%group, error = refusal.message, "work of another program was dropped: it cannot be done");
                    Taken::Done
                }
            }
        })
    }
}

/// Consumers send their events by the same path; another consumer may claim them (`chain = true`).
impl Outlet for Dispatch {
    fn publish(&self, to: ReplyTo, message: Message) -> BoxFuture<'_, Result<(), OutletError>> {
        Box::pin(async move {
            let sent = match &to {
                // Only live queries send there. No job that is taken in has such a target; one from elsewhere has nobody to tell.
                ReplyTo::Group(group) if group.is_of_live_query() => {
                    tracing::warn!(%group, "an event for the group of a live query was not sent");
                    Ok(())
                }
                ReplyTo::Group(group) => self.route(&By::gateway(), group, message, None).await.map(|_| ()),
                ReplyTo::Channel(channel) => self.layer.send(channel, message).await.map_err(refusal),
                ReplyTo::Nobody => Ok(()),
            };
            match sent {
                Ok(()) => Ok(()),
                // Who asked has gone; there is nobody left to tell.
                Err(refusal) if refusal.code == ErrorCode::NotFound => Ok(()),
                Err(refusal) => Err(OutletError(refusal.message)),
            }
        })
    }
}

/// Consumers of Channels know an event by a method, in whose name dots are underscores: `job_result` of a client would be
/// `job.result` to them. What services call so is theirs to know.
const EVENT_METHODS: [&str; 6] =
    ["job_started", "job_progress", "job_result", "job_retry", "job_failed", "job_cancelled"];

fn refuse_job_events(caller: &Caller, message: &Message) -> Result<(), Refusal> {
    let is_client = matches!(caller, Caller::User(_) | Caller::Anonymous(_));
    let kind = message.kind();
    if kind.starts_with(EVENT_PREFIX) || is_client && EVENT_METHODS.contains(&kind) {
        let why = format!(
            "type `{}` is an event of a job, and only consumers send those; choose another type",
            message.kind()
        );
        return Err(Refusal::new(ErrorCode::Forbidden, why));
    }
    Ok(())
}

fn accepted(group: Option<GroupName>, members: Option<u64>) -> Accepted {
    Accepted {
        message_id: clock::new_id(),
        group,
        members,
        existing: false,
        jobs: Vec::new(),
        offset: None,
        epoch: None,
    }
}

fn at(position: Option<Position>, accepted: Accepted) -> Accepted {
    let (epoch, offset) = position.map(|position| (position.epoch.into(), position.offset)).unzip();
    Accepted { epoch, offset, ..accepted }
}

/// What a caller is told when the layer refuses.
pub fn refusal(error: LayerError) -> Refusal {
    let code = match error {
        LayerError::ChannelFull { .. } => ErrorCode::ChannelFull,
        LayerError::Gone { .. } => ErrorCode::NotFound,
        LayerError::NotYours { .. } => ErrorCode::Forbidden,
        LayerError::TooManyChannels { .. }
        | LayerError::OutOfRoom { .. }
        | LayerError::Overloaded { .. }
        | LayerError::Busy { .. } => ErrorCode::Overloaded,
        LayerError::Broker(BrokerError::Unwritable { .. }) => ErrorCode::InvalidMessage,
        LayerError::Broker(_) => ErrorCode::Unavailable,
    };
    Refusal::new(code, error.to_string())
}
