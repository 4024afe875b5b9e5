//! The orderly end, and a start that has to be refused.

use std::sync::Arc;

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::socket::End;
use groupcast_tests::{Gateway, Home, Socket};
use serde_json::json;
use tokio::net::TcpStream;

#[tokio::test]
async fn sigterm_tells_clients_closes_them_and_exits_with_0() {
    let gateway = Gateway::start(BARE).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        readers.push(Socket::subscribed(&gateway, &["g"]).await);
    }
    let address = gateway.address();
    gateway.terminate();
    for reader in &mut readers {
        let closing = reader.expect("closing").await;
        assert!(closing["retry_after_ms"].is_u64(), "{closing}");
        assert_eq!(reader.end().await, End::Closed(1012));
    }
    assert_eq!(gateway.ended().await.0, Some(0));
    TcpStream::connect(address).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn ctrl_c_is_as_good_as_sigterm_with_nobody_connected() {
    let gateway = Gateway::start(BARE).await;
    gateway.interrupt();
    assert_eq!(gateway.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let gateway = Gateway::start(BARE).await;
    let mut deaf = Socket::narrow(&gateway, 4096).await;
    deaf.subscribe("g").await;
    let padding = "x".repeat(64 << 10);
    for n in 0..200 {
        gateway.http().group_send("g", &json!({"type": "tick", "n": n, "padding": padding})).await;
    }
    gateway.terminate();
    assert_eq!(gateway.ended().await.0, Some(0));
    drop(deaf);
}

#[tokio::test]
async fn a_drain_loses_no_accepted_work() {
    let gateway = Gateway::start(&format!("{JOBS}\n[limits]\ndrain_timeout = \"10s\"\n")).await;
    let http = gateway.http();
    let mut jobs = Vec::new();
    for _ in 0..6 {
        let work = json!({"type": "execute_query", "query": "seconds", "params": {"count": 1_500_000}});
        jobs.push(http.job("my_group", &work).await);
    }
    gateway.terminate();
    let (code, home) = gateway.ended().await;
    assert_eq!(code, Some(0));

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    for job in jobs {
        let record = http.ended(&job).await;
        assert_eq!(record["state"], "succeeded", "{record}");
    }
}

#[tokio::test]
async fn while_draining_the_gateway_is_not_ready_and_what_does_not_end_is_released() {
    let gateway = Gateway::start(&format!("{JOBS}\n[limits]\ndrain_timeout = \"4s\"\n")).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let endless = json!({"type": "execute_query", "query": "endless"});
    let job = http.job("my_group", &endless).await;
    reader.skip_to("job.started").await;
    gateway.terminate();
    reader.expect("closing").await;
    assert_eq!(reader.end().await, End::Closed(1012));
    drop(reader);
    let refused = || async {
        let asked = http.try_get("/readyz").await;
        asked.is_none_or(|reply| reply.status == 503).then_some(())
    };
    groupcast_tests::wait::eventually("it is not ready", refused).await;
    let (code, home) = gateway.ended().await;
    assert_eq!(code, Some(0), "a job that does not end is released");
    let gateway = Gateway::start_in(home).await;
    let record = gateway.http().get(&format!("/v1/jobs/{job}")).await.expect(200);
    assert!(matches!(record["state"].as_str(), Some("ready" | "running" | "scheduled")), "{record}");
}

#[tokio::test]
async fn a_data_directory_has_one_owner() {
    let home = Arc::new(Home::new(JOBS));
    let gateway = Gateway::start_in(home.clone()).await;
    let (code, printed) = Gateway::refused(&home).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("data"), "names the directory: {printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    gateway.http().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let gateway = Gateway::start(BARE).await;
    let taken = BARE.replace("127.0.0.1:0", &gateway.address().to_string());
    let (code, printed) = Gateway::refused(&Home::new(&taken)).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains(&gateway.address().to_string()), "{printed}");
}

#[tokio::test]
async fn without_auth_only_loopback_is_listened_on() {
    let open = BARE.replace("127.0.0.1:0", "0.0.0.0:0");
    let (code, printed) = Gateway::refused(&Home::new(&open)).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("server.listen"), "{printed}");
}
