//! Presence with several gateways on one broker: who is there is known everywhere, also when gateways and the broker die.

use std::time::Duration;

use groupcast_tests::nats::{self, Nats};
use groupcast_tests::redis::{self, Redis};
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

use crate::presence::Watcher;

const ROOM: &str = "room.a";
/// Of a gateway that says no word; the contract promises 10 to 12.5 s, and this machine may be busy.
const LEASE_MAX: Duration = Duration::from_secs(18);
/// What is told at once comes long before a lease is over.
const AT_ONCE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn members_of_all_gateways_on_redis_are_told_and_listed() {
    let redis = Redis::start(&[]);
    let (one, two) = on_redis(&redis).await;
    are_told_and_listed(&one, &two).await;
}

#[tokio::test]
async fn members_of_all_gateways_on_nats_are_told_and_listed() {
    let nats = Nats::start_jetstream("");
    let (one, two) = on_nats(&nats).await;
    are_told_and_listed(&one, &two).await;
}

#[tokio::test]
async fn over_redis_members_leave_with_their_gateway() {
    let redis = Redis::start(&[]);
    let (one, two) = on_redis(&redis).await;
    leave_with_their_gateway(&one, two).await;
    ends_in_order(&one, Gateway::start(&redis_config(&redis, "gw3")).await).await;
}

#[tokio::test]
async fn over_nats_members_leave_with_their_gateway() {
    let nats = Nats::start_jetstream("");
    let (one, two) = on_nats(&nats).await;
    leave_with_their_gateway(&one, two).await;
    ends_in_order(&one, Gateway::start(&nats_config(&nats, "gw3")).await).await;
}

#[tokio::test]
async fn a_gateway_that_stands_still_has_no_members_until_it_goes_on() {
    let redis = Redis::start(&[]);
    let (one, two) = on_redis(&redis).await;
    let mut watcher = Watcher::new(&one, ROOM).await;
    let guest = Socket::subscribed(&two, &[ROOM]).await;
    watcher.until(&[&guest.channel]).await;
    two.pause();
    within_time(LEASE_MAX, "the lease is over", watcher.until(&[])).await;
    two.resume();
    watcher.until(&[&guest.channel]).await;
    agree(&[&one, &two], &[&watcher.socket.channel, &guest.channel]).await;
}

#[tokio::test]
async fn after_a_restart_of_redis_all_know_who_is_there() {
    let mut redis = Redis::start(&redis::DURABLE);
    let (one, two) = on_redis(&redis).await;
    let mut watcher = Watcher::new(&one, ROOM).await;
    let (leaving, staying) = (Socket::subscribed(&two, &[ROOM]).await, Socket::subscribed(&two, &[ROOM]).await);
    watcher.until(&[&leaving.channel, &staying.channel]).await;
    redis.kill();
    leaving.close().await;
    redis.restart();
    watcher.until(&[&staying.channel]).await;
    agree(&[&one, &two], &[&watcher.socket.channel, &staying.channel]).await;
    let late = eventually("the gateway follows groups again", || subscribed(&two)).await;
    watcher.until(&[&staying.channel, &late.channel]).await;
}

#[tokio::test]
async fn after_a_restart_of_nats_all_know_who_is_there() {
    let mut nats = Nats::start_jetstream(nats::DURABLE);
    let (one, two) = on_nats(&nats).await;
    let mut watcher = Watcher::new(&one, ROOM).await;
    let (leaving, staying) = (Socket::subscribed(&two, &[ROOM]).await, Socket::subscribed(&two, &[ROOM]).await);
    watcher.until(&[&leaving.channel, &staying.channel]).await;
    nats.kill();
    leaving.close().await;
    nats.restart();
    watcher.until(&[&staying.channel]).await;
    agree(&[&one, &two], &[&watcher.socket.channel, &staying.channel]).await;
}

#[tokio::test]
async fn without_presence_each_gateway_lists_its_own() {
    let redis = Redis::start(&[]);
    let (one, two) = on_redis(&redis).await;
    let (here, _there) = (Socket::subscribed(&one, &["quiet"]).await, Socket::subscribed(&two, &["quiet"]).await);
    let list = one.http().get("/v1/groups/quiet/members").await.expect(200);
    assert_eq!(list["members"], json!([here.channel]), "{list}");
    let sent = one.http().group_send("quiet", &json!({"type": "x"})).await;
    assert_eq!(sent["members"], Value::Null, "{sent}");
}

async fn are_told_and_listed(one: &Gateway, two: &Gateway) {
    let mut watcher = Watcher::new(one, ROOM).await;
    let guest = Socket::subscribed(two, &[ROOM]).await;
    watcher.until(&[&guest.channel]).await;
    two.http().put(&format!("/v1/groups/{ROOM}/members/inbox")).await.expect(204);
    watcher.until(&[&guest.channel, "inbox"]).await;
    let mut all = vec!["inbox".to_owned(), watcher.socket.channel.clone(), guest.channel.clone()];
    all.sort();
    agree(&[one, two], &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let page = one.http().get(&format!("/v1/groups/{ROOM}/members?limit=2")).await.expect(200);
    assert_eq!((&page["members"], &page["next"]), (&json!(all[..2]), &json!(all[1])), "{page}");
    let page = one.http().get(&format!("/v1/groups/{ROOM}/members?limit=2&after={}", all[1])).await.expect(200);
    assert_eq!((&page["members"], &page["next"]), (&json!(all[2..]), &Value::Null), "{page}");
    let answer = watcher.socket.command(json!({"type": "members", "group": ROOM})).await;
    assert_eq!(answer["members"], json!(all), "{answer}");
    let groups = one.http().get("/v1/groups?prefix=room.").await.expect(200);
    assert_eq!(groups["groups"], json!([{"group": ROOM, "members": 3}]), "{groups}");
    // Who is in a group elsewhere alone is known, too.
    let other = Socket::subscribed(two, &["room.b"]).await;
    let listed = || async {
        let groups = one.http().get("/v1/groups?prefix=room.").await.expect(200);
        (groups["groups"][1] == json!({"group": "room.b", "members": 1})).then_some(())
    };
    eventually("the group is listed", listed).await;
    drop(other);
    guest.close().await;
    watcher.until(&["inbox"]).await;
    two.http().delete(&format!("/v1/groups/{ROOM}/members/inbox")).await.expect(204);
    watcher.until(&[]).await;
    let message = json!({"type": "x"});
    let counted = || async { (one.http().group_send(ROOM, &message).await["members"] == 1).then_some(()) };
    eventually("the members that are known are counted", counted).await;
}

/// A gateway is killed; another one comes in its place.
async fn leave_with_their_gateway(one: &Gateway, two: Gateway) {
    let mut watcher = Watcher::new(one, ROOM).await;
    let guest = Socket::subscribed(&two, &[ROOM]).await;
    watcher.until(&[&guest.channel]).await;
    let home = two.kill().await;
    within_time(LEASE_MAX, "the lease is over", watcher.until(&[])).await;
    let again = Gateway::start_in(home).await;
    let guest = Socket::subscribed(&again, &[ROOM]).await;
    watcher.until(&[&guest.channel]).await;
    agree(&[one, &again], &[&watcher.socket.channel, &guest.channel]).await;
}

async fn ends_in_order(one: &Gateway, two: Gateway) {
    let mut watcher = Watcher::new(one, "room.end").await;
    let guest = Socket::subscribed(&two, &["room.end"]).await;
    two.http().put("/v1/groups/room.end/members/inbox").await.expect(204);
    watcher.until(&[&guest.channel, "inbox"]).await;
    two.terminate();
    within_time(AT_ONCE, "they have left", watcher.until(&[])).await;
    assert_eq!(two.ended().await.0, Some(0));
}

/// Waits until all gateways list exactly these members.
async fn agree(gateways: &[&Gateway], members: &[&str]) {
    let mut members = members.to_vec();
    members.sort_unstable();
    for gateway in gateways {
        let listed = || async {
            let list = gateway.http().get(&format!("/v1/groups/{ROOM}/members")).await.expect(200);
            (list["members"] == json!(members)).then_some(())
        };
        eventually("the list is right", listed).await;
        let one = gateway.http().get(&format!("/v1/groups/{ROOM}")).await.expect(200);
        assert_eq!(one["members"], members.len(), "{one}");
    }
}

/// A socket in the room, if the gateway could follow the group.
async fn subscribed(gateway: &Gateway) -> Option<Socket> {
    let mut socket = Socket::open(gateway).await;
    let answer = socket.command(json!({"type": "subscribe", "group": ROOM})).await;
    (answer["type"] == "subscribed").then_some(socket)
}

async fn on_redis(redis: &Redis) -> (Gateway, Gateway) {
    let (one, two) = (redis_config(redis, "gw1"), redis_config(redis, "gw2"));
    tokio::join!(Gateway::start(&one), Gateway::start(&two))
}

async fn on_nats(nats: &Nats) -> (Gateway, Gateway) {
    let (one, two) = (nats_config(nats, "gw1"), nats_config(nats, "gw2"));
    tokio::join!(Gateway::start(&one), Gateway::start(&two))
}

fn redis_config(redis: &Redis, node: &str) -> String {
    config(node, "redis", &redis.address(), "500ms")
}

fn nats_config(nats: &Nats, node: &str) -> String {
    config(node, "nats", &nats.address(), "2s")
}

fn config(node: &str, kind: &str, url: &str, timeout: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n[layer]\nkind = \"{kind}\"\nurl = \"{url}\"\n\
         timeout = \"{timeout}\"\n[[group]]\nname = \"room.*\"\npresence = true\n"
    )
}
