//! `Row`: everything a store keeps about a job, and the transitions. Pure: every store uses these, so that a job lives
//! the same life wherever it is kept.

use std::time::Duration;

use groupcast_protocol::{JobId, Message};

use super::new_job::{Asker, NewJob, ReplyTo};
use super::queue::{CancelOutcome, Claimed, Filter, How, Lease, LeaseState, RedriveFilter, Settled};
use super::record::{ErrorClass, JobError, JobRecord, JobState, Progress, ResultInfo};
use super::results::ResultKey;
use crate::config::consumer::Durability;

/// A job that was running when its process died, or whose lease ran out, this often is dead, however many attempts it
/// may have: what kills its process must not do so for ever.
pub(crate) const CRASHES_MAX: u32 = 3;

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: JobId,
    pub(crate) consumer: String,
    pub(crate) message: Message,
    pub(crate) reply_to: ReplyTo,
    pub(crate) durability: Durability,
    pub(crate) priority: i32,
    pub(crate) run_at: u64,
    pub(crate) deadline_at: Option<u64>,
    /// How many attempts were asked for; `max_attempts` grows when the job is released or redriven.
    pub(crate) tries: u32,
    pub(crate) max_attempts: u32,
    pub(crate) unique_key: Option<String>,
    pub(crate) coalesce_key: Option<String>,
    pub(crate) hops: u8,
    pub(crate) state: JobState,
    pub(crate) attempt: u32,
    pub(crate) crashes: u32,
    pub(crate) timeouts: u32,
    pub(crate) token: u64,
    /// On the monotonic clock of the process that holds the lease.
    pub(crate) lease_until: u64,
    pub(crate) cancel_requested: bool,
    pub(crate) enqueued_at: u64,
    pub(crate) started_at: Option<u64>,
    pub(crate) finished_at: Option<u64>,
    pub(crate) progress: Option<Progress>,
    pub(crate) error: Option<JobError>,
    pub(crate) result: Option<ResultInfo>,
    /// Where the result is, if another job stored it.
    pub(crate) shared_result: Option<ResultKey>,
    pub(crate) event_pending: bool,
    pub(crate) asker: Option<Asker>,
}

impl Row {
    /// `-> (Scheduled | Ready)`
    pub(crate) fn new(job: &NewJob, now: u64) -> Self {
        let run_at = job.run_at.unwrap_or(now);
        let tries = job.max_attempts.max(1);
        Self {
            id: job.id,
            consumer: job.consumer.clone(),
            message: job.message.clone(),
            reply_to: job.reply_to.clone(),
            durability: job.durability,
            priority: job.priority,
            run_at,
            deadline_at: job.deadline_at,
            tries,
            max_attempts: tries,
            unique_key: job.unique_key.clone(),
            coalesce_key: job.coalesce_key.clone(),
            hops: job.hops,
            state: if run_at > now { JobState::Scheduled } else { JobState::Ready },
            attempt: 0,
            crashes: 0,
            timeouts: 0,
            token: 0,
            lease_until: 0,
            cancel_requested: false,
            enqueued_at: now,
            started_at: None,
            finished_at: None,
            progress: None,
            error: None,
            result: None,
            shared_result: None,
            event_pending: false,
            asker: job.asker.clone(),
        }
    }

    /// `Ready => Running`
    pub(crate) fn claim(&mut self, now: u64, lease_until: u64) -> Claimed {
        self.state = JobState::Running;
        self.attempt += 1;
        self.token += 1;
        self.lease_until = lease_until;
        self.started_at = Some(now);
        self.progress = None;
        Claimed {
            lease: Lease { id: self.id, token: self.token, durability: self.durability },
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            crashes: self.crashes,
            timeouts: self.timeouts,
            deadline_at: self.deadline_at,
            ready_at: self.run_at,
            consumer: self.consumer.clone(),
            message: self.message.clone(),
            reply_to: self.reply_to.clone(),
            hops: self.hops,
            coalesce_key: self.coalesce_key.clone(),
            asker: self.asker.clone(),
            told_by: None,
        }
    }

    /// Whether a lease is the job's last one and still runs.
    pub(crate) fn lease_state(&self, lease: &Lease) -> LeaseState {
        match self.state {
            JobState::Running if self.token != lease.token => LeaseState::Lost,
            JobState::Running if self.cancel_requested => LeaseState::CancelRequested,
            JobState::Running => LeaseState::Held,
            JobState::Scheduled | JobState::Ready | JobState::Succeeded | JobState::Dead | JobState::Cancelled => {
                LeaseState::Lost
            }
        }
    }

    /// `Running => Running`, for longer.
    pub(crate) fn extend(&mut self, mono_now: u64, by: Duration) {
        self.lease_until = mono_now.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    /// `Running => (Succeeded | Scheduled | Ready | Dead | Cancelled)`
    pub(crate) fn finish(&mut self, how: How, now: u64) {
        match how {
            How::Succeeded(info) => {
                self.result = Some(info);
                self.end(JobState::Succeeded, None, now);
            }
            How::Shared { info, stored } => {
                self.result = Some(info);
                self.shared_result = Some(stored);
                self.end(JobState::Succeeded, None, now);
            }
            How::Retry { .. } | How::Released if self.cancel_requested => self.end(JobState::Cancelled, None, now),
            How::Retry { at, error } => {
                self.count(error.class);
                self.error = Some(error);
                self.run_at = at;
                self.state = JobState::Scheduled;
            }
            How::Dead(error) => {
                self.count(error.class);
                self.end(JobState::Dead, Some(error), now);
            }
            How::Cancelled => self.end(JobState::Cancelled, None, now),
            How::Released => {
                self.max_attempts += 1;
                self.run_at = now;
                self.state = JobState::Ready;
            }
        }
    }

    /// `Running => (Ready | Dead | Cancelled)`, when nobody has it in hand any more.
    pub(crate) fn lose(&mut self, now: u64) {
        self.crashes += 1;
        if self.cancel_requested {
            return self.end(JobState::Cancelled, None, now);
        }
        let message = format!(
            "the process that ran attempt {} ended or stood still; {} of {CRASHES_MAX} times",
            self.attempt, self.crashes
        );
        let error = JobError { code: "worker_lost".into(), message, class: ErrorClass::Crash };
        if self.crashes >= CRASHES_MAX || self.attempt >= self.max_attempts {
            return self.end(JobState::Dead, Some(error), now);
        }
        self.error = Some(error);
        self.run_at = now;
        self.state = JobState::Ready;
    }

    /// As [`Row::lose`], but not what somebody has in hand still; answers whether it is lost.
    pub(crate) fn lose_unless_held(&mut self, held: &[Lease], now: u64) -> bool {
        let is_lost = !held.iter().any(|lease| lease.id == self.id && lease.token == self.token);
        if is_lost {
            self.lose(now);
        }
        is_lost
    }

    /// `Scheduled => Ready`
    pub(crate) fn become_ready(&mut self) {
        self.state = JobState::Ready;
    }

    /// `(Scheduled | Ready) => Dead`, when its deadline has passed.
    pub(crate) fn expire(&mut self, now: u64) {
        let message = "its deadline passed before it could be run; ask again, with a later `deadline_ms`".to_owned();
        let error = JobError { code: "deadline".into(), message, class: ErrorClass::Timeout };
        self.end(JobState::Dead, Some(error), now);
    }

    /// `(Scheduled | Ready) => Cancelled`; `Running => Running`, with a request to stop.
    pub(crate) fn cancel(&mut self, now: u64) -> CancelOutcome {
        match self.state {
            JobState::Scheduled | JobState::Ready => {
                self.end(JobState::Cancelled, None, now);
                CancelOutcome::Cancelled
            }
            JobState::Running => {
                self.cancel_requested = true;
                CancelOutcome::Requested
            }
            JobState::Succeeded | JobState::Dead | JobState::Cancelled => CancelOutcome::Finished,
        }
    }

    /// `Dead => Ready`
    pub(crate) fn redrive(&mut self, now: u64) {
        self.state = JobState::Ready;
        self.run_at = now;
        self.max_attempts = self.attempt + self.tries;
        self.crashes = 0;
        self.timeouts = 0;
        // What is redriven is wanted, so the old deadline cannot stand.
        self.deadline_at = None;
        self.cancel_requested = false;
        self.finished_at = None;
    }

    /// Whether a filter means this job.
    pub(crate) fn is_redriven_by(&self, filter: &RedriveFilter) -> bool {
        let consumer = filter.consumer.as_ref().is_none_or(|name| *name == self.consumer);
        let reason = filter.reason.as_ref().is_none_or(|reason| self.failed_for(reason));
        let job = filter.job.is_none_or(|id| id == self.id);
        self.state == JobState::Dead && !self.event_pending && consumer && reason && job
    }

    /// Whether a filter of a list means this job.
    pub(crate) fn is_listed_by(&self, filter: &Filter) -> bool {
        filter.state.is_none_or(|state| state == self.state)
            && filter.consumer.as_ref().is_none_or(|name| *name == self.consumer)
            && filter.reason.as_ref().is_none_or(|reason| self.failed_for(reason))
    }

    /// Whether its error has this code or class.
    fn failed_for(&self, reason: &str) -> bool {
        self.error.as_ref().is_some_and(|error| error.code == reason || error.class.as_str() == reason)
    }

    /// Where its result is.
    pub(crate) fn result_key(&self) -> Option<ResultKey> {
        let own = ResultKey { job: self.id, attempt: self.attempt, token: self.token };
        let ended_well = self.state == JobState::Succeeded;
        ended_well.then_some(self.shared_result.unwrap_or(own))
    }

    /// What callers see.
    pub(crate) fn record(&self) -> JobRecord {
        JobRecord {
            id: self.id,
            consumer: self.consumer.clone(),
            kind: self.message.kind().to_owned(),
            state: self.state,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            enqueued_at: self.enqueued_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            progress: self.progress.clone(),
            error: self.error.clone(),
            result: self.result.clone(),
            durability: self.durability,
            trace: self.message.trace().clone(),
            asker: self.asker.clone(),
        }
    }

    /// What an event needs.
    pub(crate) fn settled(&self) -> Settled {
        Settled {
            record: self.record(),
            reply_to: self.reply_to.clone(),
            hops: self.hops,
            result: self.result_key(),
            retry_at: (self.state == JobState::Scheduled).then_some(self.run_at),
            told_by: None,
        }
    }

    fn count(&mut self, class: ErrorClass) {
        match class {
            ErrorClass::Crash => self.crashes += 1,
            ErrorClass::Timeout => self.timeouts += 1,
            ErrorClass::Transient | ErrorClass::Permanent => {}
        }
    }

    fn end(&mut self, state: JobState, error: Option<JobError>, now: u64) {
        self.state = state;
        self.error = error;
        self.finished_at = Some(now);
        self.event_pending = self.reply_to != ReplyTo::Nobody;
    }
}
