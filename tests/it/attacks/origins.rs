//! Pages of others: whatever they say of where they come from, none gets a socket, a stream or an answer.

use groupcast_tests::home::BARE;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::{Raw, Socket};
use serde_json::{Value, json};

use super::scene::Scene;

#[tokio::test]
async fn no_page_of_another_origin_opens_anything() {
    let config = BARE.replace("data_dir", "origins = [\"https://app.example\"]\ndata_dir");
    let mut scene = Scene::start(&config).await;
    let address = scene.gateway.address();
    let port = address.port();
    let mut listener = Socket::subscribed(&scene.gateway, &["g"]).await;
    for origin in [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        String::new(),
        "*".to_owned(),
        "file://".to_owned(),
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop".to_owned(),
        format!("http://127.0.0.1:{port}.evil.example"),
        format!("http://evil.example/127.0.0.1:{port}"),
        format!("http://evil.example#http://127.0.0.1:{port}"),
        format!("http://evil.example?@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}@evil.example"),
        format!("http://evil.example@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}, http://evil.example"),
        format!("http://evil.example http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", port - 1),
        format!("http://127.0.0.2:{port}"),
        format!("http://localhost:{port}"),
        format!("127.0.0.1:{port}"),
        "http://app.example".to_owned(),
        "https://app.example.".to_owned(),
        "https://app.example:443".to_owned(),
        "https://app.example.evil.example".to_owned(),
        "https://evil-app.example".to_owned(),
        "https://app.example@evil.example".to_owned(),
        "https://\u{430}pp.example".to_owned(),
    ] {
        for head in heads(&scene, &format!("Origin: {origin}")) {
            check_refused(&scene, &head, &origin).await;
        }
    }
    assert_eq!(listener.pending().await, [] as [Value; 0]);
    scene.check().await;
}

#[tokio::test]
async fn two_origins_are_one_too_many() {
    let scene = Scene::start(BARE).await;
    let (own, evil) = (format!("Origin: http://{}", scene.gateway.address()), "Origin: http://evil.example");
    for lines in [format!("{own}\r\n{evil}"), format!("{evil}\r\n{own}"), format!("{own}\r\n{own}")] {
        for head in heads(&scene, &lines) {
            check_refused(&scene, &head, &lines).await;
        }
    }
    for head in heads(&scene, &own) {
        let mut raw = Raw::connect(scene.gateway.address()).await;
        raw.write(head.as_bytes()).await;
        let answer = raw.reply().await;
        assert!(matches!(answer.status, 101 | 200 | 202), "our own page: {answer:?}");
    }
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_mean_this_machine_is_foreign() {
    let mut scene = Scene::start(BARE).await;
    let port = scene.gateway.address().port();
    let own = format!("Host: {}", scene.gateway.address());
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1.", "0x7f.1.evil"] {
        let lines = format!("Origin: http://{host}:{port}");
        for head in heads(&scene, &lines) {
            let rebound = head.replace(&own, &format!("Host: {host}:{port}"));
            check_refused(&scene, &rebound, host).await;
        }
    }
    scene.check().await;
}

/// A socket, a stream, a question and a message, each with these lines.
fn heads(scene: &Scene, lines: &str) -> Vec<String> {
    let address = scene.gateway.address();
    let message = json!({"type": "x"}).to_string();
    let request = |line: &str, body: &str| {
        let length = body.len();
        format!("{line} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    vec![
        handshake_head(address, &[]).replacen("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"), 1),
        format!("GET /v1/events?group=g HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n\r\n"),
        request("GET /v1/connections", ""),
        request("POST /v1/groups/g/send", &message),
    ]
}

async fn check_refused(scene: &Scene, head: &str, what: &str) {
    let mut raw = Raw::connect(scene.gateway.address()).await;
    raw.write(head.as_bytes()).await;
    let answer = raw.reply().await;
    assert!(matches!(answer.status, 400 | 403), "{what}: {} {}", answer.status, answer.text());
    assert!(answer.header("access-control-allow-origin").is_none(), "{what}: {answer:?}");
}
