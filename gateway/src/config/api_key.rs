//! `[[auth.api_key]]`: a key of one service, kept as its digest.

use serde::{Deserialize, Serialize};

/// One key: `name`, `sha256` and `scopes`. `groupcast key new` makes one and prints this entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// What the service is called; several keys of one name are one service.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal.
    pub sha256: String,
    /// What it may do. Default nothing.
    #[serde(default)]
    pub scopes: ScopesConfig,
}

/// `scopes = { send = ["orders.*"], types = ["chat"] }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScopesConfig {
    /// Groups that may be subscribed to, and that channels may be added to.
    pub subscribe: Vec<String>,
    /// Groups and channels that may be sent to.
    pub send: Vec<String>,
    /// Queries that may be run.
    pub query: Vec<String>,
    /// Types of messages that may be sent. Default all.
    pub types: Option<Vec<String>>,
    /// Everything may be done, also what the gateway's operators do.
    pub admin: bool,
}
