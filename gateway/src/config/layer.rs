//! `[layer]` and `[[group]]`: the channel layer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            kind: LayerKind::Memory,
            capacity: 100,
            channel_capacity: Vec::new(),
            expiry: Time(Duration::from_secs(60)),
            group_expiry: Time(Duration::from_secs(86_400)),
        }
    }
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
