//! Who may do what: a credential and the time go in, a [`Caller`] comes out, and the caller says what it may do.
//!
//! Nothing here waits, reads a clock or touches a socket; front doors find the credential and ask. All of them ask the same
//! functions, so that what HTTP refuses no WebSocket grants. Reading order: [`caller`] (the decisions), [`rights`] (what is
//! granted), `keys` and `token` (how a credential becomes a caller), [`hooked`] (whom the team's own service names),
//! [`public_key`] and [`issuer`] (what tokens are signed against), `proof` and `revoked` (whether a credential that was good
//! still is).
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
pub mod hooked;
pub mod issuer;
mod keys;
pub mod mint;
mod proof;
pub mod public_key;
mod revoked;
pub mod rights;
mod tenancy;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::sync::Arc;

use groupcast_protocol::{ErrorCode, Refusal};

use parking_lot::RwLock;
use tokio::sync::watch;

use self::caller::Service;
pub use self::caller::{By, Caller};
use self::issuer::Issuer;
use self::keys::ApiKeys;
pub use self::keys::digest_of_key;
pub use self::proof::{Mark, Proof};
use self::revoked::Revoked;
pub use self::rights::GroupTypes;
pub use self::rights::Rights;
use self::tenancy::Tenancy;
use self::token::Verifier;
use crate::config::{AuthConfig, GroupConfig};

/// What `[auth]` says, ready to decide. A cheap handle.
#[derive(Clone, Default)]
pub struct Auth(Option<Arc<Shared>>);

struct Shared {
    /// Replaced as a whole: whoever decides sees one configuration, not parts of two.
    authority: RwLock<Arc<Authority>>,
    /// Rung when a credential may have become worth less.
    changes: watch::Sender<()>,
}

/// What one configuration says.
struct Authority {
    keys: Arc<ApiKeys>,
    tokens: Option<Arc<Verifier>>,
    tenancy: Option<Tenancy>,
    types_of_groups: Arc<GroupTypes>,
    anonymous: Arc<Rights>,
    revoked: Arc<Revoked>,
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
        let authority = RwLock::new(Arc::new(Authority::new(config, groups, None)?));
        Ok(Self(Some(Arc::new(Shared { authority, changes: watch::Sender::new(()) }))))
    }

    /// Takes another configuration for all that is decided from here on; open connections are asked again
    /// ([`Auth::check_still`]). Who reads the keys of an issuer, or
    /// the list of what is revoked, goes on doing so. Nothing happens without `[auth]`.
    ///
    /// # Errors
    /// As [`Auth::new`]; all stays as it was then.
    pub fn replace(&self, config: &AuthConfig, groups: &[GroupConfig]) -> Result<(), AuthError> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let issuer = self.issuer();
        let new = Authority::new(config, groups, issuer.as_ref())?;
        {
            let mut authority = shared.authority.write();
            *authority = Arc::new(new.with_revoked(Arc::clone(&authority.revoked)));
        }
        self.tell_changed();
        Ok(())
    }

    /// Takes a list of tokens and users that are revoked (`[auth] revoked_file`); says how many of each it names.
    ///
    /// # Errors
    /// With the line that makes no sense; the list that was there stays then.
    pub fn revoke(&self, list: &str) -> Result<(usize, usize), String> {
        let Some(shared) = &self.0 else { return Ok((0, 0)) };
        let revoked = Arc::new(Revoked::parse(list)?);
        let counts = revoked.counts();
        {
            let mut authority = shared.authority.write();
            *authority = Arc::new(authority.with_revoked(revoked));
        }
        self.tell_changed();
        Ok(counts)
    }

    /// Says that keys or rules are others, to whoever waits by [`Auth::changes`].
    pub fn tell_changed(&self) {
        if let Some(shared) = &self.0 {
            shared.changes.send_replace(());
        }
    }

    /// Rings when open connections have to be asked again. `None`: without `[auth]` nothing changes.
    pub fn changes(&self) -> Option<watch::Receiver<()>> {
        self.0.as_ref().map(|shared| shared.changes.subscribe())
    }

    /// Whether the credential by which somebody was let in is good still. Its time is not looked at.
    ///
    /// # Errors
    /// `unauthenticated`, with what to tell him.
    pub fn check_still(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(authority) = self.authority() else { return Ok(()) };
        let stands = match caller {
            Caller::Everybody => true,
            Caller::Anonymous(rights) => *rights == authority.anonymous,
            Caller::Service(service) => authority.keys.stands_by(service),
            Caller::User(user) => {
                let tokens = authority.tokens.as_ref();
                let proof = user.proof.as_ref();
                let is_proved = proof.is_none_or(|proof| tokens.is_some_and(|tokens| tokens.stands_by(proof)));
                is_proved && !authority.revoked.names(user)
            }
        };
        if stands {
            Ok(())
        } else {
            Err(unauthenticated("the credential is no longer valid; connect again with a new one"))
        }
    }

    /// Whether there is an `[auth]` section.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The issuer whose published keys somebody has to read.
    pub fn issuer(&self) -> Option<Arc<Issuer>> {
        self.authority()?.tokens.as_ref()?.issuer().cloned()
    }

    fn authority(&self) -> Option<Arc<Authority>> {
        self.0.as_ref().map(|shared| shared.authority.read().clone())
    }

    /// Who shows this credential at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// `unauthenticated` for a credential that is not valid, `unavailable` for one that will be known in a moment. Without
    /// one the caller is anonymous, whatever that may do.
    pub fn identify(&self, credential: Option<&str>, now_ms: u64) -> Result<Caller, Refusal> {
        let Some(authority) = self.authority() else { return Ok(Caller::Everybody) };
        let Some(credential) = credential else { return Ok(Caller::Anonymous(authority.anonymous.clone())) };
        if let Some(service) = authority.keys.find(credential) {
            return Ok(Caller::Service(service));
        }
        let Some(tokens) = &authority.tokens else {
            return Err(unauthenticated("the API key is not known here; check it"));
        };
        let user = tokens.verify(credential, now_ms)?;
        if authority.revoked.names(&user) {
            return Err(unauthenticated("the token has been revoked; get a new one"));
        }
        Ok(Caller::User(user))
    }

    /// The service that shows this key, which has to be one for everything.
    ///
    /// # Errors
    /// `unauthenticated` for what is no key here, `forbidden` for a key that may do less.
    pub fn operator(&self, key: &str) -> Result<Arc<Service>, Refusal> {
        match self.authority().and_then(|authority| authority.keys.find(key)) {
            Some(service) if service.scopes.is_none() => Ok(service),
            Some(_) => {
                let why = "this key may not do everything; use one with `admin = true`";
                Err(Refusal::new(ErrorCode::Forbidden, why))
            }
            None => Err(unauthenticated("the API key is not known here; check it")),
        }
    }

    /// Whether this is the key of a service.
    pub(crate) fn is_key(&self, key: &str) -> bool {
        self.authority().is_some_and(|authority| authority.keys.find(key).is_some())
    }

    /// Whether there is a key for everything.
    pub fn has_operators(&self) -> bool {
        self.authority().is_some_and(|authority| authority.keys.have_operators())
    }
}

impl Authority {
    /// What a configuration says. The keys of an issuer whose set is read elsewhere stay those of `issuer`.
    fn new(config: &AuthConfig, groups: &[GroupConfig], issuer: Option<&Arc<Issuer>>) -> Result<Self, AuthError> {
        let types = GroupTypes::new(groups).map_err(|error| AuthError { key: "anonymous", why: error.to_string() })?;
        let types = Arc::new(types);
        let keys = Arc::new(ApiKeys::read(config)?);
        let mut tokens = Verifier::new(config, &types)?;
        if let (Some(tokens), Some(issuer)) = (&mut tokens, issuer) {
            tokens.go_on_with(issuer);
        }
        let said = &config.anonymous;
        let anonymous = Rights::parse(&said.subscribe, &said.send, &said.query);
        let anonymous = anonymous.map_err(|error| AuthError { key: "anonymous", why: error.to_string() })?;
        let anonymous = Arc::new(Rights { types_of_groups: types.clone(), ..anonymous });
        let revoked = Revoked::parse(config.revoked.as_deref().unwrap_or_default());
        let revoked = Arc::new(revoked.map_err(|why| AuthError { key: "revoked_file", why })?);
        let (tokens, tenancy) = (tokens.map(Arc::new), Tenancy::of(config));
        Ok(Self { keys, tokens, tenancy, types_of_groups: types, anonymous, revoked })
    }

    fn with_revoked(&self, revoked: Arc<Revoked>) -> Self {
        let Self { keys, tokens, tenancy, types_of_groups, anonymous, revoked: _ } = self;
        let (tenancy, types_of_groups) = (tenancy.clone(), types_of_groups.clone());
        Self {
            keys: keys.clone(),
            tokens: tokens.clone(),
            tenancy,
            types_of_groups,
            anonymous: anonymous.clone(),
            revoked,
        }
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
