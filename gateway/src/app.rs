//! What every handler can reach: the configuration and the parts behind the front door.

use std::sync::Arc;

use groupcast_channel_layer::ChannelLayer;

use crate::config::Config;
use crate::consumer::{Claims, Queries};
use crate::dispatch::Dispatch;
pub use crate::health::Health;
use crate::idempotency::Idempotency;
use crate::jobs::Jobs;
use crate::metrics::Metrics;

/// The parts of a running gateway. A cheap handle.
#[derive(Clone)]
pub struct App {
    /// The effective configuration.
    pub config: Arc<Config>,
    /// Groups and channels.
    pub layer: ChannelLayer,
    /// Jobs and their results.
    pub jobs: Jobs,
    /// The named queries.
    pub queries: Arc<Queries>,
    /// Which consumers claim what.
    pub claims: Arc<Claims>,
    /// Sends messages to sockets and consumers.
    pub dispatch: Dispatch,
    /// Answers to requests that may be repeated.
    pub idempotency: Idempotency,
    /// Counters of the front door.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway is ready, and whether it takes new work.
    pub health: Health,
}
