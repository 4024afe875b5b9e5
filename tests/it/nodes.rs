//! Several gateways on one Redis: what clients see on all of them, also when the broker dies.

use std::time::Duration;

use groupcast_tests::redis::Redis;
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Events, Gateway, Postgres, Socket};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Groups that keep history, and quick notice of a broker that is gone.
const LAYER: &str = "timeout = \"500ms\"\n[[group]]\nname = \"kept.*\"\nhistory = { messages = 1000, age = \"1h\" }\n";

#[tokio::test]
async fn a_message_reaches_the_sockets_of_all_gateways() {
    let redis = Redis::start(&[]);
    let (one, two) = pair(&redis).await;
    let mut sockets = [Socket::subscribed(&one, &["room"]).await, Socket::subscribed(&two, &["room"]).await];
    let mut stream = Events::open(&two, "group=room").await;
    stream.expect("subscribed", "subscribed").await;
    for n in 0..10 {
        let gateway = if n % 2 == 0 { &one } else { &two };
        let accepted = gateway.http().group_send("room", &json!({"type": "chat", "n": n})).await;
        assert_eq!(accepted["members"], Value::Null, "nobody counts the members of all gateways: {accepted}");
    }
    for socket in &mut sockets {
        for n in 0..10 {
            assert_eq!(socket.message_of("chat").await["n"], n);
        }
    }
    for n in 0..10 {
        assert_eq!(stream.message().await["n"], n);
    }
}

#[tokio::test]
async fn a_connection_is_found_from_any_gateway() {
    let redis = Redis::start(&[]);
    let (one, two) = pair(&redis).await;
    is_found_elsewhere(&one, &two).await;
}

#[tokio::test]
async fn a_client_goes_on_at_another_gateway_where_it_was() {
    let redis = Redis::start(&[]);
    let (one, two) = pair(&redis).await;
    goes_on_elsewhere(one, &two).await;
    let page = two.http().get("/v1/groups/kept.room/history?limit=3").await.expect(200);
    assert_eq!((page["messages"].as_array().map(Vec::len), &page["next"]), (Some(3), &json!(3)), "{page}");
}

#[tokio::test]
async fn sockets_outlive_a_broker_that_dies_and_are_told_what_may_be_lost() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (one, two) = pair(&redis).await;
    let mut plain = Socket::subscribed(&two, &["room"]).await;
    let mut kept = Socket::subscribed(&two, &["kept.room"]).await;
    for group in ["room", "kept.room"] {
        one.http().group_send(group, &json!({"type": "chat", "n": 1})).await;
    }
    for socket in [&mut plain, &mut kept] {
        assert_eq!(socket.message_of("chat").await["n"], 1);
    }
    redis.kill();
    let refused = within_time(Duration::from_secs(2), "an answer", async {
        one.http().post("/v1/groups/room/send", &json!({"type": "chat", "n": 2})).await
    });
    refused.await.problem(503, "unavailable");
    let not_ready = || async { one.http().try_get("/readyz").await.filter(|reply| reply.status == 503) };
    let told = eventually("the gateway says that it is not ready", not_ready).await;
    assert!(told.text().contains("layer"), "{}", told.text());
    let mut late = Socket::open(&two).await;
    late.refused(json!({"type": "subscribe", "group": "other"}), "unavailable").await;
    assert_eq!(plain.command(json!({"type": "ping"})).await["type"], "pong", "a socket lives without the broker");
    redis.restart();
    let ready = || async { one.http().try_get("/readyz").await.filter(|reply| reply.status == 200) };
    eventually("the gateway is ready again", ready).await;
    for socket in [&mut plain, &mut kept] {
        // Also when nothing comes: the last that was sent may be lost.
        let gap = socket.expect("gap").await;
        assert_eq!((&gap["missed"], &gap["reason"]), (&Value::Null, &json!("broker_gap")), "{gap}");
    }
    for (socket, group) in [(&mut plain, "room"), (&mut kept, "kept.room")] {
        one.http().group_send(group, &json!({"type": "chat", "n": 3})).await;
        assert_eq!(socket.message_of("chat").await["n"], 3);
    }
    late.subscribe("other").await;
}

#[tokio::test]
async fn a_change_of_data_is_told_to_all_gateways() {
    let redis = Redis::start(&[]);
    // Each has a database of its own, so that it is seen which one is asked again.
    let query = "[source.shop]\nkind = \"sqlite\"\npath = \"source.db\"\n[[query]]\nid = 1\nname = \"count\"\nsource = \"shop\"\n\
        sql = \"select count(*) as n from flights\"\ntags = [\"flights\"]\n";
    let start = async |node: &str| Gateway::start(&format!("{}{query}", layer(&redis, node))).await;
    let (one, two) = (start("gw1").await, start("gw2").await);
    let mut socket = Socket::open(&two).await;
    let subscribe = json!({"type": "subscribe", "query": "count"});
    assert_eq!(socket.command(subscribe).await["type"], "subscribed");
    let before = socket.message().await["rows"][0][0].as_u64().expect("a number");
    let database = Connection::open(two.home().path().join("source.db")).expect("a database");
    database
        .execute("delete from flights where rowid = (select min(rowid) from flights)", [])
        .expect("it can be written");
    one.http().post("/v1/invalidate", &json!({"tags": ["flights"]})).await.expect(202);
    assert_eq!(socket.message().await["rows"][0][0], before - 1);
}

#[tokio::test]
async fn work_is_run_once_whichever_gateway_takes_it_in() {
    let redis = Redis::start(&[]);
    let url = Postgres::shared().database();
    let start = async |node: &str| {
        let jobs = format!("[jobs]\nstore = \"postgres\"\nurl = \"{url}\"\n");
        Gateway::start(&format!("{}{jobs}{WORK}", layer(&redis, node))).await
    };
    let (one, two) = (start("gw1").await, start("gw2").await);
    let mut sockets = [Socket::subscribed(&one, &["my_group"]).await, Socket::subscribed(&two, &["my_group"]).await];
    for gateway in [&one, &two] {
        let work = json!({"type": "execute_query", "queryset_id": 7});
        let job = gateway.http().job("my_group", &work).await;
        for socket in &mut sockets {
            let result = socket.skip_to("job.result").await;
            assert_eq!((&result["job"], &result["result"]["rows"]), (&json!(job), &json!([[42]])), "{result}");
        }
        assert_eq!(two.http().ended(&job).await["attempt"], 1);
    }
}

const WORK: &str = "[source.demo]\nkind = \"sqlite\"\npath = \"source.db\"\n[[query]]\nid = 7\nname = \"answer\"\n\
    source = \"demo\"\nsql = \"select 42 as n\"\n[[consumer]]\nname = \"queries\"\ngroup = \"my_group\"\n\
    type = \"execute_query\"\nrun = \"query\"\n";

#[tokio::test]
async fn gateways_that_claim_different_work_are_not_ready() {
    let redis = Redis::start(&[]);
    let one = Gateway::start(&layer(&redis, "gw1")).await;
    let consumer = "[jobs]\nsingle_gateway = true\n[source.demo]\nkind = \"sqlite\"\npath = \"source.db\"\n[[query]]\nid = 7\n\
        name = \"answer\"\nsource = \"demo\"\nsql = \"select 42\"\n[[consumer]]\nname = \"q\"\ngroup = \"g\"\ntype = \"t\"\n\
        run = \"query\"\n";
    let two = Gateway::start_unready(&format!("{}{consumer}", layer(&redis, "gw2"))).await;
    for (gateway, other) in [(&one, "gw2"), (&two, "gw1")] {
        let differs = || async { gateway.http().try_get("/readyz").await.filter(|reply| reply.status == 503) };
        let told = eventually("the gateway is not ready", differs).await.text();
        assert!(told.contains("claims") && told.contains(other) && told.contains("[[consumer]]"), "{told}");
    }
}

#[tokio::test]
async fn what_the_broker_does_not_prove_is_refused() {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let config = format!("[server]\nlisten = \"127.0.0.1:0\"\n{}durability = \"fsync\"\n", broker(&redis));
    let gateway = Gateway::start_unready(&config).await;
    let refused = gateway.http().post("/v1/groups/room/send", &json!({"type": "chat"})).await;
    refused.problem(503, "unavailable");
    assert!(refused.text().contains("appendfsync always"), "{}", refused.text());
    redis.command(&["CONFIG", "SET", "appendfsync", "always"]);
    // It is read at connect.
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    // Not by `/readyz`: it may tell of the link that has just been cut.
    let http = gateway.http();
    let accepted = || async {
        Some(http.post("/v1/groups/room/send", &json!({"type": "chat"})).await).filter(|reply| reply.status == 202)
    };
    eventually("what is sent is accepted", accepted).await;
}

#[tokio::test]
async fn one_frame_goes_through_redis_however_many_sockets_there_are() {
    let redis = Redis::start(&[]);
    let (one, two) = pair(&redis).await;
    let mut sockets = Vec::new();
    for n in 0..40 {
        sockets.push(Socket::subscribed(if n % 2 == 0 { &one } else { &two }, &["room"]).await);
    }
    let monitor = redis.monitor();
    for n in 0..5 {
        one.http().group_send("room", &json!({"type": "chat", "n": n})).await;
    }
    for socket in &mut sockets {
        for n in 0..5 {
            assert_eq!(socket.message_of("chat").await["n"], n);
        }
    }
    // What the script does, and not that it was called.
    let is_published = |line: &&str| line.contains("lua] \"PUBLISH\" ") && line.contains("{room}");
    let published = monitor.end().lines().filter(is_published).count();
    assert_eq!(published, 5, "one for each message");
}

/// A client reads at one gateway, which ends, and goes on at the other one with what it has missed.
pub(crate) async fn goes_on_elsewhere(one: Gateway, two: &Gateway) {
    let mut socket = Socket::open(&one).await;
    let told = socket.command(json!({"type": "subscribe", "group": "kept.room"})).await;
    let mut offsets = Vec::new();
    for n in 0..5 {
        offsets.push(two.http().group_send("kept.room", &json!({"type": "chat", "n": n})).await["offset"].clone());
    }
    assert_eq!(offsets, [1, 2, 3, 4, 5].map(Value::from));
    assert_eq!(socket.message_of("chat").await["n"], 0);
    one.kill().await;
    for n in 5..8 {
        two.http().group_send("kept.room", &json!({"type": "chat", "n": n})).await;
    }
    let mut again = Socket::open(two).await;
    let after = json!({"epoch": told["epoch"], "offset": 1});
    let answer = again.command(json!({"type": "subscribe", "group": "kept.room", "after": after})).await;
    assert_eq!((&answer["type"], &answer["recovered"]), (&json!("subscribed"), &json!(true)), "{answer}");
    for n in 1..8 {
        assert_eq!(again.message_of("chat").await["n"], n);
    }
}

/// A connection of one gateway gets what is sent to its channel at another one; of one that is gone that is told.
pub(crate) async fn is_found_elsewhere(one: &Gateway, two: &Gateway) {
    let mut socket = Socket::open(two).await;
    let path = format!("/v1/channels/{}/send", socket.channel);
    one.http().post(&path, &json!({"type": "chat", "n": 7})).await.expect(202);
    assert_eq!(socket.message_of("chat").await["n"], 7);
    let gone = one.http().post("/v1/channels/specific.nobody!c1/send", &json!({"type": "chat"})).await;
    gone.problem(404, "not_found");
}

async fn pair(redis: &Redis) -> (Gateway, Gateway) {
    let (one, two) = (layer(redis, "gw1"), layer(redis, "gw2"));
    tokio::join!(Gateway::start(&one), Gateway::start(&two))
}

fn layer(redis: &Redis, node: &str) -> String {
    format!("[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n{}{LAYER}", broker(redis))
}

fn broker(redis: &Redis) -> String {
    format!("[layer]\nkind = \"redis\"\nurl = \"{}\"\n", redis.address())
}
