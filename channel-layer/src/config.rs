//! The bounds of a layer. Each has a default, and says what happens there.

use std::time::Duration;

use groupcast_protocol::{NodeId, Pattern};

use crate::broker::Level;

/// The bounds of a layer.
#[derive(Debug, Clone)]
pub struct LayerConfig {
    /// The name of this process in channel names (`specific.NODE!c12`).
    pub node: NodeId,
    /// Unread messages that a channel holds; at the bound `send` is refused and `group_send` passes the channel over.
    pub capacity: usize,
    /// Other capacities for some channels; the first pattern that matches counts.
    pub channel_capacity: Vec<(Pattern, usize)>,
    /// How long a message waits to be read.
    pub expiry: Duration,
    /// How long a mailbox stays in a group without being added again.
    pub group_expiry: Duration,
    /// Channels that exist at once beside those of connections; at the bound a `send` to a new name is refused.
    pub channels_max: usize,
    /// Bytes of all unread messages in channels; at the bound `send` is refused and `group_send` passes over.
    pub channel_bytes: usize,
    /// Threads that own connections.
    pub shards: usize,
    /// Events on their way to one shard; at the bound a publisher waits, up to `publish_deadline`.
    pub shard_queue: usize,
    /// How long a publisher waits for room before it is refused.
    pub publish_deadline: Duration,
    /// How safe a message has to be when a broker has taken it; one that does not prove it is not used.
    pub level_min: Level,
    /// Bytes of one group's log on one shard; at the bound the slowest readers fall off and are told.
    pub log_bytes: usize,
    /// Bytes of all logs of one shard; at the bound the longest logs are cut and their readers told.
    pub shard_log_bytes: usize,
    /// A number that no other run of this process has. It begins all epochs, which clients are told and send back: so
    /// few bits are better than many.
    pub epoch_seed: u64,
    /// Bytes of all histories; at the bound the oldest messages of the longest histories go.
    pub history_bytes: usize,
    /// What groups keep and tell; the first pattern that matches counts.
    pub groups: Vec<GroupRule>,
}

/// What the groups that a pattern matches keep and tell.
#[derive(Debug, Clone)]
pub struct GroupRule {
    /// Which groups.
    pub pattern: Pattern,
    /// Messages that are kept for those who come back; `None` for none.
    pub history: Option<HistoryRule>,
    /// Whether members are told who comes and goes.
    pub presence: bool,
    /// Whether each node has such groups for itself: no broker carries their messages.
    pub is_local: bool,
}

/// How much history a group keeps: at most so many messages, each at most so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRule {
    /// Messages.
    pub messages: usize,
    /// How long each is kept.
    pub age: Duration,
}

impl LayerConfig {
    /// The defaults: Channels' own (100 messages, 60 s, 24 h) where Channels has one. Who keeps histories sets
    /// `epoch_seed`, too: it has no default that is different in every run.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            capacity: 100,
            channel_capacity: Vec::new(),
            expiry: Duration::from_secs(60),
            group_expiry: Duration::from_secs(86_400),
            channels_max: 1_000_000,
            channel_bytes: 256 << 20,
            shards: 1,
            shard_queue: 4096,
            publish_deadline: Duration::from_secs(5),
            level_min: Level::Memory,
            log_bytes: 1 << 20,
            shard_log_bytes: 64 << 20,
            epoch_seed: 0,
            history_bytes: 256 << 20,
            groups: Vec::new(),
        }
    }

    /// What a group keeps and tells; `None` when no pattern matches.
    pub fn rule_of(&self, group: &str) -> Option<&GroupRule> {
        self.groups.iter().find(|rule| rule.pattern.matches(group))
    }

    /// The capacity of one channel.
    pub fn capacity_of(&self, channel: &str) -> usize {
        let special = self.channel_capacity.iter().find(|(pattern, _)| pattern.matches(channel));
        special.map_or(self.capacity, |(_, capacity)| *capacity)
    }
}
