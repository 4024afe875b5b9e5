//! Groups and channels as services see them: members, direct sends, capacity, connections.

use groupcast_tests::home::BARE;
use groupcast_tests::socket::End;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn several_groups_share_one_socket() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["a", "b"]).await;
    let http = gateway.http();
    for group in ["a", "b", "a", "c"] {
        http.group_send(group, &json!({"type": "hello", "to": group})).await;
    }
    let pushes: Vec<Value> = reader.pending().await;
    let groups = |name: &str| pushes.iter().filter(|push| push["group"] == name).count();
    assert_eq!((groups("a"), groups("b"), pushes.len()), (2, 1, 3), "{pushes:?}");
    assert!(pushes.iter().all(|push| push["group"] == push["message"]["to"]), "{pushes:?}");
}

#[tokio::test]
async fn after_unsubscribed_nothing_of_that_group_comes() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["a", "b"]).await;
    let http = gateway.http();
    http.group_send("a", &json!({"type": "before"})).await;
    let answer = reader.command(json!({"type": "unsubscribe", "group": "a"})).await;
    assert_eq!(answer["type"], "unsubscribed", "{answer}");
    assert_eq!(reader.message().await["type"], "before");
    assert_eq!(http.group_send("a", &json!({"type": "after"})).await["members"], 0);
    http.group_send("b", &json!({"type": "marker"})).await;
    assert_eq!(reader.message().await["type"], "marker");
    assert_eq!(reader.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_connection_is_reached_by_its_channel() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::open(&gateway).await;
    let mut other = Socket::open(&gateway).await;
    assert_ne!(reader.channel, other.channel);
    let message = json!({"type": "for.you", "n": 1});
    gateway.http().post(&to(&reader.channel), &message).await.expect(202);
    let push = reader.expect("message").await;
    assert_eq!(push, json!({"type": "message", "channel": reader.channel, "message": message}));
    assert_eq!(other.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_service_adds_a_connection_to_a_group_and_takes_it_out() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::open(&gateway).await;
    let http = gateway.http();
    let member = format!("/v1/groups/club/members/{}", reader.channel);

    http.put(&member).await.expect(204);
    assert_eq!(reader.next().await, json!({"type": "subscribed", "group": "club"}));
    http.put(&member).await.expect(204);
    http.group_send("club", &json!({"type": "hello"})).await;
    let push = reader.expect("message").await;
    assert_eq!(push["group"], "club", "adding twice is adding once: {push}");

    http.delete(&member).await.expect(204);
    assert_eq!(reader.next().await, json!({"type": "unsubscribed", "group": "club"}));
    assert_eq!(http.group_send("club", &json!({"type": "late"})).await["members"], 0);
    assert_eq!(reader.pending().await, [] as [Value; 0]);
    http.delete(&member).await.problem(404, "not_found");
}

#[tokio::test]
async fn groups_and_members_are_listed_in_pages() {
    let gateway = Gateway::start(BARE).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(Socket::subscribed(&gateway, &["room.1", "room.2", "zoo"]).await);
    }
    let http = gateway.http();
    let list = http.get("/v1/groups?prefix=room.").await.expect(200);
    let rooms = json!([{"group": "room.1", "members": 3}, {"group": "room.2", "members": 3}]);
    assert_eq!(list, json!({"groups": rooms, "next": null}));

    let first = http.get("/v1/groups?limit=2").await.expect(200);
    assert_eq!(first["groups"], rooms);
    let next = first["next"].as_str().expect("there is more");
    let second = http.get(&format!("/v1/groups?limit=2&after={next}")).await.expect(200);
    assert_eq!(second, json!({"groups": [{"group": "zoo", "members": 3}], "next": null}));

    let one = http.get("/v1/groups/zoo").await.expect(200);
    assert_eq!((&one["group"], &one["members"]), (&json!("zoo"), &json!(3)), "{one}");

    let mut channels: Vec<String> = sockets.iter().map(|socket| socket.channel.clone()).collect();
    channels.sort_unstable();
    let all = http.get("/v1/groups/zoo/members").await.expect(200);
    assert_eq!(all["members"], json!(channels));
    let first = http.get("/v1/groups/zoo/members?limit=2").await.expect(200);
    let after = first["next"].as_str().expect("there is more").replace('!', "%21");
    let second = http.get(&format!("/v1/groups/zoo/members?limit=2&after={after}")).await.expect(200);
    assert_eq!((&first["members"], &second["members"]), (&json!(channels[..2]), &json!(channels[2..])));
    let answer = sockets[0].command(json!({"type": "members", "group": "zoo"})).await;
    assert_eq!((&answer["type"], &answer["members"]), (&json!("members"), &json!(channels)), "{answer}");
}

#[tokio::test]
async fn a_connection_is_inspected_and_disconnected() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["a"]).await;
    let http = gateway.http();
    let path = format!("/v1/connections/{}", reader.channel);
    let all = http.get("/v1/connections").await.expect(200);
    assert!(all.to_string().contains(&reader.channel), "{all}");
    let one = http.get(&path).await.expect(200);
    assert_eq!(one["channel"], json!(reader.channel));

    http.delete(&path).await.expect(204);
    assert_eq!(reader.end().await, End::Closed(1008));
    let gone = || async { (http.get(&path).await.status == 404).then_some(()) };
    groupcast_tests::wait::eventually("the connection is forgotten", gone).await;
    http.get(&path).await.problem(404, "not_found");
    http.delete(&path).await.problem(404, "not_found");
    http.post(&to(&reader.channel), &json!({"type": "x"})).await.problem(404, "not_found");
    assert_eq!(http.group_send("a", &json!({"type": "x"})).await["members"], 0);
}

#[tokio::test]
async fn a_channel_that_nobody_reads_holds_its_capacity() {
    let layer = "[layer]\ncapacity = 3\nchannel_capacity = [{ pattern = \"import.*\", capacity = 5 }]\n";
    let gateway = Gateway::start(&format!("{BARE}\n{layer}")).await;
    let http = gateway.http();
    for (channel, capacity) in [("exports", 3), ("import.flights", 5)] {
        for n in 0..capacity {
            http.post(&to(channel), &json!({"type": "row", "n": n})).await.expect(202);
        }
        let full = http.post(&to(channel), &json!({"type": "row"})).await;
        full.problem(503, "channel_full");
        assert!(full.header("retry-after").is_some(), "{full:?}");
    }
}

#[tokio::test]
async fn names_follow_the_rule_of_channels() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let long = "g".repeat(99);
    for good in ["a", "A-b_c.9", long.as_str()] {
        http.group_send(good, &json!({"type": "x"})).await;
        http.post(&to(good), &json!({"type": "x"})).await.expect(202);
    }
    let too_long = "g".repeat(100);
    for bad in ["a%20b", "a%2Fb", "%C3%BC", "a!b", "a:b", "a%00b", too_long.as_str()] {
        refused_group(&http, bad).await;
    }
    for bad in ["!a", "a!b!c", "a%20b", too_long.as_str()] {
        http.post(&to(bad), &json!({"type": "x"})).await.problem(422, "invalid_name");
    }
}

async fn refused_group(http: &Http, name: &str) {
    http.post(&format!("/v1/groups/{name}/send"), &json!({"type": "x"})).await.problem(422, "invalid_name");
    http.get(&format!("/v1/groups/{name}")).await.problem(422, "invalid_name");
}

fn to(channel: &str) -> String {
    format!("/v1/channels/{channel}/send")
}
