//! Traces that are none: they do no harm, and are told to nobody.

use groupcast_tests::raw::{Raw, handshake_head};
use groupcast_tests::{Backend, Gateway};
use serde_json::json;

use super::{PARENT, STATE, config};

#[tokio::test]
async fn what_is_no_trace_does_no_harm_and_is_not_told_on() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend, "", "")).await;
    let mut raw = Raw::connect(gateway.address()).await;
    let parents: Vec<Vec<u8>> = [
        String::new(),
        "x".repeat(8000),
        format!("{PARENT}-00"),
        PARENT[..54].to_owned(),
        PARENT.to_uppercase(),
        PARENT.replacen("00-", "ff-", 1),
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        format!("{PARENT}, {PARENT}"),
        format!("{PARENT}\r\ntraceparent: {PARENT}"),
        PARENT.replace("4bf9", "4bfé"),
        "{{7*7}}' or 1=1 --".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"00-\xff\xfe-\x80".to_vec()])
    .collect();
    for parent in &parents {
        let (status, shown) =
            (publish(&mut raw, &gateway, parent, STATE.as_bytes()).await, String::from_utf8_lossy(parent));
        assert_eq!(status, 202, "{shown}");
        let call = backend.call().await;
        assert_eq!((call.header("traceparent"), call.header("tracestate")), (None, None), "{shown}: {}", call.head);
        call.answer(422, "", "").await;
    }
    let long = format!("a={}", "x".repeat(8190));
    let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    for state in [&b""[..], long.as_bytes(), many.as_bytes(), b"a", b"a=\xff", "a=é".as_bytes(), b"a=b\x01"] {
        // A byte that no header may have is the parser's to refuse.
        if publish(&mut raw, &gateway, PARENT.as_bytes(), state).await == 400 {
            raw = Raw::connect(gateway.address()).await;
            continue;
        }
        let call = backend.call().await;
        assert_eq!((call.header("traceparent"), call.header("tracestate")), (Some(PARENT), None), "{}", call.head);
        call.answer(422, "", "").await;
    }
    let mut socket = Raw::connect(gateway.address()).await;
    let head = handshake_head(gateway.address(), &[("traceparent", Some(&PARENT.to_uppercase()))]);
    socket.write(head.as_bytes()).await;
    assert_eq!(socket.reply().await.status, 101);
    gateway.http().get("/healthz").await.expect(200);
}

/// Sends work with these headers; the status.
async fn publish(raw: &mut Raw, gateway: &Gateway, parent: &[u8], state: &[u8]) -> u16 {
    let body = json!({"type": "view"}).to_string();
    let head = format!(
        "POST /v1/groups/my_group/send HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        gateway.address(),
        body.len()
    );
    let parts = [head.as_bytes(), b"traceparent: ", parent, b"\r\ntracestate: ", state, b"\r\n\r\n", body.as_bytes()];
    raw.write(&parts.concat()).await;
    raw.reply().await.status
}
