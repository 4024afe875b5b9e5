//! Keys of services: kept as digests, compared in constant time.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::AuthError;
use super::caller::Service;
use crate::config::Hidden;

/// Fewer characters can be guessed.
pub(super) const SECRET_CHARS_MIN: usize = 32;

/// Every key that is known here. SHA-256 is enough of a hash: a key is random, and too long to be searched for.
pub(super) struct ApiKeys(Vec<([u8; 32], Arc<Service>)>);

impl ApiKeys {
    /// Reads keys that are separated by commas. `None`: there are none.
    ///
    /// # Errors
    /// When there is none after all, or one is too short or cannot stand in a header.
    pub(super) fn read(text: Option<&Hidden>) -> Result<Self, AuthError> {
        let Some(text) = text else { return Ok(Self(Vec::new())) };
        let mut keys = Vec::new();
        let keys_of_text = text.expose().split(',').map(str::trim);
        for (at, key) in keys_of_text.enumerate().filter(|(_, key)| !key.is_empty()) {
            check(key).map_err(|why| AuthError { key: "api_keys_env", why: format!("key {} {why}", at + 1) })?;
            // Keys without a name are one service: which of them is shown is a matter of rotation.
            keys.push((digest(key), Arc::new(Service { name: "api_keys".to_owned() })));
        }
        if keys.is_empty() {
            let why = "names a variable without a key in it; set it to one or more, separated by commas";
            return Err(AuthError { key: "api_keys_env", why: why.to_owned() });
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

/// What to do about a bad secret.
pub(super) const MAKE_ONE: &str = "make one with: openssl rand -hex 32";

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
