//! `[hooks]`: the team's own service, which is asked about clients.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::units::{Size, Time};

/// `[hooks]`. Without it nobody is asked.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HooksConfig {
    /// Where events are posted to.
    pub url: String,
    /// What is asked and told. Default `["connect"]`.
    #[serde(default = "HooksConfig::default_events")]
    pub events: Vec<HookEvent>,
    /// Groups whose subscriptions and messages are asked about: exact names, and prefixes that end in `*`. Default all of
    /// them.
    #[serde(default = "HooksConfig::default_groups")]
    pub groups: Vec<String>,
    /// Types of clients' messages that are asked about; a prefix may end in `*`. With `message` they have to be said.
    #[serde(default)]
    pub types: Vec<String>,
    /// Cookies that the service gets to see, and no others.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// Headers that the service gets to see, and no others.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The most that the service can give to the users it names, and the groups that it can put a connection into. Default
    /// nothing; without `[auth]` everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsConfig>,
    /// How long a call may take, its time in line included. Default `2s`.
    #[serde(default = "HooksConfig::default_timeout")]
    pub timeout: Time,
    /// Calls at once. Default 64.
    #[serde(default = "HooksConfig::default_max_concurrent")]
    pub max_concurrent: usize,
    /// Calls that wait for their turn; more are refused with `unavailable`. Default 1000.
    #[serde(default = "HooksConfig::default_max_waiting")]
    pub max_waiting: usize,
    /// Bytes that an answer may have. Default `64KiB`.
    #[serde(default = "HooksConfig::default_max_bytes")]
    pub max_bytes: Size,
    /// Calls in a row that have to fail until the service is left alone. Default 5.
    #[serde(default = "HooksConfig::default_circuit_failures")]
    pub circuit_failures: u32,
    /// How long it is left alone; then one call tries. Default `5s`.
    #[serde(default = "HooksConfig::default_circuit_open")]
    pub circuit_open: Time,
    /// The environment's variable with the secret that signs requests. Default none: they are not signed.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// The file with it, relative to the configuration's.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The secret itself, for tests. Never printed.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// Whether `url` may lead to an address that is not public. Default false.
    #[serde(default)]
    pub allow_private: bool,
    /// Certificates (PEM) that are trusted for `https`, and no others; relative to the configuration's file. Default the
    /// system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// What the service is asked or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// Whether a connection may be, and whose it is.
    Connect,
    /// Whether a connection may subscribe to a group.
    Subscribe,
    /// What becomes of a client's message.
    Message,
    /// A connection has ended; told once, if there is room.
    Disconnect,
}

/// `grants = { subscribe = ["room.*"], send = [], query = [] }`: lists of exact names and prefixes that end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrantsConfig {
    /// Groups that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Groups that may be sent to.
    pub send: Vec<String>,
    /// Queries that may be run.
    pub query: Vec<String>,
}

impl HooksConfig {
    /// Whether an event is asked about, or told.
    pub fn has(&self, event: HookEvent) -> bool {
        self.events.contains(&event)
    }

    fn default_events() -> Vec<HookEvent> {
        vec![HookEvent::Connect]
    }

    fn default_groups() -> Vec<String> {
        vec!["*".to_owned()]
    }

    fn default_timeout() -> Time {
        Time(Duration::from_secs(2))
    }

    fn default_max_concurrent() -> usize {
        64
    }

    fn default_max_waiting() -> usize {
        1000
    }

    fn default_max_bytes() -> Size {
        Size(64 << 10)
    }

    fn default_circuit_failures() -> u32 {
        5
    }

    fn default_circuit_open() -> Time {
        Time(Duration::from_secs(5))
    }
}
