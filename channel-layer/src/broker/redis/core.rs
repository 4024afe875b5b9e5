//! The dialect of `channels_redis.core.RedisChannelLayer`: Django's processes and ours in the same groups.
//!
//! To Django all gateways together are one member of a group, `groupcast.BUCKET!g.GROUP`: a `group_send` puts one frame into
//! Redis for all sockets of all gateways, and the part behind `!` names the group, which the frame does not. For each bucket
//! one gateway at a time is the registrar, by a lease. What has arrived it moves, in order and in one step, from the bucket
//! to a list of parked frames, a bounded number of them; gives each to the [`Intake`](crate::broker::foreign::Intake), which
//! stores work under the frame and its score; publishes what members are to see, once by the same; and only then forgets it.
//! So a gateway that dies at any point loses nothing, and its successor does nothing twice. Reading order: this file (names,
//! what a node asks for), `registrar` (with `parked` and `depths`), `scripts`.
//!
//! ```text
//! asgi:group:GROUP            their sorted set of members; ours is in it while any gateway follows the group
//! asgigroupcast.BUCKET!       their sorted set of frames for all gateways
//! asgispecific.NODE!          their sorted set of frames for the connections of one gateway
//! PREFIX:parked:BUCKET        list of frames that a registrar has in hand: TIME SCORE FRAME
//! PREFIX:registrar:BUCKET     who that is
//! PREFIX:interest:GROUP       set of the gateways that follow the group;  PREFIX:alive:NODE says that one lives
//! PREFIX:groups:BUCKET        set of the groups with members in the bucket
//! PREFIX:ids                  hash: group names that are too long to be part of a name
//! PREFIX:seen:ID              a frame that was published
//! ```
//!
//! **How a registrar learns that something has come** was measured with Redis 7.0 over loopback, 16 buckets, 100 frames a
//! second, on two cores that others used too; from the sender's ZADD to the frame in hand:
//!
//! | | half within | 99 % within | idle, commands/s | idle, CPU of Redis |
//! |---|---|---|---|---|
//! | `CLIENT TRACKING` in broadcasting mode, a look every 500 ms besides | 0.38 ms | 0.70 ms | 40 | under 0.1 % |
//! | a look every 1 ms | 0.74 ms | 6.6 ms | 10,700 | 4 % |
//! | a look every 5 ms | 3.1 ms | 11.8 ms | 2,800 | 2 % |
//! | a look every 20 ms | 10.5 ms | 22.7 ms | 800 | 0.7 % |
//! | (`BZPOPMIN`, which cannot be fenced and parks nothing) | 0.23 ms | 0.38 ms | 1 | 0.3 % |
//!
//! So it is told by tracking; where that is refused, it looks every 5 ms. All buckets are looked at by one script.

mod depths;
mod parked;
mod registrar;
mod scripts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groupcast_protocol::{ChannelName, GroupName, Message, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::link::Link;
use super::shard;
use super::up::Up;
use crate::broker::BrokerError;
use crate::dialect::{Codec, CodecError, To};
use crate::stats::Counter;

pub(super) use registrar::{resign, run};

/// How many buckets the groups are spread over. Each holds as many frames as Django's capacity says.
pub const BUCKETS: usize = 16;
/// What our own member names begin with.
pub(super) const MEMBER: &str = "groupcast.";
/// How often the log says that frames are dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The longest group name that is part of a member's name; others go by a hash.
const EMBEDDED_MAX: usize = 80;

/// Settings that have to be those of Django's `CHANNEL_LAYERS`.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// `prefix`.
    pub prefix: String,
    /// `capacity`: frames in a channel or bucket of theirs; at the bound `send` is refused, `group_send` passes over.
    pub capacity: usize,
    /// `expiry`.
    pub expiry: Duration,
    /// `group_expiry`.
    pub group_expiry: Duration,
    /// `symmetric_encryption_keys`, `serializer_format`, `random_prefix_length`.
    pub codec: Codec,
}

/// What one node does in the dialect.
pub(super) struct Core {
    pub(super) config: CoreConfig,
    /// What keys of ours begin with.
    pub(super) own: String,
    pub(super) node: NodeId,
    pub(super) counters: Counters,
    /// When the log has last said that frames are dropped.
    told: Mutex<Option<Instant>>,
    /// One for each server.
    wakes: Vec<Wake>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) arrived: Counter,
    pub(super) shown: Counter,
    pub(super) repeated: Counter,
    pub(super) dropped: Counter,
    pub(super) sent: Counter,
    pub(super) over_capacity: Counter,
    pub(super) refused: Counter,
    pub(super) depth_max: Counter,
    pub(super) registrar_of: Counter,
}

/// That something has come; rung by the connection that is pushed to.
#[derive(Debug, Default)]
struct Wake {
    is_rung: Mutex<bool>,
    bell: Notify,
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

impl Core {
    pub(super) fn new(config: CoreConfig, own: String, node: NodeId, servers: usize) -> Self {
        let wakes = (0..servers).map(|_| Wake::default()).collect();
        Self { config, own, node, counters: Counters::default(), told: Mutex::default(), wakes }
    }

    /// Something has come to a server.
    pub(super) fn ring(&self, server: usize) {
        self.wakes[server].ring();
    }

    /// A frame cannot be understood. Whoever can write to Redis can send any number of them: the counter has all, and the log
    /// one a minute.
    fn drop_frame(&self, error: &CodecError) {
        self.counters.dropped.add(1);
        let mut told = self.told.lock();
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        let dropped = self.counters.dropped.value();
        tracing::warn!(%error, dropped, "frames in Redis are dropped; are `serializer`, keys and `random_prefix_length` those of Django?");
    }

    /// Makes the gateways members of groups, and this node one that needs it.
    pub(super) async fn join(&self, up: &Up, groups: &[GroupName]) -> Result<(), BrokerError> {
        scripts::join(self, up, groups).await
    }

    /// This node needs groups no more; the gateways are members until none needs them.
    pub(super) async fn leave(&self, up: &Up, groups: &[GroupName]) -> Result<(), BrokerError> {
        scripts::leave(self, up, groups).await
    }

    /// Whether a message can be written for Django at all: asked before anybody has got it.
    pub(super) fn check(&self, message: &Message) -> Result<(), BrokerError> {
        self.encode(message, &To::Nobody).map(drop)
    }

    /// Sends a message to the members of a group that are not ours.
    pub(super) async fn forward(
        &self,
        links: &[Link],
        members: &[String],
        message: &Message,
    ) -> Result<(), BrokerError> {
        let mut buckets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for member in members {
            buckets.entry(non_local(member)).or_default().push(member);
        }
        for (bucket, names) in buckets {
            let frame = self.encode(message, &To::Several(&names))?;
            let link = &links[shard::index(bucket.as_bytes(), links.len())];
            match scripts::add(self, &link.up()?, bucket, &frame).await {
                Ok(true) => self.counters.sent.add(1),
                // As Channels does it: a member that is full is passed over.
                Ok(false) => self.counters.over_capacity.add(1),
                // The message is published, and the others are to have it.
                Err(BrokerError::Refused { why }) => {
                    tracing::debug!(bucket, why, "a member of Django's cannot be written to");
                    self.counters.refused.add(1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a message to one channel that is not ours.
    pub(super) async fn send(
        &self,
        links: &[Link],
        channel: &ChannelName,
        message: &Message,
    ) -> Result<(), BrokerError> {
        let to = if channel.is_process_local() { To::One(channel.as_str()) } else { To::Nobody };
        let (bucket, frame) = (channel.non_local(), self.encode(message, &to)?);
        let link = &links[shard::index(bucket.as_bytes(), links.len())];
        if scripts::add(self, &link.up()?, bucket, &frame).await? {
            self.counters.sent.add(1);
            return Ok(());
        }
        self.counters.over_capacity.add(1);
        Err(BrokerError::Full { capacity: self.config.capacity })
    }

    /// Keys whose changes a connection is to be told of.
    pub(super) fn watched(&self) -> [String; 2] {
        [format!("{}{MEMBER}", self.config.prefix), self.own_bucket()]
    }

    pub(super) fn group_key(&self, group: &GroupName) -> String {
        format!("{}:group:{group}", self.config.prefix)
    }

    /// The name by which the gateways are a member of a group.
    fn member(&self, group: &GroupName) -> String {
        let bucket = bucket_of(group);
        match group.as_str().len() {
            0..=EMBEDDED_MAX => format!("{MEMBER}{bucket}!g.{group}"),
            _ => format!("{MEMBER}{bucket}!h.{}", id_of(group)),
        }
    }

    /// The key of a bucket.
    fn bucket(&self, bucket: usize) -> String {
        format!("{}{MEMBER}{bucket}!", self.config.prefix)
    }

    /// The key of the frames for this node's connections.
    fn own_bucket(&self) -> String {
        format!("{}specific.{}!", self.config.prefix, self.node)
    }

    fn key(&self, what: &str, of: impl fmt::Display) -> String {
        format!("{}:{what}:{of}", self.own)
    }

    fn encode(&self, message: &Message, to: &To<'_>) -> Result<Vec<u8>, BrokerError> {
        let unwritable = |error: CodecError| BrokerError::Unwritable { why: error.to_string() };
        self.config.codec.encode(message, to, now_secs()).map_err(unwritable)
    }
}

/// The bucket of a group.
fn bucket_of(group: &GroupName) -> usize {
    shard::index(group.as_str().as_bytes(), BUCKETS)
}

/// What stands for a group name that is too long.
fn id_of(group: &GroupName) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, group.as_str().as_bytes());
    hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of a channel's name that capacity goes by: up to and with the `!`.
fn non_local(name: &str) -> &str {
    name.find('!').map_or(name, |at| &name[..=at])
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("prefix", &self.config.prefix).finish_non_exhaustive()
    }
}

/// What there is at the moment, for metrics.
pub(super) fn gauges(core: &Core) -> Vec<(&'static str, &'static str, u64)> {
    let counters = &core.counters;
    vec![
        ("foreign_depth", "Frames in the fullest bucket that this gateway empties", counters.depth_max.value()),
        ("foreign_registrar", "Buckets that this gateway empties", counters.registrar_of.value()),
    ]
}

/// Keeps the counters reachable for metrics.
pub(super) fn counters(core: &Arc<Core>) -> Vec<(&'static str, &'static str, u64)> {
    let counters = &core.counters;
    vec![
        ("foreign_arrived", "Frames of Django that were taken from Redis", counters.arrived.value()),
        ("foreign_shown", "Messages of Django that were published to sockets", counters.shown.value()),
        ("foreign_repeated", "Frames that another gateway had published before", counters.repeated.value()),
        ("foreign_dropped", "Frames that could not be understood, or name nobody", counters.dropped.value()),
        ("foreign_sent", "Frames put into Redis for processes of Django", counters.sent.value()),
        ("foreign_over_capacity", "Frames that a full channel of Django did not get", counters.over_capacity.value()),
        (
            "foreign_refused",
            "Frames that Redis did not take, because a key is of another type",
            counters.refused.value(),
        ),
    ]
}
