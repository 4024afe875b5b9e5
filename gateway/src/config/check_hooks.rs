//! What `[hooks]` means: that the service can be called, and that what it is asked about is said.

use std::time::Duration;

use http::HeaderName;

use super::backend::backend_url;
use super::check::Found;
use super::hooks::HookEvent;
use super::{HooksConfig, Secret};
use crate::auth::Rights;
use crate::auth::rights::Patterns;

/// A client waits as long, and is no longer held up by a service that hangs.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Beyond that it is not the service that is protected, but nobody.
const CALLS_MAX: usize = 10_000;
/// Headers that carry more than is to be shown, and what to do.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("cookie", "name the cookies in `cookies`, so that no others are sent"),
    ("sec-websocket-protocol", "may carry a token; the scope has the subprotocols without it"),
];

/// The secret itself is looked at when it has been read.
pub(super) fn check_hooks(hooks: &HooksConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: String| found.push((format!("hooks.{key}"), why));
    if let Err(why) = backend_url(&hooks.url, hooks.allow_private) {
        wrong("url", why);
    }
    if let Some(Err(error)) = hooks.secret.as_ref().map(Secret::keys) {
        wrong(if hooks.secret_env.is_some() { "secret_env" } else { "secret_file" }, error.to_string());
    }
    if hooks.events.is_empty() {
        wrong("events", "is empty, so that nobody is ever asked; name events, or take [hooks] out".to_owned());
    }
    if let Err(error) = Patterns::parse("groups", &hooks.groups) {
        wrong("groups", error.to_string());
    }
    match (hooks.has(HookEvent::Message), hooks.types.is_empty()) {
        (true, true) => wrong("types", "is missing; with `message` say which types are asked about".to_owned()),
        (false, false) => wrong("types", "is for the event `message`; add that, or take it out".to_owned()),
        (true, false) | (false, true) => {}
    }
    if let Some(grants) = &hooks.grants
        && let Err(error) = Rights::parse(&grants.subscribe, &grants.send, &grants.query)
    {
        wrong("grants", error.to_string());
    }
    check_shown(hooks, found);
    check_bounds(hooks, found);
}

fn check_shown(hooks: &HooksConfig, found: &mut Vec<Found>) {
    for (at, name) in hooks.cookies.iter().enumerate().filter(|(_, name)| !is_token(name)) {
        found.push((format!("hooks.cookies[{at}]"), format!("{name:?} is not the name of a cookie")));
    }
    for (at, name) in hooks.headers.iter().enumerate() {
        let mut wrong = |why: String| found.push((format!("hooks.headers[{at}]"), why));
        let Ok(name) = HeaderName::try_from(name) else {
            wrong(format!("{name:?} is not the name of a header"));
            continue;
        };
        if let Some((_, why)) = NOT_SHOWN.iter().find(|(known, _)| name == *known) {
            wrong(format!("`{name}` {why}"));
        }
    }
}

fn check_bounds(hooks: &HooksConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: String| found.push((format!("hooks.{key}"), why));
    if hooks.timeout.0.is_zero() || hooks.timeout.0 > TIMEOUT_MAX {
        wrong("timeout", format!("is {} and must be from 1ms to 30s: clients wait as long", hooks.timeout));
    }
    if !(1..=CALLS_MAX).contains(&hooks.max_concurrent) {
        wrong("max_concurrent", format!("must be from 1 to {CALLS_MAX}"));
    }
    for (key, is_zero) in [
        ("max_bytes", hooks.max_bytes.0 == 0),
        ("circuit_failures", hooks.circuit_failures == 0),
        ("circuit_open", hooks.circuit_open.0.is_zero()),
    ] {
        if is_zero {
            wrong(key, "must be more than 0".to_owned());
        }
    }
}

/// A cookie's name (RFC 6265, section 4.1.1): a token of HTTP.
fn is_token(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_part)
}
