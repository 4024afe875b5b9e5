//! A gateway that is about to have more memory than it may: it says no, lets go of who is slow, and lives.

use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Http, Socket};
use serde_json::json;

/// A client that sleeps is neither closed for not reading nor for not answering pings.
const PATIENT: &str = "write_timeout = \"80s\"\nping_interval = \"80s\"\n";

#[tokio::test]
async fn it_refuses_lets_go_of_who_is_slow_and_has_room_again_while_others_notice_nothing() {
    let kept = "[[group]]\nname = \"kept\"\nhistory = { messages = 1000000 }\n";
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nmemory = \"96MiB\"\n{PATIENT}{kept}")).await;
    let http = gateway.http();
    let mut reader = Socket::subscribed(&gateway, &["talk"]).await;
    let mut deaf = Socket::narrow(&gateway, 4096).await;
    deaf.subscribe("loud").await;
    // More than the kernels' buffers hold for who does not read.
    for _ in 0..400 {
        send(&http, "loud").await;
    }

    fill_until(&http, "memory_level", 1).await;
    let refused = Socket::dial(gateway.address(), "/ws", &[], None).await.expect_err("no new sockets");
    refused.problem(503, "overloaded");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let refused = Events::dial(gateway.address(), "group=talk", &[], None).await.expect_err("no new streams");
    refused.problem(503, "overloaded");
    http.get("/v1/groups/kept/history").await.problem(503, "overloaded");
    let large = json!({"type": "tick", "padding": "x".repeat(200 << 10)});
    http.post("/v1/groups/talk/send", &large).await.problem(503, "overloaded");
    reader.refused(json!({"type": "history", "group": "kept"}), "overloaded").await;
    assert_eq!(http.get("/healthz").await.status, 200);
    http.group_send("talk", &json!({"type": "chat"})).await;
    assert_eq!(reader.message().await["type"], "chat", "who is there is served");

    fill_until(&http, "memory_shed_total", 1).await;
    assert_eq!(reader.command(json!({"type": "ping"})).await["type"], "pong");
    // Of the code he learns only if he reads after all.
    let told = || async { (find(&http, "websockets_closed_total{code=\"1013\"}").await == Some(1)).then_some(()) };
    eventually("the sleeper is closed, to be tried again later", told).await;
    drop(deaf);
    let easy = || async { (metric(&http, "memory_level").await == 0).then_some(()) };
    eventually("there is room again", easy).await;
    let mut new = Socket::subscribed(&gateway, &["talk"]).await;
    http.post("/v1/groups/talk/send", &large).await.expect(202);
    assert_eq!(new.message().await["type"], "tick");
    assert_eq!(reader.message().await["type"], "tick", "it was there all the time");
    assert_eq!(metric(&http, "memory_budget_bytes").await, 96 << 20);
    assert!(metric(&http, "limited_total{limit=\"memory\"}").await >= 4);
}

#[tokio::test]
async fn the_bound_is_said_as_a_share_or_a_size() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let used = || async { Some(metric(&http, "memory_used_bytes").await).filter(|used| *used > 0) };
    let used = eventually("it is read", used).await;
    let budget = metric(&http, "memory_budget_bytes").await;
    assert!(used < budget && budget < i64::MAX as u64, "{used} of {budget}");
}

/// Sends what is kept until a metric has come so far.
async fn fill_until(http: &Http, name: &str, value: u64) {
    for _ in 0..400 {
        for _ in 0..20 {
            send(http, "kept").await;
        }
        if metric(http, name).await >= value {
            return;
        }
    }
    panic!("{name} does not come to {value}: {}", http.get("/metrics").await.text());
}

async fn send(http: &Http, group: &str) {
    http.group_send(group, &json!({"type": "tick", "padding": "x".repeat(32 << 10)})).await;
}

async fn metric(http: &Http, name: &str) -> u64 {
    find(http, name).await.unwrap_or_else(|| panic!("no {name}"))
}

/// What has never been counted is not there.
async fn find(http: &Http, name: &str) -> Option<u64> {
    let text = http.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("groupcast_")?.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}
