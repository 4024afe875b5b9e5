//! Carries out a connection's commands: in order, and as many at once as order allows.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use groupcast_protocol::frame::{Accepted, Command};
use groupcast_protocol::session::{Answer, Session, Ticket};
use groupcast_protocol::{ErrorCode, GroupName, JobId, Position, Refusal};

use crate::app::App;
use crate::auth::By;
use crate::history::{self, Ask};
use crate::jobs::ReplyTo;

/// What became of a command.
type Outcome = (Ticket, Result<Answer, Refusal>);

type Running = Pin<Box<dyn Future<Output = (bool, Outcome)>>>;

/// The commands of one connection that are under way. At most as many as the session lets in flight.
pub(super) struct Commands {
    app: App,
    waiting: VecDeque<(By, Ticket, Command)>,
    running: FuturesUnordered<Running>,
    /// A message is on its way to the layer. The next one waits for it, so that one sender's order is kept; jobs
    /// that are being stored are not waited for, so that they share a commit.
    publishing: bool,
    /// The latest queries that only this connection waits for: when it goes, nobody wants them any more.
    asked: VecDeque<JobId>,
    /// Commands that make jobs: until `accepted` has left, no event may.
    working: VecDeque<Ticket>,
}

/// Queries of one connection that are cancelled when it goes. Of more, the oldest have most likely ended.
const ASKED_MAX: usize = 64;

impl Commands {
    pub(super) fn new(app: App) -> Self {
        Self {
            app,
            waiting: VecDeque::new(),
            running: FuturesUnordered::new(),
            publishing: false,
            asked: VecDeque::new(),
            working: VecDeque::new(),
        }
    }

    /// Whether nothing is under way, nor to be remembered.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.working.is_empty() && self.asked.is_empty()
    }

    /// Whether all but answers has to wait: a command that makes jobs has not been answered.
    pub(super) fn hold(&mut self, session: &Session) -> bool {
        self.working.retain(|ticket| session.is_open(*ticket));
        !self.working.is_empty()
    }

    /// Takes a command of whoever the connection is at this moment; its outcome comes by [`Commands::poll_next`].
    pub(super) fn start(&mut self, by: By, ticket: Ticket, command: Command) {
        if self.makes_jobs(&command) {
            self.working.push_back(ticket);
        }
        self.waiting.push_back((by, ticket, command));
        self.start_waiting();
    }

    /// The next outcome; pending, and nobody woken, while nothing is under way.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match Pin::new(&mut self.running).poll_next(cx) {
            Poll::Ready(Some((publishing, outcome))) => {
                self.remember(&outcome);
                if publishing {
                    self.publishing = false;
                    self.start_waiting();
                }
                Poll::Ready(outcome)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// What is left to do when the connection has gone: its interactive queries are cancelled.
    pub(super) fn leave(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        let asked = std::mem::take(&mut self.asked);
        if asked.is_empty() {
            return None;
        }
        let app = self.app.clone();
        Some(async move {
            for job in asked {
                // Most have ended; that is no error, and nobody is there to be told.
                drop(app.dispatch.cancel(&By::gateway(), job).await);
            }
        })
    }

    fn remember(&mut self, (_, outcome): &Outcome) {
        // Only a query has no group: a group's jobs are for the group, and are finished whoever leaves.
        if let Ok(Answer::Accepted(Accepted { group: None, jobs, .. })) = outcome {
            self.asked.extend(jobs.iter().map(|job| job.id));
            let excess = self.asked.len().saturating_sub(ASKED_MAX);
            self.asked.drain(..excess);
        }
    }

    fn start_waiting(&mut self) {
        while !self.publishing
            && let Some((by, ticket, command)) = self.waiting.pop_front()
        {
            self.publishing = self.publishes(&by, &command);
            let (publishing, app) = (self.publishing, self.app.clone());
            let run = async move { (publishing, (ticket, execute(&app, &by, command).await)) };
            self.running.push(Box::pin(run));
        }
    }

    /// What hooks are asked about goes one by one, too: its order is the sender's, and nobody has more than one turn at once.
    fn publishes(&self, by: &By, command: &Command) -> bool {
        match command {
            Command::GroupSend { group, message, .. } => {
                self.app.dispatch.is_shown(group, message) || self.app.hooks.asks_message(by, group, message)
            }
            _ => false,
        }
    }

    fn makes_jobs(&self, command: &Command) -> bool {
        match command {
            Command::GroupSend { group, message, .. } => self.app.dispatch.is_work(group, message),
            Command::Query { .. } => true,
            _ => false,
        }
    }
}

async fn execute(app: &App, by: &By, command: Command) -> Result<Answer, Refusal> {
    match command {
        Command::GroupSend { group, message, idempotency_key } => {
            app.group_send(by, &group, message, idempotency_key.as_deref()).await.map(Answer::Accepted)
        }
        Command::Query { name, params } => {
            let reply = by.channel.clone().map_or(ReplyTo::Nobody, ReplyTo::Channel);
            app.dispatch.query(by, &name, &params, reply, None).await.map(Answer::Accepted)
        }
        Command::Cancel { job } => app.dispatch.cancel(by, job).await.map(|()| Answer::Cancelled),
        Command::Members { group } => {
            by.caller.check_subscribe(&group)?;
            Ok(members(app, &group))
        }
        Command::History { group, after, limit } => {
            by.caller.check_subscribe(&group)?;
            app.limits.memory().check()?;
            history(app, &group, after.as_ref(), limit).await
        }
        // The driver has the shard and the connection's rights, and does these itself.
        Command::Subscribe { .. }
        | Command::SubscribeQuery { .. }
        | Command::Unsubscribe { .. }
        | Command::Authenticate { .. } => {
            Err(Refusal::new(ErrorCode::Internal, "a command did not reach the driver of its connection"))
        }
    }
}

/// Members in one answer; the rest is read over HTTP, page by page.
const MEMBERS_PAGE: usize = 1000;

/// The most messages in one answer; who asks for more gets `next`.
const HISTORY_LIMIT_MAX: usize = 1000;
/// Messages in one answer, unless asked for fewer; `next` says where to go on.
const HISTORY_PAGE: u64 = 100;
/// Bytes of one answer: as much as other answers may wait beside it. Larger pages are read over HTTP.
const HISTORY_BYTES: usize = 128 << 10;

async fn history(
    app: &App,
    group: &GroupName,
    after: Option<&Position>,
    limit: Option<u64>,
) -> Result<Answer, Refusal> {
    let limit = usize::try_from(limit.unwrap_or(HISTORY_PAGE)).unwrap_or(usize::MAX).min(HISTORY_LIMIT_MAX);
    let (after, epoch) = after.map_or((0, None), |after| (after.offset, Some(&*after.epoch)));
    history::read(&app.layer, group, Ask { after, epoch, limit, bytes: HISTORY_BYTES }).await.map(Answer::History)
}

fn members(app: &App, group: &GroupName) -> Answer {
    let mut members = app.layer.members(group, None, MEMBERS_PAGE + 1).unwrap_or_default();
    let more = members.len() > MEMBERS_PAGE;
    members.truncate(MEMBERS_PAGE);
    let next = members.last().filter(|_| more).map(|last| last.to_string());
    Answer::Members { members, next }
}
