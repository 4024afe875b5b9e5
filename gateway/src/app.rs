//! What every front door (HTTP, WebSocket) works with: one cheap handle over the parts of the gateway.

use std::sync::Arc;
use std::time::Duration;

use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::frame::Accepted;
use groupcast_protocol::{ErrorCode, GroupName, JobId, Message, Refusal};

use crate::auth::{Auth, By, Caller};
use crate::clock;
use crate::config::Config;
use crate::consumer::QueryCache;
use crate::dispatch::Dispatch;
use crate::health::Health;
use crate::hooks::{Hooks, Verdict};
use crate::idempotency::{Idempotency, KeyOf};
use crate::jobs::{JobRecord, Jobs, JobsError};
use crate::limits::Limits;
use crate::live::Live;
use crate::metrics::Metrics;

/// The gateway, as its front doors see it: one pointer, because every request takes several.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What the gateway is made of.
pub struct Parts {
    /// The settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub auth: Auth,
    /// How much somebody may do.
    pub limits: Limits,
    /// The team's own service, which is asked about clients.
    pub hooks: Hooks,
    /// Groups and channels.
    pub layer: ChannelLayer,
    /// Stored work.
    pub jobs: Jobs,
    /// Takes messages in: to the layer, to the consumers that claim them, or both.
    pub dispatch: Dispatch,
    /// Results that identical asks are answered with.
    pub cache: Arc<QueryCache>,
    /// Queries that are followed.
    pub live: Live,
    /// Answers to requests that may be repeated.
    pub idempotency: Idempotency,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway is ready, or about to end.
    pub health: Health,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Brings the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// `group_send`, once for each idempotency key of a caller if there is one. HTTP and WebSocket share the keys. A message
    /// that hooks are asked about is what they say, and a repeat with its key does not ask again.
    ///
    /// # Errors
    /// Those of [`Dispatch::group_send`], `rate_limited` of the group, `idempotency_conflict`, and those of hooks.
    pub async fn group_send(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<&str>,
    ) -> Result<Accepted, Refusal> {
        self.check_length(&by.caller, &message)?;
        self.limits.charge_group(&by.caller, by.client, group)?;
        let Some(key) = key else { return self.send_or_ask(by, group, message, None).await };
        // A repeat is answered by what is remembered: also that is for those alone who may send it.
        Dispatch::check(by, group, &message)?;
        let (share, scope) = (by.share(), format!("{}group {group}", by.caller.scope()));
        let (app, body, by, group) = (self.clone(), message.raw().clone(), by.clone(), group.clone());
        let run = |key| async move { app.send_or_ask(&by, &group, message, Some(key)).await };
        self.idempotency.once(&share, &scope, key, &body, run).await
    }

    /// A client's message has the same bound by every door; a socket does not even read more.
    fn check_length(&self, caller: &Caller, message: &Message) -> Result<(), Refusal> {
        let (bytes, bytes_max) = (message.raw().len(), self.config.limits.message_bytes.0);
        if bytes <= bytes_max || matches!(caller, Caller::Everybody | Caller::Service(_)) {
            return Ok(());
        }
        let why = format!(
            "the message has {bytes} bytes, and a client's may have {bytes_max}; send less, or have a service send it"
        );
        Err(Refusal::new(ErrorCode::TooLarge, why))
    }

    async fn send_or_ask(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<KeyOf>,
    ) -> Result<Accepted, Refusal> {
        if self.hooks.asks_message(by, group, &message) {
            Dispatch::check(by, group, &message)?;
            match self.hooks.message(self, by, group, &message).await? {
                Verdict::Allowed => {}
                Verdict::Denied(reason) => return Err(Verdict::refusal(reason)),
                Verdict::Nothing => return Ok(taken(group)),
            }
        }
        self.dispatch.group_send(by, group, message, key).await
    }

    /// Waits for the end of a job: at most so long, and not into the end of the gateway.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn wait(&self, job: JobId, at_most: Duration) -> Result<Option<JobRecord>, JobsError> {
        match self.health.unless_draining(self.jobs.wait(job, at_most)).await {
            Some(record) => record,
            None => self.jobs.get(job).await,
        }
    }
}

/// The answer to a message that hooks have taken: what became of it is not known here.
fn taken(group: &GroupName) -> Accepted {
    Accepted {
        message_id: clock::new_id(),
        group: Some(group.clone()),
        members: None,
        existing: false,
        jobs: Vec::new(),
        offset: None,
        epoch: None,
    }
}
