//! What the links of one broker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use groupcast_protocol::NodeId;
use tokio::sync::mpsc;

use super::config::RedisConfig;
use super::foreign::Foreign;
use super::names::Names;
use crate::broker::BrokerEvent;
use crate::broker::dropped::Dropped;

/// What the links of one broker share.
pub(super) struct Shared {
    pub(super) names: Names,
    pub(super) node: NodeId,
    pub(super) message_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) events: mpsc::Sender<BrokerEvent>,
    pub(super) dropped: Arc<Dropped>,
    /// There when Django's processes are in the same groups.
    pub(super) foreign: Option<Arc<Foreign>>,
    /// How many links have to be there before the broker is.
    links: usize,
    up: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        config: &RedisConfig,
        links: usize,
        node: &NodeId,
        events: mpsc::Sender<BrokerEvent>,
        foreign: Option<Arc<Foreign>>,
    ) -> Self {
        Self {
            names: Names::new(&config.prefix),
            node: node.clone(),
            message_bytes: config.message_bytes,
            timeout: config.timeout,
            events,
            dropped: Arc::default(),
            foreign,
            links,
            up: AtomicUsize::new(0),
        }
    }

    /// With some of several servers, calls to the others fail: what is followed there waits.
    pub(super) async fn link_up(&self) {
        if self.up.fetch_add(1, Ordering::AcqRel) + 1 >= self.links {
            self.tell(BrokerEvent::Up).await;
        }
    }

    pub(super) async fn link_down(&self, why: String) {
        self.up.fetch_sub(1, Ordering::AcqRel);
        self.tell(BrokerEvent::Down { why }).await;
    }

    pub(super) async fn tell(&self, event: BrokerEvent) {
        // When nobody takes events any more, the layer is at its end.
        let _ = self.events.send(event).await;
    }
}
