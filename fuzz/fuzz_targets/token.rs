//! Tokens of users (JWT): heads and claims as anybody may write them, signed and not signed.

#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use groupcast::auth::{Auth, Caller};
use groupcast::config::{AuthConfig, Hidden};
use groupcast_fuzz::{head, text};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_790_000_000_000;

fuzz_target!(init: { setup() }, |data: &[u8]| {
    let auth = setup();
    let (header, claims) = head(data);
    if let Some(shown) = text(data) {
        assert!(auth.identify(Some(shown), NOW_MS).is_err(), "nobody has signed this");
    }
    let unsigned = format!("{}.{}", encode(header), encode(claims));
    for signature in ["", ".", ".AAAA"] {
        assert!(auth.identify(Some(&format!("{unsigned}{signature}")), NOW_MS).is_err(), "nobody has signed this");
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, unsigned.as_bytes());
    let token = format!("{unsigned}.{}", encode(signature.as_ref()));
    let Ok(caller) = auth.identify(Some(&token), NOW_MS) else { return };
    let Caller::User(user) = &caller else { panic!("a token names a user") };
    let header: Value = serde_json::from_slice(header).expect("a head is JSON");
    assert_eq!((&header["alg"], header.get("crit").is_none_or(Value::is_null)), (&"HS256".into(), true));
    assert!((1..=255).contains(&user.name.len()) && !user.name.chars().any(char::is_control));
    assert!(user.expires_ms.is_some_and(|at| at > NOW_MS), "it has expired");
    // What is somewhere in the claims, another reader finds there, too.
    let Ok(tree) = serde_json::from_slice::<Value>(claims) else { return };
    assert_eq!(tree["sub"], user.name);
    assert!(tree.get("aud").is_none_or(Value::is_null), "it is meant for somebody else");
    let lists = |name: &str| tree.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    assert_eq!(user.rights.are_none(), !["subscribe", "send", "query"].into_iter().any(lists));
    assert!(user.rights.subscribe.allow("room") == grants(&tree["subscribe"], "room"));
});

/// Whether a list has a pattern that matches.
fn grants(list: &Value, name: &str) -> bool {
    let patterns = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    patterns.into_iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(stem) => name.starts_with(stem),
        None => pattern == name,
    })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn setup() -> Auth {
    thread_local!(static AUTH: Auth = {
        let config = AuthConfig { jwt_secret: Some(Hidden::new(SECRET)), ..AuthConfig::default() };
        Auth::new(Some(&config)).expect("a good secret")
    });
    AUTH.with(Clone::clone)
}
