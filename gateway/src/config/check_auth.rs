//! What `[auth]` means: that somebody can do something, and that every secret is said once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use groupcast_protocol::GroupName;
use http::Uri;

use super::check::Found;
use super::hooks::HookEvent;
use super::{AuthConfig, HooksConfig, ScopesConfig};
use crate::auth::Rights;

/// More than clocks differ that somebody looks after.
const LEEWAY_MAX: Duration = Duration::from_secs(60);

/// More often is a load on the issuer and no use.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Claims that say what the gateway itself acts on, or that change with each token: nothing is bound to them.
pub(super) const NOT_BOUND: [&str; 9] = ["exp", "nbf", "iat", "jti", "iss", "aud", "subscribe", "send", "query"];

/// Secrets themselves are looked at when they have been read, by `crate::auth`.
pub(super) fn check_auth(auth: &AuthConfig, hooks: Option<&HooksConfig>, found: &mut Vec<Found>) {
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
    check_set(auth, found);
    check_tenancy(auth, found);
    check_keys(auth, found);
    if auth.leeway.0 > LEEWAY_MAX {
        let why = "is longer than a minute; put the clocks right, or give tokens that last longer";
        found.push(("auth.leeway".to_owned(), why.to_owned()));
    }
    let is_asked = hooks.is_some_and(|hooks| hooks.has(HookEvent::Connect));
    if !auth.knows_anybody() && rights.are_none() && !is_asked {
        let why =
            "lets nobody in: it names no secret for tokens and no API keys, and gives anonymous callers no rights";
        let todo = "set `jwt_secret_env` or `api_keys_env`, have [hooks] asked at connect, or take [auth] out and listen on a loopback address";
        found.push(("auth".to_owned(), format!("{why}; {todo}")));
    }
}

/// A prefix without an end of its own would let the tenant `a` into the groups of `ab`.
fn check_tenancy(auth: &AuthConfig, found: &mut Vec<Found>) {
    let prefix = &auth.tenant_prefix;
    let filled = prefix.replacen("{tenant}", "t", 1);
    let is_name = GroupName::parse(&format!("{filled}g")).is_ok_and(|name| !name.is_of_live_query());
    let has_end = prefix.split_once("{tenant}").is_some_and(|(_, rest)| rest.starts_with('.'));
    if !(is_name && has_end) {
        let why = "has to be the beginning of a group's name with `{tenant}.` in it once, as in \"tenant.{tenant}.\"";
        found.push(("auth.tenant_prefix".to_owned(), why.to_owned()));
    }
    match auth.tenant_claim.as_deref() {
        Some("") => {
            found.push(("auth.tenant_claim".to_owned(), "is empty; name the claim, or leave it out".to_owned()))
        }
        Some(claim) if NOT_BOUND.contains(&claim) => {
            let why = format!("`{claim}` says something else about a token, and no tenant; name a claim of your own");
            found.push(("auth.tenant_claim".to_owned(), why));
        }
        None if *prefix != AuthConfig::default().tenant_prefix => {
            let why = "is for tenants, and without `tenant_claim` there are none; name the claim, or take this out";
            found.push(("auth.tenant_prefix".to_owned(), why.to_owned()));
        }
        Some(_) | None => {}
    }
}

/// Two entries for one key would be a key whose scopes nobody can tell.
fn check_keys(auth: &AuthConfig, found: &mut Vec<Found>) {
    let mut known = HashMap::new();
    for (at, key) in auth.api_key.iter().enumerate() {
        if let Some(first) = known.insert(key.sha256.to_ascii_lowercase(), at) {
            let why = format!("is the key of auth.api_key[{first}] as well; make another one with `groupcast key new`");
            found.push((format!("auth.api_key[{at}].sha256"), why));
        }
        let ScopesConfig { subscribe, send, query, types, admin } = &key.scopes;
        let has_others = types.is_some() || [subscribe, send, query].iter().any(|list| !list.is_empty());
        if *admin && has_others {
            let why = "lets it do everything, whatever the other scopes say; take out this or them";
            found.push((format!("auth.api_key[{at}].scopes.admin"), why.to_owned()));
        }
    }
}

fn check_set(auth: &AuthConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: &str| found.push((format!("auth.{key}"), why.to_owned()));
    if auth.jwks_file.is_some() && auth.jwks_url.is_some() {
        wrong("jwks_url", "is said, and so is `jwks_file`; give one of them");
    }
    if auth.jwks_url.as_deref().is_some_and(|url| !is_safe(url)) {
        wrong(
            "jwks_url",
            "has to begin with https://, or be on a loopback address: whoever answers there decides who is let in",
        );
    }
    if auth.jwks_interval.0 < INTERVAL_MIN {
        wrong("jwks_interval", "has to be 1s or longer");
    }
    if auth.has_set() && auth.audience.is_none() {
        wrong("audience", "is missing: without it tokens would be taken that the issuer gave for somebody else");
    }
    if auth.has_set() && auth.issuer.is_none() {
        wrong("issuer", "is missing; say the `iss` of the tokens that are signed by these keys");
    }
}

fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let names_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    !host.is_empty()
        && !names_user
        && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_loopback))
}
