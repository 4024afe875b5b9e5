//! What a token says, once its signature is known to be good.

use groupcast_protocol::Refusal;
use serde::Deserialize;

use super::Rules;
use crate::auth::caller::User;
use crate::auth::rights::Rights;
use crate::auth::unauthenticated;

/// Longer names of users are cut out of nobody's log.
const USER_BYTES_MAX: usize = 255;

/// What is read of a token's claims. Of a wrong type is not absent: such a token is refused.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    send: Vec<String>,
    #[serde(default)]
    query: Vec<String>,
}

/// For whom a token is: one name or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
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
        let rights = Rights::parse(&self.subscribe, &self.send, &self.query);
        let rights = rights.map_err(|error| unauthenticated(format!("the token's claim {error}")))?;
        Ok(User { name, rights, expires_ms })
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

/// A time of RFC 7519, section 2 (`NumericDate`), in milliseconds; what is before 1970 is 1970.
fn milliseconds(seconds: f64) -> u64 {
    // A cast saturates.
    (seconds * 1000.0) as u64
}
