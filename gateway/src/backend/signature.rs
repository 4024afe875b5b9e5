//! `Signer`: signs requests as Standard Webhooks does, so that every language has a library that checks them.
//!
//! ```text
//! webhook-signature: v1,BASE64(HMAC-SHA256(key, "{webhook-id}.{webhook-timestamp}.{body}"))
//! ```
//!
//! Source: Standard Webhooks, "Signature scheme" (symmetric, `v1`); several signatures are apart by a space.

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Signs with every key.
pub(super) struct Signer(Vec<Key>);

impl Signer {
    pub(super) fn new(keys: &[Vec<u8>]) -> Self {
        Self(keys.iter().map(|key| Key::new(HMAC_SHA256, key)).collect())
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.0.is_empty()
    }

    /// The header's value; `None` without a key.
    pub(super) fn sign(&self, id: &str, at_seconds: u64, body: &[u8]) -> Option<String> {
        let one = |key: &Key| {
            let mut context = Context::with_key(key);
            context.update(format!("{id}.{at_seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        let signatures: Vec<_> = self.0.iter().map(one).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    /// The vector that the standard's libraries test themselves with.
    #[test]
    fn it_signs_as_the_standards_libraries_do() {
        let keys = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").keys().expect("a secret");
        let signature =
            Signer::new(&keys).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn every_key_signs_and_none_signs_nothing() {
        let keys = [vec![1; 32], vec![2; 32]];
        let both = Signer::new(&keys).sign("a", 1, b"{}").expect("signed");
        let alone = |at: usize| Signer::new(&keys[at..=at]).sign("a", 1, b"{}").expect("signed");
        assert_eq!(both, format!("{} {}", alone(0), alone(1)));
        assert_eq!(Signer::new(&[]).sign("a", 1, b"{}"), None);
    }
}
