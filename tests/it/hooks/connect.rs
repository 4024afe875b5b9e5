//! Whether a connection may be, and whose it is.

use std::sync::Arc;

use groupcast_tests::socket::End;
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::{Backend, Events, Gateway, Home, Socket};
use serde_json::{Value, json};

use super::{ALL, call_about, config, dial, metric, start};

const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const KEY: &str = "canary-key-0123456789abcdef0123456789abc";

#[tokio::test]
async fn a_socket_is_who_the_service_says_and_nothing_leaves_that_is_not_listed() {
    let backend = Backend::start().await;
    let gateway = start(&backend, ALL).await;
    let headers = [
        ("cookie", "canary=canary-1; sessionid=abc; other=canary-2"),
        ("x-canary", "canary-3"),
        ("authorization", "Bearer canary-4"),
    ];
    let answer = json!([
        {"type": "websocket.accept", "user": "alice", "groups": ["room.7"]},
        {"type": "group_send", "group": "hall", "message": {"type": "came"}},
    ]);
    let asked = async {
        let call = backend.call().await;
        let (head, body) = (call.head.clone(), call.body.clone());
        call.json(&answer).await;
        (head, body)
    };
    let dialled = Socket::dial(gateway.address(), "/ws?group=room.8", &headers, None);
    let (socket, (head, asked)) = tokio::join!(dialled, asked);
    let mut socket = socket.expect("the service has let it in");
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n") && head.contains("webhook-signature: v1,"), "{head}");
    assert!(!head.contains("canary") && !asked.to_string().contains("canary"), "{head}{asked}");
    let port = gateway.address().port();
    let scope = &asked["scope"];
    assert_eq!((&asked["type"], &asked["user"]), (&json!("websocket.connect"), &Value::Null));
    assert_eq!((&scope["path"], &scope["query_string"]), (&json!("/ws"), &json!("group=room.8")));
    assert_eq!(scope["headers"], json!([["cookie", "sessionid=abc"]]));
    assert_eq!(scope["server"], json!(["127.0.0.1", port]));
    assert_eq!(asked["channel"], json!(socket.channel), "the channel that it has now");

    let shown = gateway.http().get(&format!("/v1/connections/{}", socket.channel)).await.expect(200);
    assert_eq!(shown["user"], "alice");
    // The group of its address is asked about; the one that it was given is not.
    let call = call_about(&backend, "group.subscribe").await;
    assert_eq!((&call.body["group"], &call.body["user"]), (&json!("room.8"), &json!("alice")));
    call.json(&json!({"type": "allow"})).await;
    for group in ["room.8", "room.7"] {
        assert_eq!(socket.expect("subscribed").await["group"], group);
    }
    gateway.http().group_send("room.7", &json!({"type": "hello"})).await;
    assert_eq!(socket.message().await, json!({"type": "hello"}));

    let channel = socket.channel.clone();
    socket.close().await;
    let told = call_about(&backend, "websocket.disconnect").await;
    let expected = json!({"type": "websocket.disconnect", "channel": channel, "user": "alice", "code": 1000});
    assert_eq!(told.body, expected);
    told.json(&json!([])).await;
    assert!(metric(&gateway, "groupcast_hook_calls_total{event=\"websocket.connect\",outcome=\"ok\"} 1").await);
    assert!(!gateway.printed().contains("canary"), "{}", gateway.printed());
}

#[tokio::test]
async fn who_may_not_be_is_told_so_before_there_is_a_socket() {
    let backend = Backend::start().await;
    let gateway = start(&backend, "").await;
    for (answer, status, code) in [
        (json!({"type": "websocket.close", "reason": "log in"}), 403, "forbidden"),
        (json!([{"type": "websocket.close", "code": 3000, "reason": "log in"}]), 401, "unauthenticated"),
        (json!({"type": "websocket.close", "code": 1013, "reason": "log in"}), 503, "unavailable"),
    ] {
        let (refused, _) = dial(&gateway, &backend, "/ws", answer).await;
        let reply = refused.expect_err("refused");
        reply.problem(status, code);
        assert!(reply.text().contains("log in"), "{}", reply.text());
    }
    for (status, code) in [(401, "unauthenticated"), (403, "forbidden")] {
        let asked = async { backend.call().await.answer(status, "", "").await };
        let (refused, ()) = tokio::join!(Socket::dial(gateway.address(), "/ws", &[], None), asked);
        refused.expect_err("refused").problem(status, code);
    }
    assert!(metric(&gateway, "groupcast_hook_calls_total{event=\"websocket.connect\",outcome=\"denied\"} 2").await);
    // What cannot be a handshake is nobody's to be asked about, nor a page of somebody else's.
    let foreign = Socket::dial(gateway.address(), "/ws", &[("origin", "http://evil.example")], None).await;
    foreign.expect_err("refused").problem(403, "forbidden");
    let (socket, _) = dial(&gateway, &backend, "/ws", json!({"type": "websocket.accept"})).await;
    socket.expect("and the next one is asked about").close().await;
}

#[tokio::test]
async fn an_event_stream_is_asked_about_in_the_same_way() {
    let backend = Backend::start().await;
    let gateway = start(&backend, ALL).await;
    let headers = [("cookie", "sessionid=abc; canary=1")];
    let answers = async {
        let connect = call_about(&backend, "http.request").await;
        let scope = connect.body["scope"].clone();
        connect.json(&json!({"type": "websocket.accept", "user": "alice", "groups": ["room.7"]})).await;
        let subscribe = call_about(&backend, "group.subscribe").await;
        assert_eq!((&subscribe.body["group"], &subscribe.body["user"]), (&json!("room.8"), &json!("alice")));
        subscribe.json(&json!({"type": "allow"})).await;
        scope
    };
    let (events, scope) = tokio::join!(Events::open_with(&gateway, "group=room.8", &headers), answers);
    let mut events = events;
    assert_eq!((&scope["type"], &scope["method"]), (&json!("http"), &json!("GET")));
    assert_eq!(scope["headers"], json!([["cookie", "sessionid=abc"]]));
    for group in ["room.8", "room.7"] {
        assert_eq!(events.expect("subscribed", "subscribed").await["group"], group);
    }
    gateway.http().group_send("room.7", &json!({"type": "hello"})).await;
    assert_eq!(events.message().await, json!({"type": "hello"}));
    let channel = events.channel();
    drop(events);
    let told = call_about(&backend, "http.disconnect").await;
    assert_eq!(told.body, json!({"type": "http.disconnect", "channel": channel, "user": "alice"}));
    told.json(&json!([])).await;

    let denied = async {
        call_about(&backend, "http.request").await.json(&json!({"type": "websocket.accept"})).await;
        call_about(&backend, "group.subscribe").await.json(&json!({"type": "deny", "reason": "not for you"})).await;
    };
    let (refused, ()) = tokio::join!(Events::dial(gateway.address(), "group=room.9", &[], None), denied);
    let reply = refused.expect_err("refused");
    reply.problem(403, "forbidden");
    assert!(reply.text().contains("not for you"), "{}", reply.text());
}

#[tokio::test]
async fn nobody_is_given_more_than_the_configuration_lets_the_service_give() {
    let backend = Backend::start().await;
    let grants = "grants = { subscribe = [\"tenant.*\"], send = [\"tenant.*\"] }";
    let gateway = guarded(&backend, grants, "tenant_claim = \"tenant\"\n").await;
    let accept = |more: Value| {
        let mut answer = json!({"type": "websocket.accept", "user": "alice", "claims": {"tenant": "acme"}});
        answer.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        answer
    };
    let (socket, _) =
        dial(&gateway, &backend, "/ws", accept(json!({"rights": {"subscribe": ["*"], "send": ["*"]}}))).await;
    let mut socket = socket.expect("it may be");
    socket.subscribe("tenant.acme.room").await;
    for group in ["tenant.other.room", "tenant.acme2.room", "hall"] {
        socket.refused(json!({"type": "subscribe", "group": group}), "forbidden").await;
        socket.refused(json!({"type": "group_send", "group": group, "message": {"type": "x"}}), "forbidden").await;
    }
    socket.refused(json!({"type": "query", "name": "q"}), "forbidden").await;
    // A defect of the service: closed, not open.
    for wrong in [
        accept(json!({"groups": ["tenant.other.room"]})),
        accept(json!({"groups": ["hall"]})),
        accept(json!({"claims": {}})),
        accept(json!({"rights": {"subscribe": ["a*b"]}})),
    ] {
        let (refused, _) = dial(&gateway, &backend, "/ws", wrong).await;
        refused.expect_err("refused").problem(503, "unavailable");
    }
    let (refused, _) = dial(&gateway, &backend, "/ws?group=hall", accept(json!({}))).await;
    refused.expect_err("refused").problem(403, "forbidden");
}

#[tokio::test]
async fn a_token_stays_who_it_is_and_a_service_is_not_asked_about() {
    let backend = Backend::start().await;
    let gateway = guarded(&backend, "", "").await;
    let claims = json!({"sub": "alice", "exp": seconds_from_now(600), "subscribe": ["room.*"]});
    let bearer = format!("Bearer {}", token(SECRET, &claims));
    let headers = [("authorization", bearer.as_str())];
    for (user, rights, may) in [("alice", json!(["room.1"]), true), ("mallory", json!([]), false)] {
        let answer = json!({"type": "websocket.accept", "user": user, "rights": {"subscribe": rights}});
        let asked = async {
            let call = backend.call().await;
            assert_eq!(call.body["user"], "alice");
            assert!(!call.head.contains(&bearer) && !call.body.to_string().contains(&bearer));
            call.json(&answer).await;
        };
        let (dialled, ()) = tokio::join!(Socket::dial(gateway.address(), "/ws", &headers, None), asked);
        if !may {
            dialled.expect_err("another user").problem(503, "unavailable");
            continue;
        }
        let mut socket = dialled.expect("it is alice");
        socket.subscribe("room.1").await;
        socket.refused(json!({"type": "subscribe", "group": "room.2"}), "forbidden").await;
    }
    let bearer = format!("Bearer {KEY}");
    let socket = Socket::dial(gateway.address(), "/ws", &[("authorization", &bearer)], None).await;
    socket.expect("nobody is asked").close().await;
}

#[tokio::test]
async fn a_connection_ends_when_the_service_says_so() {
    let backend = Backend::start().await;
    let gateway = start(&backend, "").await;
    let answer = json!({"type": "websocket.accept", "user": "alice", "expires_at": seconds_from_now(2)});
    let (socket, _) = dial(&gateway, &backend, "/ws", answer).await;
    assert_eq!(socket.expect("it may be").end().await, End::Closed(3000));
    let (refused, _) =
        dial(&gateway, &backend, "/ws", json!({"type": "websocket.accept", "user": "alice", "expires_at": 1})).await;
    refused.expect_err("it is over").problem(401, "unauthenticated");
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_told() {
    let backend = Backend::start().await;
    for (wrong, key, words) in [
        ("headers = [\"cookie\"]", "hooks.headers[0]", "cookies"),
        ("cookies = [\"a;b\"]", "hooks.cookies[0]", "cookie"),
        ("events = [\"message\"]", "hooks.types", "missing"),
        ("types = [\"x\"]", "hooks.types", "message"),
        ("events = [\"conect\"]", "hooks.events[0]", "connect"),
        ("timeout = \"1h\"", "hooks.timeout", "30s"),
        ("grants = { subscribe = [\"a*b\"] }", "hooks.grants", "pattern"),
        ("url2 = \"x\"", "hooks.url2", "url"),
    ] {
        let (code, printed) = Gateway::refused(&Home::new(&config(&backend, wrong))).await;
        assert_eq!(code, Some(2), "{wrong}: {printed}");
        assert!(printed.contains(key) && printed.contains(words), "{wrong}: {printed}");
        assert!(!printed.contains("MfKQ"), "{printed}");
    }
    let private = config(&backend, "").replace("allow_private = true", "");
    let (code, printed) = Gateway::refused(&Home::new(&private)).await;
    assert!(code == Some(2) && printed.contains("hooks.url") && printed.contains("allow_private"), "{printed}");
}

async fn guarded(backend: &Backend, hooks: &str, auth: &str) -> Gateway {
    let auth = format!("\n[auth]\njwt_secret_file = \"jwt.secret\"\napi_keys_file = \"api.keys\"\n{auth}");
    let home = Home::new(&(config(backend, hooks) + &auth));
    home.write("jwt.secret", SECRET);
    home.write("api.keys", KEY);
    Gateway::start_in(Arc::new(home)).await
}
