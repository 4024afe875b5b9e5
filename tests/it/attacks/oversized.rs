//! Too much of everything: each is refused by its bound, before it costs what it announces.

use std::time::Duration;

use groupcast_tests::home::JOBS;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::socket::End;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Raw, Reply, Socket};
use serde_json::{Value, json};

use super::scene::Scene;

const CLOSED: Duration = Duration::from_secs(10);
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn heads_have_bounds_on_every_way_in() {
    let mut scene = Scene::start(JOBS).await;
    let long = "x".repeat(20_000);
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let groups = |count: usize| (0..count).map(|n| format!("group=g{n}&")).collect::<String>();
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let socket =
        |lines: &str| handshake_head(scene.gateway.address(), &[]).replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
    for (what, request, statuses) in [
        ("a target", get(&format!("/{long}"), ""), &[414, 431][..]),
        ("a target of 100 KB", get(&format!("/{}", long.repeat(5)), ""), &[414, 431]),
        ("a query", get(&format!("/v1/groups?prefix={long}"), ""), &[414, 431]),
        ("groups of a stream", get(&format!("/v1/events?{}", groups(1000)), ""), &[400, 422]),
        ("groups of a socket", socket("").replace("/ws", &format!("/ws?{}", groups(1000))), &[400, 422]),
        ("fields", get("/healthz", &many(101)), &[431]),
        ("fields of a socket", socket(&many(101)), &[431]),
        ("a name of a field", get("/healthz", &format!("{long}: 1\r\n")), &[431]),
        ("a value", get("/healthz", &format!("X: {long}\r\n")), &[431]),
        ("a value of 2 MB", get("/healthz", &format!("X: {}\r\n", long.repeat(100))), &[431]),
        ("a token", get("/healthz", &format!("Authorization: Bearer {long}\r\n")), &[431]),
        (
            "a token that fits",
            get("/v1/groups", &format!("Authorization: Bearer {}\r\n", &long[..12_000])),
            &[200, 401],
        ),
        ("protocols of a socket", socket(&format!("Sec-WebSocket-Protocol: {}\r\n", "a,".repeat(10_000))), &[431]),
        ("protocols that fit", socket(&format!("Sec-WebSocket-Protocol: {}\r\n", "a,".repeat(5000))), &[400]),
        ("a method", format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400, 404, 405, 431]),
        (
            "empty lines before a request",
            "\r\n".repeat(20_000) + "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            &[200, 400, 431],
        ),
    ] {
        let answer = asked(&scene, &request).await;
        assert!(statuses.contains(&answer.status), "{what}: {} {:.200}", answer.status, answer.text());
    }
    scene.check().await;
}

#[tokio::test]
async fn names_ids_and_keys_have_bounds() {
    let mut scene = Scene::start(JOBS).await;
    let http = scene.http.clone();
    let mut socket = Socket::open(&scene.gateway).await;
    for length in [100, 1000, 7000] {
        let name = "n".repeat(length);
        let message = json!({"type": "x"});
        http.post(&format!("/v1/groups/{name}/send"), &message).await.problem(422, "invalid_name");
        http.post(&format!("/v1/channels/{name}/send"), &message).await.problem(422, "invalid_name");
        http.put(&format!("/v1/groups/g/members/{name}")).await.problem(422, "invalid_name");
        http.get(&format!("/v1/groups/{name}/history")).await.problem(422, "invalid_name");
        http.get(&format!("/v1/events?group={name}")).await.problem(422, "invalid_name");
        http.get(&format!("/v1/jobs/{name}")).await.problem(404, "not_found");
        let answer = http.post(&format!("/v1/queries/{name}"), &json!({})).await;
        assert!(matches!(answer.status, 404 | 422), "{}", answer.text());
        for command in ["subscribe", "unsubscribe", "members", "history"] {
            socket.refused(json!({"type": command, "group": name}), "invalid_name").await;
        }
        socket.refused(json!({"type": "query", "name": name}), "unknown_query").await;
        socket.refused(json!({"type": "cancel", "job": name}), "bad_request").await;
    }
    for length in [256, 10_000] {
        let key = ("idempotency-key", &*"k".repeat(length));
        let answer = http.request("POST", "/v1/groups/g/send", &[JSON, key], br#"{"type":"x"}"#.to_vec()).await;
        answer.problem(400, "bad_request");
        let key = "k".repeat(length);
        let send = json!({"type": "group_send", "group": "g", "message": {"type": "x"}, "idempotency_key": key});
        socket.refused(send, "bad_request").await;
        let work = json!({"type": "execute_query", "query": "numbers", "unique_key": "k".repeat(length)});
        let answer = http.post("/v1/groups/my_group/send", &work).await;
        assert!(matches!(answer.status, 202 | 400..500), "{}", answer.text());
    }
    assert_eq!(http.get("/v1/groups?prefix=n").await.expect(200)["groups"], json!([]));
    scene.check().await;
}

#[tokio::test]
async fn bodies_and_batches_have_bounds() {
    let mut scene = Scene::start(JOBS).await;
    let http = scene.http.clone();
    let item = r#"{"group":"g","message":{"type":"x"}}"#;
    let list = |items: usize| format!("[{}]", vec![item; items].join(","));
    for (what, path, body, statuses) in [
        ("a message", "/v1/groups/g/send", format!(r#"{{"type":"x","p":"{}"}}"#, "x".repeat(1 << 20)), &[413][..]),
        ("a batch", "/v1/send", list(1001), &[400]),
        ("a batch of nothing", "/v1/send", "[]".to_owned(), &[400]),
        ("a batch of numbers", "/v1/send", format!("[{}]", vec!["1"; 400_000].join(",")), &[400]),
        ("a batch of lists", "/v1/send", format!("[{}]", vec!["[]"; 300_000].join(",")), &[400]),
        ("line ends", "/v1/send", "\n".repeat(1 << 20), &[400, 422]),
        ("names of a message", "/v1/groups/g/send", fields(60_000), &[202, 413, 422]),
        ("parameters", "/v1/queries/numbers", fields(60_000), &[422]),
        ("no end", "/v1/groups/g/send", "{\"type\":\"".to_owned() + &"x".repeat(1 << 19), &[422]),
        ("a type", "/v1/groups/g/send", format!(r#"{{"type":"{}"}}"#, "x".repeat(1 << 19)), &[202, 422]),
    ] {
        let answer = http.request("POST", path, &[JSON], body.into_bytes()).await;
        assert!(statuses.contains(&answer.status), "{what}: {} {:.200}", answer.status, answer.text());
    }
    for length in ["1048577", "9223372036854775807", "18446744073709551615"] {
        let head = format!("POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let answer = asked(&scene, &head).await;
        assert!(matches!(answer.status, 400 | 413 | 431), "{length}: {} {}", answer.status, answer.text());
    }
    let chunks = format!("40000\r\n{}\r\n", "x".repeat(0x40000)).repeat(8);
    let head = "POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    asked(&scene, &(head.to_owned() + &chunks)).await.problem(413, "too_large");
    scene.check().await;
}

#[tokio::test]
async fn a_frame_is_judged_by_the_length_it_announces() {
    let mut scene = Scene::start(JOBS).await;
    for (length, codes) in
        [(65_536_u64 * 2, &[1009][..]), (1 << 40, &[1009]), (i64::MAX as u64, &[1009]), (u64::MAX, &[1002, 1009])]
    {
        for first in [0x81_u8, 0x01] {
            let mut raw = Raw::websocket(scene.gateway.address()).await;
            let mut frame = vec![first, 0xFF];
            frame.extend(length.to_be_bytes());
            frame.extend([0; 4]);
            raw.write(&frame).await;
            let end = within_time(CLOSED, "it is closed before a payload comes", raw.end()).await;
            assert!(codes.iter().any(|code| end == End::Closed(*code)), "{length}: {end:?}");
        }
    }
    scene.check().await;
}

/// An object with so many names.
fn fields(count: usize) -> String {
    let fields: Value = (0..count).map(|n| (format!("f{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    fields.to_string().replacen('{', r#"{"type":"x","#, 1)
}

async fn asked(scene: &Scene, request: &str) -> Reply {
    let mut raw = Raw::connect(scene.gateway.address()).await;
    raw.write(request.as_bytes()).await;
    raw.reply().await
}
