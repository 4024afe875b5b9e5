//! `Secret`: what signs requests to a backend. It is never shown.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What a secret begins with (Standard Webhooks, "Symmetric"); it may be left out.
const PREFIX: &str = "whsec_";

/// Bytes of a key (Standard Webhooks, "Symmetric").
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Keys for HMAC-SHA256 as they are written: `whsec_` and 24 to 64 bytes in base64; several of them, apart by white space,
/// all sign, so that a backend can change over to a new one.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

/// A text that is no secret. It does not show the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is nothing.
    #[error("is empty; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)")]
    Empty,
    /// Not base64.
    #[error("is not base64 after `whsec_`; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)")]
    NotBase64,
    /// Too short to be safe, or too long to be a key.
    #[error(
        "is a key of {0} bytes, and 24 to 64 are needed; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
    )]
    Length(usize),
}

impl Secret {
    /// A secret as it is written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The keys, at least one.
    ///
    /// # Errors
    /// When the text is no secret.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, SecretError> {
        let keys: Vec<_> = self.0.split_whitespace().map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(SecretError::Empty) } else { Ok(keys) }
    }
}

fn key(text: &str) -> Result<Vec<u8>, SecretError> {
    let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|_| SecretError::NotBase64)?;
    if KEY_BYTES.contains(&key.len()) { Ok(key) } else { Err(SecretError::Length(key.len())) }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_base64_of_enough_bytes() {
        let keys = |text: &str| Secret::new(text).keys();
        let long = STANDARD.encode([7; 32]);
        assert_eq!(keys(&format!("whsec_{long}")), Ok(vec![vec![7; 32]]));
        assert_eq!(keys(&format!(" {long}\nwhsec_{long}\n")), Ok(vec![vec![7; 32]; 2]));
        assert_eq!(keys(" \n"), Err(SecretError::Empty));
        assert_eq!(keys("whsec_secret!"), Err(SecretError::NotBase64));
        assert_eq!(keys(&STANDARD.encode([7; 23])), Err(SecretError::Length(23)));
        assert_eq!(keys(&STANDARD.encode([7; 65])), Err(SecretError::Length(65)));
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", Some(Secret::new("whsec_abc"))), "Some(Secret(…))");
        assert!(!Secret::new("abc!").keys().expect_err("no base64").to_string().contains("abc"));
    }
}
