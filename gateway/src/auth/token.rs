//! Tokens of users: JWTs, signed as the configuration says.
//!
//! The signature is checked by `jsonwebtoken`; what the claims mean, and by what time, is decided here.

use std::sync::Arc;

use groupcast_protocol::Refusal;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::caller::User;
use super::keys::{MAKE_ONE, SECRET_CHARS_MIN};
use super::rights::Rights;
use super::{AuthError, unauthenticated};
use crate::config::Hidden;

/// A longer token is none of ours: it would not fit into the head of a request beside anything else.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longer names of users are cut out of nobody's log.
const USER_BYTES_MAX: usize = 255;

/// Checks tokens.
pub(super) struct Verifier {
    key: DecodingKey,
    rules: Validation,
}

/// What is read of a token's claims. Of a wrong type is not absent: such a token is refused.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    send: Vec<String>,
    #[serde(default)]
    query: Vec<String>,
}

impl Verifier {
    /// Tokens are signed by HMAC with SHA-256 and this secret.
    ///
    /// # Errors
    /// When it is too short.
    pub(super) fn of_secret(secret: &Hidden) -> Result<Self, AuthError> {
        let secret = secret.expose();
        let characters = secret.chars().count();
        if characters < SECRET_CHARS_MIN {
            let why = format!(
                "names a secret of {characters} characters, and fewer than {SECRET_CHARS_MIN} can be guessed; {MAKE_ONE}"
            );
            return Err(AuthError { key: "jwt_secret_env", why });
        }
        Ok(Self { key: DecodingKey::from_secret(secret.as_bytes()), rules: rules(Algorithm::HS256) })
    }

    /// Whom a token names at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// `unauthenticated`, with the reason as far as it helps who has a good token.
    pub(super) fn verify(&self, token: &str, now_ms: u64) -> Result<Arc<User>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unauthenticated(format!("the token has more than {TOKEN_BYTES_MAX} bytes; grant by prefixes")));
        }
        let head = jsonwebtoken::decode_header(token).map_err(|error| told(&error))?;
        if head.crit.is_some() {
            return Err(unauthenticated("the token has `crit` extensions, and none are understood here"));
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules).map_err(|error| told(&error))?.claims;
        claims.into_user(now_ms).map(Arc::new)
    }
}

/// The signature alone: what a claim means is decided here, by a time that is given.
fn rules(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    rules
}

impl Claims {
    fn into_user(self, now_ms: u64) -> Result<User, Refusal> {
        let name = self.sub;
        if name.is_empty() || name.len() > USER_BYTES_MAX || name.chars().any(char::is_control) {
            let why = format!("the token's `sub` has to have 1 to {USER_BYTES_MAX} bytes and no control characters");
            return Err(unauthenticated(why));
        }
        let expires_ms = milliseconds(self.exp);
        if expires_ms <= now_ms {
            return Err(unauthenticated("the token has expired; get a new one"));
        }
        let rights = Rights::parse(&self.subscribe, &self.send, &self.query);
        let rights = rights.map_err(|error| unauthenticated(format!("the token's claim {error}")))?;
        Ok(User { name, rights, expires_ms })
    }
}

/// A time of RFC 7519, section 2 (`NumericDate`), in milliseconds; what is before 1970 is 1970.
fn milliseconds(seconds: f64) -> u64 {
    // A cast saturates.
    (seconds * 1000.0) as u64
}

/// What is wrong with a token, without a word of it.
fn told(error: &jsonwebtoken::errors::Error) -> Refusal {
    unauthenticated(match error.kind() {
        ErrorKind::InvalidSignature => {
            "the token's signature is not valid here; get one that is signed for this gateway"
        }
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "the token is not signed by the algorithm that is configured here"
        }
        ErrorKind::Json(_) => {
            "the token's head or claims cannot be read; `sub` has to be a text, `exp` a number, `subscribe`, `send` and `query` lists of texts"
        }
        _ => "the credential is neither a token nor an API key that is known here",
    })
}
