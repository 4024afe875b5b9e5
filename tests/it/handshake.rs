//! Opening a WebSocket: what is refused before the upgrade, and with what.

use groupcast_tests::home::BARE;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::{Gateway, Raw, Reply, Socket};
use serde_json::json;

#[tokio::test]
async fn a_broken_handshake_is_refused_with_its_status() {
    let gateway = Gateway::start(BARE).await;
    for (changes, status, code) in [
        (&[("Upgrade", None)][..], 426, "upgrade_required"),
        (&[("Upgrade", Some("h2c"))], 426, "upgrade_required"),
        (&[("Connection", Some("keep-alive"))], 426, "upgrade_required"),
        (&[("Sec-WebSocket-Version", Some("12"))], 426, "upgrade_required"),
        (&[("Sec-WebSocket-Version", None)], 426, "upgrade_required"),
        (&[("Sec-WebSocket-Key", None)], 400, "bad_request"),
        (&[("Sec-WebSocket-Key", Some("abc"))], 400, "bad_request"),
        (&[("Sec-WebSocket-Key", Some("AAAAAAAAAAAAAAAAAAAAAAAAAAA="))], 400, "bad_request"),
        (&[("Sec-WebSocket-Protocol", Some("graphql-ws"))], 400, "bad_request"),
        (&[("Sec-WebSocket-Protocol", Some("\u{fc}"))], 400, "bad_request"),
        (&[("Host", None)], 400, "bad_request"),
        (&[("Origin", Some("http://evil.example"))], 403, "forbidden"),
        (&[("Origin", Some("null"))], 403, "forbidden"),
    ] {
        let reply = shake(&gateway, &handshake_head(gateway.address(), changes)).await;
        assert_eq!(reply.status, status, "{changes:?}: {}", reply.text());
        reply.problem(status, code);
    }
    let version = shake(&gateway, &handshake_head(gateway.address(), &[("Sec-WebSocket-Version", Some("12"))])).await;
    assert_eq!(version.header("sec-websocket-version"), Some("13"));
}

#[tokio::test]
async fn a_header_that_may_be_there_once_is_refused_twice() {
    let gateway = Gateway::start(BARE).await;
    let head = handshake_head(gateway.address(), &[]);
    for line in ["Host: other.example", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="] {
        let twice = head.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        let reply = shake(&gateway, &twice).await;
        assert_eq!(reply.status, 400, "{line}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_handshake_that_announces_a_body_is_refused() {
    let gateway = Gateway::start(BARE).await;
    let head = handshake_head(gateway.address(), &[]);
    for lines in ["Content-Length: 5", "Content-Length: 0\r\nContent-Length: 5", "Transfer-Encoding: chunked"] {
        let announced = head.replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"));
        assert_eq!(shake(&gateway, &announced).await.status, 400, "{lines}");
    }
}

#[tokio::test]
async fn a_plain_request_is_told_to_upgrade() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let reply = http.get("/ws").await;
    reply.problem(426, "upgrade_required");
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    let post = http.post("/ws", &json!({})).await;
    assert!(matches!(post.status, 405 | 426), "{}", post.text());
}

#[tokio::test]
async fn bad_groups_of_the_address_are_refused_before_the_upgrade() {
    let gateway = Gateway::start(BARE).await;
    for path in ["/ws?group=", "/ws?group=a%20b", "/ws?group=ok&group=a!b"] {
        refused(&gateway, path, &[]).await.problem(422, "invalid_name");
    }
}

#[tokio::test]
async fn who_offers_subprotocols_must_offer_ours() {
    let gateway = Gateway::start(BARE).await;
    for (offer, chosen) in [
        (None, None),
        (Some("groupcast.v1"), Some("groupcast.v1")),
        (Some("graphql-ws, groupcast.v1"), Some("groupcast.v1")),
    ] {
        let headers: Vec<(&str, &str)> = offer.map(|offer| ("sec-websocket-protocol", offer)).into_iter().collect();
        // tungstenite's client insists that the answer is one of what it offered.
        let socket = Socket::open_at(&gateway, "/ws", &headers).await;
        assert_eq!(socket.subprotocol.as_deref(), chosen, "{offer:?}");
    }
    let reply = refused(&gateway, "/ws", &[("sec-websocket-protocol", "groupcast.v2")]).await;
    reply.problem(400, "bad_request");
}

#[tokio::test]
async fn pages_of_the_same_and_of_listed_origins_are_let_in() {
    let config = BARE.replace("data_dir", "origins = [\"https://app.example\"]\ndata_dir");
    let gateway = Gateway::start(&config).await;
    let own = format!("http://{}", gateway.address());
    for origin in [own.as_str(), "https://app.example"] {
        Socket::open_at(&gateway, "/ws", &[("origin", origin)]).await;
    }
    for origin in [
        "http://app.example",
        "https://app.example:444",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "http://127.0.0.1",
    ] {
        refused(&gateway, "/ws", &[("origin", origin)]).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_refused_handshake_leaves_the_gateway_as_it_was() {
    let gateway = Gateway::start(BARE).await;
    for _ in 0..50 {
        refused(&gateway, "/ws?group=a%20b", &[]).await;
    }
    let connections = gateway.http().get("/v1/connections").await.expect(200);
    assert_eq!(connections["connections"], json!([]), "{connections}");
}

async fn shake(gateway: &Gateway, head: &str) -> Reply {
    let mut raw = Raw::connect(gateway.address()).await;
    raw.write(head.as_bytes()).await;
    raw.reply().await
}

async fn refused(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Reply {
    match Socket::dial(gateway.address(), path, headers, None).await {
        Err(reply) => *reply,
        Ok(_) => panic!("{path} with {headers:?} was let in"),
    }
}
