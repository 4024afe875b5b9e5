//! Keys with names: what their scopes grant, and nothing beside.

use super::*;
use crate::auth::digest_of_key;
use crate::config::{ApiKeyConfig, ScopesConfig};

#[test]
fn a_named_key_may_do_what_its_scopes_say() {
    let auth = with(vec![billing()]).expect("good keys");
    let caller = auth.identify(Some(KEY), NOW).expect("a key of ours");
    let group = |name: &str| GroupName::parse(name).expect("a good name");
    let channel = |name: &str| ChannelName::parse(name).expect("a good name");
    assert!(caller.check_send(&group("invoice.7"), "invoice.paid").is_ok());
    assert!(caller.check_send(&group("invoice.7"), "invoice_paid").is_ok(), "one type, as Channels has it");
    assert!(caller.check_send(&group("invoice.7"), "chat").is_err());
    assert!(caller.check_send(&group("other"), "invoice.paid").is_err());
    assert!(caller.check_send_to_channel(&channel("invoice.mail"), "invoice.paid").is_ok());
    assert!(caller.check_send_to_channel(&channel("specific.gw1!c1"), "invoice.paid").is_err());
    assert!(caller.check_membership(&group("room.1")).is_ok() && caller.check_membership(&group("invoice.7")).is_err());
    assert!(caller.check_subscribe(&group("room.1")).is_ok() && caller.check_query("any").is_err());
    assert!(caller.check_reply(&ReplyTo::Channel(channel("invoice.mail")), None).is_ok());
    assert_eq!(caller.check_operate().expect_err("not for everything").code, ErrorCode::Forbidden);
    let asked = caller.asker();
    assert!(caller.owns(asked.as_ref()) && !caller.owns(None) && !caller.owns(Some(&Asker::default())));
    let anonymous = Caller::Anonymous(Arc::default());
    assert!(!anonymous.owns(asked.as_ref()));
}

#[test]
fn users_do_not_speak_to_channels_whatever_their_tokens_say() {
    let all = json!({"subscribe": ["*"], "send": ["*"], "query": ["*"]});
    let caller = identified(&claims(&all));
    let channel = ChannelName::parse("anything").expect("a good name");
    assert!(caller.check_send_to_channel(&channel, "chat").is_err());
    assert!(caller.check_membership(&GroupName::parse("anything").expect("a good name")).is_err());
}

#[test]
fn a_key_for_everything_and_two_of_one_name() {
    let admin = ScopesConfig { admin: true, ..ScopesConfig::default() };
    let entry = |key: &str| ApiKeyConfig { name: "ops".to_owned(), sha256: digest_of_key(key), scopes: admin.clone() };
    let auth =
        with(vec![entry(KEY), entry(OTHER_KEY), billing_by("another key of billing's, long enough")]).expect("good");
    for key in [KEY, OTHER_KEY] {
        let caller = auth.identify(Some(key), NOW).expect("a key of ours");
        assert!(may(&caller).into_iter().all(|granted| granted));
    }
    let digest = digest_of_key(KEY);
    assert!(auth.identify(Some(&digest), NOW).is_err(), "who reads the configuration has no key");
}

#[test]
fn an_operator_shows_a_key_for_everything_and_is_one_as_long_as_it_is_known() {
    let admin = ScopesConfig { admin: true, ..ScopesConfig::default() };
    let ops = ApiKeyConfig { name: "ops".to_owned(), sha256: digest_of_key(OTHER_KEY), scopes: admin };
    let auth = with(vec![ops.clone(), billing()]).expect("good keys");
    let operator = auth.operator(OTHER_KEY).expect("a key for everything");
    let caller = Caller::Service(operator);
    assert!(caller.check_operate().is_ok() && auth.check_still(&caller).is_ok() && auth.has_operators());
    assert_eq!(auth.operator(KEY).expect_err("for less").code, ErrorCode::Forbidden);
    for none in ["", "nonsense", &digest_of_key(OTHER_KEY), &signed(&claims(&json!({})))] {
        assert_eq!(auth.operator(none).expect_err("no key").code, ErrorCode::Unauthenticated, "{none}");
    }
    let without = with(vec![billing()]).expect("good keys");
    assert!(without.check_still(&caller).is_err() && !without.has_operators(), "the key was taken away");
    let less = with(vec![ApiKeyConfig { scopes: billing().scopes, ..ops }]).expect("good keys");
    assert!(less.check_still(&caller).is_err(), "it may do less by now");
    assert!(Auth::default().operator(OTHER_KEY).is_err() && !Auth::default().has_operators());
}

#[test]
fn an_entry_that_makes_no_sense_is_told_and_a_digest_is_no_secret_to_hide() {
    let told = |change: fn(&mut ApiKeyConfig)| {
        let mut entry = billing();
        change(&mut entry);
        let error = with(vec![entry]).map(drop).expect_err("refused");
        assert_eq!(error.key, "api_key");
        error.why
    };
    assert!(told(|entry| entry.sha256.truncate(63)).contains("groupcast key new"));
    assert!(told(|entry| entry.sha256.replace_range(..1, "g")).contains("64 hexadecimal digits"));
    assert!(told(|entry| entry.sha256.replace_range(..2, "é")).contains("64 hexadecimal digits"));
    assert!(told(|entry| entry.name = "a b".to_owned()).contains("position 1"));
    assert!(told(|entry| entry.name = "api_keys".to_owned()).contains("another one"));
    assert!(told(|entry| entry.scopes = ScopesConfig::default()).contains("grant nothing"));
    assert!(told(|entry| entry.scopes.send = vec!["a*b".to_owned()]).contains("`send`"));
}

fn with(api_key: Vec<ApiKeyConfig>) -> Result<Auth, AuthError> {
    Auth::new(Some(&AuthConfig { api_key, ..AuthConfig::default() }))
}

fn billing() -> ApiKeyConfig {
    billing_by(KEY)
}

fn billing_by(key: &str) -> ApiKeyConfig {
    let list = |name: &str| vec![name.to_owned()];
    let scopes = ScopesConfig {
        subscribe: list("room.*"),
        send: list("invoice.*"),
        types: Some(list("invoice.paid")),
        ..ScopesConfig::default()
    };
    ApiKeyConfig { name: "billing".to_owned(), sha256: digest_of_key(key), scopes }
}
