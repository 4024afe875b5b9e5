//! Makes tokens: for `groupcast token`, and for whoever tries a gateway out.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

/// What a token says.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// Groups that may be subscribed to, as patterns.
    pub subscribe: Vec<String>,
    /// Groups that may be sent to, as patterns.
    pub send: Vec<String>,
    /// Queries that may be run, as patterns.
    pub query: Vec<String>,
}

/// A token with these claims, signed with HS256.
pub fn mint(secret: &str, claims: &Claims) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("texts and numbers are JSON, and HMAC takes any secret")
}
