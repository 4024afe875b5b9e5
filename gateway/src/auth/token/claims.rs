//! What a token says, once its signature is known to be good.

use std::collections::BTreeMap;
use std::sync::Arc;

use groupcast_protocol::Refusal;
use serde::Deserialize;
use serde_json::Value;

use super::Rules;
use crate::auth::caller::User;
use crate::auth::rights::Rights;
use crate::auth::tenancy::TENANT;
use crate::auth::unauthenticated;

/// Longer names of users are cut out of nobody's log.
const USER_BYTES_MAX: usize = 255;

/// What is read of a token's claims. Of a wrong type is not absent: such a token is refused.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
    iss: Option<String>,
    aud: Option<Audience>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    send: Vec<String>,
    #[serde(default)]
    query: Vec<String>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

/// Claims that queries can bind, and bytes of each: they are kept with every job that needs them.
const BOUND_MAX: usize = 32;
const BOUND_BYTES_MAX: usize = 255;

/// For whom a token is: one name or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// What the token can be revoked by: `jti` and `iat`.
    pub(super) fn identity(&self) -> (Option<Box<str>>, Option<u64>) {
        (self.jti.as_deref().map(Into::into), self.iat.map(milliseconds))
    }

    pub(super) fn into_user(self, rules: &Rules, now_ms: u64) -> Result<User, Refusal> {
        self.check_parties(rules)?;
        let name = self.sub;
        if name.is_empty() || name.len() > USER_BYTES_MAX || name.chars().any(char::is_control) {
            let why = format!("the token's `sub` has to have 1 to {USER_BYTES_MAX} bytes and no control characters");
            return Err(unauthenticated(why));
        }
        let expires_ms = milliseconds(self.exp);
        if expires_ms.saturating_add(rules.leeway_ms) <= now_ms {
            return Err(unauthenticated("the token has expired; get a new one"));
        }
        if self.nbf.is_some_and(|nbf| milliseconds(nbf) > now_ms.saturating_add(rules.leeway_ms)) {
            return Err(unauthenticated("the token is not good yet (`nbf`); compare the clocks"));
        }
        let tenant = rules.tenancy.as_ref().map(|tenancy| tenancy.tenant(&name, &self.more)).transpose()?;
        let fill = |patterns: &[String]| match tenant {
            Some(tenant) => patterns.iter().map(|pattern| pattern.replace(TENANT, tenant)).collect(),
            None => patterns.to_vec(),
        };
        let rights = Rights::parse(&fill(&self.subscribe), &fill(&self.send), &self.query);
        let rights = rights.map_err(|error| unauthenticated(format!("the token's claim {error}")))?;
        let within = tenant.zip(rules.tenancy.as_ref());
        let within = within.map(|(tenant, tenancy)| tenancy.prefix(tenant));
        let rights = Rights { within, types_of_groups: Arc::clone(&rules.types_of_groups), ..rights };
        let claims = bindable(&name, self.more);
        Ok(User { name, rights, claims, expires_ms: Some(expires_ms), proof: None })
    }

    fn check_parties(&self, rules: &Rules) -> Result<(), Refusal> {
        if rules.issuer.is_some() && self.iss != rules.issuer {
            return Err(unauthenticated("the token is not of the issuer that is configured here (`iss`)"));
        }
        match (&rules.audience, &self.aud) {
            (None, None) => Ok(()),
            (Some(own), Some(Audience::One(name))) if name == own => Ok(()),
            (Some(own), Some(Audience::Several(names))) if names.contains(own) => Ok(()),
            (Some(_), _) => Err(unauthenticated("the token is not meant for this gateway (`aud`)")),
            // RFC 7519, section 4.1.3: who is not named by it has to refuse it.
            (None, Some(_)) => Err(unauthenticated(
                "the token is for somebody (`aud`), and [auth] audience does not say who this gateway is",
            )),
        }
    }
}

/// What queries can bind; the rest is nobody's business here.
pub(in crate::auth) fn bindable(name: &str, more: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let is_small = |value: &Value| match value {
        Value::String(text) => text.len() <= BOUND_BYTES_MAX,
        Value::Bool(_) | Value::Number(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    let mut claims: BTreeMap<String, Value> =
        more.into_iter().filter(|(_, value)| is_small(value)).take(BOUND_MAX).collect();
    claims.insert("sub".to_owned(), Value::from(name));
    // They change with each token of the same user, and would make live queries of one user many.
    ["iat", "jti"].iter().for_each(|passing| drop(claims.remove(*passing)));
    claims
}

/// A time of RFC 7519, section 2 (`NumericDate`), in milliseconds; what is before 1970 is 1970.
fn milliseconds(seconds: f64) -> u64 {
    // A cast saturates.
    (seconds * 1000.0) as u64
}
