//! A service that is away, slow, or out of its mind: clients are refused in the open, and it is left alone for a while.

use groupcast_tests::wait::eventually;
use groupcast_tests::{Backend, Gateway, Socket};
use serde_json::json;

use super::{dial, metric, start};

async fn refused(gateway: &Gateway) {
    let reply = Socket::dial(gateway.address(), "/ws", &[], None).await.expect_err("refused");
    reply.problem(503, "unavailable");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

fn outcome(outcome: &str, count: u32) -> String {
    format!("groupcast_hook_calls_total{{event=\"websocket.connect\",outcome=\"{outcome}\"}} {count}")
}

#[tokio::test]
async fn nonsense_opens_nothing_and_a_redirect_leads_nowhere() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    let gateway = start(&backend, "max_bytes = 2000").await;
    let json_type = "content-type: application/json\r\n";
    let accept = r#"{"type":"websocket.accept"}"#;
    let large = format!(r#"[{accept}{}]"#, " ".repeat(3000));
    let location = format!("location: http://{}/hook\r\n{json_type}", other.address());
    for (status, headers, body) in [
        (200, json_type, "<html>"),
        (200, json_type, "{"),
        (200, json_type, "null"),
        (200, "", accept),
        (200, "content-type: text/html\r\n", accept),
        (200, "content-type: application/json\r\ncontent-encoding: gzip\r\n", accept),
        (200, json_type, &large),
        (200, json_type, r#"{"type":"websocket.accept","usr":"root"}"#),
        (404, json_type, accept),
        (500, json_type, accept),
        (302, &location, accept),
        (307, &location, accept),
    ] {
        let asked = async { backend.call().await.answer(status, headers, body).await };
        tokio::join!(refused(&gateway), asked);
    }
    // None of them says that the service is away: one client's nonsense does not shut out the others.
    let (socket, _) = dial(&gateway, &backend, "/ws", json!({"type": "websocket.accept"})).await;
    socket.expect("it is asked as before").close().await;
    assert!(metric(&gateway, &outcome("bad_answer", 8)).await && metric(&gateway, &outcome("failed", 4)).await);
    // The first whom the other one hears of is this test.
    let probe = async { groupcast_tests::Http::new(other.address()).post("/probe", &json!({})).await };
    let answer = async {
        let call = other.call().await;
        assert!(call.head.starts_with("POST /probe"), "{}", call.head);
        call.json(&json!({})).await;
    };
    tokio::join!(probe, answer);
}

#[tokio::test]
async fn a_service_that_is_away_is_left_alone_and_tried_again() {
    let backend = Backend::start().await;
    let gateway = start(&backend, "circuit_failures = 2\ncircuit_open = \"5s\"").await;
    for _ in 0..2 {
        let asked = async { backend.call().await.answer(503, "", "").await };
        tokio::join!(refused(&gateway), asked);
    }
    assert!(metric(&gateway, "groupcast_hook_circuit 2").await);
    // Nobody answers these, and nobody has to.
    refused(&gateway).await;
    refused(&gateway).await;
    assert!(metric(&gateway, &outcome("open", 2)).await && metric(&gateway, &outcome("unreachable", 2)).await);
    let back = async {
        let look = || async { Socket::dial(gateway.address(), "/ws", &[], None).await.ok() };
        eventually("the service is asked again", look).await
    };
    let asked = async { backend.call().await.json(&json!({"type": "websocket.accept"})).await };
    let (socket, ()) = tokio::join!(back, asked);
    assert!(metric(&gateway, "groupcast_hook_circuit 0").await);
    socket.close().await;
    let (socket, _) = dial(&gateway, &backend, "/ws", json!({"type": "websocket.accept"})).await;
    socket.expect("all are asked about again").close().await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_holds_nobody_for_longer_than_it_may() {
    let backend = Backend::start().await;
    let gateway = start(&backend, "timeout = \"1s\"").await;
    let slow = async { backend.call().await.hung_up().await };
    tokio::join!(refused(&gateway), slow);
    assert!(metric(&gateway, &outcome("timeout", 1)).await);
    // Nobody there at all.
    drop(backend);
    refused(&gateway).await;
    assert!(metric(&gateway, &outcome("unreachable", 1)).await);
}

#[tokio::test]
async fn calls_are_bounded_and_so_are_those_who_wait() {
    let backend = Backend::start().await;
    let gateway = start(&backend, "timeout = \"20s\"\nmax_concurrent = 1\nmax_waiting = 1").await;
    let open = || Socket::dial(gateway.address(), "/ws", &[], None);
    let story = async {
        let first = backend.call().await;
        let waits = || async { metric(&gateway, "groupcast_hook_calls_waiting 1").await.then_some(()) };
        eventually("the second waits", waits).await;
        // There is no room for a third, and it does not wait.
        refused(&gateway).await;
        assert!(metric(&gateway, &outcome("busy", 1)).await);
        first.json(&json!({"type": "websocket.accept"})).await;
        backend.call().await.json(&json!({"type": "websocket.accept"})).await;
    };
    let (first, second, ()) = tokio::join!(open(), open(), story);
    first.expect("let in").close().await;
    second.expect("let in").close().await;
}
