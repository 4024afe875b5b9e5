//! Who may do what: a credential and the time go in, a [`Caller`] comes out, and the caller says what it may do.
//!
//! Nothing here waits, reads a clock or touches a socket; front doors find the credential and ask. All of them ask the same
//! functions, so that what HTTP refuses no WebSocket grants. Reading order: [`caller`] (the decisions), [`rights`] (what is
//! granted), `keys` and `token` (how a credential becomes a caller),
//! [`public_key`] and [`issuer`] (what tokens are signed against).
//!
//! # Contract
//!
//! - **Without `[auth]` everybody may do everything**, and the configuration lets only loopback be listened on.
//! - **With it nothing is allowed that is not granted**: an API key may do all, a token what its claims say, and who shows
//!   nothing what `anonymous` says.
//! - **The configuration says how a token is signed**, never the token: its `alg` has to be the key's own, and `jwk`, `jku`,
//!   `x5c` and `x5u` in it are not looked at.
//! - **A credential that is shown and is not valid is refused**, even where anonymous callers may do the same.
//! - **No secret is printed**, compared in a time that depends on it, or repeated in an error.

pub mod caller;
pub mod issuer;
mod keys;
pub mod mint;
pub mod public_key;
pub mod rights;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::sync::Arc;

use groupcast_protocol::{ErrorCode, Refusal};

pub use self::caller::{By, Caller};
use self::issuer::Issuer;
use self::keys::ApiKeys;
pub use self::keys::digest_of_key;
pub use self::rights::GroupTypes;
pub use self::rights::Rights;
use self::token::Verifier;
use crate::config::{AuthConfig, GroupConfig};

/// What `[auth]` says, ready to decide. A cheap handle.
#[derive(Clone, Default)]
pub struct Auth(Option<Arc<Authority>>);

struct Authority {
    keys: ApiKeys,
    tokens: Option<Verifier>,
    anonymous: Arc<Rights>,
}

/// Why `[auth]` cannot be used. It never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("auth.{key}: {why}")]
pub struct AuthError {
    /// The key below `[auth]`.
    pub key: &'static str,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl Auth {
    /// What a configuration says; `None`: everybody may do everything.
    ///
    /// # Errors
    /// When a secret is too short to be one, or a pattern is none.
    pub fn new(config: Option<&AuthConfig>) -> Result<Self, AuthError> {
        Self::with_groups(config, &[])
    }

    /// The same, with what clients may send to groups (`[[group]] types`).
    ///
    /// # Errors
    /// As [`Auth::new`].
    pub fn with_groups(config: Option<&AuthConfig>, groups: &[GroupConfig]) -> Result<Self, AuthError> {
        let Some(config) = config else { return Ok(Self(None)) };
        let types = GroupTypes::new(groups).map_err(|error| AuthError { key: "anonymous", why: error.to_string() })?;
        let types = Arc::new(types);
        let keys = ApiKeys::read(config)?;
        let tokens = Verifier::new(config, &types)?;
        let said = &config.anonymous;
        let anonymous = Rights::parse(&said.subscribe, &said.send, &said.query);
        let anonymous = anonymous.map_err(|error| AuthError { key: "anonymous", why: error.to_string() })?;
        let anonymous = Rights { types_of_groups: types, ..anonymous };
        Ok(Self(Some(Arc::new(Authority { keys, tokens, anonymous: Arc::new(anonymous) }))))
    }

    /// Whether there is an `[auth]` section.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The issuer whose published keys somebody has to read.
    pub fn issuer(&self) -> Option<Arc<Issuer>> {
        self.0.as_ref()?.tokens.as_ref()?.issuer().cloned()
    }

    /// Who shows this credential at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// `unauthenticated` for a credential that is not valid, `unavailable` for one that will be known in a moment. Without
    /// one the caller is anonymous, whatever that may do.
    pub fn identify(&self, credential: Option<&str>, now_ms: u64) -> Result<Caller, Refusal> {
        let Some(authority) = &self.0 else { return Ok(Caller::Everybody) };
        let Some(credential) = credential else { return Ok(Caller::Anonymous(authority.anonymous.clone())) };
        if let Some(service) = authority.keys.find(credential) {
            return Ok(Caller::Service(service));
        }
        let Some(tokens) = &authority.tokens else {
            return Err(unauthenticated("the API key is not known here; check it"));
        };
        tokens.verify(credential, now_ms).map(Caller::User)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Auth(on)" } else { "Auth(off)" })
    }
}

fn unauthenticated(why: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, why)
}
