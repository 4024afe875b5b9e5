//! What becomes of what a client says.

use groupcast_tests::socket::End;
use groupcast_tests::{Backend, Socket};
use serde_json::{Value, json};

use super::{call_about, command, socket_of, start};

const SETTINGS: &str = r#"events = ["connect", "message"]
groups = ["room.*"]
types = ["chat.*"]
"#;

fn say(text: &str) -> Value {
    json!({"type": "group_send", "group": "room.1", "message": {"type": "chat.say", "text": text}})
}

#[tokio::test]
async fn a_message_goes_on_is_refused_or_is_taken() {
    let backend = Backend::start().await;
    let gateway = start(&backend, SETTINGS).await;
    let mut alice = socket_of(&gateway, &backend, "alice").await;
    let mut reader = socket_of(&gateway, &backend, "bob").await;
    reader.subscribe("room.1").await;

    let (answer, asked) = command(&mut alice, &backend, say("hello"), json!({"type": "allow"})).await;
    let expected = json!({"type": "websocket.receive", "channel": alice.channel, "user": "alice", "group": "room.1",
        "message": {"type": "chat.say", "text": "hello"}});
    assert_eq!((asked, &answer["type"], &answer["members"]), (expected, &json!("accepted"), &json!(1)));
    assert_eq!(reader.message().await["text"], "hello");

    let deny = json!({"type": "deny", "reason": "be polite"});
    let (answer, _) = command(&mut alice, &backend, say("rude"), deny).await;
    assert_eq!((&answer["code"], &answer["message"]), (&json!("forbidden"), &json!("be polite")));

    // The service says it in its own words, and to the sender alone how it went.
    let own_words = json!([
        {"type": "group_send", "group": "room.1", "message": {"type": "chat.said", "by": "alice", "text": "hi"}},
        {"type": "websocket.send", "message": {"type": "stored", "number": 7}},
        {"type": "group_add", "group": "speakers"},
    ]);
    let (answer, _) = command(&mut alice, &backend, say("hi"), own_words).await;
    assert_eq!((&answer["type"], &answer["members"], &answer["jobs"]), (&json!("accepted"), &Value::Null, &json!([])));
    assert_eq!(reader.message().await, json!({"type": "chat.said", "by": "alice", "text": "hi"}));
    // Which of the two is told first is not said.
    let mut told = [alice.next().await, alice.next().await];
    told.sort_by_key(|frame| frame["type"].as_str().map(str::to_owned));
    assert_eq!(told[0]["message"], json!({"type": "stored", "number": 7}));
    assert_eq!((&told[1]["type"], &told[1]["group"]), (&json!("subscribed"), &json!("speakers")));

    // Nobody is asked about other types, other groups, and what the team itself sends.
    for (group, kind) in [("room.1", "wave"), ("hall", "chat.say")] {
        let send = json!({"type": "group_send", "group": group, "message": {"type": kind}});
        assert_eq!(alice.command(send).await["type"], "accepted");
    }
    gateway.http().group_send("room.1", &json!({"type": "chat.say", "text": "news"})).await;
    assert_eq!(
        (reader.message().await["type"].clone(), reader.message().await["text"].clone()),
        (json!("wave"), json!("news"))
    );

    let (_, _) =
        command(&mut alice, &backend, say("bye"), json!([{"type": "deny"}, {"type": "websocket.close"}])).await;
    assert_eq!(alice.end().await, End::Closed(1008));
}

#[tokio::test]
async fn what_one_says_is_asked_about_in_order_and_once_for_each_key() {
    let backend = Backend::start().await;
    let gateway = start(&backend, SETTINGS).await;
    let mut alice = socket_of(&gateway, &backend, "alice").await;
    let mut reader = socket_of(&gateway, &backend, "bob").await;
    reader.subscribe("room.1").await;
    for text in ["1", "2", "3"] {
        alice.send(&say(text)).await;
    }
    for text in ["1", "2", "3"] {
        let call = call_about(&backend, "websocket.receive").await;
        assert_eq!(call.body["message"]["text"], text);
        call.json(&json!({"type": "allow"})).await;
        assert_eq!(reader.message().await["text"], text);
        alice.expect("accepted").await;
    }
    let mut keyed = say("once");
    keyed["idempotency_key"] = json!("key-1");
    let (first, _) = command(&mut alice, &backend, keyed.clone(), json!({"type": "allow"})).await;
    let again = alice.command(keyed).await;
    assert_eq!((&again["message_id"], &again["existing"]), (&first["message_id"], &json!(true)));
    assert_eq!(reader.message().await["text"], "once");
    assert_eq!(reader.pending().await, Vec::<Value>::new());
}

#[tokio::test]
async fn without_an_answer_nothing_is_said() {
    let backend = Backend::start().await;
    let gateway = start(&backend, SETTINGS).await;
    let mut alice = socket_of(&gateway, &backend, "alice").await;
    let mut reader: Socket = socket_of(&gateway, &backend, "bob").await;
    reader.subscribe("room.1").await;
    let asked = async { backend.call().await.answer(500, "", "").await };
    let (answer, ()) = tokio::join!(alice.command(say("lost")), asked);
    assert_eq!((&answer["code"], &answer["retriable"]), (&json!("unavailable"), &json!(true)));
    let (answer, _) = command(&mut alice, &backend, say("lost"), json!({"type": "websocket.accept"})).await;
    assert_eq!(answer["code"], "unavailable");
    assert_eq!(reader.pending().await, Vec::<Value>::new());
}
