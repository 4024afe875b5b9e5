//! Keys of services: kept as digests, compared in constant time.

use std::sync::Arc;

use groupcast_protocol::GroupName;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::AuthError;
use super::caller::Service;
use super::proof::Mark;
use super::rights::{Rights, Types};
use crate::config::{ApiKeyConfig, AuthConfig};

/// Fewer characters can be guessed.
pub(super) const SECRET_CHARS_MIN: usize = 32;

/// What to do about a bad secret.
pub(super) const MAKE_ONE: &str = "make one with: openssl rand -hex 32";

/// The name of services whose keys have none.
const NAMELESS: &str = "api_keys";

/// Every key that is known here. SHA-256 is enough of a hash: a key is random, and too long to be searched for.
pub(super) struct ApiKeys(Vec<(Digested, Arc<Service>)>);

type Digested = [u8; 32];

impl ApiKeys {
    /// Reads the keys of the configuration, with and without names.
    ///
    /// # Errors
    /// When one is too short, cannot stand in a header, or grants nothing.
    pub(super) fn read(config: &AuthConfig) -> Result<Self, AuthError> {
        let mut keys = Vec::new();
        if let Some(text) = &config.api_keys {
            keys.extend(nameless(text.expose())?);
        }
        for entry in &config.api_key {
            keys.push(named(entry)?);
        }
        Ok(Self(keys))
    }

    /// Whose key this is. Takes as long whichever key it is, and if it is none.
    pub(super) fn find(&self, credential: &str) -> Option<Arc<Service>> {
        if self.0.is_empty() {
            return None;
        }
        let shown = digest(credential);
        let mut found = None;
        for (known, service) in &self.0 {
            let equal: Choice = known.ct_eq(&shown);
            if bool::from(equal) {
                found = Some(service);
            }
        }
        found.cloned()
    }

    /// Whether there is a key for everything.
    pub(super) fn have_operators(&self) -> bool {
        self.0.iter().any(|(_, service)| service.scopes.is_none())
    }

    /// Whether that key is known here still, and may do the same.
    pub(super) fn stands_by(&self, service: &Service) -> bool {
        self.0.iter().any(|(_, known)| **known == *service)
    }
}

/// Keys that are separated by commas: of one service that may do everything.
fn nameless(text: &str) -> Result<Vec<(Digested, Arc<Service>)>, AuthError> {
    let refused = |why: String| AuthError { key: "api_keys_env", why };
    let mut keys = Vec::new();
    for (at, key) in text.split(',').map(str::trim).enumerate().filter(|(_, key)| !key.is_empty()) {
        check(key).map_err(|why| refused(format!("key {} {why}", at + 1)))?;
        let digest = digest(key);
        let service = Service { name: NAMELESS.to_owned(), scopes: None, key: Mark::of(&[&digest]) };
        keys.push((digest, Arc::new(service)));
    }
    if keys.is_empty() {
        let why = "names a variable without a key in it; set it to one or more, separated by commas";
        return Err(refused(why.to_owned()));
    }
    Ok(keys)
}

/// An entry of the configuration.
fn named(entry: &ApiKeyConfig) -> Result<(Digested, Arc<Service>), AuthError> {
    let ApiKeyConfig { name, sha256, scopes } = entry;
    let refused = |why: String| AuthError { key: "api_key", why: format!("`{name}`: {why}") };
    if let Err(error) = GroupName::parse(name) {
        return Err(refused(error.to_string().replace("group name", "name")));
    }
    if name == NAMELESS {
        return Err(refused("is what keys without a name are called; choose another one".to_owned()));
    }
    let digest = from_hex(sha256).ok_or_else(|| {
        refused(
            "`sha256` has to be the SHA-256 of the key in 64 hexadecimal digits; make both with: groupcast key new"
                .to_owned(),
        )
    })?;
    let rights = Rights::parse(&scopes.subscribe, &scopes.send, &scopes.query);
    let rights = rights.map_err(|error| refused(error.to_string()))?;
    if rights.are_none() && !scopes.admin {
        return Err(refused("its scopes grant nothing; name some, or set `admin = true` for everything".to_owned()));
    }
    let rights = Rights { types: scopes.types.as_deref().map(Types::new), ..rights };
    let scopes = (!scopes.admin).then_some(rights);
    Ok((digest, Arc::new(Service { name: name.clone(), scopes, key: Mark::of(&[&digest]) })))
}

fn check(key: &str) -> Result<(), String> {
    let characters = key.chars().count();
    if characters < SECRET_CHARS_MIN {
        return Err(format!(
            "has {characters} characters, and fewer than {SECRET_CHARS_MIN} can be guessed; {MAKE_ONE}"
        ));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("has characters that cannot stand in a header; {MAKE_ONE}"));
    }
    Ok(())
}

fn digest(key: &str) -> Digested {
    Sha256::digest(key.as_bytes()).into()
}

/// The SHA-256 of a key, as the configuration has it.
pub fn digest_of_key(key: &str) -> String {
    digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Digested> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && rest.is_empty();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes.filter(|_| is_hex)?.try_into().ok()
}
