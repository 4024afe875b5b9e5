//! `[source.NAME]` and `[[query]]`: the data that may be asked, and the questions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::hidden::{Hidden, Places};
use super::units::{Size, Time};

/// `[source.NAME]`: a database that named queries read from.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What kind of database it is.
    pub kind: SourceKind,
    /// SQLite: the file, opened read-only. Relative paths are relative to the configuration file.
    pub path: Option<PathBuf>,
    /// SQLite: how many threads, each with a connection of its own. Default 2.
    #[serde(default = "SourceConfig::default_threads")]
    pub threads: usize,
    /// PostgreSQL: the server, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Never printed.
    #[serde(skip_serializing)]
    pub url: Option<Hidden>,
    /// PostgreSQL: the environment's variable that has it.
    pub url_env: Option<String>,
    /// PostgreSQL: the file that has it, relative to the configuration.
    pub url_file: Option<PathBuf>,
    /// What variable or file said.
    #[serde(skip)]
    pub found_url: Option<Hidden>,
    /// PostgreSQL: at most so many connections, and so queries at once. Default 4.
    #[serde(default = "SourceConfig::default_pool")]
    pub pool: usize,
    /// PostgreSQL: the role that queries are run as, if it is another than the user's.
    pub role: Option<String>,
}

/// What kind of database a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A SQLite file.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

impl SourceConfig {
    /// The address of the server, whichever of `url`, `url_env` and `url_file` has it.
    pub fn address(&self) -> Option<&Hidden> {
        self.found_url.as_ref().or(self.url.as_ref())
    }

    pub(super) fn places(&self, name: &str) -> Places<'_> {
        let (text, env, file) = (self.url.as_ref(), self.url_env.as_deref(), self.url_file.as_deref());
        Places { key: format!("source.{name}.url"), text, env, file }
    }

    fn default_threads() -> usize {
        2
    }

    fn default_pool() -> usize {
        4
    }
}

/// `[[query]]`: a named query. SQL lives here and is never sent by a client.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueryConfig {
    /// The number that a message's `queryset_id` selects it by.
    pub id: u64,
    /// The name that a message's `query` selects it by; the rule of group names.
    pub name: String,
    /// What it answers, for people; shown on the live page and in `groupcast query`.
    #[serde(default)]
    pub title: String,
    /// The `[source.NAME]` it reads from.
    pub source: String,
    /// One SELECT with named parameters (`:origin`).
    pub sql: String,
    /// Its parameters by name.
    #[serde(default)]
    pub params: BTreeMap<String, ParamConfig>,
    /// How long it may run. Default 5 s.
    #[serde(default = "QueryConfig::default_timeout")]
    pub timeout: Time,
    /// How many rows it may give; more sets `truncated`. Default 10,000.
    #[serde(default = "QueryConfig::default_max_rows")]
    pub max_rows: u64,
    /// How many bytes of JSON rows it may give; more sets `truncated`. Default 8 MiB.
    #[serde(default = "QueryConfig::default_max_bytes")]
    pub max_bytes: Size,
    /// How long a result answers identical asks, too. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Time>,
    /// How often a live query is asked again while somebody is subscribed to it; at least 250 ms. Without it only when
    /// one of its `tags` is invalidated. Default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Time>,
    /// What its rows are about; `POST /v1/invalidate` names tags whose queries have changed.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The columns that tell a row from every other, for live queries: changes are then told row by row.
    #[serde(default)]
    pub key: Vec<String>,
}

impl QueryConfig {
    fn default_timeout() -> Time {
        Time(std::time::Duration::from_secs(5))
    }

    fn default_max_rows() -> u64 {
        10_000
    }

    fn default_max_bytes() -> Size {
        Size(8 << 20)
    }
}

/// One parameter of a query.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ParamConfig {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParamKind,
    /// The only values it may have.
    #[serde(rename = "enum", default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<toml::Value>>,
    /// The least number, or the least length of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest number, or the greatest length of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Its value when the asker gives none; without a default it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<toml::Value>,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// A JSON string.
    Text,
    /// A JSON number without a fraction, within signed 64 bits.
    Integer,
    /// A JSON number.
    Real,
    /// `true` or `false`, given to SQL as 1 or 0.
    Boolean,
}
