//! Live queries: a subscriber has the rows as they are and then each change of them, and the database is asked once for
//! all who want the same.

use std::collections::BTreeSet;

use groupcast_tests::socket::End;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Http, Socket};
use rusqlite::Connection;
use serde_json::{Value, json};

const LIVE: &str = r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[source.shop]
kind = "sqlite"
path = "source.db"

[[query]]
id = 1
name = "routes"
source = "shop"
sql = "select dest, count(*) as flights, max(delay) as worst from flights where origin = :origin group by dest order by dest"
params.origin = { type = "text", enum = ["JFK", "LGA", "EWR"], default = "JFK" }
refresh = "250ms"
tags = ["flights"]
key = ["dest"]

[[query]]
id = 2
name = "count"
source = "shop"
sql = "select count(*) as flights from flights where origin = :origin and delay < :below"
params.origin = { type = "text", default = "JFK" }
params.below = { type = "real", default = 1000 }
tags = ["flights", "delays"]

[[query]]
id = 3
name = "still"
source = "shop"
sql = "select 1 as one"

[[query]]
id = 4
name = "later"
source = "shop"
sql = "select n from later order by n"
refresh = "250ms"

[[query]]
id = 5
name = "wide"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) select i, printf('%050d', i) as text from n"
tags = ["wide"]
"#;

#[tokio::test]
async fn a_subscriber_has_the_rows_and_then_each_change() {
    let gateway = Gateway::start(LIVE).await;
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "routes", json!({})).await;
    assert!(group.starts_with("query.") && group.len() == 32, "{group}");
    let mut snapshot = push(&mut reader, &group, "query.snapshot").await;
    assert!(snapshot["digest"].take().as_str().is_some_and(|digest| digest.len() == 64), "{snapshot}");
    let rows = json!([["BOS", 1, -3.0], ["LAX", 2, 21.0], ["ORD", 1, 40.0]]);
    let expected = json!({
        "type": "query.snapshot", "query": "routes", "params": {"origin": "JFK"}, "version": 1, "digest": null,
        "columns": ["dest", "flights", "worst"], "rows": rows, "truncated": false,
    });
    assert_eq!(snapshot, expected);

    change(&gateway, "delete from flights where dest = 'ORD'; insert into flights values ('JFK', 'MIA', 5)");
    let mut diff = push(&mut reader, &group, "query.diff").await;
    assert!(diff["digest"].take().is_string(), "{diff}");
    let expected = json!({
        "type": "query.diff", "query": "routes", "params": {"origin": "JFK"}, "version": 2, "since": 1, "digest": null,
        "upsert": [["MIA", 1, 5.0]], "delete": [["ORD"]],
    });
    assert_eq!(diff, expected);

    // What is of others changes nothing here, nor does what is the same as before.
    let runs = metric(&gateway.http(), "groupcast_live_runs_total").await;
    change(&gateway, "insert into flights values ('LGA', 'MIA', 5); update flights set delay = delay");
    ran(&gateway.http(), runs + 4).await;
    assert_eq!(reader.pending().await, [] as [Value; 0]);
    change(&gateway, "update flights set delay = 6 where dest = 'MIA'");
    let diff = push(&mut reader, &group, "query.diff").await;
    assert_eq!((&diff["version"], &diff["upsert"]), (&json!(3), &json!([["MIA", 1, 6.0]])), "{diff}");
}

#[tokio::test]
async fn who_asks_the_same_shares_one_run_and_who_asks_another_does_not() {
    let gateway = Gateway::start(LIVE).await;
    let http = gateway.http();
    let mut first = Socket::open(&gateway).await;
    let mut second = Socket::open(&gateway).await;
    let group = follow(&mut first, "count", json!({})).await;
    assert_eq!(push(&mut first, &group, "query.snapshot").await["rows"], json!([[4]]));
    assert_eq!(follow(&mut second, "count", json!({"below": 1000, "origin": "JFK"})).await, group);
    let state = push(&mut second, &group, "query.snapshot").await;
    assert_eq!((&state["rows"], &state["version"]), (&json!([[4]]), &json!(1)), "{state}");
    assert_eq!(metric(&http, "groupcast_live_runs_total").await, 1, "what is known is not asked again");
    assert_eq!(metric(&http, "groupcast_live_queries").await, 1);
    assert_eq!(metric(&http, "groupcast_live_subscribers").await, 2);

    change(&gateway, "insert into flights values ('JFK', 'MIA', 5)");
    assert_eq!(invalidate(&http, &["flights"]).await, json!({"queries": 2, "live": 1}));
    for reader in [&mut first, &mut second] {
        // Without a key, all rows come again.
        let change = push(reader, &group, "query.snapshot").await;
        assert_eq!((&change["rows"], &change["version"]), (&json!([[5]]), &json!(2)), "{change}");
    }
    assert_eq!(metric(&http, "groupcast_live_runs_total").await, 2);
    assert_eq!(metric(&http, "groupcast_live_changes_total").await, 2, "one send for both");

    let other = follow(&mut second, "count", json!({"below": 20})).await;
    assert_ne!(other, group);
    let state = push(&mut second, &other, "query.snapshot").await;
    assert_eq!(
        (&state["rows"], &state["params"]),
        (&json!([[3]]), &json!({"below": 20.0, "origin": "JFK"})),
        "{state}"
    );
    assert_eq!(metric(&http, "groupcast_live_queries").await, 2);
    assert_eq!(invalidate(&http, &["delays", "unknown"]).await, json!({"queries": 1, "live": 2}));
}

#[tokio::test]
async fn who_comes_late_has_the_state_and_then_the_same_changes() {
    let gateway = Gateway::start(LIVE).await;
    let mut early = Socket::open(&gateway).await;
    let group = follow(&mut early, "routes", json!({})).await;
    push(&mut early, &group, "query.snapshot").await;
    change(&gateway, "insert into flights values ('JFK', 'MIA', 5)");
    push(&mut early, &group, "query.diff").await;

    let mut late = Socket::open(&gateway).await;
    follow(&mut late, "routes", json!({"origin": "JFK"})).await;
    let state = push(&mut late, &group, "query.snapshot").await;
    assert_eq!(state["version"], 2, "{state}");
    assert_eq!(state["rows"].as_array().map(Vec::len), Some(4), "{state}");
    change(&gateway, "delete from flights where dest = 'MIA'");
    for reader in [&mut early, &mut late] {
        let diff = push(reader, &group, "query.diff").await;
        assert_eq!((&diff["version"], &diff["delete"]), (&json!(3), &json!([["MIA"]])), "{diff}");
    }
}

#[tokio::test]
async fn an_invalidation_is_checked() {
    let gateway = Gateway::start(LIVE).await;
    let http = gateway.http();
    assert_eq!(invalidate(&http, &["nobody"]).await, json!({"queries": 0, "live": 0}));
    let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    for wrong in [
        json!({"tags": []}),
        json!({"tags": many}),
        json!({"tags": [""]}),
        json!({"tags": ["x".repeat(100)]}),
        json!({"tags": [7]}),
        json!({"tags": "flights"}),
        json!({}),
        json!({"tags": ["a"], "more": 1}),
        json!(["flights"]),
    ] {
        http.post("/v1/invalidate", &wrong).await.problem(400, "bad_request");
    }
    http.post("/v1/invalidate", &json!({"tags": many[..100]})).await.expect(202);
}

#[tokio::test]
async fn an_invalidation_empties_the_cache_too() {
    let cached = LIVE.replace("name = \"count\"", "name = \"count\"\ncache = \"1h\"");
    let consumer = "[[consumer]]\nname = \"queries\"\ngroup = \"g\"\ntype = \"execute_query\"\nrun = \"query\"";
    let gateway = Gateway::start(&format!("{cached}\n{consumer}\n")).await;
    let http = gateway.http();
    let count = async || {
        let job = http.post("/v1/queries/count", &json!({})).await.json()["id"].as_str().expect("a job").to_owned();
        http.ended(&job).await;
        http.get(&format!("/v1/jobs/{job}/result")).await.expect(200)["rows"][0][0].clone()
    };
    assert_eq!(count().await, 4);
    change(&gateway, "insert into flights values ('JFK', 'MIA', 5)");
    assert_eq!(count().await, 4, "it was kept");
    invalidate(&http, &["others"]).await;
    assert_eq!(count().await, 4, "it still is");
    assert_eq!(invalidate(&http, &["delays"]).await, json!({"queries": 1, "live": 0}));
    assert_eq!(count().await, 5);
}

#[tokio::test]
async fn what_nobody_follows_any_more_is_not_asked() {
    let gateway = Gateway::start(LIVE).await;
    let http = gateway.http();
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "routes", json!({})).await;
    push(&mut reader, &group, "query.snapshot").await;
    let clock = follow(&mut reader, "count", json!({})).await;
    push(&mut reader, &clock, "query.snapshot").await;

    let left = reader.command(json!({"type": "unsubscribe", "group": group})).await;
    assert_eq!((&left["type"], &left["group"]), (&json!("unsubscribed"), &json!(group)), "{left}");
    let before = metric(&http, "groupcast_live_runs_total").await;
    // Two runs of one query begin 100 ms apart at least: these take four intervals of the other.
    for n in 1..=12 {
        invalidate(&http, &["flights"]).await;
        ran(&http, before + n).await;
    }
    let more = metric(&http, "groupcast_live_runs_total").await - before;
    assert!(more <= 13, "one may have been under way, and there were {more}");
    assert_eq!(reader.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn who_comes_back_soon_has_what_was_known_and_then_what_is_new() {
    let gateway = Gateway::start(LIVE).await;
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "routes", json!({})).await;
    push(&mut reader, &group, "query.snapshot").await;
    reader.command(json!({"type": "unsubscribe", "group": group})).await;
    change(&gateway, "insert into flights values ('JFK', 'SEA', 5)");
    assert_eq!(follow(&mut reader, "routes", json!({})).await, group);
    let state = push(&mut reader, &group, "query.snapshot").await;
    if state["version"] == 2 {
        // A run that was under way when he left has seen the change already.
        assert!(state["rows"].as_array().is_some_and(|rows| rows.contains(&json!(["SEA", 1, 5.0]))), "{state}");
        return;
    }
    let diff = push(&mut reader, &group, "query.diff").await;
    assert_eq!((&diff["since"], &diff["upsert"]), (&json!(1), &json!([["SEA", 1, 5.0]])), "{diff}");
}

#[tokio::test]
async fn an_event_stream_follows_queries_too() {
    let gateway = Gateway::start(LIVE).await;
    let mut stream = Events::open(&gateway, "query=count&param.below=20&param.origin=JFK").await;
    let told = stream.expect("subscribed", "subscribed").await;
    assert_eq!(told["query"], "count", "{told}");
    let state = stream.message().await;
    assert_eq!((&state["type"], &state["rows"]), (&json!("query.snapshot"), &json!([[2]])), "{state}");
    assert_eq!(stream.last_id(), "", "there is no history to go on in");
    change(&gateway, "insert into flights values ('JFK', 'SEA', 5)");
    invalidate(&gateway.http(), &["delays"]).await;
    assert_eq!(stream.message().await["rows"], json!([[3]]));

    let mut both = Events::open(&gateway, "group=my_group&query=routes&query=count&param.below=20&query=routes").await;
    let mut groups = BTreeSet::new();
    while groups.len() < 3 {
        let event = both.next().await.expect("the stream goes on");
        if event.name == "subscribed" {
            groups.insert(event.data["group"].to_string());
        }
    }
    for (query, status, code) in [
        ("query=nope", 422, "unknown_query"),
        ("query=routes&param.origin=XXX", 422, "bad_params"),
        ("query=count&param.below=much", 422, "bad_params"),
        ("query=still", 400, "bad_request"),
        ("group=query.x", 403, "forbidden"),
    ] {
        let refused = Events::dial(gateway.address(), query, &[], None).await.expect_err(query);
        refused.problem(status, code);
    }
}

#[tokio::test]
async fn a_failure_is_told_once_and_so_is_its_end() {
    let gateway = Gateway::start(LIVE).await;
    let http = gateway.http();
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "later", json!({})).await;
    let error = push(&mut reader, &group, "query.error").await;
    assert_eq!((&error["code"], &error["query"]), (&json!("query_failed"), &json!("later")), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("later")), "{error}");
    let failures = metric(&http, "groupcast_live_failures_total").await;
    let tried = || async { (metric(&http, "groupcast_live_failures_total").await >= failures + 3).then_some(()) };
    eventually("it is tried again", tried).await;
    assert_eq!(reader.pending().await, [] as [Value; 0], "the same failure is told once");
    let mut late = Socket::open(&gateway).await;
    follow(&mut late, "later", json!({})).await;
    push(&mut late, &group, "query.error").await;

    change(&gateway, "create table later (n integer); insert into later values (1)");
    for reader in [&mut reader, &mut late] {
        assert_eq!(push(reader, &group, "query.snapshot").await["rows"], json!([[1]]));
    }
}

#[tokio::test]
async fn groups_of_live_queries_are_nobodys_to_name() {
    let gateway = Gateway::start(LIVE).await;
    let http = gateway.http();
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "count", json!({})).await;
    push(&mut reader, &group, "query.snapshot").await;
    let forged = json!({"type": "query.snapshot", "rows": []});
    let mut other = Socket::open(&gateway).await;
    other.refused(json!({"type": "subscribe", "group": group}), "forbidden").await;
    other.refused(json!({"type": "group_send", "group": group, "message": forged}), "forbidden").await;
    http.post(&format!("/v1/groups/{group}/send"), &forged).await.problem(403, "forbidden");
    http.put(&format!("/v1/groups/{group}/members/{}", other.channel)).await.problem(403, "forbidden");
    let batch = http.post("/v1/send", &json!([{"group": group, "message": forged}])).await.expect(202);
    assert_eq!(batch["results"][0]["code"], "forbidden", "{batch}");
    let refused = Socket::dial(gateway.address(), &format!("/ws?group={group}"), &[], None).await;
    refused.expect_err("refused before the upgrade").problem(403, "forbidden");
    assert_eq!(reader.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let gateway = Gateway::start(&format!("{LIVE}\n[limits]\nlive_queries = 2\n")).await;
    let mut reader = Socket::open(&gateway).await;
    let ask = |query: &str, params: Value| json!({"type": "subscribe", "query": query, "params": params});
    reader.refused(ask("nope", json!({})), "unknown_query").await;
    reader.refused(ask("still", json!({})), "bad_request").await;
    reader.refused(ask("routes", json!({"origin": "XXX"})), "bad_params").await;
    reader.refused(ask("routes", json!({"orign": "JFK"})), "bad_params").await;
    let group = follow(&mut reader, "routes", json!({})).await;
    reader.refused(ask("routes", json!({"origin": "JFK"})), "already_subscribed").await;
    follow(&mut reader, "count", json!({})).await;
    reader.refused(ask("routes", json!({"origin": "LGA"})), "overloaded").await;
    let streamed = Events::dial(gateway.address(), "query=routes&param.origin=EWR", &[], None).await;
    streamed.expect_err("there are two").problem(503, "overloaded");
    // Who was refused is in no group.
    let info = gateway.http().get(&format!("/v1/connections/{}", reader.channel)).await.expect(200);
    assert_eq!(info["groups"].as_array().map(Vec::len), Some(2), "{info}");
    let connections = gateway.http().get("/v1/connections").await.expect(200);
    assert_eq!(connections["connections"].as_array().map(Vec::len), Some(1), "{connections}");
    let mut other = Socket::open(&gateway).await;
    assert_eq!(follow(&mut other, "routes", json!({})).await, group, "what is there can be followed by others");
}

#[tokio::test]
async fn what_is_too_much_for_a_push_is_cut_and_says_so() {
    let gateway = Gateway::start(LIVE).await;
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "wide", json!({})).await;
    let state = push(&mut reader, &group, "query.snapshot").await;
    assert_eq!(state["truncated"], true);
    let rows = state["rows"].as_array().expect("rows");
    let bytes: usize = rows.iter().map(|row| row.to_string().len() + 1).sum();
    assert!((60 << 10..=64 << 10).contains(&bytes), "{} rows of {bytes} bytes", rows.len());
    assert_eq!(rows[0], json!([1, "0".repeat(49) + "1"]), "the first ones are there");
}

#[tokio::test]
async fn a_drain_ends_live_queries_too() {
    let gateway = Gateway::start(LIVE).await;
    let mut reader = Socket::open(&gateway).await;
    let group = follow(&mut reader, "routes", json!({})).await;
    push(&mut reader, &group, "query.snapshot").await;
    gateway.terminate();
    assert_eq!(reader.end().await, End::Closed(1012));
    assert_eq!(gateway.ended().await.0, Some(0));
}

/// Subscribes to a query; its group.
async fn follow(socket: &mut Socket, query: &str, params: Value) -> String {
    let told = socket.command(json!({"type": "subscribe", "query": query, "params": params})).await;
    assert_eq!((&told["type"], &told["query"]), (&json!("subscribed"), &json!(query)), "{told}");
    told["group"].as_str().expect("a group").to_owned()
}

/// The next push, which has to be a message of this group and type.
async fn push(socket: &mut Socket, group: &str, kind: &str) -> Value {
    let mut push = socket.expect("message").await;
    assert_eq!((&push["group"], &push["message"]["type"]), (&json!(group), &json!(kind)), "{push}");
    push["message"].take()
}

/// Changes the database that the gateway reads, from outside and all at once.
fn change(gateway: &Gateway, sql: &str) {
    let database = Connection::open(gateway.home().path().join("source.db")).expect("the file is there");
    // A disk that is slow to sync would lock readers out for long.
    database.execute_batch(&format!("pragma synchronous = off; begin immediate; {sql}; commit;")).expect("good SQL");
}

async fn invalidate(http: &Http, tags: &[&str]) -> Value {
    http.post("/v1/invalidate", &json!({"tags": tags})).await.expect(202)["invalidated"].take()
}

/// Waits until there were so many runs.
async fn ran(http: &Http, runs: u64) {
    let look = || async { (metric(http, "groupcast_live_runs_total").await >= runs).then_some(()) };
    eventually("the query runs", look).await;
}

async fn metric(http: &Http, name: &str) -> u64 {
    let text = http.get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
