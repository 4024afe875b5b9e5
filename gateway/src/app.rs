//! What every front door (HTTP, WebSocket) works with: one cheap handle over the parts of the gateway.

use std::sync::Arc;
use std::time::Duration;

use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::frame::Accepted;
use groupcast_protocol::{GroupName, JobId, Message, Refusal};

use crate::auth::{Auth, By};
use crate::config::Config;
use crate::consumer::QueryCache;
use crate::dispatch::Dispatch;
use crate::health::Health;
use crate::idempotency::Idempotency;
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

    /// `group_send`, once for each idempotency key of a caller if there is one. HTTP and WebSocket share the keys.
    ///
    /// # Errors
    /// Those of [`Dispatch::group_send`], `rate_limited` of the group, and `idempotency_conflict`.
    pub async fn group_send(
        &self,
        by: &By,
        group: &GroupName,
        message: Message,
        key: Option<&str>,
    ) -> Result<Accepted, Refusal> {
        self.limits.charge_group(&by.caller, by.client, group)?;
        let Some(key) = key else { return self.dispatch.group_send(by, group, message, None).await };
        let scope = format!("{}group {group}", by.caller.scope());
        let (dispatch, body, by, group) = (self.dispatch.clone(), message.raw().clone(), by.clone(), group.clone());
        let run = |key| async move { dispatch.group_send(&by, &group, message, Some(key)).await };
        self.idempotency.once(&scope, key, &body, run).await
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
