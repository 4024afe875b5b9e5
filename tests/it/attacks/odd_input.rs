//! Input that breaks careless readers: broken UTF-8, depth, duplicates, and numbers that fit nowhere.

use std::sync::Arc;
use std::time::Duration;

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::socket::End;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Home, Raw, Reply, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::scene::Scene;

/// Everybody may send, and to one group one type alone.
const NARROW: &str = r#"
[[group]]
name = "narrow"
types = ["allowed"]

[auth]
jwt_secret_file = "jwt.secret"
anonymous = { subscribe = ["*"], send = ["*"] }
"#;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const CLOSED: Duration = Duration::from_secs(10);
const JSON: (&str, &str) = ("content-type", "application/json");

/// Bytes that are no UTF-8, each in its own way.
const BROKEN: [(&str, &[u8]); 8] = [
    ("a continuation alone", b"\x80"),
    ("a beginning alone", b"\xC3"),
    ("an overlong slash", b"\xC0\xAF"),
    ("an overlong zero", b"\xE0\x80\x80"),
    ("half a pair of UTF-16", b"\xED\xA0\x80"),
    ("beyond the last character", b"\xF4\x90\x80\x80"),
    ("a byte that is never there", b"\xFF"),
    ("cut short", b"\xF0\x9F\x98"),
];

#[tokio::test]
async fn text_that_is_no_utf8_is_closed_with_1007_wherever_it_stands() {
    let mut scene = Scene::start(BARE).await;
    let address = scene.gateway.address();
    for (what, bytes) in BROKEN {
        let text = [br#"{"type":"ping","id":""#, bytes, br#""}"#].concat();
        let reason = [&1000_u16.to_be_bytes()[..], b"bye ", bytes].concat();
        let cut = text.len() - bytes.len() - 2;
        for (where_to, frames) in [
            ("in a text", vec![(TEXT, &text[..])]),
            ("in the reason of a close", vec![(CLOSE, &reason[..])]),
            ("in the second fragment", vec![(0x01, &text[..cut]), (0x80, &text[cut..])]),
            ("cut by fragments", vec![(0x01, &text[..=cut]), (0x80, &text[cut + 1..])]),
        ] {
            let mut raw = Raw::websocket(address).await;
            for (first, payload) in frames {
                raw.send_frame(first, true, payload).await;
            }
            let end = within_time(CLOSED, what, raw.end()).await;
            assert_eq!(end, End::Closed(1007), "{what} {where_to}");
        }
    }
    scene.check().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_over_http_wherever_they_stand() {
    let mut scene = Scene::start(JOBS).await;
    let message = r#"{"type":"x"}"#;
    for (what, bytes) in BROKEN {
        let body = [br#"{"type":"x","p":""#, bytes, br#""}"#].concat();
        let escaped: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        let head = |name: &str| [format!("{name}: \"").as_bytes(), bytes, b"\"\r\n"].concat();
        for (where_to, request) in [
            ("in a message", post("/v1/groups/g/send", b"", &body)),
            ("in a batch", post("/v1/send", b"", &body)),
            ("in a path", post(&format!("/v1/groups/{escaped}/send"), b"", message.as_bytes())),
            ("in a path of a job", get(&format!("/v1/jobs/{escaped}"), b"")),
            ("in the group of a stream", get(&format!("/v1/events?group={escaped}"), b"")),
            ("in a key of idempotency", post("/v1/groups/g/send", &head("Idempotency-Key"), message.as_bytes())),
            ("in the type of a body", post("/v1/groups/g/send", &head("Content-Type"), message.as_bytes())),
            ("in the last id of a stream", get("/v1/events?group=g", &head("Last-Event-ID"))),
        ] {
            let answer = asked(&scene, &request).await;
            assert!((400..500).contains(&answer.status), "{what} {where_to}: {} {}", answer.status, answer.text());
        }
    }
    scene.check().await;
}

#[tokio::test]
async fn json_of_any_depth_breaks_nobody() {
    let mut scene = Scene::start(JOBS).await;
    let deep = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let http = scene.http.clone();
    for depth in [127, 129, 1000, 100_000] {
        for value in [deep("[", "]", depth), deep("{\"a\":", "}", depth), "[".repeat(depth)] {
            for (path, body) in [
                ("/v1/groups/g/send", value.clone()),
                ("/v1/groups/g/send", format!(r#"{{"type":"x","p":{value}}}"#)),
                ("/v1/groups/g/send", format!(r#"{{"p":{value},"type":"x"}}"#)),
                (
                    "/v1/groups/my_group/send",
                    format!(r#"{{"type":"execute_query","query":"numbers","params":{value}}}"#),
                ),
                ("/v1/groups/my_group/send", format!(r#"{{"type":"execute_query","query":{value}}}"#)),
                ("/v1/send", value.clone()),
                ("/v1/send", format!(r#"[{{"group":"g","message":{value}}}]"#)),
                ("/v1/send", format!(r#"[{{"group":{value},"message":{{"type":"x"}}}}]"#)),
                ("/v1/queries/numbers", value.clone()),
                ("/v1/queries/numbers", format!(r#"{{"count":{value}}}"#)),
                ("/v1/jobs/redrive", value.clone()),
            ] {
                let answer = http.request("POST", path, &[JSON], body.into_bytes()).await;
                // Of a batch each item is answered for itself.
                let fits = answer.status == 202 && (depth < 129 || path == "/v1/send");
                assert!(
                    fits || (400..500).contains(&answer.status),
                    "{path} at {depth}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    }
    let mut socket = Socket::open(&scene.gateway).await;
    for depth in [127, 129, 1000, 30_000] {
        let value = deep("[", "]", depth);
        for command in [
            format!(r#"{{"type":"group_send","group":"g","message":{value}}}"#),
            format!(r#"{{"type":"subscribe","group":{value}}}"#),
            format!(r#"{{"type":"query","name":"numbers","params":{{"count":{value}}}}}"#),
            format!(r#"{{"type":"ping","id":{value}}}"#),
            format!(r#"{{"type":{value}}}"#),
        ] {
            socket.send_raw(Message::text(command)).await;
            let answer = socket.next().await;
            assert_eq!(answer["type"], "error", "{answer}");
        }
    }
    scene.check().await;
}

#[tokio::test]
async fn a_name_that_is_said_twice_decides_nothing() {
    let home = Home::new(&format!("{BARE}{NARROW}"));
    home.write("jwt.secret", "0123456789abcdef0123456789abcdef");
    let mut scene = Scene::with(Gateway::start_in(Arc::new(home)).await).await;
    let mut listener = Socket::subscribed(&scene.gateway, &["narrow", "other", "g"]).await;
    let http = scene.http.clone();
    for body in [
        r#"{"type":"allowed","type":"forbidden"}"#,
        r#"{"type":"forbidden","type":"allowed"}"#,
        r#"{"type":"allowed","\u0074ype":"forbidden"}"#,
        r#"{"type":"allowed","type":7}"#,
    ] {
        let answer = http.request("POST", "/v1/groups/narrow/send", &[JSON], body.into()).await;
        answer.problem(422, "invalid_message");
        let batch = format!(r#"[{{"group":"narrow","message":{body}}}]"#);
        let sent = http.request("POST", "/v1/send", &[JSON], batch.into_bytes()).await.expect(202);
        assert_eq!(sent["results"][0]["code"], "invalid_message", "{sent}");
    }
    let mut socket = Socket::open(&scene.gateway).await;
    for command in [
        r#"{"type":"group_send","group":"other","group":"narrow","message":{"type":"x"}}"#,
        r#"{"type":"group_send","group":"g","message":{"type":"x"},"message":{"type":"y"}}"#,
        r#"{"type":"group_send","group":"g","message":{"type":"x","type":"y"}}"#,
        r#"{"type":"ping","type":"group_send","group":"g","message":{"type":"x"}}"#,
        r#"{"type":"subscribe","group":"a","gr\u006fup":"b"}"#,
        r#"{"type":"ping","id":1,"id":2}"#,
    ] {
        socket.send_raw(Message::text(command)).await;
        let answer = socket.next().await;
        assert_eq!(answer["type"], "error", "{command}: {answer}");
    }
    assert_eq!(listener.pending().await, [] as [Value; 0]);
    scene.check().await;
}

#[tokio::test]
async fn numbers_that_fit_nowhere_are_refused_or_passed_on_as_they_are() {
    let mut scene = Scene::start(JOBS).await;
    let mut listener = Socket::subscribed(&scene.gateway, &["g"]).await;
    let (long, http) = ("9".repeat(50_000), scene.http.clone());
    let numbers =
        ["1e400", "-1e400", "18446744073709551616", "-9223372036854775809", "1e-400", "1E+99999999999", &long];
    for number in numbers {
        let message = format!(r#"{{"type":"x","n":{number}}}"#);
        http.request("POST", "/v1/groups/g/send", &[JSON], message.clone().into_bytes()).await.expect(202);
        let push = listener.next_text().await.expect("the socket is open");
        assert!(push.contains(&message), "passed on as it is: {push:.100}");
        for field in ["delay_ms", "deadline_ms", "priority", "max_attempts", "limit", "queryset_id"] {
            let work = format!(r#"{{"type":"execute_query","query":"numbers","{field}":{number}}}"#);
            let answer = http.request("POST", "/v1/groups/my_group/send", &[JSON], work.into_bytes()).await;
            assert!((400..500).contains(&answer.status), "{field}: {number:.30}: {} {}", answer.status, answer.text());
        }
        let params = format!(r#"{{"count":{number}}}"#);
        let answer = http.request("POST", "/v1/queries/numbers", &[JSON], params.into_bytes()).await;
        assert!((400..500).contains(&answer.status), "{number:.30}: {}", answer.text());
        for path in ["/v1/groups?limit=", "/v1/jobs?limit=", "/v1/groups/g/history?limit=", "/v1/jobs/x?wait="] {
            let answer = http.get(&format!("{path}{number:.100}")).await;
            assert!((400..500).contains(&answer.status), "{path}{number:.30}: {} {}", answer.status, answer.text());
        }
    }
    let mut socket = Socket::open(&scene.gateway).await;
    for number in numbers {
        for command in [
            format!(r#"{{"type":"ping","id":{number}.5}}"#),
            format!(r#"{{"type":"subscribe","group":"h","after":{{"epoch":"x","offset":{number}}}}}"#),
            format!(r#"{{"type":"history","group":"h","limit":{number}}}"#),
            format!(r#"{{"type":"query","name":"numbers","params":{{"count":{number}}}}}"#),
        ] {
            socket.send_raw(Message::text(&command)).await;
            let answer = socket.next().await;
            assert_eq!(answer["type"], "error", "{command:.100}: {answer}");
        }
    }
    for (field, value) in [
        ("delay_ms", json!(u64::MAX)),
        ("delay_ms", json!(i64::MAX)),
        ("deadline_ms", json!(u64::MAX)),
        ("deadline_ms", json!(i64::MAX)),
        ("priority", json!(i64::MIN)),
        ("max_attempts", json!(u32::MAX)),
        ("limit", json!(u64::MAX)),
    ] {
        let mut work = json!({"type": "execute_query", "query": "numbers"});
        work[field] = value;
        let answer = http.post("/v1/groups/my_group/send", &work).await;
        assert!(answer.status < 500, "{work}: {}", answer.text());
    }
    scene.check().await;
}

fn get(target: &str, fields: &[u8]) -> Vec<u8> {
    [format!("GET {target} HTTP/1.1\r\nHost: a\r\n").as_bytes(), fields, b"\r\n"].concat()
}

fn post(target: &str, fields: &[u8], body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", body.len());
    [head.as_bytes(), fields, b"\r\n", body].concat()
}

async fn asked(scene: &Scene, request: &[u8]) -> Reply {
    let mut raw = Raw::connect(scene.gateway.address()).await;
    raw.write(request).await;
    raw.reply().await
}
