//! The same over WebSockets, whose connections outlive the tokens that opened them.

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::socket::End;
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

use super::{KEY, SECRET, asked, guarded, guarded_with, user};

#[tokio::test]
async fn a_socket_may_do_what_its_token_says() {
    let gateway = guarded(BARE).await;
    let alice = user("alice", &json!({"subscribe": ["room.*"], "send": ["room.1"]}));
    let mut socket = with_header(&gateway, "/ws", &alice).await;
    socket.subscribe("room.1").await;
    for command in ["subscribe", "members", "history"] {
        socket.refused(json!({"type": command, "group": "other"}), "forbidden").await;
    }
    assert_eq!(socket.command(json!({"type": "members", "group": "room.1"})).await["type"], "members");
    let send = |group: &str| json!({"type": "group_send", "group": group, "message": {"type": "chat"}});
    socket.refused(send("room.2"), "forbidden").await;
    assert_eq!(socket.command(send("room.1")).await["type"], "accepted");
    assert_eq!(socket.message().await["type"], "chat");
    socket.refused(json!({"type": "query", "name": "any", "params": {}}), "forbidden").await;
    let http = gateway.http();
    let path = format!("/v1/connections/{}", socket.channel);
    assert_eq!(asked(&http, "GET", &path, Some(KEY), "").await.expect(200)["user"], "alice");
}

#[tokio::test]
async fn a_token_is_shown_by_header_by_subprotocol_or_by_command() {
    let gateway = guarded(BARE).await;
    let alice = user("alice", &json!({"subscribe": ["room.*"]}));
    let protocol = format!("groupcast.v1, groupcast.token.{alice}");
    let mut by_protocol = Socket::open_at(&gateway, "/ws?group=room.1", &[("sec-websocket-protocol", &protocol)]).await;
    assert_eq!(by_protocol.subprotocol.as_deref(), Some("groupcast.v1"), "the token is not repeated");
    by_protocol.expect("subscribed").await;
    let twice = format!("{protocol}, groupcast.token.{}", user("bob", &json!({})));
    let refused = Socket::dial(gateway.address(), "/ws", &[("sec-websocket-protocol", &twice)], None).await;
    let Err(refused) = refused else { panic!("whose socket would it be?") };
    refused.problem(400, "bad_request");

    let mut by_command = Socket::open(&gateway).await;
    by_command.refused(json!({"type": "subscribe", "group": "room.1"}), "unauthenticated").await;
    by_command.refused(json!({"type": "authenticate", "token": "nonsense"}), "unauthenticated").await;
    authenticated(&mut by_command, &alice).await;
    by_command.subscribe("room.1").await;

    let mut by_header = with_header(&gateway, "/ws?group=room.1", &alice).await;
    by_header.expect("subscribed").await;
    let http = gateway.http();
    let chat = json!({"type": "chat"}).to_string();
    let sent = asked(&http, "POST", "/v1/groups/room.1/send", Some(KEY), &chat).await.expect(202);
    assert_eq!(sent["members"], 3);
    for socket in [&mut by_protocol, &mut by_command, &mut by_header] {
        assert_eq!(socket.message().await["type"], "chat");
    }
    let service = with_header(&gateway, "/ws?group=anything", KEY).await;
    service.close().await;
}

#[tokio::test]
async fn a_handshake_with_a_bad_token_or_for_a_foreign_group_is_refused() {
    let gateway = guarded(BARE).await;
    let alice = user("alice", &json!({"subscribe": ["room.*"]}));
    let dial = async |path: &str, headers: &[(&str, &str)]| {
        let refused = Socket::dial(gateway.address(), path, headers, None).await;
        *refused.expect_err("it is refused")
    };
    let bearer = format!("Bearer {alice}");
    let protocol = format!("groupcast.v1, groupcast.token.{alice}");
    dial("/ws?group=other", &[("authorization", &bearer)]).await.problem(403, "forbidden");
    dial("/ws?group=room.1&group=other", &[("sec-websocket-protocol", &protocol)]).await.problem(403, "forbidden");
    dial("/ws?group=room.1", &[]).await.problem(401, "unauthenticated");
    dial("/ws", &[("authorization", &format!("{bearer}x"))]).await.problem(401, "unauthenticated");
    dial("/ws", &[("sec-websocket-protocol", &format!("{protocol}x"))]).await.problem(401, "unauthenticated");
    let both = [("authorization", bearer.as_str()), ("sec-websocket-protocol", protocol.as_str())];
    dial("/ws", &both).await.problem(400, "bad_request");
    let over = token(SECRET, &json!({"sub": "alice", "exp": seconds_from_now(0) - 1, "subscribe": ["*"]}));
    dial("/ws", &[("authorization", &format!("Bearer {over}"))]).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn who_shows_no_token_in_time_is_closed_with_3000() {
    let gateway = guarded(BARE).await;
    let mut silent = Socket::open(&gateway).await;
    let mut talks = Socket::open(&gateway).await;
    talks.refused(json!({"type": "authenticate", "token": "nonsense"}), "unauthenticated").await;
    assert_eq!(silent.end().await, End::Closed(3000));
    assert_eq!(talks.end().await, End::Closed(3000));
}

#[tokio::test]
async fn a_socket_ends_with_its_token_unless_another_one_is_shown() {
    let gateway = guarded(BARE).await;
    let exp = seconds_from_now(3);
    let short = token(SECRET, &json!({"sub": "alice", "exp": exp, "subscribe": ["room.*"]}));
    let mut ends = with_header(&gateway, "/ws?group=room.1", &short).await;
    let mut renews = with_header(&gateway, "/ws?group=room.1", &short).await;
    authenticated(&mut renews, &user("alice", &json!({"subscribe": ["room.*"]}))).await;
    assert_eq!(ends.end().await, End::Closed(3000));
    assert!(seconds_from_now(0) >= exp, "not before its time");
    let late = || async { (seconds_from_now(0) > exp + 1).then_some(()) };
    eventually("the first token is over", late).await;
    assert_eq!(renews.command(json!({"type": "ping"})).await["type"], "pong");
    let chat = json!({"type": "chat"}).to_string();
    asked(&gateway.http(), "POST", "/v1/groups/room.1/send", Some(KEY), &chat).await.expect(202);
    renews.expect("subscribed").await;
    assert_eq!(renews.message().await["type"], "chat");
}

#[tokio::test]
async fn what_another_token_does_not_grant_is_left() {
    let gateway = guarded(BARE).await;
    let http = gateway.http();
    let mut socket = with_header(&gateway, "/ws", &user("alice", &json!({"subscribe": ["a", "b"]}))).await;
    socket.subscribe("a").await;
    socket.subscribe("b").await;
    let member = format!("/v1/groups/given/members/{}", socket.channel);
    asked(&http, "PUT", &member, Some(KEY), "").await.expect(204);
    assert_eq!(socket.expect("subscribed").await["group"], "given");

    socket.refused(json!({"type": "authenticate", "token": user("bob", &json!({}))}), "forbidden").await;
    socket.refused(json!({"type": "authenticate", "token": KEY}), "forbidden").await;
    authenticated(&mut socket, &user("alice", &json!({"subscribe": ["b"]}))).await;
    assert_eq!(socket.expect("unsubscribed").await, json!({"type": "unsubscribed", "group": "a"}));
    let chat = json!({"type": "chat"}).to_string();
    for (group, members) in [("a", 0), ("b", 1), ("given", 1)] {
        let sent = asked(&http, "POST", &format!("/v1/groups/{group}/send"), Some(KEY), &chat).await.expect(202);
        assert_eq!(sent["members"], members, "{group}");
    }
    assert_eq!(socket.expect("message").await["group"], "b");
    assert_eq!(socket.expect("message").await["group"], "given", "a service has put it there");
    socket.refused(json!({"type": "subscribe", "group": "a"}), "forbidden").await;
}

#[tokio::test]
async fn anonymous_callers_may_do_what_is_said_and_stay() {
    let auth =
        "\n[auth]\napi_keys_file = \"api.keys\"\nanonymous = { subscribe = [\"news.*\"], query = [\"numbers\"] }\n";
    let gateway = guarded_with(JOBS, auth).await;
    let mut socket = Socket::open_at(&gateway, "/ws?group=news.1", &[]).await;
    socket.expect("subscribed").await;
    socket.refused(json!({"type": "subscribe", "group": "room.1"}), "unauthenticated").await;
    let send = json!({"type": "group_send", "group": "news.1", "message": {"type": "chat"}});
    socket.refused(send, "unauthenticated").await;
    let asked_for = json!({"type": "query", "name": "numbers", "params": {"count": 2}});
    assert_eq!(socket.command(asked_for).await["type"], "accepted");
    socket.refused(json!({"type": "query", "name": "endless", "params": {}}), "unauthenticated").await;
    // A token that is wrong is not passed over for the rights that one without would have.
    let wrong = asked(&gateway.http(), "POST", "/v1/queries/numbers", Some("nonsense"), "{}").await;
    wrong.problem(401, "unauthenticated");
    let after = seconds_from_now(6);
    let late = || async { (seconds_from_now(0) > after).then_some(()) };
    eventually("the time to authenticate would be over", late).await;
    let frames = socket.pending().await;
    assert!(frames.iter().all(|frame| frame["message"]["type"].as_str().is_some_and(|kind| kind.starts_with("job."))));
}

#[tokio::test]
async fn a_socket_cancels_its_own_jobs_alone_and_follows_what_it_may_ask() {
    let live = JOBS.replace("name = \"numbers\"", "name = \"numbers\"\nrefresh = \"1s\"");
    let gateway = guarded(&live).await;
    let mut alice = with_header(&gateway, "/ws", &user("alice", &json!({"query": ["endless", "numbers"]}))).await;
    let mut bob = with_header(&gateway, "/ws", &user("bob", &json!({"query": []}))).await;
    let accepted = alice.command(json!({"type": "query", "name": "endless", "params": {}})).await;
    let job = accepted["jobs"][0]["id"].clone();
    bob.refused(json!({"type": "cancel", "job": job}), "not_found").await;
    bob.refused(json!({"type": "subscribe", "query": "numbers"}), "forbidden").await;
    assert_eq!(alice.command(json!({"type": "cancel", "job": job})).await["type"], "cancelled");
    let followed = alice.command(json!({"type": "subscribe", "query": "numbers"})).await;
    assert_eq!(followed["type"], "subscribed", "{followed}");
    authenticated(&mut alice, &user("alice", &json!({"query": ["endless"]}))).await;
    let left = unsubscribed(&mut alice).await;
    assert_eq!(left["group"], followed["group"], "who may not ask does not follow");
}

async fn with_header(gateway: &Gateway, path: &str, credential: &str) -> Socket {
    Socket::open_at(gateway, path, &[("authorization", &format!("Bearer {credential}"))]).await
}

async fn authenticated(socket: &mut Socket, token: &str) {
    let answer = socket.command(json!({"type": "authenticate", "token": token})).await;
    assert_eq!((&answer["type"], &answer["user"]), (&json!("authenticated"), &json!("alice")), "{answer}");
}

async fn unsubscribed(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.next().await;
        if frame["type"] == "unsubscribed" {
            return frame;
        }
    }
}
