//! Who asks for more than his share is told so and when to come back, and nobody else notices.
//!
//! Addresses are played by a proxy that is believed: this machine has but one, and that is passed over.

use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Http, Reply, Socket};
use serde_json::{Value, json};

use crate::auth::{AUTH, KEY, asked, guarded_with, user};

const ONE: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";

#[tokio::test]
async fn an_address_is_refused_at_its_bound_let_go_again_and_its_neighbour_is_served() {
    let gateway = behind_a_proxy("address_rate = \"1/s\"").await;
    let http = gateway.http();
    until_refused("one of them asks", || chat(&http, ONE)).await;
    for _ in 0..2 {
        chat(&http, OTHER).await.expect(202);
    }
    let served = || async { (chat(&http, ONE).await.status == 202).then_some(()) };
    eventually("one second later there is a token", served).await;
    for _ in 0..20 {
        assert_eq!(http.get("/healthz").await.status, 200, "whether the process lives is nobody's to use up");
        chat_of_this_machine(&http).await.expect(202);
    }
}

#[tokio::test]
async fn all_ways_in_count_for_an_address() {
    let gateway = behind_a_proxy("address_rate = \"1/h\"").await;
    let mut socket = Socket::open_at(&gateway, "/ws", &[("x-forwarded-for", ONE)]).await;
    socket.subscribe("g").await;
    let refused = socket.refused(json!({"type": "members", "group": "g"}), "rate_limited").await;
    assert_eq!(refused["retriable"], true, "{refused}");
    let wait = refused["retry_after_ms"].as_u64().expect("it is known when");
    assert!((1..=3_600_000).contains(&wait), "{refused}");
    chat(&gateway.http(), ONE).await.problem(429, "rate_limited");
    for path in ["/ws", "/ws?group=g"] {
        let refused = Socket::dial(gateway.address(), path, &[("x-forwarded-for", ONE)], None).await;
        refused.expect_err("no token is left").problem(429, "rate_limited");
    }
    let refused = Events::dial(gateway.address(), "group=g", &[("x-forwarded-for", ONE)], None).await;
    refused.expect_err("no token is left").problem(429, "rate_limited");
    let mut neighbour = Socket::open_at(&gateway, "/ws", &[("x-forwarded-for", OTHER)]).await;
    neighbour.subscribe("g").await;
    chat_of_this_machine(&gateway.http()).await.expect(202);
    assert_eq!(socket.message().await["type"], "chat", "who may ask nothing more still hears");
}

#[tokio::test]
async fn who_is_no_proxy_of_ours_is_who_he_is() {
    let limits = "exempt_addresses = []\naddress_rate = \"1/h\"\nconnection_rate = \"10000/s\"";
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\n{limits}\n")).await;
    let http = gateway.http();
    let mut number = 0;
    until_refused("each time another name", || {
        number += 1;
        chat_from(&http, format!("198.51.100.{number}"))
    })
    .await;
    assert!(number < 10, "{number}");
}

#[tokio::test]
async fn a_user_is_one_by_whatever_way_and_others_have_their_own() {
    let gateway = guarded_with(&format!("{BARE}\n[limits]\nuser_rate = \"1/h\"\n"), AUTH).await;
    let http = gateway.http();
    let [alice, bob] = ["alice", "bob"].map(|name| user(name, &json!({"subscribe": ["*"], "send": ["*"]})));
    let mut socket = open_as(&gateway, &alice).await.expect("the first token");
    send(&http, Some(&alice), "g").await.expect(202);
    send(&http, Some(&alice), "g").await.problem(429, "rate_limited");
    socket.refused(json!({"type": "subscribe", "group": "g"}), "rate_limited").await;
    send(&http, Some(&bob), "g").await.expect(202);
    for _ in 0..20 {
        send(&http, Some(KEY), "g").await.expect(202);
    }
    let metrics = asked(&http, "GET", "/metrics", Some(KEY), "").await.text();
    assert_eq!(value_of(&metrics, "groupcast_limited_total{limit=\"user_rate\"}"), 2, "{metrics}");
    assert_eq!(value_of(&metrics, "groupcast_limit_keys{limit=\"user_rate\"}"), 2, "{metrics}");
    assert!(!metrics.contains("alice"), "no label says who it was");
}

#[tokio::test]
async fn a_service_is_one_by_all_its_keys() {
    let gateway = guarded_with(&format!("{BARE}\n[limits]\nkey_rate = \"1/h\"\n"), AUTH).await;
    let http = gateway.http();
    for _ in 0..2 {
        send(&http, Some(KEY), "g").await.expect(202);
    }
    let refused = send(&http, Some(KEY), "g").await;
    refused.problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
    send(&http, Some(&user("alice", &json!({"send": ["*"]}))), "g").await.expect(202);
}

#[tokio::test]
async fn what_clients_send_to_a_group_is_bounded_and_what_services_send_is_not() {
    let gateway = guarded_with(&format!("{BARE}\n[limits]\ngroup_rate = \"1/h\"\n"), AUTH).await;
    let http = gateway.http();
    let [alice, bob] = ["alice", "bob"].map(|name| user(name, &json!({"subscribe": ["*"], "send": ["*"]})));
    send(&http, Some(&alice), "g").await.expect(202);
    let item = |group: &str| json!({"group": group, "message": {"type": "chat"}});
    let batch = json!([item("g"), item("g"), item("h")]).to_string();
    let results = asked(&http, "POST", "/v1/send", Some(&bob), &batch).await.expect(202)["results"].clone();
    let statuses: Vec<&Value> = (0..3).map(|at| &results[at]["status"]).collect();
    assert_eq!(statuses, [202, 429, 202], "{results}");
    let mut socket = open_as(&gateway, &alice).await.expect("a socket");
    socket.refused(json!({"type": "group_send", "group": "g", "message": {"type": "chat"}}), "rate_limited").await;
    for _ in 0..20 {
        send(&http, Some(KEY), "g").await.expect(202);
    }
}

#[tokio::test]
async fn each_message_of_a_batch_counts() {
    let gateway = guarded_with(&format!("{BARE}\n[limits]\nuser_rate = \"1/h\"\n"), AUTH).await;
    let alice = user("alice", &json!({"send": ["*"]}));
    let item = json!({"group": "g", "message": {"type": "chat"}});
    let batch = json!([item, item, item, item]).to_string();
    let answer = asked(&gateway.http(), "POST", "/v1/send", Some(&alice), &batch).await.expect(202);
    let codes: Vec<&Value> = (0..4).map(|at| &answer["results"][at]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &Value::Null, &json!("rate_limited"), &json!("rate_limited")], "{answer}");
}

#[tokio::test]
async fn connections_of_a_user_are_bounded_however_he_shows_who_he_is() {
    let gateway = guarded_with(&format!("{BARE}\n[limits]\nconnections_per_user = 2\n"), AUTH).await;
    let [alice, bob] = ["alice", "bob"].map(|name| user(name, &json!({"subscribe": ["*"]})));
    let first = open_as(&gateway, &alice).await.expect("the first");
    let bearer = format!("Bearer {alice}");
    let stream = Events::open_with(&gateway, "group=g", &[("authorization", &bearer)]).await;
    open_as(&gateway, &alice).await.expect_err("the third").problem(429, "rate_limited");
    let mut late = Socket::open(&gateway).await;
    late.refused(json!({"type": "authenticate", "token": alice}), "rate_limited").await;
    let answer = late.command(json!({"type": "authenticate", "token": bob})).await;
    assert_eq!(answer["type"], "authenticated", "{answer}");
    first.close().await;
    let again = || async { open_as(&gateway, &alice).await.ok() };
    let _again = eventually("there is a place again", again).await;
    drop(stream);
}

#[tokio::test]
async fn new_connections_of_an_address_may_not_come_too_fast() {
    let gateway = behind_a_proxy("connection_rate = \"1/s\"").await;
    let dial = async |address| Socket::dial(gateway.address(), "/ws", &[("x-forwarded-for", address)], None).await;
    let mut sockets = Vec::new();
    let refused = loop {
        match dial(ONE).await {
            Ok(socket) => sockets.push(socket),
            Err(reply) => break reply,
        }
        assert!(sockets.len() < 1000, "nobody refuses");
    };
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(dial(OTHER).await.is_ok() && dial(OTHER).await.is_ok());
    sockets[0].subscribe("g").await;
    eventually("one second later there is a token", || async { dial(ONE).await.ok() }).await;
}

#[tokio::test]
async fn connections_of_an_address_behind_a_proxy_are_counted_as_its_own() {
    let gateway = behind_a_proxy("connections_per_address = 2").await;
    let dial = async |address| Socket::dial(gateway.address(), "/ws", &[("x-forwarded-for", address)], None).await;
    let (first, _second) = (dial(ONE).await.expect("one"), dial(ONE).await.expect("two"));
    dial(ONE).await.expect_err("three").problem(429, "rate_limited");
    let (_third, _fourth) = (dial(OTHER).await.expect("one"), dial(OTHER).await.expect("two"));
    let shown = gateway.http().get(&format!("/v1/connections/{}", first.channel)).await.expect(200);
    assert_eq!(shown["peer"], ONE, "operators see who it is");
    first.close().await;
    eventually("there is a place again", || async { dial(ONE).await.ok() }).await;
}

/// A gateway that believes this machine about where requests come from.
async fn behind_a_proxy(limits: &str) -> Gateway {
    Gateway::start(&format!("{BARE}trusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}\n")).await
}

async fn chat(http: &Http, address: &'static str) -> Reply {
    chat_from(http, address.to_owned()).await
}

async fn chat_from(http: &Http, address: String) -> Reply {
    let headers = [("content-type", "application/json"), ("x-forwarded-for", &address)];
    http.request("POST", "/v1/groups/g/send", &headers, br#"{"type":"chat"}"#.to_vec()).await
}

async fn chat_of_this_machine(http: &Http) -> Reply {
    http.post("/v1/groups/g/send", &json!({"type": "chat"})).await
}

async fn send(http: &Http, credential: Option<&str>, group: &str) -> Reply {
    asked(http, "POST", &format!("/v1/groups/{group}/send"), credential, r#"{"type":"chat"}"#).await
}

async fn open_as(gateway: &Gateway, token: &str) -> Result<Socket, Box<Reply>> {
    let bearer = format!("Bearer {token}");
    Socket::dial(gateway.address(), "/ws", &[("authorization", &bearer)], None).await
}

/// Asks until it is too much, which has to be told as it should be.
async fn until_refused<F: Future<Output = Reply>>(what: &str, mut ask: impl FnMut() -> F) {
    for _ in 0..1000 {
        let reply = ask().await;
        if reply.status != 202 {
            reply.problem(429, "rate_limited");
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            return;
        }
    }
    panic!("{what}: nobody refuses");
}

fn value_of(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}
