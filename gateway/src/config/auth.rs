//! `[auth]`: how callers show who they are, and what those may do who show nothing.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api_key::ApiKeyConfig;
use super::hidden::{Hidden, Places};
use super::units::Time;

/// `[auth]`. Secrets are named by a variable or a file, and never written in the configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The variable with the secret that tokens are signed with (HS256). At least 32 characters. Default none: no tokens.
    pub jwt_secret_env: Option<String>,
    /// The same in a file, relative to the configuration's.
    pub jwt_secret_file: Option<PathBuf>,
    /// The public key that tokens are signed against, PEM: RS256, ES256 or EdDSA, as the key is. Relative to the
    /// configuration's file.
    pub jwt_public_key_file: Option<PathBuf>,
    /// A set of public keys (JWKS) that is looked at again every `jwks_interval`. Relative to the configuration's file.
    pub jwks_file: Option<PathBuf>,
    /// Where an issuer publishes its set of public keys: `https`, or `http` on a loopback address.
    pub jwks_url: Option<String>,
    /// How often a set is read again, and how often a key that is not in it may lead to that. Default `5m`.
    pub jwks_interval: Time,
    /// The `iss` that a token has to have. Default any; with a set it has to be said.
    pub issuer: Option<String>,
    /// Who this gateway is in the `aud` of a token. Default nobody: tokens that have one are refused. With a set it has to
    /// be said.
    pub audience: Option<String>,
    /// The claim that names a user's tenant, in 1 to 40 letters, digits, `-` and `_`. With it users reach only groups whose
    /// names begin with `tenant_prefix`, and `{tenant}` in the patterns of tokens is filled in. Default none.
    pub tenant_claim: Option<String>,
    /// What names of a tenant's groups begin with; a dot follows the tenant. Default `tenant.{tenant}.`.
    pub tenant_prefix: String,
    /// How far the clocks of issuer and gateway may differ, at most `1m`. Sockets and streams end without it. Default `0s`.
    pub leeway: Time,
    /// The variable with the keys of services, separated by commas; at least 32 characters each. Default none.
    pub api_keys_env: Option<String>,
    /// The same in a file, relative to the configuration's.
    pub api_keys_file: Option<PathBuf>,
    /// `[[auth.api_key]]`: keys of services by name, each with what it may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_key: Vec<ApiKeyConfig>,
    /// A list of tokens and users that are revoked: lines of `token JTI`, `user SUB`, or `user SUB TIME` for tokens issued before
    /// that time. It is looked at again every 2 s; whoever is named loses open sockets and streams, too. Relative to the
    /// configuration's file. Default none.
    pub revoked_file: Option<PathBuf>,
    /// What those may do who show no credential. Default nothing.
    pub anonymous: AnonymousConfig,
    /// The secret that was read; in code it is set here.
    #[serde(skip)]
    pub jwt_secret: Option<Hidden>,
    /// The public key that was read, PEM.
    #[serde(skip)]
    pub jwt_public_key: Option<String>,
    /// The set of keys that was read.
    #[serde(skip)]
    pub jwks: Option<String>,
    /// The list that was read.
    #[serde(skip)]
    pub revoked: Option<String>,
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

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            jwt_secret_env: None,
            jwt_secret_file: None,
            jwt_public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            jwks_interval: Time(Duration::from_secs(300)),
            issuer: None,
            audience: None,
            tenant_claim: None,
            tenant_prefix: "tenant.{tenant}.".to_owned(),
            leeway: Time(Duration::ZERO),
            api_keys_env: None,
            api_keys_file: None,
            api_key: Vec::new(),
            revoked_file: None,
            anonymous: AnonymousConfig::default(),
            jwt_secret: None,
            jwt_public_key: None,
            jwks: None,
            revoked: None,
            api_keys: None,
        }
    }
}

impl AuthConfig {
    /// Whether anything is said by which a credential could be good.
    pub(super) fn knows_anybody(&self) -> bool {
        self.jwt_secret_places().count() + self.api_keys_places().count() > 0
            || self.jwt_secret.is_some()
            || self.api_keys.is_some()
            || self.jwt_public_key_file.is_some()
            || self.jwt_public_key.is_some()
            || self.has_set()
            || !self.api_key.is_empty()
    }

    /// Whether a set of keys is read from somewhere.
    pub(super) fn has_set(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.jwks.is_some()
    }

    /// The interval in milliseconds.
    pub(crate) fn jwks_interval_ms(&self) -> u64 {
        u64::try_from(self.jwks_interval.0.as_millis()).unwrap_or(u64::MAX)
    }

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
