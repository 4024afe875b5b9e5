use bytes::Bytes;
use serde_json::{Value, json};

use super::*;

#[test]
fn a_handshake_is_a_scope_of_asgi() {
    let channel = ChannelName::parse("specific.gw1!c12").expect("a name");
    let scope = Scope::new(request(Door::WebSocket));
    let event = Event::Connect { door: Door::WebSocket, channel: &channel, user: None, scope: &scope };
    let expected = json!({
        "type": "websocket.connect", "channel": "specific.gw1!c12", "user": null,
        "scope": {
            "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.5"}, "http_version": "1.1",
            "scheme": "ws", "root_path": "", "path": "/ws", "query_string": "group=a", "headers": [["cookie", "sessionid=x"]],
            "client": ["127.0.0.1", 4000], "server": ["localhost", 8000], "subprotocols": ["groupcast.v1"]
        }
    });
    assert_eq!(json_of(&event), expected);
}

#[test]
fn an_event_stream_is_a_request_of_http() {
    let channel = ChannelName::parse("c").expect("a name");
    let scope = Scope::new(Request { is_http2: true, is_secure: true, server: None, ..request(Door::Events) });
    let event = json_of(&Event::Connect { door: Door::Events, channel: &channel, user: Some("alice"), scope: &scope });
    assert_eq!((&event["type"], &event["user"]), (&json!("http.request"), &json!("alice")));
    let scope = &event["scope"];
    assert_eq!((&scope["type"], &scope["method"], &scope["scheme"]), (&json!("http"), &json!("GET"), &json!("https")));
    assert_eq!((&scope["http_version"], &scope["server"]), (&json!("2"), &Value::Null));
}

#[test]
fn other_events_say_who_and_what() {
    let (channel, group) = (ChannelName::parse("c").expect("a name"), GroupName::parse("g").expect("a name"));
    let message = Message::parse(Bytes::from_static(br#"{"type":"chat", "n":1.0}"#)).expect("a message");
    let one = Some("alice");
    for (event, expected) in [
        (
            Event::Subscribe { channel: &channel, user: one, group: &group },
            r#"{"type":"group.subscribe","channel":"c","user":"alice","group":"g"}"#,
        ),
        (
            Event::Receive { channel: None, user: None, group: &group, message: &message },
            r#"{"type":"websocket.receive","channel":null,"user":null,"group":"g","message":{"type":"chat", "n":1.0}}"#,
        ),
        (
            Event::Disconnect { door: Door::WebSocket, channel: &channel, user: one, code: Some(1001) },
            r#"{"type":"websocket.disconnect","channel":"c","user":"alice","code":1001}"#,
        ),
        (
            Event::Disconnect { door: Door::Events, channel: &channel, user: None, code: None },
            r#"{"type":"http.disconnect","channel":"c","user":null}"#,
        ),
    ] {
        assert_eq!(String::from_utf8(event.encode()).expect("UTF-8"), expected);
    }
}

#[test]
fn answers_are_one_event_or_a_list() {
    assert_eq!(decode(b"").expect("nothing"), []);
    assert_eq!(decode(b" \n").expect("nothing"), []);
    assert_eq!(decode(b"[]").expect("nothing"), []);
    assert_eq!(decode(br#"{"type":"allow"}"#).expect("one"), [Action::Allow]);
    let group = GroupName::parse("g").expect("a name");
    let message = Message::parse(Bytes::from_static(br#"{"type":"x", "n":1.0}"#)).expect("a message");
    let all =
        br#"[{"type":"deny","reason":"no\nway"},{"type":"group_send","group":"g","message":{"type":"x", "n":1.0}},
        {"type":"group_add","group":"g"},{"type":"group_discard","group":"g"},
        {"type":"websocket.send","message":{"type":"x", "n":1.0}},{"type":"websocket.close","code":3000}]"#;
    let expected = [
        Action::Deny { reason: "no way".to_owned() },
        Action::GroupSend { group: group.clone(), message: message.clone() },
        Action::GroupAdd(group.clone()),
        Action::GroupDiscard(group),
        Action::Send(message),
        Action::Close { code: Some(3000), reason: String::new() },
    ];
    assert_eq!(decode(all).expect("six"), expected);
}

#[test]
fn an_accept_says_who_and_what_he_may() {
    let all = br#"{"type":"websocket.accept","subprotocol":"groupcast.v1","user":"alice","groups":["a","b"],
        "rights":{"subscribe":["a*"]},"claims":{"tenant":"acme"},"expires_at":1790000000.5}"#;
    let actions = decode(all).expect("an accept");
    let [Action::Accept(accept)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((accept.user.as_deref(), accept.groups.len()), (Some("alice"), 2));
    assert_eq!(accept.rights.as_ref().map(|rights| rights.subscribe.as_slice()), Some(&["a*".to_owned()][..]));
    assert_eq!((&accept.claims["tenant"], accept.expires_ms), (&json!("acme"), Some(1_790_000_000_500)));
    let least = decode(br#"{"type":"websocket.accept","subprotocol":null}"#).expect("an accept");
    assert_eq!(least, [Action::Accept(Accept::default())]);
}

#[test]
fn what_makes_no_sense_is_refused_as_a_whole() {
    let long = "x".repeat(256);
    let many = format!("[{}]", vec![r#"{"type":"allow"}"#; 33].join(","));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, words) in [
        ("yes", "not an event"),
        ("7", "not an event"),
        ("null", "not an event"),
        ("<html>", "not an event"),
        (r#"{"type":"allow"} {"type":"allow"}"#, "not an event"),
        (r#"{"type":"allow""#, "not an event"),
        (r#"[{"type":"allow"},7]"#, "not an event"),
        (r#"[["allow"]]"#, "not an event"),
        (r#"{}"#, "not an event"),
        (r#"{"type":"websocket.connect"}"#, "\"websocket.connect\""),
        (r#"{"type":"allow","reason":"x"}"#, "unknown field `reason`"),
        (r#"{"type":"websocket.accept","expire_at":1}"#, "unknown field `expire_at`"),
        (r#"{"type":"websocket.accept","user":7}"#, "not an event"),
        (r#"{"type":"websocket.accept","user":""}"#, "user"),
        (r#"{"type":"websocket.accept","user":"a\nb"}"#, "user"),
        (&format!(r#"{{"type":"websocket.accept","user":"{long}"}}"#), "user"),
        (r#"{"type":"websocket.accept","rights":{}}"#, "no `user`"),
        (r#"{"type":"websocket.accept","user":"a","rights":{"admin":true}}"#, "unknown field `admin`"),
        (r#"{"type":"websocket.accept","subprotocol":"chat"}"#, "\"chat\""),
        (r#"{"type":"websocket.accept","groups":["a b"]}"#, "a group that is none"),
        (r#"{"type":"group_add","group":"query.x"}"#, "live query"),
        (r#"{"type":"group_send","group":"g","message":{"a":1}}"#, "a message that is none"),
        (r#"{"type":"websocket.close","code":70000}"#, "not an event"),
        (&many, "33 events"),
        (&deep, "not an event"),
    ] {
        let told = decode(text.as_bytes()).expect_err(text).to_string();
        assert!(told.contains(words), "{text}: {told}");
    }
}

#[test]
fn a_reason_fits_into_a_close_frame() {
    let long = format!(r#"{{"type":"deny","reason":"{}"}}"#, "é".repeat(200));
    let actions = decode(long.as_bytes()).expect("a refusal");
    assert_eq!(actions, [Action::Deny { reason: "é".repeat(61) }]);
}

fn request(door: Door) -> Request {
    Request {
        door,
        is_http2: false,
        is_secure: false,
        path: "/ws".to_owned(),
        query_string: "group=a".to_owned(),
        headers: vec![("cookie".to_owned(), "sessionid=x".to_owned())],
        client: ("127.0.0.1".to_owned(), 4000),
        server: Some(("localhost".to_owned(), Some(8000))),
        subprotocols: vec!["groupcast.v1".to_owned()],
    }
}

fn json_of(event: &Event<'_>) -> Value {
    serde_json::from_slice(&event.encode()).expect("JSON")
}
