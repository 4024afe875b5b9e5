//! What `[auth]` means: that somebody can do something, and that every secret is said once.

use super::AuthConfig;
use super::check::Found;
use crate::auth::Rights;

/// Secrets themselves are looked at when they have been read, by `crate::auth`.
pub(super) fn check_auth(auth: &AuthConfig, found: &mut Vec<Found>) {
    for (key, places) in [("jwt_secret_env", auth.jwt_secret_places()), ("api_keys_env", auth.api_keys_places())] {
        if places.count() > 1 {
            let other = key.replace("_env", "_file");
            found.push((format!("auth.{key}"), format!("is said in several ways; give one of `{key}` and `{other}`")));
        }
    }
    let said = &auth.anonymous;
    let rights = match Rights::parse(&said.subscribe, &said.send, &said.query) {
        Ok(rights) => rights,
        Err(error) => return found.push(("auth.anonymous".to_owned(), error.to_string())),
    };
    let named = auth.jwt_secret_places().count() + auth.api_keys_places().count() > 0;
    let is_read = auth.jwt_secret.is_some() || auth.api_keys.is_some();
    if !(named || is_read) && rights.are_none() {
        let why =
            "lets nobody in: it names no secret for tokens and no API keys, and gives anonymous callers no rights";
        let todo = "set `jwt_secret_env` or `api_keys_env`, or take [auth] out and listen on a loopback address";
        found.push(("auth".to_owned(), format!("{why}; {todo}")));
    }
}
