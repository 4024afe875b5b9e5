//! Schedules over real stores, with times given.

use std::path::Path;
use std::sync::Arc;

use groupcast_channel_layer::{ChannelLayer, LayerConfig, ShardInbox};
use groupcast_protocol::NodeId;

use super::*;
use crate::config::consumer::JobsConfig;
use crate::consumer::{Claims, Queries};
use crate::jobs::{Filter, JobRecord};

/// 2026-01-01, midnight.
const MIDNIGHT: u64 = 1_767_225_600_000;
const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn each_tick_is_a_job_once_however_many_gateways_look() {
    let home = tempfile::tempdir().expect("a directory");
    let node = Node::start(home.path());
    let (mut one, mut other) = (node.schedules("none", MIDNIGHT), node.schedules("none", MIDNIGHT + 5));
    for (now, expected) in [(1, 0), (3 * HOUR - 1, 0), (3 * HOUR, 1), (3 * HOUR + 900, 1), (27 * HOUR + 3, 2)] {
        one.look(MIDNIGHT + now).await;
        other.look(MIDNIGHT + now).await;
        assert_eq!(node.jobs().await.len(), expected, "{now}");
    }
    let jobs = node.jobs().await;
    assert!(jobs.iter().all(|job| (job.consumer.as_str(), job.kind.as_str()) == ("nightly", "clean")), "{jobs:?}");
}

#[tokio::test]
async fn a_restart_at_the_same_tick_sends_it_no_second_time() {
    let home = tempfile::tempdir().expect("a directory");
    let tick = MIDNIGHT + 3 * HOUR;
    for (catch_up, began) in [("none", MIDNIGHT), ("none", tick - 1), ("one", tick - 1), ("one", tick + 1)] {
        let node = Node::start(home.path());
        let mut schedules = node.schedules(catch_up, began);
        schedules.remember().await;
        schedules.look(tick + 5).await;
        assert_eq!(node.jobs().await.len(), 1, "{catch_up} {began}");
        node.jobs.close().await;
    }
}

#[tokio::test]
async fn what_was_missed_is_made_up_for_once_or_not_at_all() {
    for (catch_up, expected) in [("none", 1), ("one", 2)] {
        let home = tempfile::tempdir().expect("a directory");
        let node = Node::start(home.path());
        node.schedules(catch_up, MIDNIGHT).look(MIDNIGHT + 3 * HOUR).await;
        assert_eq!(node.jobs().await.len(), 1);
        // Three nights later.
        let mut schedules = node.schedules(catch_up, MIDNIGHT + 80 * HOUR);
        schedules.remember().await;
        for minute in 0..3 {
            schedules.look(MIDNIGHT + 80 * HOUR + minute * 60_000).await;
        }
        assert_eq!(node.jobs().await.len(), expected, "{catch_up}");
    }
}

#[tokio::test]
async fn a_schedule_that_never_ticked_has_missed_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let node = Node::start(home.path());
    let mut schedules = node.schedules("one", MIDNIGHT + 80 * HOUR);
    schedules.remember().await;
    schedules.look(MIDNIGHT + 80 * HOUR).await;
    assert_eq!(node.jobs().await.len(), 0);
}

#[tokio::test]
async fn a_clock_that_is_put_back_repeats_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let node = Node::start(home.path());
    let mut schedules = node.schedules("none", MIDNIGHT);
    schedules.look(MIDNIGHT + 3 * HOUR).await;
    let mut again = node.schedules("none", MIDNIGHT + 2 * HOUR);
    again.look(MIDNIGHT + 3 * HOUR).await;
    assert_eq!(node.jobs().await.len(), 1);
}

#[tokio::test]
async fn a_tick_that_cannot_be_stored_waits() {
    let home = tempfile::tempdir().expect("a directory");
    let node = Node::with(home.path(), JobsConfig { max_queued: 1, ..JobsConfig::default() });
    let mut schedules = node.schedules("none", MIDNIGHT);
    schedules.look(MIDNIGHT + 3 * HOUR).await;
    let second = MIDNIGHT + 27 * HOUR;
    schedules.look(second).await;
    assert_eq!(node.jobs().await.len(), 1, "the queue is full");
    assert_eq!(node.jobs.ticks().await.expect("read")[0].due_ms, MIDNIGHT + 3 * HOUR);
    assert_eq!(schedules.pause(second), LOOK);
    node.jobs.cancel(node.jobs().await[0].id).await.expect("told");
    schedules.look(second + 1000).await;
    assert_eq!(node.jobs().await.len(), 2);
    assert!(schedules.pause(second + 1000) <= LOOK);
}

struct Node {
    jobs: Jobs,
    dispatch: Dispatch,
    /// Held so that the layer's shard counts as alive.
    _inboxes: Vec<ShardInbox>,
}

impl Node {
    fn start(home: &Path) -> Self {
        Self::with(home, JobsConfig::default())
    }

    fn with(home: &Path, config: JobsConfig) -> Self {
        let jobs = Jobs::open(&config, home).expect("free");
        let consumer = "name = 'nightly'\ngroup = 'work'\ntype = 'clean'\nrun = 'embedded'";
        let consumer = toml::from_str(consumer).expect("a consumer");
        let claims = Claims::new(&[consumer], Arc::new(Queries::default())).expect("valid");
        let (layer, inboxes) = ChannelLayer::new(LayerConfig::new(NodeId::parse("gw1").expect("a good name")));
        Self { dispatch: Dispatch::new(layer, Arc::new(claims), jobs.clone()), jobs, _inboxes: inboxes }
    }

    /// Of a gateway that began at a time.
    fn schedules(&self, catch_up: &str, began: u64) -> Schedules {
        let text = format!(
            "name = 'night'\ncron = '0 3 * * *'\ngroup = 'work'\nmessage = {{ type = 'clean' }}\ncatch_up = '{catch_up}'"
        );
        let config = toml::from_str(&text).expect("a schedule");
        Schedules::new(&[config], self.dispatch.clone(), self.jobs.clone(), began).expect("valid")
    }

    async fn jobs(&self) -> Vec<JobRecord> {
        self.jobs.list(Filter::default(), None, 100).await.expect("read")
    }
}
