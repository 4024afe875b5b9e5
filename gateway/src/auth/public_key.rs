//! Public keys that tokens are signed against: from a PEM file, or from a set as issuers publish them (RFC 7517).
//!
//! What a key is decides by which algorithm its tokens are signed, once, when it is read. Symmetric keys are never taken
//! from a set: who publishes one has given away the right to sign.

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::proof::Mark;

/// Keys of one set: each is a candidate for a token that names none.
const KEYS_MAX: usize = 100;

/// A key, with the algorithm that it is for.
#[derive(Clone)]
pub(super) struct PublicKey {
    /// How a token names it.
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Which key it is, for who was let in by it.
    pub(super) mark: Mark,
}

/// Bytes that are no key, or no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// A private key, which has no business here.
    #[error("holds a private key, and only the issuer needs that; give the public one (openssl pkey -pubout)")]
    Private,
    /// No PEM of a public key.
    #[error("holds no public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    NoPem,
    /// A key of another kind.
    #[error("holds a key that is neither RSA nor on the curve P-256 nor Ed25519")]
    Kind,
    /// Not a set.
    #[error("is no set of keys, which is JSON as in {{\"keys\":[…]}}: {0}")]
    NoSet(String),
    /// A set without a key that could be used.
    #[error("has {found} keys, and none that signs with RS256, ES256 or EdDSA")]
    NoneUsable {
        /// How many there are.
        found: usize,
    },
    /// More than are tried.
    #[error("has {found} keys, at most {KEYS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Object identifiers as they stand in a SubjectPublicKeyInfo (RFC 3279, 5480 and 8410).
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// The identifier stands this near to the beginning.
const IDENTIFIER_BYTES: usize = 32;

/// Reads a public key in PEM.
///
/// # Errors
/// When it is none that tokens are signed for.
pub(super) fn from_pem(text: &str) -> Result<PublicKey, PublicKeyError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(PublicKeyError::Private);
    }
    let info = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| PublicKeyError::NoPem)?;
    let head = &info[..info.len().min(IDENTIFIER_BYTES)];
    let is = |identifier: &[u8]| head.windows(identifier.len()).any(|window| window == identifier);
    let (algorithm, key) = if is(RSA) {
        (Algorithm::RS256, DecodingKey::from_rsa_der(&info))
    } else if is(P256) {
        (Algorithm::ES256, DecodingKey::from_ec_der(&info))
    } else if is(ED25519) {
        (Algorithm::EdDSA, DecodingKey::from_ed_der(&info))
    } else {
        return Err(PublicKeyError::Kind);
    };
    Ok(PublicKey { kid: None, algorithm, key, mark: Mark::of(&[&info]) })
}

/// Reads a set of keys. Those that are for something else are passed over, as the standard wants it (RFC 7517, section 5).
///
/// # Errors
/// When it is none, or has no key that could be used.
pub(super) fn from_set(bytes: &[u8]) -> Result<Vec<PublicKey>, PublicKeyError> {
    let set: Set = serde_json::from_slice(bytes).map_err(|error| PublicKeyError::NoSet(error.to_string()))?;
    let found = set.keys.len();
    if found > KEYS_MAX {
        return Err(PublicKeyError::TooMany { found });
    }
    let keys: Vec<PublicKey> =
        set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).filter_map(usable).collect();
    if keys.is_empty() { Err(PublicKeyError::NoneUsable { found }) } else { Ok(keys) }
}

fn usable(jwk: Jwk) -> Option<PublicKey> {
    let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !(signs && verifies) {
        return None;
    }
    let parts = [&jwk.n, &jwk.e, &jwk.x, &jwk.y].map(|part| part.as_deref().unwrap_or_default().as_bytes());
    let mark = Mark::of(&parts);
    let (algorithm, names, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None) => (Algorithm::RS256, &["RS256"][..], DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?)),
        ("EC", Some("P-256")) => (Algorithm::ES256, &["ES256"][..], DecodingKey::from_ec_components(&jwk.x?, &jwk.y?)),
        // RFC 9864 gives it a second name.
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], DecodingKey::from_ed_components(&jwk.x?))
        }
        _ => return None,
    };
    let is_meant = jwk.alg.as_deref().is_none_or(|alg| names.contains(&alg));
    is_meant.then_some(PublicKey { kid: jwk.kid, algorithm, key: key.ok()?, mark })
}
