//! Tokens of users: JWTs, signed as the configuration says.
//!
//! The signature is checked by `jsonwebtoken`; what the claims mean, and by what time, is decided here.

pub(super) mod claims;

use std::sync::Arc;

use groupcast_protocol::{ErrorCode, Refusal};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};

use self::claims::Claims;
use super::caller::User;
use super::issuer::Issuer;
use super::keys::{MAKE_ONE, SECRET_CHARS_MIN};
use super::proof::{Mark, Proof};
use super::public_key::{self, PublicKey};
use super::rights::GroupTypes;
use super::tenancy::Tenancy;
use super::{AuthError, unauthenticated};
use crate::config::{AuthConfig, Hidden};

/// A longer token is none of ours: it would not fit into the head of a request beside anything else.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Checks tokens.
pub(super) struct Verifier {
    /// Keys of the configuration itself.
    keys: Vec<PublicKey>,
    /// Keys that somebody else publishes.
    issuer: Option<Arc<Issuer>>,
    rules: Rules,
    /// Which rules these are, for who was let in by them.
    mark: Mark,
}

/// What claims have to be beside what they grant.
struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_ms: u64,
    tenancy: Option<Tenancy>,
    types_of_groups: Arc<GroupTypes>,
}

impl Verifier {
    /// Reads what the configuration says of tokens; `None`: there are none.
    ///
    /// # Errors
    /// When a secret is too short, or a file holds no key.
    pub(super) fn new(config: &AuthConfig, types_of_groups: &Arc<GroupTypes>) -> Result<Option<Self>, AuthError> {
        let mut keys = Vec::new();
        if let Some(secret) = &config.jwt_secret {
            let (key, mark) = (secret_key(secret)?, Mark::of(&[secret.expose().as_bytes()]));
            keys.push(PublicKey { kid: None, algorithm: Algorithm::HS256, key, mark });
        }
        if let Some(pem) = &config.jwt_public_key {
            let told =
                |error: public_key::PublicKeyError| AuthError { key: "jwt_public_key_file", why: error.to_string() };
            keys.push(public_key::from_pem(pem).map_err(told)?);
        }
        let publishes = config.jwks_file.is_some() || config.jwks_url.is_some() || config.jwks.is_some();
        let issuer = publishes.then(|| Arc::new(Issuer::new(config.jwks_interval_ms())));
        if let (Some(issuer), Some(set)) = (&issuer, &config.jwks) {
            let told = |error: public_key::PublicKeyError| AuthError { key: "jwks_file", why: error.to_string() };
            issuer.publish(set.as_bytes()).map_err(told)?;
        }
        if keys.is_empty() && issuer.is_none() {
            return Ok(None);
        }
        let rules = Rules {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway_ms: u64::try_from(config.leeway.0.as_millis()).unwrap_or(u64::MAX),
            tenancy: Tenancy::of(config),
            types_of_groups: Arc::clone(types_of_groups),
        };
        Ok(Some(Self { keys, issuer, rules, mark: mark_of_rules(config, types_of_groups) }))
    }

    /// Goes on with the issuer of another one, whose keys somebody reads.
    pub(super) fn go_on_with(&mut self, issuer: &Arc<Issuer>) {
        self.issuer = self.issuer.take().map(|_| Arc::clone(issuer));
    }

    /// Whether a token that was good by this would be good still.
    pub(super) fn stands_by(&self, proof: &Proof) -> bool {
        let published = self.issuer.as_ref().map(|issuer| issuer.keys()).unwrap_or_default();
        proof.rules == self.mark && self.keys.iter().chain(published.iter()).any(|key| key.mark == proof.key)
    }

    pub(super) fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    /// Whom a token names at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// `unauthenticated`, with the reason as far as it helps who has a good token; `unavailable` for one that is signed by a
    /// key of the issuer's that is about to be read.
    pub(super) fn verify(&self, token: &str, now_ms: u64) -> Result<Arc<User>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unauthenticated(format!("the token has more than {TOKEN_BYTES_MAX} bytes; grant by prefixes")));
        }
        let head = jsonwebtoken::decode_header(token).map_err(|error| told(&error))?;
        if head.crit.is_some() {
            return Err(unauthenticated("the token has `crit` extensions, and none are understood here"));
        }
        let (claims, key) = self.signed(token, &head, now_ms)?;
        let (token, issued_ms) = claims.identity();
        let mut user = claims.into_user(&self.rules, now_ms)?;
        user.proof = Some(Proof { key, rules: self.mark, token, issued_ms });
        Ok(Arc::new(user))
    }

    /// The claims, if a key of that algorithm has signed them. Which keys are tried is the configuration's and the issuer's
    /// choice; the head of a token only leads to one of them.
    fn signed(&self, token: &str, head: &Header, now_ms: u64) -> Result<(Claims, Mark), Refusal> {
        let published = self.issuer.as_ref().map(|issuer| issuer.keys()).unwrap_or_default();
        let is_meant = |key: &&PublicKey| {
            key.algorithm == head.alg && (key.kid.is_none() || head.kid.is_none() || key.kid == head.kid)
        };
        let mut refused = None;
        for key in self.keys.iter().chain(published.iter()).filter(is_meant) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &signature_alone(key.algorithm)) {
                Ok(decoded) => return Ok((decoded.claims, key.mark)),
                // A wrong key may be followed by the right one; claims that cannot be read are those of the right one.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => refused = Some(error),
                Err(error) => return Err(told(&error)),
            }
        }
        let may_come = matches!(head.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA);
        // A key that is there has had its say.
        let is_known = head.kid.is_some() && published.iter().any(|key| key.kid == head.kid);
        if let Some(issuer) = self.issuer.as_ref().filter(|_| may_come && !is_known)
            && issuer.ask(now_ms)
        {
            let why = "the token is signed by a key of the issuer's that has not been read yet; try again in a moment";
            return Err(Refusal::new(ErrorCode::Unavailable, why));
        }
        Err(refused.map_or_else(|| told(&ErrorKind::InvalidAlgorithm.into()), |error| told(&error)))
    }
}

fn secret_key(secret: &Hidden) -> Result<DecodingKey, AuthError> {
    let secret = secret.expose();
    let characters = secret.chars().count();
    if characters < SECRET_CHARS_MIN {
        let why = format!(
            "names a secret of {characters} characters, and fewer than {SECRET_CHARS_MIN} can be guessed; {MAKE_ONE}"
        );
        return Err(AuthError { key: "jwt_secret_env", why });
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

/// Whoever was let in by other rules has to show his token again.
fn mark_of_rules(config: &AuthConfig, types: &GroupTypes) -> Mark {
    let AuthConfig { issuer, audience, leeway, tenant_claim, tenant_prefix, .. } = config;
    Mark::of(&[format!("{issuer:?} {audience:?} {leeway:?} {tenant_claim:?} {tenant_prefix:?} {types:?}").as_bytes()])
}

/// What a claim means is decided here, by a time that is given.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    rules
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
