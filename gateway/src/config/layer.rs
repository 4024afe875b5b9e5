//! `[layer]` and `[[group]]`: the channel layer.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hidden::{Hidden, Places};
use super::units::Time;

/// `[layer]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerConfig {
    /// What carries messages between processes. Default `memory`: nothing, there is one process.
    pub kind: LayerKind,
    /// Unread messages that a channel holds. Default 100, as in Django Channels.
    pub capacity: usize,
    /// Other capacities for some channels; the first pattern that matches counts.
    pub channel_capacity: Vec<CapacityConfig>,
    /// How long a message waits to be read. Default 60 s.
    pub expiry: Time,
    /// How long a channel stays in a group without being added again; live connections always stay. Default 24 h.
    pub group_expiry: Time,
    /// The broker's address: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` for TLS, `unix:///PATH`, or
    /// `nats://…`, `tls://…`. Never printed.
    #[serde(skip_serializing)]
    pub url: Option<Hidden>,
    /// The environment's variable that has it.
    pub url_env: Option<String>,
    /// The file that has it, relative to the configuration.
    pub url_file: Option<PathBuf>,
    /// What variable or file said.
    #[serde(skip)]
    pub found_url: Option<Hidden>,
    /// Several addresses in place of `url`: Redis servers that share the groups as channels_redis shares them (the order
    /// counts), the sentinels of one, the nodes of a cluster, or servers of one NATS cluster. Never printed.
    #[serde(skip_serializing)]
    pub hosts: Vec<Hidden>,
    /// `redis`: the name of the master that the sentinels in `hosts` watch.
    pub sentinel: Option<String>,
    /// `redis`: whether `hosts` are nodes of a Redis Cluster. Default no.
    pub cluster: bool,
    /// Certificates to trust in place of the system's, for `rediss://` and `tls://`; PEM, relative to the configuration.
    pub ca_file: Option<PathBuf>,
    /// How other programs speak in the same groups: `channels_redis.core` or `channels_redis.pubsub` over Redis,
    /// `channels_nats` over NATS, with the settings of Django's `CHANNEL_LAYERS`. Default: none do.
    pub dialect: Option<Dialect>,
    /// With a dialect of channels_redis, `serializer_format` of Django: `msgpack` or `json`. Default `msgpack`.
    pub serializer: SerializerKind,
    /// With a dialect of channels_redis, `symmetric_encryption_keys` of Django: the first encrypts, any decrypts. Never printed.
    #[serde(skip_serializing)]
    pub encryption_keys: Vec<Hidden>,
    /// The environment's variable that has them, apart by commas.
    pub encryption_keys_env: Option<String>,
    /// The file that has them, one on each line, relative to the configuration.
    pub encryption_keys_file: Option<PathBuf>,
    /// What variable or file said.
    #[serde(skip)]
    pub found_keys: Option<Hidden>,
    /// With `channels_redis.core`, `random_prefix_length` of Django. Default 12.
    pub random_prefix_length: usize,
    /// What the names of all keys and topics begin with. Default `asgi`, as in Django Channels; with `nats`, `channels`.
    pub prefix: Option<String>,
    /// How long a call to the broker may take. Default 2 s.
    pub timeout: Time,
    /// `nats`: on how many servers of a cluster each message is. Default 1.
    pub replicas: usize,
    /// `nats`: `HOST:PORT` of the server's monitoring, where it says whether it waits for its disk. Nothing else proves
    /// that, so `durability = "fsync"` needs it.
    pub monitoring: Option<String>,
    /// How safe a message has to be when it is answered with 202. What the broker's settings do not prove is refused.
    /// Default `broker`: it has the message.
    pub durability: LayerDurability,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            kind: LayerKind::Memory,
            capacity: 100,
            channel_capacity: Vec::new(),
            expiry: Time(Duration::from_secs(60)),
            group_expiry: Time(Duration::from_secs(86_400)),
            url: None,
            url_env: None,
            url_file: None,
            found_url: None,
            hosts: Vec::new(),
            sentinel: None,
            cluster: false,
            ca_file: None,
            dialect: None,
            serializer: SerializerKind::Msgpack,
            encryption_keys: Vec::new(),
            encryption_keys_env: None,
            encryption_keys_file: None,
            found_keys: None,
            random_prefix_length: 12,
            prefix: None,
            timeout: Time(Duration::from_secs(2)),
            replicas: 1,
            monitoring: None,
            durability: LayerDurability::Broker,
        }
    }
}

impl LayerConfig {
    /// The broker's addresses, whichever of `url`, `url_env`, `url_file` and `hosts` has them.
    pub fn addresses(&self) -> Vec<&Hidden> {
        match self.found_url.as_ref().or(self.url.as_ref()) {
            Some(url) => vec![url],
            None => self.hosts.iter().collect(),
        }
    }

    /// The keys that messages of a dialect are encrypted with, wherever they are said.
    pub fn keys(&self) -> Vec<String> {
        match &self.found_keys {
            Some(found) => {
                let texts = found.expose().split(['\n', ',']).map(|key| key.trim_end_matches('\r'));
                texts.filter(|key| !key.is_empty()).map(str::to_owned).collect()
            }
            None => self.encryption_keys.iter().map(|key| key.expose().to_owned()).collect(),
        }
    }

    pub(super) fn key_places(&self) -> Places<'_> {
        let (env, file) = (self.encryption_keys_env.as_deref(), self.encryption_keys_file.as_deref());
        Places { key: "layer.encryption_keys".to_owned(), text: self.encryption_keys.first(), env, file }
    }

    pub(super) fn places(&self) -> Places<'_> {
        let (text, env, file) = (self.url.as_ref(), self.url_env.as_deref(), self.url_file.as_deref());
        Places { key: "layer.url".to_owned(), text, env, file }
    }
}

/// How other programs speak in the same groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Dialect {
    /// `channels_redis.core.RedisChannelLayer`.
    #[serde(rename = "channels_redis.core")]
    ChannelsRedisCore,
    /// `channels_nats.NatsChannelLayer`.
    #[serde(rename = "channels_nats")]
    ChannelsNats,
    /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
    #[serde(rename = "channels_redis.pubsub")]
    ChannelsRedisPubsub,
}

/// How messages of a dialect are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SerializerKind {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
}

/// How safe a message is that the broker has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerDurability {
    /// The broker has it, perhaps only in memory.
    Broker,
    /// The broker's disk has it.
    Fsync,
}

/// One entry of `[layer] channel_capacity`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityConfig {
    /// Which channels: an exact name, or a prefix ending in `*`.
    pub pattern: String,
    /// Unread messages that each of them holds.
    pub capacity: usize,
}

/// What carries messages between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// Nothing: one process.
    Memory,
    /// Redis, or what speaks its protocol.
    Redis,
    /// NATS.
    Nats,
}

/// `[[group]]`: settings of the groups that a pattern matches. Of several patterns the first that matches counts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Which groups: an exact name, or a prefix ending in `*`.
    pub name: String,
    /// Whether members are told who comes and goes. Default false.
    #[serde(default)]
    pub presence: bool,
    /// Messages that are kept for those who come back. Default none.
    #[serde(default)]
    pub history: Option<HistoryConfig>,
    /// Types of messages that clients may send: users and anonymous callers, not services. Default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
}

/// `[[group]] history`: how much a group keeps. What is beyond either bound goes, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Messages, 1 to 1,000,000. Default 1000.
    pub messages: usize,
    /// How long each is kept. Default 1 h.
    pub age: Time,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { messages: 1000, age: Time(Duration::from_secs(3600)) }
    }
}
