//! What every front door (HTTP, WebSocket) works with: one cheap handle over the parts of the gateway.

use std::sync::Arc;

use groupcast_channel_layer::ChannelLayer;

use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::health::Health;
use crate::idempotency::Idempotency;
use crate::jobs::Jobs;
use crate::metrics::Metrics;

/// The gateway, as its front doors see it. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub config: Arc<Config>,
    /// Groups and channels.
    pub layer: ChannelLayer,
    /// Stored work.
    pub jobs: Jobs,
    /// Takes messages in: to the layer, to the consumers that claim them, or both.
    pub dispatch: Dispatch,
    /// Answers to requests that may be repeated.
    pub idempotency: Idempotency,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway is ready, or about to end.
    pub health: Health,
}
