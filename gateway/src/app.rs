//! What every handler can reach: the configuration and the parts behind the front door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use groupcast_channel_layer::ChannelLayer;

use crate::config::Config;
use crate::consumer::{Claims, Queries};
use crate::dispatch::Dispatch;
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
    /// Counters of the front door.
    pub metrics: Arc<Metrics>,
    /// Whether new work is taken.
    pub health: Health,
}

/// Whether the gateway takes new work. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Health {
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Whether the gateway is about to end: `/readyz` is 503 and no connection is taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
