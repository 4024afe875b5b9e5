mod changes;
mod issuers;
mod services;
mod tenants;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use groupcast_protocol::{ChannelName, ErrorCode, GroupName};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::config::{AnonymousConfig, Hidden};
use crate::jobs::{Asker, ReplyTo};

const SECRET: &str = "canary-secret-0123456789abcdef-0123456789";
const KEY: &str = "canary-key-one-0123456789abcdef0123456789";
const OTHER_KEY: &str = "canary-key-two-0123456789abcdef0123456789";
const NOW: u64 = 1_800_000_000_000;

#[test]
fn without_auth_everybody_may_do_everything() {
    let auth = Auth::new(None).expect("nothing to be wrong");
    for credential in [None, Some("whatever")] {
        let caller = auth.identify(credential, NOW).expect("nobody is asked");
        assert!(matches!(caller, Caller::Everybody));
        assert!(may(&caller).into_iter().all(|granted| granted));
    }
}

#[test]
fn a_key_may_do_everything_and_one_that_is_nearly_one_nothing() {
    for key in [KEY, OTHER_KEY] {
        let caller = auth().identify(Some(key), NOW).expect("a key of ours");
        assert!(may(&caller).into_iter().all(|granted| granted));
        assert_eq!(caller.user(), None);
    }
    let longer = format!("{KEY}0");
    let both = format!("{KEY},{OTHER_KEY}");
    for wrong in [&KEY[1..], &longer, &both, "", " ", &KEY.to_uppercase(), "Bearer"] {
        assert_eq!(refused(wrong).code, ErrorCode::Unauthenticated, "{wrong:?}");
    }
}

#[test]
fn a_token_may_do_what_its_claims_say() {
    let caller =
        identified(&claims(&json!({"subscribe": ["room.*", "news"], "send": ["room.7"], "query": ["worst*"]})));
    let group = |name: &str| GroupName::parse(name).expect("a good name");
    let channel = |name: &str| ChannelName::parse(name).expect("a good name");
    assert_eq!((caller.user(), caller.expires_ms()), (Some("alice"), Some(NOW + 60_000)));
    for (name, subscribe, send) in [
        ("room.7", true, true),
        ("room.8", true, false),
        ("news", true, false),
        ("room", false, false),
        ("newsy", false, false),
    ] {
        assert_eq!(caller.check_subscribe(&group(name)).is_ok(), subscribe, "{name}");
        assert_eq!(caller.check_send(&group(name), "chat").is_ok(), send, "{name}");
    }
    assert!(caller.check_query("worst_routes").is_ok() && caller.check_query("best").is_err());
    assert!(caller.check_list("room.").is_ok() && caller.check_list("room.7").is_ok());
    assert!(caller.check_list("room").is_err() && caller.check_list("").is_err() && caller.check_list("news").is_err());
    let own = channel("specific.gw1!c1");
    let reply = |to: &ReplyTo| caller.check_reply(to, Some(&own)).is_ok();
    assert!(
        reply(&ReplyTo::Nobody) && reply(&ReplyTo::Group(group("room.7"))) && reply(&ReplyTo::Channel(own.clone()))
    );
    assert!(!reply(&ReplyTo::Group(group("room.8"))) && !reply(&ReplyTo::Channel(channel("specific.gw1!c2"))));
    assert_eq!(caller.check_operate().expect_err("a user").code, ErrorCode::Forbidden);
}

#[test]
fn no_token_grants_the_group_of_a_live_query() {
    let caller = identified(&claims(&json!({"subscribe": ["*"], "send": ["*"], "query": ["*"]})));
    let group = GroupName::parse("query.7ZZZZZZZZZZZZZZZZZZZZZZZZZ").expect("a good name");
    assert!(caller.check_subscribe(&group).is_err());
    assert!(caller.check_subscribe(&GroupName::parse("anything").expect("a good name")).is_ok());
}

#[test]
fn who_shows_nothing_may_do_what_anonymous_says_and_is_told_to_come_in() {
    let caller = auth().identify(None, NOW).expect("no credential is none that is wrong");
    let group = |name: &str| GroupName::parse(name).expect("a good name");
    assert!(caller.check_subscribe(&group("public.a")).is_ok());
    let refusal = caller.check_send(&group("public.a"), "chat").expect_err("not granted");
    assert_eq!(refusal.code, ErrorCode::Unauthenticated);
    assert!(!caller.has_to_authenticate());
    let nothing = Auth::new(Some(&config(&[]))).expect("good").identify(None, NOW).expect("anonymous");
    assert!(nothing.has_to_authenticate() && nothing.check_known().is_err());
}

#[test]
fn a_token_that_is_over_or_says_too_little_is_refused() {
    let says = |more: Value| {
        let refusal = refused(&signed(&claims(&more)));
        assert_eq!(refusal.code, ErrorCode::Unauthenticated);
        refusal.message
    };
    let seconds = NOW / 1000;
    assert!(says(json!({"exp": seconds})).contains("expired"));
    assert!(says(json!({"exp": seconds - 1_000_000})).contains("expired"));
    for odd in [json!({"exp": null}), json!({"exp": (seconds + 60).to_string()}), json!({"exp": [seconds + 60]})] {
        assert!(says(odd.clone()).contains("cannot be read"), "{odd}");
    }
    assert!(says(json!({"exp": -1})).contains("expired"));
    // What a token can be revoked by: read as absent, it could not be.
    for odd in [json!({"jti": 7}), json!({"jti": ["t"]}), json!({"iat": "now"}), json!({"iat": true})] {
        assert!(refused(&signed(&claims(&odd))).message.contains("claims"), "{odd}");
    }
    for odd in [json!({"sub": null}), json!({"sub": 7}), json!({"subscribe": "room.*"}), json!({"send": [7]})] {
        assert!(says(odd.clone()).contains("cannot be read"), "{odd}");
    }
    for odd in [json!({"sub": ""}), json!({"sub": "x".repeat(256)}), json!({"sub": "a\nb"})] {
        assert!(says(odd.clone()).contains("`sub`"), "{odd}");
    }
    assert!(says(json!({"query": ["a*b"]})).contains("`query`"));
    assert!(says(json!({"send": vec!["a"; 101]})).contains("at most 100"));
    let late = claims(&json!({"exp": seconds as f64 + 0.5}));
    assert_eq!(identified(&late).expires_ms(), Some(NOW + 500));
    let far = claims(&json!({"exp": 1e300}));
    assert_eq!(identified(&far).expires_ms(), Some(u64::MAX));
}

#[test]
fn a_token_is_signed_as_the_configuration_says_and_not_as_it_says_itself() {
    let body = json!({"sub": "alice", "exp": NOW / 1000 + 60, "subscribe": ["*"], "send": ["*"], "query": ["*"]});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |head: Value, signature: &str| format!("{}.{}.{signature}", part(&head), part(&body));
    let good = signed(&body);
    let signature = good.rsplit('.').next().expect("three parts").to_owned();
    let hs = |algorithm| {
        encode(&Header::new(algorithm), &body, &EncodingKey::from_secret(SECRET.as_bytes())).expect("it is signed")
    };
    let own = EncodingKey::from_secret(b"a secret of the attacker's own choice");
    let forged = encode(&Header::new(Algorithm::HS256), &body, &own).expect("it is signed");
    let mut embedded = Header::new(Algorithm::HS256);
    embedded.jku = Some("https://attacker.example/keys".to_owned());
    embedded.x5u = Some("https://attacker.example/chain".to_owned());
    embedded.kid = Some("../../dev/null".to_owned());
    let embedded = encode(&embedded, &body, &own).expect("it is signed");
    let jwk = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode("a secret of the attacker's own choice")}});
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["exp".to_owned()]);
    let critical = encode(&critical, &body, &EncodingKey::from_secret(SECRET.as_bytes())).expect("it is signed");
    let other_claims = part(&json!({"sub": "root", "exp": NOW / 1000 + 60}));
    let forgeries = [
        unsigned(json!({"alg": "none"}), ""),
        unsigned(json!({"alg": "None"}), ""),
        unsigned(json!({"alg": "none"}), &signature),
        unsigned(json!({"alg": "HS256"}), ""),
        unsigned(json!({"typ": "JWT"}), &signature),
        unsigned(json!({"alg": "RS256"}), &signature),
        unsigned(json!({"alg": ["HS256"]}), &signature),
        unsigned(jwk, &signature),
        hs(Algorithm::HS384),
        hs(Algorithm::HS512),
        forged,
        embedded,
        critical,
        good.replace(good.split('.').nth(1).expect("three parts"), &other_claims),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}A"),
        format!("{good}="),
        good.replace('.', ".."),
        good[..good.len() - 1].to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        "x".repeat(20_000),
    ];
    assert!(auth().identify(Some(&good), NOW).is_ok());
    for forgery in forgeries {
        assert_eq!(refused(&forgery).code, ErrorCode::Unauthenticated, "{forgery}");
    }
}

#[test]
fn jobs_are_their_askers() {
    let alice = identified(&claims(&json!({})));
    let asked_by = |user: Option<&str>| Some(Asker { user: user.map(str::to_owned), ..Asker::default() });
    assert!(alice.owns(alice.asker().as_ref()) && alice.owns(asked_by(Some("alice")).as_ref()));
    assert!(!alice.owns(asked_by(Some("bob")).as_ref()) && !alice.owns(asked_by(None).as_ref()) && !alice.owns(None));
    let anonymous = auth().identify(None, NOW).expect("anonymous");
    assert!(anonymous.owns(asked_by(None).as_ref()) && !anonymous.owns(asked_by(Some("alice")).as_ref()));
    assert!(!anonymous.owns(None));
    let service = auth().identify(Some(KEY), NOW).expect("a key");
    assert!(service.owns(None) && service.owns(asked_by(Some("bob")).as_ref()));
    assert_eq!(service.asker(), None);
}

#[test]
fn callers_are_kept_apart_by_their_scopes() {
    let user = |name: &str| identified(&claims(&json!({"sub": name}))).scope();
    let scopes = [user("a"), user("a 1 b"), user("a 1"), auth().identify(None, NOW).expect("anonymous").scope()];
    for (at, scope) in scopes.iter().enumerate() {
        assert!(scopes[..at].iter().all(|other| !scope.starts_with(other.as_str())), "{scopes:?}");
    }
}

#[test]
fn an_open_connection_stays_who_it_is() {
    let alice = identified(&claims(&json!({})));
    let bob = identified(&claims(&json!({"sub": "bob"})));
    let service = auth().identify(Some(KEY), NOW).expect("a key");
    let anonymous = auth().identify(None, NOW).expect("anonymous");
    assert!(anonymous.check_becomes(&alice).is_ok() && alice.check_becomes(&alice).is_ok());
    assert!(service.check_becomes(&service).is_ok());
    for (from, to) in [(&alice, &bob), (&alice, &service), (&service, &alice), (&alice, &anonymous)] {
        assert_eq!(from.check_becomes(to).expect_err("another").code, ErrorCode::Forbidden);
    }
}

#[test]
fn no_secret_is_shown() {
    let config = config(&["public.*"]);
    let shown = format!("{config:?} {:?} {:?}", auth(), auth().identify(Some(KEY), NOW));
    let told = [refused(&KEY[1..]), refused(&format!("{}x", signed(&claims(&json!({})))))];
    for text in told.into_iter().map(|refusal| refusal.message).chain([shown]) {
        assert!(!text.contains("canary"), "{text}");
    }
    let short = AuthConfig { jwt_secret: Some(Hidden::new("canary")), ..AuthConfig::default() };
    let error = Auth::new(Some(&short)).expect_err("too short").to_string();
    assert!(error.contains("6 characters") && !error.contains("canary"), "{error}");
}

fn config(subscribe: &[&str]) -> AuthConfig {
    let subscribe = subscribe.iter().map(|text| (*text).to_owned()).collect();
    AuthConfig {
        jwt_secret: Some(Hidden::new(SECRET)),
        api_keys: Some(Hidden::new(format!("{KEY}, {OTHER_KEY},"))),
        anonymous: AnonymousConfig { subscribe, ..AnonymousConfig::default() },
        ..AuthConfig::default()
    }
}

fn auth() -> Auth {
    Auth::new(Some(&config(&["public.*"]))).expect("good secrets")
}

/// Claims of alice, good for a minute, with these over them; `null` takes one away.
fn claims(more: &Value) -> Value {
    let mut claims = json!({"sub": "alice", "exp": NOW / 1000 + 60});
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("it is signed")
}

fn identified(claims: &Value) -> Caller {
    auth().identify(Some(&signed(claims)), NOW).expect("a good token")
}

fn refused(credential: &str) -> Refusal {
    auth().identify(Some(credential), NOW).map(|_| ()).expect_err(credential)
}

/// Everything there is to be granted.
fn may(caller: &Caller) -> Vec<bool> {
    let group = GroupName::parse("some.group").expect("a good name");
    let channel = ReplyTo::Channel(ChannelName::parse("some.channel!x").expect("a good name"));
    vec![
        caller.check_known().is_ok(),
        caller.check_subscribe(&group).is_ok(),
        caller.check_send(&group, "chat").is_ok(),
        caller.check_membership(&group).is_ok(),
        caller.check_query("some").is_ok(),
        caller.check_list("").is_ok(),
        caller.check_reply(&channel, None).is_ok(),
        caller.check_operate().is_ok(),
        caller.owns(None),
    ]
}
