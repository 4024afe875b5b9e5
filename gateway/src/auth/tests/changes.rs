//! What becomes of credentials when keys, rules or the list of what is revoked change.

use super::*;

fn config(change: impl FnOnce(&mut AuthConfig)) -> AuthConfig {
    let mut config = AuthConfig {
        jwt_secret: Some(Hidden::new(SECRET)),
        api_keys: Some(Hidden::new(format!("{KEY},{OTHER_KEY}"))),
        ..AuthConfig::default()
    };
    change(&mut config);
    config
}

fn who(auth: &Auth, credential: &str) -> Caller {
    auth.identify(Some(credential), NOW).expect("a good credential")
}

#[test]
fn a_key_that_is_taken_away_is_worth_nothing_to_who_came_by_it() {
    let auth = Auth::new(Some(&config(|_| {}))).expect("good secrets");
    let (one, other) = (who(&auth, KEY), who(&auth, OTHER_KEY));
    let mut changes = auth.changes().expect("there is [auth]");
    changes.mark_unchanged();
    auth.replace(&config(|config| config.api_keys = Some(Hidden::new(OTHER_KEY))), &[]).expect("good secrets");
    assert!(changes.has_changed().expect("it is there"));
    assert_eq!(auth.check_still(&one).expect_err("it is gone").code, ErrorCode::Unauthenticated);
    assert!(auth.check_still(&other).is_ok());
    assert!(auth.identify(Some(KEY), NOW).is_err() && auth.identify(Some(OTHER_KEY), NOW).is_ok());
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let auth = Auth::new(Some(&config(|_| {}))).expect("good secrets");
    let caller = who(&auth, KEY);
    let bad = config(|config| config.api_keys = Some(Hidden::new("short")));
    assert_eq!(auth.replace(&bad, &[]).expect_err("too short").key, "api_keys_env");
    assert!(auth.check_still(&caller).is_ok() && auth.identify(Some(KEY), NOW).is_ok());
    let user = who(&auth, &signed(&claims(&json!({"jti": "t1"}))));
    auth.revoke("token t1").expect("a good list");
    auth.revoke("nonsense").expect_err("no list");
    assert!(auth.check_still(&user).is_err(), "the old list is kept");
}

#[test]
fn a_user_stands_by_the_key_and_the_rules_that_he_came_by() {
    let other = "another-secret-0123456789abcdef-0123456789";
    for (change, stands) in [
        (config(|_| {}), true),
        (config(|config| config.api_keys = None), true),
        (config(|config| config.jwt_secret = Some(Hidden::new(other))), false),
        (config(|config| config.jwt_secret = None), false),
        (config(|config| config.issuer = Some("elsewhere".to_owned())), false),
        (config(|config| config.tenant_claim = Some("org".to_owned())), false),
    ] {
        let auth = Auth::new(Some(&config(|_| {}))).expect("good secrets");
        let user = who(&auth, &signed(&claims(&json!({}))));
        auth.replace(&change, &[]).expect("good secrets");
        assert_eq!(auth.check_still(&user).is_ok(), stands, "{change:?}");
    }
}

#[test]
fn who_shows_nothing_stands_by_what_such_callers_may_do() {
    let open = |groups: &[&str]| {
        let subscribe = groups.iter().map(|group| (*group).to_owned()).collect();
        config(|config| config.anonymous = AnonymousConfig { subscribe, ..AnonymousConfig::default() })
    };
    let auth = Auth::new(Some(&open(&["news"]))).expect("good secrets");
    let caller = auth.identify(None, NOW).expect("nobody in particular");
    auth.replace(&open(&["news"]), &[]).expect("good secrets");
    assert!(auth.check_still(&caller).is_ok());
    auth.replace(&open(&["other"]), &[]).expect("good secrets");
    assert!(auth.check_still(&caller).is_err());
}

#[test]
fn a_list_revokes_by_token_by_user_and_by_time() {
    let auth = Auth::new(Some(&config(|_| {}))).expect("good secrets");
    let issued = NOW / 1000 - 60;
    let one = signed(&claims(&json!({"jti": "t1", "iat": issued})));
    let two = signed(&claims(&json!({"jti": "t2", "iat": issued + 30})));
    let good = |list: &str| {
        auth.revoke("").expect("nothing is a list");
        let callers = [who(&auth, &one), who(&auth, &two)];
        auth.revoke(list).expect("a good list");
        let (shown, open) = (
            [&one, &two].map(|token| auth.identify(Some(token.as_str()), NOW).is_ok()),
            [0, 1].map(|at: usize| auth.check_still(&callers[at]).is_ok()),
        );
        assert_eq!(shown, open, "{list}");
        open
    };
    assert_eq!(good("token t1"), [false, true]);
    assert_eq!(good("user alice"), [false, false]);
    assert_eq!(good("user bob\ntoken t3"), [true, true]);
    let between = jiff::Timestamp::from_second(i64::try_from(issued + 10).expect("it fits")).expect("a time");
    assert_eq!(good(&format!("user alice {between}")), [false, true]);
    auth.replace(&config(|_| {}), &[]).expect("good secrets");
    assert!(auth.identify(Some(&one), NOW).is_err(), "another configuration keeps the list");
}

#[test]
fn what_an_issuer_publishes_no_more_is_worth_nothing() {
    let auth = Auth::new(Some(&config(|_| {}))).expect("good secrets");
    assert!(auth.issuer().is_none());
    let set = AuthConfig { jwks: None, jwks_file: Some("x".into()), ..config(|_| {}) };
    let auth = Auth::new(Some(&set)).expect("good secrets");
    let before = auth.issuer().expect("somebody reads its keys");
    auth.replace(&set, &[]).expect("good secrets");
    let after = auth.issuer().expect("somebody reads its keys");
    assert!(Arc::ptr_eq(&before, &after), "who reads them goes on with the same one");
}
