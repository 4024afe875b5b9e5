//! Commands of `groupcast.v1` and what is said when they are wrong: the connection lives on, and so does everybody's.

use std::collections::BTreeSet;

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_welcome_names_protocol_channel_and_user() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = groupcast_tests::Raw::connect(gateway.address()).await;
    raw.write(groupcast_tests::raw::handshake_head(gateway.address(), &[]).as_bytes()).await;
    assert_eq!(raw.reply().await.status, 101);
    let (opcode, payload) = raw.frame().await.expect("a welcome");
    let welcome: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(opcode, 1);
    let keys: BTreeSet<&str> = welcome.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["type", "protocol", "channel", "user"]));
    assert_eq!((&welcome["protocol"], &welcome["user"]), (&json!("groupcast.v1"), &Value::Null));
    assert!(welcome["channel"].as_str().is_some_and(|channel| channel.starts_with("specific.gw1!")), "{welcome}");
}

#[tokio::test]
async fn ids_come_back_as_they_were() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open(&gateway).await;
    for id in [json!(0), json!(7), json!(-7), json!(9_007_199_254_740_993_i64), json!("a"), json!("ü \"quoted\"")] {
        socket.send(&json!({"type": "ping", "id": id})).await;
        assert_eq!(socket.next().await, json!({"type": "pong", "id": id}));
        socket.send(&json!({"type": "nonsense", "id": id})).await;
        assert_eq!(socket.expect("error").await["id"], id);
    }
    socket.send(&json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
    for id in [json!(1.5), json!(true), json!({}), json!([1])] {
        socket.send(&json!({"type": "ping", "id": id})).await;
        assert_eq!(socket.expect("error").await["code"], "bad_request", "id {id}");
    }
}

#[tokio::test]
async fn subscribing_twice_and_leaving_twice_are_told() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open(&gateway).await;
    socket.refused(json!({"type": "unsubscribe", "group": "a"}), "not_subscribed").await;
    socket.subscribe("a").await;
    socket.refused(json!({"type": "subscribe", "group": "a"}), "already_subscribed").await;
    assert_eq!(gateway.http().group_send("a", &json!({"type": "x"})).await["members"], 1);
    assert_eq!(socket.message().await["type"], "x");
    let answer = socket.command(json!({"type": "unsubscribe", "group": "a"})).await;
    assert_eq!((&answer["type"], &answer["group"]), (&json!("unsubscribed"), &json!("a")));
    socket.refused(json!({"type": "unsubscribe", "group": "a"}), "not_subscribed").await;
    socket.subscribe("a").await;
}

#[tokio::test]
async fn every_bad_command_gets_its_code_and_the_connection_lives() {
    let gateway = Gateway::start(JOBS).await;
    let mut socket = Socket::subscribed(&gateway, &["my_group"]).await;
    let long = "g".repeat(100);
    let no_job = "0".repeat(26);
    for (command, code) in [
        (json!({"type": "nonsense"}), "unknown_type"),
        (json!({"type": "welcome"}), "unknown_type"),
        (json!({"type": 7}), "bad_request"),
        (json!({}), "bad_request"),
        (json!({"type": "subscribe"}), "bad_request"),
        (json!({"type": "subscribe", "group": 7}), "bad_request"),
        (json!({"type": "subscribe", "group": ""}), "invalid_name"),
        (json!({"type": "subscribe", "group": "a b"}), "invalid_name"),
        (json!({"type": "subscribe", "group": "a!b"}), "invalid_name"),
        (json!({"type": "subscribe", "group": "ü"}), "invalid_name"),
        (json!({"type": "subscribe", "group": long}), "invalid_name"),
        (json!({"type": "unsubscribe", "group": "a b"}), "invalid_name"),
        (json!({"type": "group_send", "group": "g"}), "bad_request"),
        (json!({"type": "group_send", "group": "g", "message": "x"}), "invalid_message"),
        (json!({"type": "group_send", "group": "g", "message": {}}), "invalid_message"),
        (json!({"type": "group_send", "group": "g", "message": {"type": ""}}), "invalid_message"),
        (json!({"type": "group_send", "group": "g", "message": {"type": 7}}), "invalid_message"),
        (json!({"type": "group_send", "group": "g/h", "message": {"type": "x"}}), "invalid_name"),
        (json!({"type": "group_send", "group": "g", "message": {"type": "job.result"}}), "forbidden"),
        (
            json!({"type": "group_send", "group": "my_group", "message": {"type": "execute_query", "queryset_id": 99}}),
            "unknown_query",
        ),
        (
            json!({"type": "group_send", "group": "my_group", "message": {"type": "execute_query", "query": "no"}}),
            "unknown_query",
        ),
        (json!({"type": "group_send", "group": "my_group", "message": {"type": "execute_query"}}), "bad_params"),
        (json!({"type": "query"}), "bad_request"),
        (json!({"type": "query", "name": "no_such"}), "unknown_query"),
        (json!({"type": "query", "name": "numbers", "params": []}), "bad_request"),
        (json!({"type": "query", "name": "numbers", "params": {"count": "9"}}), "bad_params"),
        (json!({"type": "query", "name": "numbers", "params": {"count": 0}}), "bad_params"),
        (json!({"type": "query", "name": "numbers", "params": {"counts": 9}}), "bad_params"),
        (json!({"type": "query", "name": "worst_routes", "params": {"origin": "SFO"}}), "bad_params"),
        (json!({"type": "cancel"}), "bad_request"),
        (json!({"type": "cancel", "job": no_job}), "not_found"),
    ] {
        socket.refused(command, code).await;
    }
    // Nothing was changed, nothing was sent, nothing became a job.
    assert_eq!(socket.pending().await, [] as [Value; 0]);
    assert_eq!(gateway.http().get("/v1/jobs").await.expect(200)["jobs"], json!([]));
    socket.subscribe("alive").await;
}

#[tokio::test]
async fn what_is_no_command_at_all_is_a_bad_request() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open(&gateway).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in
        ["", " ", "x", "7", "null", "[]", "{", r#"{"type":"ping"}{"type":"ping"}"#, r#"{"type":"ping",}"#, &deep]
    {
        socket.send_raw(Message::text(text)).await;
        let error = socket.next().await;
        let shown: String = text.chars().take(40).collect();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_request")), "{shown:?}: {error}");
    }
    assert_eq!(socket.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn fields_that_nobody_knows_are_ignored_in_any_order() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open(&gateway).await;
    socket.send_raw(Message::text(r#"{"group":"a","future":{"x":[1]},"id":1,"type":"subscribe"}"#)).await;
    assert_eq!(socket.next().await, json!({"type": "subscribed", "id": 1, "group": "a"}));
}

#[tokio::test]
async fn a_message_passes_through_byte_for_byte() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["raw"]).await;
    let mut sender = Socket::open(&gateway).await;
    let http = gateway.http();
    let message = r#"{"b":1.0e+2, "a":12345678901234567890123,"u":"\u00fc\/ü","type":"x","b":2,"nested":{"type":7}}"#;
    let headers = [("content-type", "application/json")];
    http.request("POST", "/v1/groups/raw/send", &headers, message.as_bytes().to_vec()).await.expect(202);
    sender.send_raw(Message::text(format!(r#"{{"type":"group_send","group":"raw","message":{message}}}"#))).await;
    sender.expect("accepted").await;
    for _ in 0..2 {
        let push = reader.next_text().await.expect("a push");
        assert!(push.contains(message), "{push}");
    }
}

#[tokio::test]
async fn a_connection_has_so_many_subscriptions_and_no_more() {
    let config = format!("{BARE}\n[limits]\nsubscriptions_per_connection = 3\n");
    let gateway = Gateway::start(&config).await;
    let mut socket = Socket::subscribed(&gateway, &["a", "b", "c"]).await;
    socket.refused(json!({"type": "subscribe", "group": "d"}), "limit_exceeded").await;
    socket.command(json!({"type": "unsubscribe", "group": "a"})).await;
    socket.subscribe("d").await;
}

#[tokio::test]
async fn commands_that_come_in_one_breath_are_answered_in_order() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\ncommands_per_second = 1000")).await;
    let mut socket = Socket::open(&gateway).await;
    // More than may be in flight: reading stops and goes on.
    for id in 0..500 {
        let command = json!({"type": "group_send", "id": id, "group": "g", "message": {"type": "x"}});
        socket.send(&command).await;
    }
    for id in 0..500 {
        assert_eq!(socket.expect("accepted").await["id"], id);
    }
}

#[tokio::test]
async fn groups_of_the_address_are_subscribed_at_once() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open_at(&gateway, "/ws?group=a&group=b&group=a", &[]).await;
    let mut groups = Vec::new();
    for _ in 0..2 {
        let push = socket.expect("subscribed").await;
        assert!(push.get("id").is_none(), "nobody asked: {push}");
        groups.push(push["group"].clone());
    }
    assert_eq!(groups, ["a", "b"]);
    gateway.http().group_send("b", &json!({"type": "x"})).await;
    assert_eq!(socket.expect("message").await["group"], "b");
    assert_eq!(socket.pending().await, [] as [Value; 0]);
}
