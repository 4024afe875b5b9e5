//! `Proof`: by what a credential was good when it was shown, so that it can be asked later whether it still is.

use sha2::{Digest, Sha256};

use super::caller::User;
use super::revoked::Revoked;

/// Names a key, or the rules of a configuration, without showing it: a part of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark([u8; 16]);

impl Mark {
    /// The mark of something that consists of these parts.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            // A length says where a part ends.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        Self(*digest.first_chunk().expect("32 bytes are more than 16"))
    }
}

/// What a token was good by, and what it can be revoked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The key that it is signed by.
    pub(super) key: Mark,
    /// What the configuration wanted of it then.
    pub(super) rules: Mark,
    /// The claim `jti`.
    pub(super) token: Option<Box<str>>,
    /// The claim `iat`, in milliseconds since 1970.
    pub(super) issued_ms: Option<u64>,
}

impl Revoked {
    /// Whether the list names this user or the token that he came by.
    pub(super) fn names(&self, user: &User) -> bool {
        let proof = user.proof.as_ref();
        let token = proof.and_then(|proof| proof.token.as_deref());
        token.is_some_and(|token| self.names_token(token))
            || self.names_user(&user.name, proof.and_then(|proof| proof.issued_ms))
    }
}
