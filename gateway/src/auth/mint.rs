//! Makes tokens: for `groupcast token`, and for whoever tries a gateway out.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::Value;

/// What a token says.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// Which token it is: by this it can be revoked.
    pub jti: String,
    /// Groups that may be subscribed to, as patterns.
    pub subscribe: Vec<String>,
    /// Groups that may be sent to, as patterns.
    pub send: Vec<String>,
    /// Queries that may be run, as patterns.
    pub query: Vec<String>,
    /// By whom it is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For which gateway it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Other claims; none of those above.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A token with these claims, signed with HS256.
pub fn mint(secret: &str, claims: &Claims) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("texts and numbers are JSON, and HMAC takes any secret")
}
