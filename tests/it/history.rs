//! Groups that keep history: positions, pages, recovery, and who is there.

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};

/// Groups of each kind.
const KEEPING: &str = r#"
[[group]]
name = "room.*"
history = { messages = 10, age = "1h" }

[[group]]
name = "brief"
history = { messages = 1000, age = "300ms" }

[[group]]
name = "lobby.*"
presence = true
"#;

#[tokio::test]
async fn every_message_has_a_place_and_all_say_the_same() {
    let gateway = keeping().await;
    let http = gateway.http();
    let mut reader = Socket::open(&gateway).await;
    let subscribed = reader.command(json!({"type": "subscribe", "group": "room.1"})).await;
    let epoch = subscribed["epoch"].as_str().expect("a group with history has an epoch").to_owned();
    assert_eq!((&subscribed["offset"], &subscribed["recovered"]), (&json!(0), &Value::Null), "{subscribed}");
    for offset in 1..=3 {
        let accepted = http.group_send("room.1", &json!({"type": "tick", "n": offset})).await;
        assert_eq!((&accepted["epoch"], &accepted["offset"]), (&json!(epoch), &json!(offset)), "{accepted}");
        assert_eq!(reader.expect("message").await["offset"], offset);
    }
    let one = http.get("/v1/groups/room.1").await.expect(200);
    assert_eq!(one, json!({"group": "room.1", "members": 1, "epoch": epoch, "offset": 3}));
    let send = json!({"type": "group_send", "group": "room.1", "message": {"type": "tick"}});
    let accepted = reader.command(send).await;
    assert_eq!((&accepted["epoch"], &accepted["offset"]), (&json!(epoch), &json!(4)), "{accepted}");

    let plain = http.group_send("plain", &json!({"type": "tick"})).await;
    assert_eq!((plain.get("epoch"), plain.get("offset")), (None, None), "a group without history has no places");
    let one = http.get("/v1/groups/plain").await.expect(200);
    assert_eq!(one, json!({"group": "plain", "members": 0, "epoch": null, "offset": null}));
}

#[tokio::test]
async fn history_is_read_page_by_page_oldest_first() {
    let gateway = keeping().await;
    let http = gateway.http();
    let epoch = ticks(&http, "room.1", 1..=14).await;
    let first = http.get("/v1/groups/room.1/history?limit=6").await.expect(200);
    let entry = |n: u64| json!({"offset": n, "message": {"type": "tick", "n": n}});
    let of = |range: std::ops::RangeInclusive<u64>| range.map(entry).collect::<Vec<_>>();
    assert_eq!(first, json!({"epoch": epoch, "messages": of(5..=10), "next": 10}), "the last ten are kept");
    let path = format!("/v1/groups/room.1/history?after=10&epoch={epoch}&limit=6");
    assert_eq!(http.get(&path).await.expect(200), json!({"epoch": epoch, "messages": of(11..=14), "next": null}));
    let path = format!("/v1/groups/room.1/history?after=14&epoch={epoch}");
    assert_eq!(http.get(&path).await.expect(200), json!({"epoch": epoch, "messages": [], "next": null}));

    let mut socket = Socket::open(&gateway).await;
    let answer = socket.command(json!({"type": "history", "group": "room.1", "limit": 2})).await;
    assert_eq!(answer["messages"], json!(of(5..=6)), "{answer}");
    assert_eq!((&answer["type"], &answer["epoch"], &answer["next"]), (&json!("history"), &json!(epoch), &json!(6)));
    let after = json!({"epoch": epoch, "offset": 12});
    let answer = socket.command(json!({"type": "history", "group": "room.1", "after": after})).await;
    assert_eq!((&answer["messages"], &answer["next"]), (&json!(of(13..=14)), &Value::Null), "{answer}");
}

#[tokio::test]
async fn what_is_gone_is_told_and_so_is_what_never_was() {
    let gateway = keeping().await;
    let http = gateway.http();
    let epoch = ticks(&http, "room.1", 1..=14).await;
    let read = |query: String| {
        let http = http.clone();
        async move { http.get(&format!("/v1/groups/room.1/history?{query}")).await }
    };
    read("after=4&epoch=another".to_owned()).await.problem(410, "expired");
    read(format!("after=3&epoch={epoch}")).await.problem(410, "expired");
    read(format!("after=15&epoch={epoch}")).await.problem(410, "expired");
    let from = |n: u64| format!("after={n}&epoch={epoch}&limit=1");
    assert_eq!(read(from(4)).await.expect(200)["messages"][0]["offset"], 5);
    // Without an epoch nobody claims to have been here.
    assert_eq!(read("after=3&limit=1".to_owned()).await.expect(200)["messages"][0]["offset"], 5);
    for query in ["after=-1", "after=x", "limit=0", "limit=1001", "epoch=%20", "epoch=", "afer=1", "after=1&after=2"] {
        read(query.to_owned()).await.problem(400, "bad_request");
    }
    let plain = http.get("/v1/groups/plain/history").await;
    plain.problem(404, "not_found");
    assert!(plain.text().contains("[[group]]"), "says how to switch it on: {}", plain.text());
    http.get("/v1/groups/a%20b/history").await.problem(422, "invalid_name");

    let mut socket = Socket::open(&gateway).await;
    let ask = |group: &str, epoch: &str, offset: u64| json!({"type": "history", "group": group, "after": {"epoch": epoch, "offset": offset}});
    socket.refused(ask("room.1", "another", 4), "expired").await;
    socket.refused(ask("room.1", &epoch, 3), "expired").await;
    socket.refused(json!({"type": "history", "group": "plain"}), "not_found").await;
}

#[tokio::test]
async fn history_is_kept_as_long_as_its_age() {
    let gateway = keeping().await;
    let http = gateway.http();
    let epoch = ticks(&http, "brief", 1..=3).await;
    let empty = || async {
        let page = http.get("/v1/groups/brief/history").await.expect(200);
        (page["messages"] == json!([])).then_some(())
    };
    eventually("the messages are gone", empty).await;
    http.get(&format!("/v1/groups/brief/history?after=1&epoch={epoch}")).await.problem(410, "expired");
}

#[tokio::test]
async fn a_group_that_nothing_was_sent_to_has_an_empty_history() {
    let gateway = keeping().await;
    let http = gateway.http();
    let empty = json!({"epoch": null, "messages": [], "next": null});
    assert_eq!(http.get("/v1/groups/room.9/history").await.expect(200), empty);
    http.get("/v1/groups/room.9/history?after=0&epoch=x").await.problem(410, "expired");
    let answer = Socket::open(&gateway).await.command(json!({"type": "history", "group": "room.9"})).await;
    assert_eq!((&answer["epoch"], &answer["messages"]), (&Value::Null, &json!([])), "{answer}");
    let one = http.get("/v1/groups/room.9").await.expect(200);
    assert_eq!(one, json!({"group": "room.9", "members": 0, "epoch": null, "offset": null}));
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_and_then_what_is_new() {
    let gateway = keeping().await;
    let http = gateway.http();
    let epoch = ticks(&http, "room.1", 1..=8).await;
    let mut reader = Socket::open(&gateway).await;
    let after = json!({"epoch": epoch, "offset": 5});
    let subscribed = reader.command(json!({"type": "subscribe", "group": "room.1", "after": after})).await;
    assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(true), &json!(8)), "{subscribed}");
    ticks(&http, "room.1", 9..=10).await;
    let mut other = Socket::open_at(&gateway, &format!("/ws?group=room.1&after={epoch}:9"), &[]).await;
    assert_eq!(other.expect("subscribed").await["recovered"], true);
    for (socket, from) in [(&mut reader, 6), (&mut other, 10)] {
        for n in from..=10 {
            let push = socket.expect("message").await;
            assert_eq!((&push["offset"], &push["message"]["n"]), (&json!(n), &json!(n)), "{push}");
        }
        assert_eq!(socket.pending().await, [] as [Value; 0], "none twice");
    }
}

#[tokio::test]
async fn who_cannot_be_caught_up_is_told_why() {
    let gateway = keeping().await;
    let http = gateway.http();
    let epoch = ticks(&http, "room.1", 1..=14).await;
    for (epoch, offset, reason) in
        [("another", 14, "epoch_changed"), (epoch.as_str(), 3, "trimmed"), (epoch.as_str(), 99, "ahead")]
    {
        let mut reader = Socket::open(&gateway).await;
        let after = json!({"epoch": epoch, "offset": offset});
        let subscribed = reader.command(json!({"type": "subscribe", "group": "room.1", "after": after})).await;
        assert_eq!((&subscribed["recovered"], &subscribed["reason"]), (&json!(false), &json!(reason)), "{subscribed}");
        assert_eq!(subscribed["offset"], 14, "from here it goes on");
        assert_eq!(reader.pending().await, [] as [Value; 0], "nothing is replayed");
    }
    let home = gateway.kill().await;
    let gateway = Gateway::start_in(home).await;
    let mut reader = Socket::open(&gateway).await;
    let after = json!({"epoch": epoch, "offset": 14});
    let subscribed = reader.command(json!({"type": "subscribe", "group": "room.1", "after": after})).await;
    assert_eq!(subscribed["reason"], "epoch_changed", "memory forgets: {subscribed}");
}

#[tokio::test]
async fn members_of_a_group_with_presence_hear_who_comes_and_goes() {
    let gateway = keeping().await;
    let mut first = Socket::subscribed(&gateway, &["lobby.1", "room.1"]).await;
    let mut second = Socket::subscribed(&gateway, &["lobby.1", "room.1"]).await;
    let told = |kind: &str, member: &str| json!({"type": kind, "group": "lobby.1", "member": member});
    let joined = told("joined", &second.channel);
    loop {
        // Its own coming may be told first.
        let frame = first.next().await;
        if frame == joined {
            break;
        }
        assert_eq!(frame, told("joined", &first.channel), "room.1 has no presence");
    }
    let answer = first.command(json!({"type": "members", "group": "lobby.1"})).await;
    let mut members = vec![first.channel.clone(), second.channel.clone()];
    members.sort_unstable();
    assert_eq!(answer["members"], json!(members), "{answer}");

    second.command(json!({"type": "unsubscribe", "group": "lobby.1"})).await;
    assert_eq!(first.next().await, told("left", &second.channel));
    second.subscribe("lobby.1").await;
    assert_eq!(first.next().await, joined);
    let channel = second.channel.clone();
    drop(second);
    assert_eq!(first.next().await, told("left", &channel), "who breaks off has left");
    let page = gateway.http().get("/v1/groups/lobby.1/members").await.expect(200);
    assert_eq!(page["members"], json!([first.channel]));
}

#[tokio::test]
async fn the_command_goes_on_where_it_is_told_to() {
    let gateway = keeping().await;
    let epoch = ticks(&gateway.http(), "room.1", 1..=5).await;
    let after = format!("{epoch}:3");
    let url = format!("http://{}", gateway.address());
    let arguments = ["subscribe", "room.1", "--after", &after, "--count", "2", "--url", &url];
    let output = run(groupcast(gateway.home(), &arguments)).await;
    let (printed, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    let offsets: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["offset"].take()).collect();
    assert_eq!(offsets, [4, 5], "{printed}");
    assert!(told.contains(&format!("room.1 at {epoch}:5")), "tells where a later run goes on: {told}");

    let arguments = ["subscribe", "room.1", "--after", "nowhere", "--url", &url];
    assert_eq!(run(groupcast(gateway.home(), &arguments)).await.status.code(), Some(2));
}

async fn keeping() -> Gateway {
    Gateway::start(&format!("{BARE}{KEEPING}")).await
}

/// Sends numbered messages; the epoch of the group.
async fn ticks(http: &Http, group: &str, numbers: std::ops::RangeInclusive<u64>) -> String {
    let mut epoch = Value::Null;
    for n in numbers {
        epoch = http.group_send(group, &json!({"type": "tick", "n": n})).await["epoch"].take();
    }
    epoch.as_str().expect("a group with history has an epoch").to_owned()
}
