//! `[auth]`: how callers show who they are, and what those may do who show nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::hidden::{Hidden, Places};

/// `[auth]`. Secrets are named by a variable or a file, and never written in the configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The variable with the secret that tokens are signed with (HS256). At least 32 characters. Default none: no tokens.
    pub jwt_secret_env: Option<String>,
    /// The same in a file, relative to the configuration's.
    pub jwt_secret_file: Option<PathBuf>,
    /// The variable with the keys of services, separated by commas; at least 32 characters each. Default none.
    pub api_keys_env: Option<String>,
    /// The same in a file, relative to the configuration's.
    pub api_keys_file: Option<PathBuf>,
    /// What those may do who show no credential. Default nothing.
    pub anonymous: AnonymousConfig,
    /// The secret that was read; in code it is set here.
    #[serde(skip)]
    pub jwt_secret: Option<Hidden>,
    /// The keys that were read; in code they are set here.
    #[serde(skip)]
    pub api_keys: Option<Hidden>,
}

/// `anonymous = { subscribe = ["news.*"], send = [], query = [] }`: lists of exact names and prefixes that end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnonymousConfig {
    /// Groups that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Groups that may be sent to.
    pub send: Vec<String>,
    /// Queries that may be run.
    pub query: Vec<String>,
}

impl AuthConfig {
    /// Where the secret of tokens is said.
    pub(super) fn jwt_secret_places(&self) -> Places<'_> {
        Places {
            key: "auth.jwt_secret".to_owned(),
            text: None,
            env: self.jwt_secret_env.as_deref(),
            file: self.jwt_secret_file.as_deref(),
        }
    }

    /// Where the keys of services are said.
    pub(super) fn api_keys_places(&self) -> Places<'_> {
        Places {
            key: "auth.api_keys".to_owned(),
            text: None,
            env: self.api_keys_env.as_deref(),
            file: self.api_keys_file.as_deref(),
        }
    }
}
