//! The front door over HTTP/1.1: what is refused and how, what keeps open, and the two ways to a WebSocket.

use groupcast_tests::home::BARE;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Raw, Socket};
use serde_json::json;

#[tokio::test]
async fn a_head_that_is_no_head_is_refused_with_a_problem() {
    let gateway = Gateway::start(BARE).await;
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "x".repeat(40_000));
    for (what, head, status, code) in [
        ("no HTTP at all", "NONSENSE\r\n\r\n".to_owned(), 400, "bad_request"),
        ("bare LF", "GET /healthz HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bad_request"),
        ("one bare LF", "GET /healthz HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n".to_owned(), 400, "bad_request"),
        ("bare LF behind an empty line", "\r\nGET /healthz HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bad_request"),
        (
            "bare LF before a WebSocket",
            handshake_head(gateway.address(), &[]).replace("\r\n", "\n"),
            400,
            "bad_request",
        ),
        ("a space before the colon", "GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request"),
        ("two Hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "bad_request"),
        ("another Host", "GET http://b/healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("101 headers", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "headers_too_large"),
        ("a long header", format!("GET / HTTP/1.1\r\nHost: a\r\n{long}\r\n"), 431, "headers_too_large"),
    ] {
        let mut raw = Raw::connect(gateway.address()).await;
        raw.write(head.as_bytes()).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        reply.problem(status, code);
    }
    gateway.http().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn a_bare_line_end_is_refused_in_a_later_request_and_taken_in_a_body() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::connect(gateway.address()).await;
    let body = "{\n\"type\":\n\n\"x\"}";
    let post = format!("POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..3 {
        raw.write(post.as_bytes()).await;
        raw.reply().await.expect(202);
    }
    raw.write(b"GET /healthz HTTP/1.1\nHost: a\n\n").await;
    raw.reply().await.problem(400, "bad_request");
    raw.hung_up().await;
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let gateway = Gateway::start(BARE).await;
    for (head, status) in
        [("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200), ("PUT /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 405)]
    {
        let mut raw = Raw::connect(gateway.address()).await;
        for byte in head.as_bytes() {
            raw.write(&[*byte]).await;
        }
        assert_eq!(raw.reply().await.status, status);
    }
}

#[tokio::test]
async fn both_ways_to_a_websocket_lead_to_the_same() {
    let gateway = Gateway::start(BARE).await;
    let head = handshake_head(gateway.address(), &[]);
    let get = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let middle = head.len() / 2;
    for (what, pieces, replies) in [
        ("at once", &[head.as_str()][..], 0),
        ("in two pieces", &[&head[..middle], &head[middle..]], 0),
        ("after another request", &[get, head.as_str()], 1),
    ] {
        let mut raw = Raw::connect(gateway.address()).await;
        for (at, piece) in pieces.iter().enumerate() {
            raw.write(piece.as_bytes()).await;
            if at < replies {
                raw.reply().await.expect(200);
            }
        }
        let reply = raw.reply().await;
        assert_eq!(reply.status, 101, "{what}");
        let (opcode, welcome) = raw.frame().await.expect("a welcome comes");
        assert_eq!(opcode, 1, "{what}");
        assert!(String::from_utf8_lossy(&welcome).contains("groupcast.v1"), "{what}");
        raw.send_frame(0x81, true, br#"{"type":"ping","id":1}"#).await;
        let (_, pong) = raw.frame().await.expect("an answer comes");
        assert!(String::from_utf8_lossy(&pong).contains("pong"), "{what}");
    }
    let metrics = gateway.http().get("/metrics").await.text();
    let counted = r#"groupcast_http_requests_total{method="GET",route="/ws",status="101"} 3"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_not_lost() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::connect(gateway.address()).await;
    let mut early = handshake_head(gateway.address(), &[]).into_bytes();
    let ping = br#"{"type":"ping","id":7}"#;
    early.extend([0x81, 0x80 | ping.len() as u8, 0, 0, 0, 0]);
    early.extend(ping);
    raw.write(&early).await;
    assert_eq!(raw.reply().await.status, 101);
    raw.frame().await.expect("a welcome comes");
    let (_, pong) = raw.frame().await.expect("an answer comes");
    assert!(String::from_utf8_lossy(&pong).contains(r#""id":7"#));
}

#[tokio::test]
async fn connections_are_limited_whatever_they_are_for() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nconnections = 3\n")).await;
    // The client that asked whether the gateway is ready keeps a connection of its own, or has given it up.
    let mut sockets = Vec::new();
    let refused = loop {
        match Socket::dial(gateway.address(), "/ws", &[], None).await {
            Ok(socket) => sockets.push(socket),
            Err(reply) => break reply,
        }
    };
    refused.problem(503, "overloaded");
    assert!(matches!(sockets.len(), 2 | 3), "{}", sockets.len());
    sockets.clear();
    let dial = || async { Socket::dial(gateway.address(), "/ws", &[], None).await.ok() };
    eventually("there is room again", dial).await;
}

#[tokio::test]
async fn all_shards_accept_and_the_port_has_one_owner() {
    let gateway = Gateway::start(&BARE.replace("data_dir", "shards = 2\ndata_dir")).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(Socket::subscribed(&gateway, &["g"]).await);
    }
    assert_eq!(gateway.http().group_send("g", &json!({"type": "x"})).await["members"], 20);
    for socket in &mut sockets {
        socket.expect("message").await;
    }
    let config = BARE.replace("127.0.0.1:0", &gateway.address().to_string());
    let (code, printed) = Gateway::refused(&Home::new(&config)).await;
    assert_eq!(code, Some(1));
    assert!(printed.contains(&gateway.address().to_string()), "{printed}");
}
