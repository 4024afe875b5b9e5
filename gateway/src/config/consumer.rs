//! `[jobs]` and `[[consumer]]`: where deferred work is kept, and who does it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::hidden::{Hidden, Places};
use super::rate::Rate;
use super::secret::Secret;
use super::units::{Size, Time};

/// `[jobs]`: the store of jobs and results.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Where jobs are kept. Default `sqlite`, in `[server] data_dir`.
    pub store: StoreKind,
    /// With `store = "postgres"`: the server, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Never printed.
    #[serde(skip_serializing)]
    pub url: Option<Hidden>,
    /// The environment's variable that has it.
    pub url_env: Option<String>,
    /// The file that has it, relative to the configuration.
    pub url_file: Option<PathBuf>,
    /// What variable or file said.
    #[serde(skip)]
    pub found_url: Option<Hidden>,
    /// With `store = "postgres"`: the schema of the tables, which is made if need be. Default `groupcast`.
    pub schema: String,
    /// With a broker behind the layer and `store = "sqlite"`: there is only this gateway, though others could join.
    /// Default false.
    pub single_gateway: bool,
    /// How long a consumer that is not heard of keeps its job; then another one runs it. It is heard of three times as
    /// often, while the job's work moves. Default 15 s, at least 1 s.
    pub lease: Time,
    /// How long ended jobs and their results are kept. Default 7 days.
    pub retention: Time,
    /// How many jobs may wait; more are refused with `overloaded`. Default 100,000.
    pub max_queued: u64,
    /// Threads of low priority for reports and other work that computes. Default: one per core.
    pub cpu_threads: Option<usize>,
    /// How many pieces of CPU work may wait for a thread. Default 64.
    pub cpu_queue: usize,
    /// While a runtime is later than this to what is due, no CPU work begins, but for one piece a second. 0 is never.
    /// Default 20 ms.
    pub lag_budget: Time,
    /// Where CPU work runs. Anything but the default `pool` is for measurements: it shows what the pool is for.
    pub cpu_mode: CpuMode,
    /// First delay of a retry; doubles each time, with full jitter. Default 1 s.
    pub retry_base: Time,
    /// The longest delay of a retry. Default 5 min.
    pub retry_max: Time,
}

impl Default for JobsConfig {
    fn default() -> Self {
        let seconds = |s| Time(std::time::Duration::from_secs(s));
        Self {
            store: StoreKind::Sqlite,
            url: None,
            url_env: None,
            url_file: None,
            found_url: None,
            schema: "groupcast".to_owned(),
            single_gateway: false,
            lease: seconds(15),
            retention: seconds(7 * 86_400),
            max_queued: 100_000,
            cpu_threads: None,
            cpu_queue: 64,
            lag_budget: Time(std::time::Duration::from_millis(20)),
            cpu_mode: CpuMode::Pool,
            retry_base: seconds(1),
            retry_max: seconds(300),
        }
    }
}

impl JobsConfig {
    /// The address of the server, whichever of `url`, `url_env` and `url_file` has it.
    pub fn address(&self) -> Option<&Hidden> {
        self.found_url.as_ref().or(self.url.as_ref())
    }

    pub(super) fn places(&self) -> Places<'_> {
        let (text, env, file) = (self.url.as_ref(), self.url_env.as_deref(), self.url_file.as_deref());
        Places { key: "jobs.url".to_owned(), text, env, file }
    }
}

/// Where work that computes runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMode {
    /// On threads of low priority.
    Pool,
    /// On threads of the runtime, made as they are needed.
    SpawnBlocking,
    /// On the threads that serve the sockets.
    Inline,
}

/// Where jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// SQLite files in the data directory: one gateway.
    Sqlite,
    /// A PostgreSQL server shared by several gateways.
    Postgres,
}

impl StoreKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// `[[consumer]]`: claims the messages of one type in a group and runs them as jobs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerConfig {
    /// Its name, unique; the rule of group names.
    pub name: String,
    /// The group it listens to: an exact name, or a prefix ending in `*`.
    pub group: String,
    /// The message `type` it claims; dots and underscores are one.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it does.
    pub run: Run,
    /// What an accepted job survives. Default `disk`.
    #[serde(default)]
    pub durability: Durability,
    /// How many of its jobs run at once. Default 2.
    #[serde(default = "ConsumerConfig::default_concurrency")]
    pub concurrency: usize,
    /// How many of its jobs one process begins in a time, as in `"10/s"`, `"600/m"`, `"100/h"`; others wait. Default: no limit.
    pub rate: Option<Rate>,
    /// How many may begin at once after a quiet time. Default: what `rate` lets begin in a second, at least 1.
    pub rate_burst: Option<u32>,
    /// How often a job is tried before it is dead. Default 5.
    #[serde(default = "ConsumerConfig::default_max_attempts")]
    pub max_attempts: u32,
    /// How long one attempt may take. Default 60 s. (A query has its own, usually shorter, timeout.)
    #[serde(default = "ConsumerConfig::default_timeout")]
    pub timeout: Time,
    /// Whether sockets see the claimed message too. Default `work`: they do not.
    #[serde(default)]
    pub mode: Mode,
    /// Whether it may claim `job.*` messages, and so be fed by other consumers. Default no.
    #[serde(default)]
    pub chain: bool,
    /// Whether identical messages may share one execution. Default no: each runs.
    #[serde(default)]
    pub coalesce: bool,
    /// Results larger than this travel as a `url`. Default 64 KiB.
    #[serde(default = "ConsumerConfig::default_inline_bytes")]
    pub inline_bytes: Size,
    /// `http`: the address that jobs are posted to. Redirects are not followed.
    pub url: Option<String>,
    /// `http`: whether `url` may lead to an address that is not public. Default no.
    #[serde(default)]
    pub allow_private: bool,
    /// `http`: the variable with the secret that signs requests.
    pub secret_env: Option<String>,
    /// `http`: the file with it, relative to the configuration file.
    pub secret_file: Option<PathBuf>,
    /// `http`: the secret itself; then the configuration file is one, too. Without any, requests are not signed.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// `http`: a PEM file with the certificates that are trusted in place of the system's, relative to the configuration
    /// file.
    pub ca: Option<PathBuf>,
    /// `http`: an answer with more bytes fails the job. Default 8 MiB.
    pub max_bytes: Option<Size>,
}

impl ConsumerConfig {
    fn default_concurrency() -> usize {
        2
    }

    fn default_max_attempts() -> u32 {
        5
    }

    fn default_timeout() -> Time {
        Time(std::time::Duration::from_secs(60))
    }

    fn default_inline_bytes() -> Size {
        Size(64 << 10)
    }
}

/// What a consumer does with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Runs a named query and answers with its rows.
    Query,
    /// Turns a named query's rows into a CSV and an HTML report.
    Report,
    /// Posts the job to a backend; what that answers is the result.
    Http,
    /// Runs code that the embedding program registered under the consumer's name.
    Embedded,
}

/// What an accepted job survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// The end of the process, not of the machine.
    Os,
    /// The loss of power: it was synced to disk before it was acknowledged.
    #[default]
    Disk,
}

impl From<Durability> for groupcast_protocol::frame::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::Memory,
            Durability::Os => Self::Os,
            Durability::Disk => Self::Disk,
        }
    }
}

/// Who sees a claimed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The consumer alone.
    #[default]
    Work,
    /// The consumer, and the sockets of the group.
    Both,
}
