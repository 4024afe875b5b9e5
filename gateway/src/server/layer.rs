//! Makes the channel layer that the configuration asks for, with its broker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use groupcast_channel_layer::broker::foreign::Intake;
use groupcast_channel_layer::broker::{Broker, BrokerInbox, Level};
use groupcast_channel_layer::{Carrier, ChannelLayer, GroupRule, HistoryRule, LayerConfig, Opened, ShardInbox};
use groupcast_protocol::{GroupName, NodeId, Pattern};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{self, Config, GroupConfig, LayerDurability, LayerKind, Role};

/// The most threads that the number of cores alone asks for.
const SHARDS_MAX: usize = 256;
/// Notes of other nodes that wait to be acted on. They are few; of more, the newest are lost, and the log says so.
const NOTES: usize = 1024;
/// What channels_nats begins its subjects with, unless it is told otherwise.
#[cfg(feature = "nats")]
const NATS_PREFIX: &str = "channels";
/// The name of a gateway that was given none.
const NODE_DEFAULT: &str = "gw1";

/// The layer, and what belongs to it.
pub(super) struct Layer {
    pub(super) layer: ChannelLayer,
    pub(super) inboxes: Vec<ShardInbox>,
    /// There with a broker.
    pub(super) cluster: Option<Cluster>,
    pub(super) follows: Follows,
}

/// Whether the groups that consumers work for are followed. Before, what other programs send there is nobody's work: with
/// channels_redis it would be lost.
#[derive(Debug, Clone)]
pub(super) struct Follows(Arc<AtomicBool>);

impl Follows {
    /// From the start on when no other program sends by the broker, and where jobs are only run.
    fn new(config: &Config) -> Self {
        let waits = config.layer.dialect.is_some() && config.server.role != Role::Consumer;
        Self(Arc::new(AtomicBool::new(!waits)))
    }

    /// `Err` says what is still to be done, in words for `/readyz`.
    pub(super) fn ready(&self) -> Result<(), String> {
        let why = "the groups that consumers work for are not followed yet";
        if self.0.load(Ordering::Acquire) { Ok(()) } else { Err(why.to_owned()) }
    }
}

/// What a layer with a broker needs to be run.
pub(super) struct Cluster {
    carrier: Carrier,
    broker: Arc<dyn Broker>,
    take_in: TakeIn,
    notes: mpsc::Receiver<Bytes>,
    follows: Follows,
}

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
#[error("[layer] {0}")]
pub struct LayerStartError(String);

/// Gives a gateway that shares groups with others a name that no other has, unless it was given one.
pub(super) fn name_node(config: &mut Config) {
    if config.layer.kind != LayerKind::Memory && config.server.node == NODE_DEFAULT {
        config.server.node = format!("{NODE_DEFAULT}-{:08x}", clock::random() as u32);
    }
}

/// Whether a layer can be made of what the configuration says; connects to nothing.
///
/// # Errors
/// When an address is none, a file cannot be read, or this build lacks the broker.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    // What belongs to a connection is made on it, and never run.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot be tried: {error}"))?;
    let _entered = runtime.enter();
    connect(config, &layer_config(config).node).map(drop).map_err(|LayerStartError(why)| why)
}

pub(super) fn open(config: &Config) -> Result<Layer, LayerStartError> {
    let bounds = layer_config(config);
    let Some(Connected { broker, inbox, take_in }) = connect(config, &bounds.node)? else {
        let (layer, inboxes) = ChannelLayer::new(bounds);
        return Ok(Layer { layer, inboxes, cluster: None, follows: Follows::new(config) });
    };
    let (note, notes) = mpsc::channel(NOTES);
    let on_note = move |bytes| {
        if note.try_send(bytes).is_err() {
            tracing::warn!("a note of another gateway was lost: there are too many");
        }
    };
    let (layer, inboxes, carrier) = ChannelLayer::with_broker(bounds, broker.clone(), inbox, Box::new(on_note));
    let follows = Follows::new(config);
    let cluster = Some(Cluster { carrier, broker, take_in, notes, follows: follows.clone() });
    Ok(Layer { layer, inboxes, cluster, follows })
}

impl Cluster {
    /// What has to run for as long as the layer is used.
    pub(super) fn run(self, layer: ChannelLayer, foreign: Foreign, stop: CancellationToken) -> Run {
        let Self { carrier, broker, take_in, notes, follows } = self;
        let task = async move {
            let carry = layer.carry(carrier);
            let take_in = async {
                // The groups first: what is sent to them from here on is for this node.
                let _open = open_all(&layer, foreign.needed).await;
                follows.0.store(true, Ordering::Release);
                if let Some(intake) = foreign.intake {
                    take_in(intake).await;
                }
                std::future::pending::<()>().await
            };
            let part = async {
                stop.cancelled().await;
                layer.part().await
            };
            // Told while the layer is still carried: a broker whose events nobody takes may give its link up.
            let parted = tokio::select! {
                _ = async { tokio::join!(carry, take_in) } => Ok(()),
                parted = part => parted,
            };
            if let Err(error) = parted {
                tracing::warn!(%error, "the other gateways could not be told that this one ends; they will notice");
            }
            broker.close().await;
        };
        Run { task: Box::pin(task), notes }
    }
}

/// What has to run for as long as a layer with a broker is used, and the notes that come meanwhile.
pub(super) struct Run {
    pub(super) task: BoxFuture<'static, ()>,
    pub(super) notes: mpsc::Receiver<Bytes>,
}

/// What other programs send, and this gateway takes.
pub(super) struct Foreign {
    /// Takes it; none in a process that only runs jobs.
    pub(super) intake: Option<Arc<dyn Intake>>,
    /// Groups that have to be followed though nobody is in them: consumers claim their messages.
    pub(super) needed: Vec<GroupName>,
}

/// Follows groups for good; waits for the broker as long as it takes.
async fn open_all(layer: &ChannelLayer, groups: Vec<GroupName>) -> Vec<Opened> {
    let mut all = Vec::with_capacity(groups.len());
    for group in groups {
        let opened = loop {
            match layer.open(&group).await {
                Ok(opened) => break opened,
                Err(error) => tracing::warn!(%error, %group, "what other programs send to the group is not taken yet"),
            }
        };
        all.push(opened);
    }
    all
}

/// Begins to take in what other programs send.
type TakeIn = Box<dyn FnOnce(Arc<dyn Intake>) -> BoxFuture<'static, ()> + Send>;

struct Connected {
    broker: Arc<dyn Broker>,
    inbox: BrokerInbox,
    take_in: TakeIn,
}

fn connect(config: &Config, node: &NodeId) -> Result<Option<Connected>, LayerStartError> {
    match config.layer.kind {
        LayerKind::Memory => Ok(None),
        LayerKind::Redis => redis(config, node),
        LayerKind::Nats => nats(config, node),
    }
}

#[cfg(feature = "redis")]
fn redis(config: &Config, node: &NodeId) -> Result<Option<Connected>, LayerStartError> {
    use groupcast_channel_layer::broker::redis::{RedisBroker, RedisConfig, Topology};

    let layer = &config.layer;
    let topology = match &layer.sentinel {
        Some(name) => Topology::Sentinels(name.clone()),
        None if layer.cluster => Topology::Cluster,
        None => Topology::Servers,
    };
    let redis = RedisConfig {
        addresses: layer.addresses().into_iter().map(|address| address.expose().to_owned()).collect(),
        topology,
        prefix: prefix(layer),
        timeout: layer.timeout.0,
        message_bytes: config.limits.publish_bytes.0,
        ca: ca(layer)?,
        run: format!("{:x}", clock::random()),
        groups: groups(config),
        foreign: foreign(config),
    };
    let (broker, inbox) = RedisBroker::connect(redis, node).map_err(|error| LayerStartError(error.to_string()))?;
    let foreign = broker.clone();
    let take_in: TakeIn = Box::new(move |intake| Box::pin(async move { foreign.take_in(intake).await }));
    Ok(Some(Connected { broker, inbox, take_in }))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Config, _: &NodeId) -> Result<Option<Connected>, LayerStartError> {
    Err(LayerStartError("kind = \"redis\" needs the feature `redis`, which this build lacks".to_owned()))
}

#[cfg(feature = "nats")]
fn nats(config: &Config, node: &NodeId) -> Result<Option<Connected>, LayerStartError> {
    use groupcast_channel_layer::broker::nats::{NatsBroker, NatsConfig};

    let layer = &config.layer;
    let histories = || config.group.iter().filter_map(|group| group.history);
    let nats = NatsConfig {
        addresses: layer.addresses().into_iter().map(|address| address.expose().to_owned()).collect(),
        prefix: format!("groupcast_{}", layer.prefix.as_deref().unwrap_or(NATS_PREFIX)),
        timeout: layer.timeout.0,
        message_bytes: config.limits.publish_bytes.0,
        ca_file: layer.ca_file.clone(),
        history: HistoryRule {
            messages: histories().map(|history| history.messages).max().unwrap_or(1),
            age: histories().map(|history| history.age.0).max().unwrap_or_default(),
        },
        replicas: layer.replicas,
        all_on_disk: layer.durability == LayerDurability::Fsync,
        monitoring: layer.monitoring.clone(),
        django: django(config),
    };
    let (broker, inbox) = NatsBroker::connect(nats, node).map_err(|error| LayerStartError(error.to_string()))?;
    let foreign = broker.clone();
    let take_in: TakeIn = Box::new(move |intake| Box::pin(async move { foreign.take_in(intake).await }));
    Ok(Some(Connected { broker, inbox, take_in }))
}

#[cfg(not(feature = "nats"))]
fn nats(_: &Config, _: &NodeId) -> Result<Option<Connected>, LayerStartError> {
    Err(LayerStartError("kind = \"nats\" needs the feature `nats`, which this build lacks".to_owned()))
}

/// What all keys of ours begin with. Not with the prefix itself: `flush` of Django Channels deletes whatever does.
fn prefix(layer: &config::LayerConfig) -> String {
    format!("groupcast:{}", layer.prefix.as_deref().unwrap_or("asgi"))
}

fn ca(layer: &config::LayerConfig) -> Result<Option<Vec<u8>>, LayerStartError> {
    let read = |path: &std::path::PathBuf| {
        let unread =
            |error: io::Error| LayerStartError(format!("ca_file `{}` cannot be read: {error}", path.display()));
        std::fs::read(path).map_err(unread)
    };
    layer.ca_file.as_ref().map(read).transpose()
}

/// How many threads own connections. Not all cores: consumers, the kernel's network and the clients that share the machine
/// need theirs, and two shards on two busy cores were measured to cost 1.8 times the CPU of one for each delivery.
fn shards(config: &Config) -> usize {
    match config.server.shards {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, SHARDS_MAX)),
        shards => shards,
    }
}

fn layer_config(config: &Config) -> LayerConfig {
    let node = NodeId::parse(&config.server.node).expect("check() has parsed the node's name");
    let pattern = |text: &str| Pattern::parse(text).expect("check() has parsed the patterns");
    LayerConfig {
        capacity: config.layer.capacity,
        channel_capacity: config.layer.channel_capacity.iter().map(|c| (pattern(&c.pattern), c.capacity)).collect(),
        expiry: config.layer.expiry.0,
        group_expiry: config.layer.group_expiry.0,
        channels_max: config.limits.channels,
        channel_bytes: config.limits.channel_bytes.0,
        shards: shards(config),
        shard_queue: config.limits.shard_queue,
        publish_deadline: config.limits.publish_timeout.0,
        level_min: match config.layer.durability {
            LayerDurability::Broker => Level::Memory,
            LayerDurability::Fsync => Level::Fsync,
        },
        log_bytes: config.limits.log_bytes.0,
        shard_log_bytes: config.limits.log_bytes_per_shard.0,
        history_bytes: config.limits.history_bytes.0,
        // 40 bits: that two runs have the same is less likely than any other cause of loss.
        epoch_seed: (clock::random() as u64) >> 24,
        groups: groups(config),
        ..LayerConfig::new(node)
    }
}

fn groups(config: &Config) -> Vec<GroupRule> {
    std::iter::once(live_rule()).chain(config.group.iter().map(group_rule)).collect()
}

/// What has to be as Django's `CHANNEL_LAYERS` say.
#[cfg(feature = "redis")]
fn foreign(config: &Config) -> Option<groupcast_channel_layer::broker::redis::ForeignConfig> {
    use groupcast_channel_layer::broker::redis::{Dialect, ForeignConfig};
    use groupcast_channel_layer::dialect::{Codec, Keys, Serializer};

    let layer = &config.layer;
    let dialect = match layer.dialect? {
        config::Dialect::ChannelsRedisCore => Dialect::Core,
        config::Dialect::ChannelsRedisPubsub => Dialect::Pubsub,
        config::Dialect::ChannelsNats => return None,
    };
    let codec = Codec {
        serializer: match layer.serializer {
            config::SerializerKind::Msgpack => Serializer::Msgpack,
            config::SerializerKind::Json => Serializer::Json,
        },
        keys: Keys::new(&layer.keys()),
        prefix_bytes: if dialect == Dialect::Core { layer.random_prefix_length } else { 0 },
        // channels_redis grants senders and receivers so much difference between their clocks; in `pubsub` it does not look.
        max_age_secs: (dialect == Dialect::Core).then_some(layer.expiry.0.as_secs() + 10),
        message_bytes: config.limits.publish_bytes.0,
    };
    Some(ForeignConfig {
        dialect,
        prefix: layer.prefix.clone().unwrap_or_else(|| "asgi".to_owned()),
        capacity: layer.capacity,
        expiry: layer.expiry.0,
        group_expiry: layer.group_expiry.0,
        codec,
    })
}

/// What has to be as Django's `CHANNEL_LAYERS` say, with NATS.
#[cfg(feature = "nats")]
fn django(config: &Config) -> Option<groupcast_channel_layer::broker::nats::DjangoConfig> {
    let layer = &config.layer;
    let is_spoken = layer.dialect == Some(config::Dialect::ChannelsNats);
    is_spoken.then(|| groupcast_channel_layer::broker::nats::DjangoConfig {
        prefix: layer.prefix.clone().unwrap_or_else(|| NATS_PREFIX.to_owned()),
        expiry: layer.expiry.0,
        groups: groups(config),
        run: format!("{:x}", clock::random()),
    })
}

/// Groups of live queries keep nothing, whatever the patterns of the configuration say: who comes is told the state. Each
/// gateway has its own.
fn live_rule() -> GroupRule {
    let pattern = Pattern::parse("query.*").expect("a prefix and a star are a pattern");
    GroupRule { pattern, history: None, presence: false, is_local: true }
}

fn group_rule(group: &GroupConfig) -> GroupRule {
    GroupRule {
        pattern: Pattern::parse(&group.name).expect("check() has parsed the patterns"),
        history: group.history.map(|history| HistoryRule { messages: history.messages, age: history.age.0 }),
        presence: group.presence,
        is_local: false,
    }
}
