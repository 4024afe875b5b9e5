//! Django's processes and ours in the same groups: what a gateway does for both dialects of channels_redis.
//!
//! What Django sends has no number, and all gateways may have it. For each of some buckets of groups one gateway at a time is
//! the registrar, by a lease. What has come it moves, in order and in one step, to a list of parked frames in Redis, a bounded
//! number of them; gives each to the [`Intake`](crate::broker::foreign::Intake), which stores work under the frame and what
//! makes it single; publishes what members are to see, once by the same; and only then forgets it. So a gateway that dies at
//! any point loses nothing, and its successor does nothing twice. Reading order: this file (what a node asks for), `registrar`
//! (with `parked` and `depths`), `leases`, then what each dialect has of its own: `core`, `pubsub`.
//!
//! ```text
//! PREFIX:parked:BUCKET        list of frames that a registrar has in hand: TIME, what makes it single, FRAME
//! PREFIX:registrar:BUCKET     who that is
//! PREFIX:alive:NODE           says that a node lives
//! PREFIX:seen:ID              a frame that was published
//! ```

mod core;
mod depths;
mod leases;
mod parked;
mod pubsub;
mod registrar;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use groupcast_protocol::{ChannelName, GroupName, Message, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fleet::Fleet;
use super::shard;
use super::up::Up;
use crate::broker::seldom::Seldom;
use crate::broker::{BrokerError, BrokerEvent};
use crate::dialect::{Codec, CodecError, To};
use crate::stats::Counter;
use pubsub::Pubsub;

#[cfg(feature = "fuzzing")]
pub use parked::unpark;
#[cfg(feature = "fuzzing")]
pub use pubsub::told;
pub(super) use registrar::{resign, run};

/// How many buckets the groups are spread over. In `core`, each holds as many frames as Django's capacity says.
pub const BUCKETS: usize = 16;
/// How often the log says that frames are dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How Django's processes speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `channels_redis.core.RedisChannelLayer`.
    Core,
    /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
    Pubsub,
}

/// Settings that have to be those of Django's `CHANNEL_LAYERS`.
#[derive(Debug, Clone)]
pub struct ForeignConfig {
    /// `BACKEND`.
    pub dialect: Dialect,
    /// `prefix`.
    pub prefix: String,
    /// `capacity`: frames in a channel or bucket of theirs; at the bound `send` is refused, `group_send` passes over.
    pub capacity: usize,
    /// `expiry`: how long a message waits to be taken.
    pub expiry: Duration,
    /// `group_expiry`.
    pub group_expiry: Duration,
    /// `symmetric_encryption_keys`, `serializer_format`, `random_prefix_length`.
    pub codec: Codec,
}

/// What one node does in a dialect.
pub(super) struct Foreign {
    config: ForeignConfig,
    /// What keys of ours begin with.
    own: String,
    node: NodeId,
    /// How long a call may take.
    timeout: Duration,
    counters: Counters,
    /// For saying in the log that frames are dropped.
    seldom: Seldom,
    /// One for each server.
    wakes: Vec<Wake>,
    /// There when that is the dialect.
    pubsub: Option<Pubsub>,
}

/// What is counted.
#[derive(Debug, Default)]
struct Counters {
    arrived: Counter,
    shown: Counter,
    repeated: Counter,
    dropped: Counter,
    lost: Counter,
    sent: Counter,
    over_capacity: Counter,
    refused: Counter,
    given_up: Counter,
    depth_max: Counter,
    registrar_of: Counter,
}

/// That something has come; rung by the connection that is pushed to.
#[derive(Debug, Default)]
struct Wake {
    is_rung: Mutex<bool>,
    bell: Notify,
}

/// Who of Django's is to have a message of ours that goes to a group.
pub(super) enum Told {
    /// Nobody: it came from there, or no dialect is spoken.
    Nobody,
    /// Members of a sorted set, each for so long.
    Members(String, Duration),
    /// Who listens to a topic.
    Listeners(String),
}

impl Wake {
    /// Waits until something has changed since the last wait. Cancel safe.
    async fn wait(&self) {
        loop {
            let rung = self.bell.notified();
            if std::mem::take(&mut *self.is_rung.lock()) {
                return;
            }
            rung.await;
        }
    }

    fn ring(&self) {
        *self.is_rung.lock() = true;
        self.bell.notify_one();
    }
}

impl Foreign {
    /// `own` is what keys of ours begin with.
    pub(super) fn new(config: ForeignConfig, own: String, node: NodeId, servers: usize, timeout: Duration) -> Self {
        let wakes = (0..servers).map(|_| Wake::default()).collect();
        let pubsub = (config.dialect == Dialect::Pubsub).then(|| Pubsub::new(servers));
        let (counters, seldom) = (Counters::default(), Seldom::new(TELL_EVERY));
        Self { config, own, node, timeout, counters, seldom, wakes, pubsub }
    }

    /// Something has come to a server.
    pub(super) fn ring(&self, server: usize) {
        self.wakes[server].ring();
    }

    /// A connection to a server is about to be made: what came by the last one is of no use any more.
    pub(super) fn begin(&self, server: usize) {
        if let Some(pubsub) = &self.pubsub {
            pubsub.begin(self, server);
        }
    }

    /// A connection listens to what the dialect needs.
    pub(super) async fn listen(&self, up: &mut Up, server: usize) -> Result<(), BrokerError> {
        match self.config.dialect {
            Dialect::Core => up.tracks = up.track(&core::watched(self)).await,
            Dialect::Pubsub => pubsub::listen(self, up, server).await?,
        }
        Ok(())
    }

    /// Takes what a server has pushed, if it is the dialect's; says what of it is for a connection of this node.
    pub(super) fn arrived(&self, server: usize, topic: &[u8], payload: Vec<u8>) -> Option<BrokerEvent> {
        self.pubsub.as_ref()?.arrived(self, server, topic, payload)
    }

    /// Makes the gateways members of groups, and this node one that needs it.
    pub(super) async fn join(&self, up: &Up, groups: &[GroupName]) -> Result<(), BrokerError> {
        match self.config.dialect {
            Dialect::Core => core::join(self, up, groups).await,
            Dialect::Pubsub => Ok(()),
        }
    }

    /// This node needs groups no more; the gateways are members until none needs them.
    pub(super) async fn leave(&self, up: &Up, groups: &[GroupName]) -> Result<(), BrokerError> {
        match self.config.dialect {
            Dialect::Core => core::leave(self, up, groups).await,
            Dialect::Pubsub => Ok(()),
        }
    }

    /// Whether a message can be written for Django at all: asked before anybody has got it.
    pub(super) fn check(&self, message: &Message) -> Result<(), BrokerError> {
        self.encode(message, &To::Nobody).map(drop)
    }

    /// What Django calls a group.
    pub(super) fn group_key(&self, group: &GroupName) -> String {
        match self.config.dialect {
            Dialect::Core => core::group_key(self, group),
            Dialect::Pubsub => pubsub::group_topic(self, group),
        }
    }

    /// Who is asked for, in one step with the publication, by the name that Django has for the group; `hosts` are the servers.
    pub(super) fn told(&self, key: &str, hosts: usize) -> Told {
        match self.config.dialect {
            Dialect::Core => Told::Members(key.to_owned(), self.config.group_expiry),
            // It may be on another server than the group itself.
            Dialect::Pubsub if hosts > 1 => Told::Nobody,
            Dialect::Pubsub => Told::Listeners(key.to_owned()),
        }
    }

    /// Sends a message to those of Django's in a group that the publication has found.
    pub(super) async fn forward(
        &self,
        fleet: &Fleet,
        key: &str,
        found: &[String],
        message: &Message,
    ) -> Result<(), BrokerError> {
        match self.config.dialect {
            Dialect::Core => core::forward(self, fleet, found, message).await,
            Dialect::Pubsub if !found.is_empty() || fleet.links().len() > 1 => {
                pubsub::publish(self, fleet, key, message).await.map(drop)
            }
            Dialect::Pubsub => Ok(()),
        }
    }

    /// Sends a message to one channel that is not ours.
    pub(super) async fn send(
        &self,
        fleet: &Fleet,
        channel: &ChannelName,
        message: &Message,
    ) -> Result<(), BrokerError> {
        match self.config.dialect {
            Dialect::Core => core::send(self, fleet, channel, message).await,
            Dialect::Pubsub => match pubsub::publish(self, fleet, channel.as_str(), message).await? {
                0 => Err(BrokerError::Unheard),
                _ => Ok(()),
            },
        }
    }

    /// A frame cannot be understood. Whoever can write to Redis can send any number of them: the counter has all, and the log
    /// one a minute.
    fn drop_frame(&self, error: &CodecError) {
        self.counters.dropped.add(1);
        if !self.seldom.is_due() {
            return;
        }
        let dropped = self.counters.dropped.value();
        tracing::warn!(%error, dropped, "frames in Redis are dropped; are `serializer`, keys and `random_prefix_length` those of Django?");
    }

    fn key(&self, what: &str, of: impl fmt::Display) -> String {
        format!("{}:{what}:{of}", self.own)
    }

    fn encode(&self, message: &Message, to: &To<'_>) -> Result<Vec<u8>, BrokerError> {
        self.config.codec.encode(message, to, now_secs()).map_err(unwritable)
    }
}

fn unwritable(error: CodecError) -> BrokerError {
    BrokerError::Unwritable { why: error.to_string() }
}

/// The bucket of a group.
fn bucket_of(group: &GroupName) -> usize {
    shard::index(group.as_str().as_bytes(), BUCKETS)
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("dialect", &self.config.dialect).finish_non_exhaustive()
    }
}

/// What there is at the moment, for metrics.
pub(super) fn gauges(foreign: &Foreign) -> Vec<(&'static str, &'static str, u64)> {
    let counters = &foreign.counters;
    vec![
        ("foreign_depth", "Frames in the fullest bucket that this gateway empties", counters.depth_max.value()),
        ("foreign_registrar", "Buckets that this gateway empties", counters.registrar_of.value()),
    ]
}

/// Keeps the counters reachable for metrics.
pub(super) fn counters(foreign: &Arc<Foreign>) -> Vec<(&'static str, &'static str, u64)> {
    let counters = &foreign.counters;
    vec![
        ("foreign_arrived", "Frames of Django that were taken from Redis", counters.arrived.value()),
        ("foreign_shown", "Messages of Django that were published to sockets", counters.shown.value()),
        ("foreign_repeated", "Frames that another gateway had published before", counters.repeated.value()),
        ("foreign_dropped", "Frames that could not be understood, or name nobody", counters.dropped.value()),
        (
            "foreign_lost",
            "Frames that no registrar took before they were too many, too old or the link was cut",
            counters.lost.value(),
        ),
        ("foreign_sent", "Frames put into Redis for processes of Django", counters.sent.value()),
        ("foreign_over_capacity", "Frames that a full channel of Django did not get", counters.over_capacity.value()),
        (
            "foreign_refused",
            "Frames that Redis did not take, because a key is of another type",
            counters.refused.value(),
        ),
        (
            "foreign_given_up",
            "Frames that could not be put into Redis for processes of Django within the deadline",
            counters.given_up.value(),
        ),
    ]
}
