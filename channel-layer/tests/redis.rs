//! Redis as the broker: the list that every broker passes, and what is Redis's own. Starts servers of its own.

// Shared with the tests of the gateway, which use more of them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/certificate.rs"]
mod certificate;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/daemon.rs"]
mod daemon;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/replicated.rs"]
mod replicated;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/resp.rs"]
mod resp;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/redis.rs"]
mod server;

#[path = "redis/core_dialect.rs"]
mod core_dialect;
#[path = "redis/publishing.rs"]
mod publishing;

use std::sync::Arc;
use std::time::Duration;

use certificate::Certificate;
use groupcast_channel_layer::HistoryRule;
use groupcast_channel_layer::broker::contract::{self, Node};
use groupcast_channel_layer::broker::dropped::Reason;
use groupcast_channel_layer::broker::redis::{RedisBroker, RedisConfig, Topology};
use groupcast_channel_layer::broker::{Ask, Broker, BrokerEvent, Level, Publication};
use groupcast_channel_layer::contract::{group, message};
use groupcast_protocol::{NodeId, Position};
use replicated::Cluster;
use server as redis;
use server::Redis;
use tokio::time::timeout;

#[tokio::test]
async fn keeps_the_contract() {
    let server = Redis::start(&[]);
    let server = &server;
    contract::run(|nodes| async move { fresh(server, nodes) }).await;
}

#[tokio::test]
async fn several_servers_keep_the_contract() {
    let servers = [Redis::start(&[]), Redis::start(&[]), Redis::start(&[])];
    let servers = &servers;
    contract::run(|nodes| async move {
        servers.iter().for_each(|server| drop(server.command(&["FLUSHALL"])));
        let addresses: Vec<String> = servers.iter().map(Redis::address).collect();
        (0..nodes).map(|n| node(n, config(addresses.clone()))).collect()
    })
    .await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract() {
    let cluster = Cluster::start();
    let cluster = &cluster;
    contract::run(|nodes| async move {
        cluster.nodes.iter().for_each(|server| drop(server.command(&["FLUSHALL"])));
        (0..nodes).map(|n| node(n, clustered(cluster))).collect()
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = Cluster::start();
    let mut nodes = [node(0, clustered(&cluster)), node(1, clustered(&cluster))];
    for node in &mut nodes {
        next(node, is_up).await;
    }
    nodes[0].broker.follow(vec![group("room")]).await.expect("it is there");
    publish(&nodes[1], 1).await.expect("it is there");
    next(&mut nodes[0], is_message).await;
    let from = cluster.node_of("t:{room}");
    let to = cluster.nodes.iter().find(|server| server.port() != from.port()).expect("there are three");
    let slot = from.command(&["CLUSTER", "KEYSLOT", "room"]);
    let id = to.command(&["CLUSTER", "MYID"]);
    // A server gives up a slot only without its keys.
    from.command(&["DEL", "t:{room}:h"]);
    for server in [to, from] {
        assert_eq!(server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]), "OK");
    }
    next(&mut nodes[0], |event| matches!(event, BrokerEvent::Down { .. })).await;
    next(&mut nodes[0], is_up).await;
    nodes[0].broker.follow(vec![group("room")]).await.expect("it is there again");
    // The other one learns of it when it is refused.
    let again = async {
        while publish(&nodes[1], 2).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("it finds the new server");
    next(&mut nodes[0], is_message).await;
}

#[tokio::test]
async fn a_cluster_without_a_server_takes_nothing_and_says_so() {
    let mut cluster = Cluster::start();
    let mut node = node(0, clustered(&cluster));
    next(&mut node, is_up).await;
    cluster.nodes[2].kill();
    next(&mut node, |event| matches!(event, BrokerEvent::Down { .. })).await;
    let failed = timeout(Duration::from_secs(1), publish(&node, 1)).await.expect("it fails at once");
    assert!(failed.is_none() && node.broker.ready().is_err());
    cluster.nodes[2].restart();
    next(&mut node, is_up).await;
    publish(&node, 2).await.expect("it is whole again");
}

#[tokio::test]
async fn a_server_that_was_started_anew_begins_new_epochs() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    let before = publish(&node, 1).await.expect("it is there");
    server.kill();
    let why = next(&mut node, |event| matches!(event, BrokerEvent::Down { .. })).await;
    assert!(node.broker.ready().is_err(), "{why:?}");
    assert!(publish(&node, 2).await.is_none());
    server.restart();
    next(&mut node, is_up).await;
    let after = publish(&node, 3).await.expect("it is there again");
    assert!(before.epoch != after.epoch && after.offset == 1, "{before} {after}: what it has may lack what it had");
}

#[tokio::test]
async fn what_a_server_proves_is_told() {
    for (settings, level) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], Level::Fsync),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], Level::Broker),
        (&[], Level::Broker),
    ] {
        let server = Redis::start(settings);
        let mut node = fresh(&server, 1).remove(0);
        next(&mut node, is_up).await;
        assert_eq!(node.broker.level(), level, "{settings:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_noticed() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    server.stop();
    next(&mut node, |event| matches!(event, BrokerEvent::Down { .. })).await;
    let failed = timeout(Duration::from_secs(1), publish(&node, 1)).await.expect("it fails at once");
    assert_eq!(failed, None);
    server.cont();
    next(&mut node, is_up).await;
    publish(&node, 1).await.expect("it is there again");
}

#[tokio::test]
async fn a_burst_waits_for_who_is_slow() {
    const MESSAGES: usize = 20_000;
    let server = Redis::start(&[]);
    let mut nodes = fresh(&server, 2);
    for node in &mut nodes {
        next(node, is_up).await;
    }
    nodes[1].broker.follow(vec![group("room")]).await.expect("it is there");
    // Far more than the inbox takes, while nobody reads it.
    for n in (0..MESSAGES).step_by(100) {
        let all = (n..n + 100).map(|n| publish(&nodes[0], n));
        assert!(futures_util::future::join_all(all).await.iter().all(Option::is_some));
    }
    assert!(publish(&nodes[1], MESSAGES).await.is_some(), "calls do not wait for the inbox");
    for offset in 1..=MESSAGES as u64 + 1 {
        let event = timeout(Duration::from_secs(5), nodes[1].inbox.recv()).await.expect("it comes");
        let Some(BrokerEvent::Message { envelope, .. }) = event else { panic!("{event:?} instead of {offset}") };
        assert_eq!(envelope.position.offset, offset);
    }
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_left() {
    let (server, other) = (Redis::start(&[]), Redis::start(&[]));
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    next(&mut node, |event| matches!(event, BrokerEvent::Down { .. })).await;
    let why = eventually_not_ready(&node).await;
    assert!(why.contains("slave"), "{why}");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    next(&mut node, is_up).await;
    publish(&node, 1).await.expect("it takes messages again");
}

#[tokio::test]
async fn what_is_no_message_is_dropped() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    let large = format!("gc1 e 1 - {{\"type\":\"a\",\"x\":\"{}\"}}", "x".repeat(70_000));
    for garbage in ["", "x", "gc1", "gc1 e 1 - {}", "gc1 e x - {\"type\":\"a\"}", "\u{0}\u{1}", &large] {
        for topic in ["t:{room}", "t:node:{n0}", "t:mail", "t:{a b}"] {
            server.command(&["PUBLISH", topic, garbage]);
        }
    }
    publish(&node, 7).await.expect("it is there");
    next(&mut node, |event| matches!(event, BrokerEvent::Message { envelope, .. } if envelope.message == message(7)))
        .await;
    // For the mailbox's topic `x` and `gc1` are names.
    assert_eq!([Reason::Unreadable, Reason::TooLarge, Reason::Stray].map(|reason| count(&node, reason)), [17, 2, 0]);
}

#[tokio::test]
async fn what_others_write_to_our_keys_stops_nobody() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    let rule = HistoryRule { messages: 100, age: Duration::from_secs(60) };
    let garbage: [&[&str]; 13] = [
        &["HSET", "t:{room}:h", "n", "9223372036854775807"],
        &["HSET", "t:{room}:h", "n", "abc"],
        &["HSET", "t:{room}:h", "n", "-7"],
        &["HSET", "t:{room}:h", "n", "1.5"],
        &["HSET", "t:{room}:h", "e", "a b"],
        &["HDEL", "t:{room}:h", "e"],
        &["SET", "t:{room}:h", "x"],
        &["RPUSH", "t:{room}:h", "x"],
        &["SET", "t:{room}:s", "x"],
        // Its number is the time: far behind all of ours.
        &["XADD", "t:{room}:s", "*", "a", "b"],
        &["XADD", "t:{room}:s", "900000000000000000-0", "t", "1", "m", " - {\"type\":\"forged\"}"],
        &["XADD", "t:{room}:s", "900000000000000000-1", "t", "x", "m", "y"],
        &["XTRIM", "t:{room}:s", "MAXLEN", "0"],
    ];
    for (n, words) in (1_usize..).zip(garbage) {
        // The next one may be refused by Redis itself, because of the one before.
        server.command(words);
        for n in [10 * n, 10 * n + 1] {
            let fresh_epoch = format!("e{n}").into();
            let kept = Publication { group: group("room"), message: message(n), keep: Some(rule), fresh_epoch };
            node.broker.publish(kept).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
            let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Message { envelope, .. } if envelope.message == message(n));
            next(&mut node, is_it).await;
        }
        server.command(words);
        let ask = Ask { group: group("room"), rule, after: 0, limit: 100, fresh_epoch: format!("h{n}").into() };
        let kept = timeout(Duration::from_secs(10), node.broker.history(ask)).await.expect("it ends");
        let kept = kept.unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(kept.messages.iter().all(|(offset, _)| *offset <= kept.head.offset), "{words:?}: {kept:?}");
    }
}

#[tokio::test]
async fn entries_of_others_are_not_in_a_history() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    // They take room: beyond the bound they would push out what is ours, and readers would be told.
    let rule = HistoryRule { messages: 10_000, age: Duration::from_secs(60) };
    for n in 1..=5 {
        let fresh_epoch = "e".into();
        let kept = Publication { group: group("room"), message: message(n), keep: Some(rule), fresh_epoch };
        node.broker.publish(kept).await.expect("it is there");
        for sequence in 1..=300 {
            server.command(&["XADD", "t:{room}:s", &format!("{n}-{sequence}"), "a", "b"]);
        }
    }
    let ask = Ask { group: group("room"), rule, after: 1, limit: 3, fresh_epoch: "h".into() };
    let kept = timeout(Duration::from_secs(10), node.broker.history(ask)).await.expect("it ends").expect("it is there");
    let expected = (2..=4).map(|n| (n as u64, message(n))).collect::<Vec<_>>();
    assert_eq!((kept.head.offset, kept.messages, kept.more), (5, expected, true));
    assert!(count(&node, Reason::Stray) > 0, "those that were in the way");
}

#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let server = Redis::start(&[]);
    let rights = "on >s3cret ~t:* &t:* +@all -@admin -@dangerous +info";
    let rights = ["ACL", "SETUSER", "gc"].into_iter().chain(rights.split(' ')).collect::<Vec<_>>();
    assert!(server.command(&rights).contains("OK"));
    server.command(&["ACL", "SETUSER", "default", "off"]);
    let address = server.address().replace("redis://", "redis://gc:s3cret@");
    let mut good = node(0, config(vec![address.clone()]));
    next(&mut good, is_up).await;
    publish(&good, 1).await.expect("it is there");
    assert_eq!(good.broker.level(), Level::Broker, "CONFIG is refused, so nothing is proved");
    let bad = node(0, config(vec![address.replace("s3cret", "wr0ng")]));
    let why = eventually_not_ready(&bad).await;
    assert!(!why.contains("wr0ng") && !format!("{:?}", bad.broker).contains("wr0ng"), "{why}");
}

#[tokio::test]
async fn a_server_behind_tls_is_known_by_its_certificate() {
    let Certificate { certificate, key } = Certificate::new();
    let server = Redis::start_secure(&certificate, &key, &[]);
    let of = |ca| RedisConfig { ca, ..config(vec![server.secure_address()]) };
    let mut trusting = node(0, of(Some(certificate.clone().into_bytes())));
    next(&mut trusting, is_up).await;
    publish(&trusting, 1).await.expect("it is there");
    let stranger = Certificate::new().certificate.into_bytes();
    let why = eventually_not_ready(&node(1, of(Some(stranger)))).await;
    assert!(why.contains("ertificate"), "{why}");
}

#[tokio::test]
async fn follows_the_master_that_sentinels_name() {
    let mut master = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    replica.eventually(&["INFO", "replication"], "master_link_status:up");
    let sentinels = [master.sentinel("gc"), master.sentinel("gc"), master.sentinel("gc")];
    for sentinel in &sentinels {
        sentinel.eventually(&["SENTINEL", "REPLICAS", "gc"], &replica.port().to_string());
        sentinel.eventually(&["INFO", "sentinel"], "sentinels=3");
    }
    let addresses = sentinels.iter().map(Redis::address).collect();
    let topology = Topology::Sentinels("gc".to_owned());
    let mut node = node(0, RedisConfig { topology, ..config(addresses) });
    next(&mut node, is_up).await;
    let before = publish(&node, 1).await.expect("it is there");
    master.kill();
    next(&mut node, |event| matches!(event, BrokerEvent::Down { .. })).await;
    next(&mut node, is_up).await;
    let after = publish(&node, 2).await.expect("the other one is there");
    assert_ne!(before.epoch, after.epoch, "what was acknowledged last may be lost");
}

fn clustered(cluster: &Cluster) -> RedisConfig {
    RedisConfig { topology: Topology::Cluster, ..config(cluster.addresses()) }
}

fn is_message(event: &BrokerEvent) -> bool {
    matches!(event, BrokerEvent::Message { .. })
}

fn count(node: &Node, reason: Reason) -> u64 {
    node.broker.dropped().counts().find(|(of, _)| *of == reason).map_or(0, |(_, count)| count)
}

fn is_up(event: &BrokerEvent) -> bool {
    *event == BrokerEvent::Up
}

fn fresh(server: &Redis, nodes: usize) -> Vec<Node> {
    server.command(&["FLUSHALL"]);
    (0..nodes).map(|n| node(n, config(vec![server.address()]))).collect()
}

fn config(addresses: Vec<String>) -> RedisConfig {
    let timeout = Duration::from_millis(500);
    let topology = Topology::Servers;
    RedisConfig {
        addresses,
        topology,
        prefix: "t".to_owned(),
        timeout,
        message_bytes: 65_536,
        ca: None,
        run: run(),
        groups: vec![],
        foreign: None,
    }
}

/// What no other connection has.
fn run() -> String {
    static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string()
}

fn node(n: usize, config: RedisConfig) -> Node {
    let id = NodeId::parse(&format!("n{n}")).expect("a valid name");
    let (broker, inbox) = RedisBroker::connect(config, &id).expect("a valid address");
    Node { id, broker: broker as Arc<dyn Broker>, inbox }
}

async fn publish(node: &Node, n: usize) -> Option<Position> {
    let fresh_epoch = format!("e{n}").into();
    let publication = Publication { group: group("room"), message: message(n), keep: None, fresh_epoch };
    node.broker.publish(publication).await.ok().map(|published| published.position)
}

async fn next(node: &mut Node, is: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
    let found = async {
        loop {
            let event = node.inbox.recv().await.expect("the broker is there");
            if is(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(30), found).await.expect("it comes")
}

async fn eventually_not_ready(node: &Node) -> String {
    for _ in 0..500 {
        match node.broker.ready() {
            Err(why) if why != "connecting" => return why,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("it says what is the matter");
}
