//! Whether a connection may listen to a group.

use groupcast_tests::Backend;
use serde_json::json;

use super::{command, socket_of, start};

const SETTINGS: &str = r#"events = ["connect", "subscribe"]
groups = ["room.*"]
timeout = "1s"

[[group]]
name = "room.*"
history = {}
"#;

#[tokio::test]
async fn a_group_is_opened_for_who_is_allowed_in() {
    let backend = Backend::start().await;
    let gateway = start(&backend, SETTINGS).await;
    let mut socket = socket_of(&gateway, &backend, "alice").await;
    let subscribe = |group: &str| json!({"type": "subscribe", "group": group});

    let answer = json!([{"type": "websocket.send", "message": {"type": "rules"}}, {"type": "allow"}]);
    let (answer, asked) = command(&mut socket, &backend, subscribe("room.1"), answer).await;
    let expected = json!({"type": "group.subscribe", "channel": socket.channel, "user": "alice", "group": "room.1"});
    assert_eq!((asked, &answer["type"]), (expected, &json!("subscribed")));
    assert_eq!(socket.message().await, json!({"type": "rules"}));
    gateway.http().group_send("room.1", &json!({"type": "hello"})).await;
    assert_eq!(socket.message().await, json!({"type": "hello"}));

    let deny = json!({"type": "deny", "reason": "not invited"});
    let (answer, _) = command(&mut socket, &backend, subscribe("room.2"), deny).await;
    assert_eq!((&answer["code"], &answer["message"]), (&json!("forbidden"), &json!("not invited")));
    // What such a group keeps is not to be had without a subscription either.
    for kind in ["history", "members"] {
        socket.refused(json!({"type": kind, "group": "room.2"}), "forbidden").await;
        assert_eq!(socket.command(json!({"type": kind, "group": "room.1"})).await["type"], kind);
    }
    // Nobody is asked about other groups.
    socket.subscribe("hall").await;
    gateway.http().get("/v1/groups/room.2/history").await.expect(200);
}

#[tokio::test]
async fn without_an_answer_that_makes_sense_a_group_stays_closed() {
    let backend = Backend::start().await;
    let gateway = start(&backend, SETTINGS).await;
    let mut socket = socket_of(&gateway, &backend, "alice").await;
    let subscribe = json!({"type": "subscribe", "group": "room.1"});
    for nonsense in
        [json!([]), json!({"type": "websocket.accept"}), json!(7), json!([{"type": "allow"}, {"type": "deny"}])]
    {
        let (answer, _) = command(&mut socket, &backend, subscribe.clone(), nonsense).await;
        assert_eq!((&answer["code"], &answer["retriable"]), (&json!("unavailable"), &json!(true)), "{answer}");
    }
    // A service that hangs holds up this client's command and no other client.
    let mut other = socket_of(&gateway, &backend, "bob").await;
    socket.send(&json!({"type": "subscribe", "id": "slow", "group": "room.1"})).await;
    let hanging = backend.call().await;
    other.subscribe("hall").await;
    gateway.http().group_send("hall", &json!({"type": "hello"})).await;
    assert_eq!(other.message().await, json!({"type": "hello"}));
    let answer = socket.next().await;
    assert_eq!((&answer["id"], &answer["code"]), (&json!("slow"), &json!("unavailable")), "{answer}");
    hanging.hung_up().await;
    let (answer, _) = command(&mut socket, &backend, subscribe, json!({"type": "allow"})).await;
    assert_eq!(answer["type"], "subscribed");
}
