//! The address of those who run the gateway, apart from that of its clients.

use std::sync::Arc;

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home};
use serde_json::json;
use tokio::net::TcpStream;

const KEY: &str = "a-key-of-a-service-0123456789abcdef";

#[tokio::test]
async fn operators_are_served_apart_from_clients() {
    let home = Home::new(&format!("{}\n[auth]\napi_keys_file = \"api.keys\"\n", apart(BARE)));
    home.write("api.keys", KEY);
    let gateway = Gateway::start_in(Arc::new(home)).await;
    let (clients, operators) = (gateway.http(), gateway.operators().await);
    let metrics = operators.get("/metrics").await;
    assert_eq!(metrics.status, 200, "{}", metrics.text());
    assert!(metrics.text().contains("groupcast_connections 0\n"), "{}", metrics.text());
    let bearer = format!("Bearer {KEY}");
    let with_key = clients.request("GET", "/metrics", &[("authorization", &bearer)], Vec::new()).await;
    with_key.problem(404, "not_found");
    for http in [&clients, &operators] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(http.get(path).await.status, 200, "{path}");
        }
    }
    for path in ["/v1/groups", "/docs", "/v1/events?group=g", "/nothing"] {
        operators.get(path).await.problem(404, "not_found");
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    operators.request("GET", "/ws", &upgrade, Vec::new()).await.problem(404, "not_found");
}

#[tokio::test]
async fn operators_get_in_when_clients_do_not() {
    let gateway = Gateway::start(&format!("{}\n[limits]\nconnections = 3\n", apart(BARE))).await;
    let operators = gateway.operators().await;
    let mut held = Vec::new();
    while held.len() < 3 || !is_full(&gateway).await {
        held.push(TcpStream::connect(gateway.address()).await.expect("it listens"));
    }
    assert_eq!(operators.get("/metrics").await.status, 200);
    assert_eq!(operators.get("/readyz").await.status, 200);
    assert!(is_full(&gateway).await, "clients are not let in, all the while");
}

/// Whether another client is refused: told so, or hung up on before it has read it.
async fn is_full(gateway: &Gateway) -> bool {
    gateway.http().try_get("/healthz").await.is_none_or(|reply| reply.status == 503)
}

#[tokio::test]
async fn operators_see_how_a_drain_goes() {
    let gateway = Gateway::start(&format!("{}\n[limits]\ndrain_timeout = \"5s\"\n", apart(JOBS))).await;
    let operators = gateway.operators().await;
    let job = gateway.http().job("my_group", &json!({"type": "execute_query", "query": "endless"})).await;
    let runs = || async {
        let record = gateway.http().get(&format!("/v1/jobs/{job}")).await.expect(200);
        (record["state"] == "running").then_some(())
    };
    eventually("the job runs", runs).await;
    gateway.terminate();
    let told = || async { operators.try_get("/readyz").await.filter(|reply| reply.status == 503) };
    let told = eventually("it is said that the end is near", told).await;
    assert!(told.text().contains("about to end"), "{}", told.text());
    assert_eq!(operators.get("/metrics").await.status, 200);
    let (code, _) = gateway.ended().await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn operators_are_served_by_tls_where_clients_are() {
    let gateway = Gateway::start_secure(&apart(BARE)).await;
    assert_eq!(gateway.operators().await.get("/metrics").await.status, 200);
}

/// A configuration with an address for operators.
fn apart(config: &str) -> String {
    config.replacen("[server]\n", "[server]\nops_listen = \"127.0.0.1:0\"\n", 1)
}
