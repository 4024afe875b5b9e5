//! What answers mean, and what is asked about.

use bytes::Bytes;
use groupcast_protocol::asgi::{Action, decode};

use super::verdict::{Step, of_command, of_connect};
use super::*;
use crate::config::{AuthConfig, Hidden};

fn answer(text: &str) -> Vec<Action> {
    decode(text.as_bytes()).expect("a good answer")
}

fn message(kind: &str) -> Message {
    Message::parse(Bytes::from(format!(r#"{{"type":"{kind}"}}"#))).expect("a good message")
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a good name")
}

#[test]
fn a_connection_is_accepted_or_closed_once() {
    let accepted = of_connect(answer(
        r#"[{"type":"group_send","group":"g","message":{"type":"x"}},{"type":"websocket.accept","user":"alice"}]"#,
    ));
    let (accept, sends) = accepted.expect("it makes sense").expect("it may be");
    assert_eq!((accept.user.as_deref(), sends), (Some("alice"), vec![(group("g"), message("x"))]));
    for (code, expected) in [
        (r#","code":3000"#, ErrorCode::Unauthenticated),
        (r#","code":1013"#, ErrorCode::Unavailable),
        (r#","code":4001"#, ErrorCode::Forbidden),
        ("", ErrorCode::Forbidden),
    ] {
        let told = of_connect(answer(&format!(r#"{{"type":"websocket.close","reason":"why"{code}}}"#)));
        let refusal = told.expect("it makes sense").expect_err("it may not be");
        assert_eq!((refusal.code, refusal.message.as_str()), (expected, "why"));
    }
    for nonsense in [
        "[]",
        r#"{"type":"allow"}"#,
        r#"{"type":"group_send","group":"g","message":{"type":"x"}}"#,
        r#"[{"type":"websocket.accept"},{"type":"websocket.close"}]"#,
        r#"[{"type":"websocket.accept"},{"type":"websocket.accept"}]"#,
        r#"[{"type":"websocket.accept"},{"type":"group_add","group":"g"}]"#,
    ] {
        assert!(of_connect(answer(nonsense)).is_err(), "{nonsense}");
    }
}

#[test]
fn a_command_is_allowed_denied_or_taken() {
    let told = |text: &str| of_command(answer(text), true).expect("it makes sense");
    assert_eq!(told("[]"), (Verdict::Nothing, vec![]));
    assert_eq!(told(r#"{"type":"allow"}"#), (Verdict::Allowed, vec![]));
    assert_eq!(told(r#"{"type":"deny","reason":"no"}"#), (Verdict::Denied("no".to_owned()), vec![]));
    let all = r#"[{"type":"group_add","group":"a"},{"type":"websocket.send","message":{"type":"x"}},{"type":"allow"},
        {"type":"group_send","group":"b","message":{"type":"y"}},{"type":"group_discard","group":"c"},{"type":"websocket.close"}]"#;
    let steps = vec![
        Step::Add(group("a")),
        Step::Direct(message("x")),
        Step::Send(group("b"), message("y")),
        Step::Discard(group("c")),
        Step::Disconnect,
    ];
    assert_eq!(told(all), (Verdict::Allowed, steps));
    for nonsense in [
        r#"{"type":"websocket.accept"}"#,
        r#"[{"type":"allow"},{"type":"deny"}]"#,
        r#"[{"type":"allow"},{"type":"allow"}]"#,
    ] {
        assert!(of_command(answer(nonsense), true).is_err(), "{nonsense}");
    }
    for own in [
        r#"{"type":"group_add","group":"a"}"#,
        r#"{"type":"group_discard","group":"a"}"#,
        r#"{"type":"websocket.send","message":{"type":"x"}}"#,
        r#"{"type":"websocket.close"}"#,
    ] {
        assert!(of_command(answer(own), false).is_err(), "there is no connection: {own}");
    }
}

#[test]
fn a_refusal_has_words() {
    assert_eq!(Verdict::refusal("no".to_owned()).message, "no");
    assert!(Verdict::refusal(String::new()).message.contains("does not allow"));
}

#[test]
fn types_are_names_and_beginnings() {
    let kinds = Kinds::new(&["chat.*".to_owned(), "wave".to_owned(), "a.b".to_owned()]);
    for kind in ["chat.send", "chat_send", "chat.", "wave", "a.b", "a_b"] {
        assert!(kinds.have(kind), "{kind}");
    }
    for kind in ["chat", "chats", "waves", "a.b.c", ""] {
        assert!(!kinds.have(kind), "{kind}");
    }
    assert!(!Kinds::new(&[]).have("x") && Kinds::new(&["*".to_owned()]).have("x"));
}

fn hooks(events: &str) -> Hooks {
    let text = format!(
        "[hooks]\nurl = \"https://backend.example.org/\"\nevents = {events}\ngroups = [\"room.*\"]\ntypes = [\"chat\"]\n"
    );
    let table: toml::Table = toml::from_str(&text).expect("TOML");
    let hooks: HooksConfig = table["hooks"].clone().try_into().expect("good hooks");
    let config = Config { hooks: Some(hooks), ..Config::default() };
    Hooks::new(&config, &Auth::default()).expect("good hooks")
}

#[tokio::test]
async fn asked_about_are_clients_and_what_is_named() {
    let all = hooks(r#"["connect", "subscribe", "message"]"#);
    let anonymous = Caller::Anonymous(Arc::default());
    let api_keys = Some(Hidden::new("a-key-of-the-tests-0123456789abcdef0123456789"));
    let auth = Auth::new(Some(&AuthConfig { api_keys, ..AuthConfig::default() })).expect("a good key");
    let service = auth.identify(Some("a-key-of-the-tests-0123456789abcdef0123456789"), 0).expect("it is known");
    let by = |caller: &Caller, channel: Option<&str>| By {
        caller: caller.clone(),
        channel: channel.map(|name| ChannelName::parse(name).expect("a name")),
        client: crate::limits::Client::NOWHERE,
        trace: None,
    };
    let asks = |caller: &Caller, channel, to: &str, kind: &str| {
        all.asks_message(&by(caller, channel), &group(to), &message(kind))
    };
    assert!(all.asks_connect() && all.asks_subscribe(&anonymous, &group("room.1")));
    assert!(all.asks_subscribe(&Caller::Everybody, &group("room.1")));
    assert!(!all.asks_subscribe(&anonymous, &group("hall")) && !all.asks_subscribe(&service, &group("room.1")));
    assert!(asks(&anonymous, None, "room.1", "chat") && asks(&Caller::Everybody, Some("c"), "room.1", "chat"));
    assert!(!asks(&Caller::Everybody, None, "room.1", "chat"), "the team itself, by HTTP");
    assert!(!asks(&service, Some("c"), "room.1", "chat"));
    assert!(!asks(&anonymous, None, "hall", "chat") && !asks(&anonymous, None, "room.1", "wave"));
    assert!(
        all.check_read(&anonymous, &group("room.1")).is_err() && all.check_read(&service, &group("room.1")).is_ok()
    );
    assert!(all.check_read(&anonymous, &group("hall")).is_ok());

    let only = hooks(r#"["disconnect"]"#);
    assert!(!only.asks_connect() && !only.asks_subscribe(&anonymous, &group("room.1")));
    assert!(!Hooks::default().asks_connect() && Hooks::default().check_read(&anonymous, &group("room.1")).is_ok());
}

#[tokio::test]
async fn notices_beyond_the_bound_are_dropped_and_counted() {
    let hooks = hooks(r#"["disconnect"]"#);
    let channel = ChannelName::parse("c").expect("a name");
    for _ in 0..1030 {
        hooks.disconnected(Door::WebSocket, &channel, Some("alice"), Some(1000), &None);
    }
    let asking = hooks.0.as_ref().expect("there are hooks");
    assert_eq!(asking.service.counters().notices_dropped.get(), 6);
    // Whoever ends without having told counts what is left.
    let stop = CancellationToken::new();
    stop.cancel();
    hooks.clone().run(stop).await;
    assert_eq!(asking.service.counters().notices_dropped.get(), 1030);
}
