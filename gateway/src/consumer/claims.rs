//! `Claims`: which consumers a message is work for, and what jobs it becomes.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::message::same_kind;
use groupcast_protocol::{ErrorCode, GroupName, Message, Pattern, Refusal};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::ask::{Ask, Wishes};
use super::cache::Asked;
use super::claim_params::keep_needed;
use super::problem::Problem;
use super::queries::{Queries, Query};
use crate::auth::By;
use crate::clock;
use crate::config::consumer::{ConsumerConfig, Mode, Run};
use crate::jobs::{NewJob, ReplyTo};

/// How many consumers may feed each other in a row.
pub const HOPS_MAX: u8 = 8;

/// The beginning of the types that consumers send. A message of such a type is claimed with `chain = true` only.
pub const EVENT_PREFIX: &str = "job.";

/// The consumers of the configuration, as far as it takes to know whose work a message is.
#[derive(Debug, Clone)]
pub struct Claims {
    consumers: Vec<Listener>,
    queries: Arc<Queries>,
}

/// A job that a message became.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job, to be enqueued.
    pub job: NewJob,
    /// Whether sockets see the message too.
    pub mode: Mode,
}

#[derive(Debug, Clone)]
struct Listener {
    group: Pattern,
    config: ConsumerConfig,
}

impl Claims {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every problem found.
    pub fn new(configs: &[ConsumerConfig], queries: Arc<Queries>) -> Result<Self, Vec<Problem>> {
        let (mut consumers, mut problems) = (Vec::<Listener>::new(), Vec::new());
        for config in configs {
            let key = |key: &str| format!("consumer.{}.{key}", config.name);
            if let Err(error) = GroupName::parse(&config.name) {
                problems.push(Problem::new(key("name"), error.to_string().replace("group name", "consumer name")));
            }
            if consumers.iter().any(|other| other.config.name == config.name) {
                let message = format!("two consumers are called `{}`; rename one", config.name);
                problems.push(Problem::new(key("name"), message));
            }
            if config.kind.is_empty() {
                problems.push(Problem::new(key("type"), "is empty; name the `type` of the messages it claims"));
            }
            if config.kind.starts_with(EVENT_PREFIX) && !config.chain {
                let message = format!("`{}` is sent by consumers; set `chain = true` to claim it", config.kind);
                problems.push(Problem::new(key("type"), message));
            }
            for (name, n) in [("concurrency", config.concurrency), ("max_attempts", config.max_attempts as usize)] {
                if n == 0 {
                    problems.push(Problem::new(key(name), "is 0; it must be at least 1"));
                }
            }
            match Pattern::parse(&config.group) {
                Ok(group) => consumers.push(Listener { group, config: config.clone() }),
                Err(error) => problems.push(Problem::new(key("group"), error.to_string())),
            }
        }
        if problems.is_empty() { Ok(Self { consumers, queries }) } else { Err(problems) }
    }

    /// Whether any consumer claims this message of this group. Reads no field but `type`.
    pub fn is_work(&self, group: &GroupName, message: &Message) -> bool {
        self.consumers.iter().any(|listener| listener.claims(group, message))
    }

    /// The same for all processes that claim the same messages for the same consumers.
    pub fn digest(&self) -> String {
        let mut claims: Vec<String> = self
            .consumers
            .iter()
            .map(|listener| {
                let config = &listener.config;
                format!("{} {} {} {:?} {:?}", config.name, config.group, config.kind, config.run, config.mode)
            })
            .collect();
        claims.sort();
        let digest = Sha256::digest(claims.join("\n"));
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The groups that consumers name exactly. Those of a pattern are not known before somebody is in them.
    pub fn groups(&self) -> Vec<GroupName> {
        let exact = |listener: &Listener| match &listener.group {
            Pattern::Exact(name) => GroupName::parse(name).ok(),
            Pattern::Prefix(_) => None,
        };
        let names: std::collections::BTreeSet<GroupName> = self.consumers.iter().filter_map(exact).collect();
        names.into_iter().collect()
    }

    /// Whether any consumer listens to this group, whatever it claims.
    pub fn listens(&self, group: &GroupName) -> bool {
        self.consumers.iter().any(|listener| listener.group.matches(group.as_str()))
    }

    /// Whether the group's sockets see this message: no consumer claims it, or one with `mode = "both"` does.
    pub fn is_shown(&self, group: &GroupName, message: &Message) -> bool {
        let mut claiming = self.consumers.iter().filter(|listener| listener.claims(group, message)).peekable();
        claiming.peek().is_none() || claiming.any(|listener| listener.config.mode == Mode::Both)
    }

    /// The jobs that a message of a group becomes: one for each consumer that claims it; none if it is no work.
    ///
    /// `default_reply` gets the events unless the message names a `reply_to` that the caller may send to.
    ///
    /// # Errors
    /// `unknown_query` or `bad_params`, before anything is stored; `forbidden` for a query or a reply that is not the caller's
    /// to ask for.
    pub fn claim(
        &self,
        by: &By,
        group: &GroupName,
        message: &Message,
        default_reply: ReplyTo,
    ) -> Result<Vec<Claimed>, Refusal> {
        let mut claimed = Vec::new();
        let asker = by.caller.asker();
        for listener in self.consumers.iter().filter(|listener| listener.claims(group, message)) {
            let ask = Ask::parse(message)?.of(asker.as_ref());
            let hops = if message.kind().starts_with(EVENT_PREFIX) { ask.hops() + 1 } else { 0 };
            if hops > HOPS_MAX {
                // Nobody asked for this message, so there is nobody to refuse it to.
                tracing::warn!(consumer = listener.config.name, "a chain of consumers is longer than {HOPS_MAX}; cut");
                continue;
            }
            claimed.push(self.job(by, listener, &ask, message.clone(), default_reply.clone(), hops)?);
        }
        Ok(claimed)
    }

    /// The job of `POST /v1/queries/{name}` and of the WebSocket's `query`: for the first consumer with `run = "query"`.
    ///
    /// # Errors
    /// `unknown_query`, `bad_params`, or `not_found` when no consumer runs queries.
    pub fn query(&self, by: &By, name: &str, params: Option<&RawValue>, reply: ReplyTo) -> Result<NewJob, Refusal> {
        self.queries.named(name)?;
        let serves = |listener: &&Listener| listener.config.run == Run::Query;
        let listener = self.consumers.iter().find(serves).ok_or_else(|| {
            let message = "no consumer runs queries; add a `[[consumer]]` with `run = \"query\"`";
            Refusal::new(ErrorCode::NotFound, message)
        })?;
        #[derive(serde::Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            query: &'a str,
            params: Option<&'a RawValue>,
        }
        let body = serde_json::to_vec(&Body { kind: &listener.config.kind, query: name, params })
            .map_err(|error| Refusal::new(ErrorCode::BadParams, error.to_string()))?;
        let message = Message::parse(Bytes::from(body))?.with_trace(by.trace.clone());
        let asker = by.caller.asker();
        let ask = Ask::parse(&message)?.of(asker.as_ref());
        let job = self.job(by, listener, &ask, message.clone(), reply, 0)?.job;
        // Who asks a query for himself always shares.
        let asked = Asked::new(&listener.config, &ask, &self.queries)?;
        Ok(NewJob { coalesce_key: asked.map(Asked::into_key), ..job })
    }

    fn job(
        &self,
        by: &By,
        listener: &Listener,
        ask: &Ask<'_>,
        message: Message,
        default_reply: ReplyTo,
        hops: u8,
    ) -> Result<Claimed, Refusal> {
        let config = &listener.config;
        let wishes = ask.wishes()?;
        let query = match config.run {
            Run::Query => Some(self.check_question(by, ask)?),
            Run::Report => {
                ask.format()?;
                Some(self.check_question(by, ask)?)
            }
            // The backend knows what it can do.
            Run::Http | Run::Embedded => None,
        };
        let asked = if config.coalesce { Asked::new(config, ask, &self.queries)? } else { None };
        let mut job = new_job(by, config, wishes, message, default_reply, hops);
        if let Some(asker) = &mut job.asker {
            keep_needed(asker, query.as_deref());
        }
        by.caller.check_reply(&job.reply_to, by.channel.as_ref())?;
        Ok(Claimed { job: NewJob { coalesce_key: asked.map(Asked::into_key), ..job }, mode: config.mode })
    }

    fn check_question(&self, by: &By, ask: &Ask<'_>) -> Result<Arc<Query>, Refusal> {
        let question = ask.question(&self.queries)?;
        by.caller.check_query(&question.query.config.name)?;
        question.query.bind(&question.params)?;
        Ok(question.query)
    }
}

impl Listener {
    fn claims(&self, group: &GroupName, message: &Message) -> bool {
        let kind = message.kind();
        // `job_x` of a client is never taken for `job.x` of a consumer, although they are one type otherwise.
        let is_event = kind.starts_with(EVENT_PREFIX);
        let wants_event = self.config.kind.starts_with(EVENT_PREFIX);
        let is_kind = same_kind(kind, &self.config.kind);
        is_kind && is_event == wants_event && (!is_event || self.config.chain) && self.group.matches(group.as_str())
    }
}

fn new_job(
    by: &By,
    config: &ConsumerConfig,
    wishes: Wishes,
    message: Message,
    default_reply: ReplyTo,
    hops: u8,
) -> NewJob {
    let now = clock::now_ms();
    NewJob {
        durability: config.durability,
        priority: wishes.priority,
        run_at: wishes.delay_ms.map(|ms| now + ms),
        deadline_at: wishes.deadline_ms.map(|ms| now + ms),
        max_attempts: wishes.max_attempts.unwrap_or(config.max_attempts),
        // One user's key holds nobody else's work back.
        unique_key: wishes.unique_key.map(|key| by.caller.scope() + &key),
        hops,
        asker: by.caller.asker(),
        ..NewJob::new(&config.name, message, wishes.reply_to.unwrap_or(default_reply))
    }
}
