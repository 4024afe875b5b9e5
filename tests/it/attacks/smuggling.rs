//! Requests that two readers may take for different ones. Each is refused, or read in one way; what is hidden in one is
//! never done, and a connection on which there was doubt is closed.

use groupcast_tests::home::BARE;
use groupcast_tests::{Raw, Reply, Socket};
use serde_json::{Value, json};

use super::scene::Scene;

/// What must not be done: a request that stands where one reader sees a body or nothing, and another a request.
const HIDDEN: &str = "POST /v1/groups/smuggled/send HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{\"type\":\"x\"}";
/// A body that is a message.
const MESSAGE: &str = r#"{"type":"x"}"#;

#[tokio::test]
async fn a_body_whose_length_is_in_doubt_is_refused() {
    let chunked = "Transfer-Encoding: chunked";
    check_refused(&[
        ("two lengths", post("Content-Length: 12\r\nContent-Length: 0", MESSAGE)),
        ("two lengths in one line", post("Content-Length: 12, 0", MESSAGE)),
        ("the same length twice in one line", post("Content-Length: 12, 12", MESSAGE)),
        ("a length with a sign", post("Content-Length: +12", MESSAGE)),
        ("a negative length", post("Content-Length: -12", MESSAGE)),
        ("a hexadecimal length", post("Content-Length: 0xC", MESSAGE)),
        ("a length with a space in it", post("Content-Length: 1 2", MESSAGE)),
        ("a length that is none", post("Content-Length: twelve", MESSAGE)),
        ("an empty length", post("Content-Length:", MESSAGE)),
        ("a length over 64 bits", post("Content-Length: 18446744073709551628", MESSAGE)),
        ("a length of a hundred digits", post(&format!("Content-Length: {}", "9".repeat(100)), MESSAGE)),
        ("an encoding that does not end chunked", post("Transfer-Encoding: chunked, identity", "0\r\n\r\n")),
        ("an encoding that nobody knows", post("Transfer-Encoding: xchunked", "0\r\n\r\n")),
        ("an encoding in quotes", post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n")),
        ("an encoding with a parameter", post("Transfer-Encoding: chunked;q=1", "0\r\n\r\n")),
        ("no encoding", post("Transfer-Encoding:", "0\r\n\r\n")),
        ("a second encoding", post(&format!("{chunked}\r\nTransfer-Encoding: identity"), "0\r\n\r\n")),
        ("chunked twice", post(&format!("{chunked}\r\n{chunked}"), "0\r\n\r\n")),
        ("chunked twice in one line", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")),
        ("identity, and chunked", post("Transfer-Encoding: identity, chunked", "0\r\n\r\n")),
        ("gzip, and chunked", post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")),
        ("a vertical tab before chunked", post("Transfer-Encoding: \x0Bchunked", "0\r\n\r\n")),
        ("a zero byte behind chunked", post("Transfer-Encoding: chunked\0", "0\r\n\r\n")),
        ("chunked in HTTP/1.0", post(chunked, "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")),
    ])
    .await;
}

#[tokio::test]
async fn a_head_that_two_readers_may_read_differently_is_refused() {
    let (long, chunked) = (format!("Content-Length: {}", HIDDEN.len()), "Transfer-Encoding: chunked");
    check_refused(&[
        ("a space before the colon", post(&format!("{long}\r\nTransfer-Encoding : chunked"), "0\r\n\r\n")),
        ("a tab before the colon", post("Content-Length\t: 12", MESSAGE)),
        ("a folded line", post(&format!("X: y\r\n {chunked}\r\n{long}"), "")),
        ("a folded line with a tab", post("Content-Length:\r\n\t12", MESSAGE)),
        ("a line that begins with a space", format!("POST / HTTP/1.1\r\n Host: a\r\n{long}\r\n\r\n")),
        ("a line without a colon", post("Content-Length", "")),
        ("a line without a name", post(": 12", MESSAGE)),
        ("a zero byte in a name", post("Transfer\0-Encoding: chunked", "0\r\n\r\n")),
        ("a bare CR in a value", post(&format!("X: y\r{chunked}"), "0\r\n\r\n")),
        ("a bare CR between lines", "POST / HTTP/1.1\rHost: a\rContent-Length: 0\r\r".to_owned() + HIDDEN),
        ("a bare LF in a value", post(&format!("X: y\n{chunked}"), "0\r\n\r\n")),
        ("a bare LF at the end", format!("POST / HTTP/1.1\r\nHost: a\r\n{long}\r\n\n")),
        ("LF and CR", format!("POST / HTTP/1.1\r\nHost: a\n\r{long}\r\n\r\n")),
        ("a version of two lines", "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a version that is none", "GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
        ("HTTP/2.0 in words", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /\r\nHost: a\r\n\r\n".to_owned()),
        ("half the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ])
    .await;
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let chunk = |text: &str| post("Transfer-Encoding: chunked", text);
    check_refused(&[
        ("a size over 64 bits", chunk("10000000000000000C\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a size of many digits", chunk(&format!("{}\r\n{{\"type\":\"x\"}}\r\n0\r\n\r\n", "F".repeat(20_000)))),
        ("a size with a sign", chunk("+C\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a size with 0x", chunk("0xC\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("no size", chunk("\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a size behind a space", chunk(" C\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a size with a bare LF", chunk("C\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a size with a bare CR", chunk("C\r{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("an extension with a bare LF", chunk("C;a=b\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a long extension", chunk(&format!("C;{}\r\n{{\"type\":\"x\"}}\r\n0\r\n\r\n", "x".repeat(40_000)))),
        ("more than the size says", chunk("B\r\n{\"type\":\"x\"}\r\n0\r\n\r\n")),
        ("a chunk without its end", chunk("C\r\n{\"type\":\"x\"}0\r\n\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn a_request_with_both_lengths_is_read_once_and_the_connection_closed() {
    let mut scene = Scene::start(BARE).await;
    let mut watched = Watched::new(&scene).await;
    let (length, chunked) = (format!("Content-Length: {}", 5 + HIDDEN.len()), "Transfer-Encoding: chunked");
    for (what, fields) in [
        ("length first", format!("{length}\r\n{chunked}")),
        ("length last", format!("{chunked}\r\n{length}")),
        ("no length at all", format!("Content-Length: 0\r\n{chunked}")),
        ("in capitals", "CONTENT-LENGTH: 4\r\nTRANSFER-ENCODING: CHUNKED".to_owned()),
        ("a tab before the value", format!("{length}\r\nTransfer-Encoding:\tchunked")),
    ] {
        let answers = answers(&scene, &(post(&fields, "0\r\n\r\n") + HIDDEN)).await;
        assert_eq!(answers.len(), 1, "{what}: {}", told(&answers));
        assert!((400..500).contains(&answers[0].status), "{what}: an empty body is no message: {}", told(&answers));
        watched.saw_nothing().await;
    }
    scene.check().await;
}

#[tokio::test]
async fn what_is_a_body_is_never_taken_for_a_request() {
    let mut scene = Scene::start(BARE).await;
    let mut watched = Watched::new(&scene).await;
    let length = HIDDEN.len();
    let chunked = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    for (what, request) in [
        ("of a GET", format!("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}")),
        (
            "of a GET in chunks",
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        ),
        ("of a DELETE", format!("DELETE /v1/jobs/x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}")),
        (
            "of what is not there",
            format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        ),
        (
            "that is waited for",
            format!(
                "POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
            ),
        ),
        ("of a handshake", websocket(&format!("Content-Length: {length}")) + HIDDEN),
        ("of a handshake in chunks", websocket("Transfer-Encoding: chunked") + &chunked),
    ] {
        // A good request behind it is answered or not, but never as the second of three.
        let answers = answers(&scene, &request).await;
        let (first, rest) = answers.split_first().unwrap_or_else(|| panic!("{what}: no answer"));
        assert!(matches!(first.status, 200 | 400..500), "{what}: {}", told(&answers));
        assert!(
            rest.is_empty() || (rest.len() == 1 && rest[0].text().contains("openapi")),
            "{what}: {}",
            told(&answers)
        );
        watched.saw_nothing().await;
    }
    scene.check().await;
}

#[tokio::test]
async fn what_looks_odd_and_is_beyond_doubt_is_read() {
    let scene = Scene::start(BARE).await;
    let mut member = Socket::subscribed(&scene.gateway, &["plain"]).await;
    let chunks = "C;name=\"value\"\r\n{\"type\":\"x\"}\r\n000\r\nTrailer: x\r\n\r\n";
    for (what, fields, body) in [
        ("zeros before a length", "Content-Length: 0012", MESSAGE),
        ("the same length twice", "Content-Length: 12\r\nContent-Length: 12", MESSAGE),
        ("a name that only looks alike", "Transfer_Encoding: chunked\r\nContent-Length: 12", MESSAGE),
        ("an extension and a trailer", "Transfer-Encoding: Chunked", chunks),
    ] {
        let answers = answers(&scene, &post(&format!("{fields}\r\nConnection: close"), body)).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [202], "{what}: {}", told(&answers));
        assert_eq!(member.message().await, json!({"type": "x"}), "{what}");
    }
}

/// Each is answered once, with a refusal; the connection is closed, and what follows is not done.
async fn check_refused(forms: &[(&str, String)]) {
    let mut scene = Scene::start(BARE).await;
    let mut watched = Watched::new(&scene).await;
    let mut wrong = Vec::new();
    for (what, form) in forms {
        let answers = answers(&scene, &format!("{form}{HIDDEN}")).await;
        match &answers[..] {
            [only] if matches!(only.status, 400 | 413 | 431) && only.json()["code"].is_string() => {}
            _ => wrong.push(format!("{what}: {}", told(&answers))),
        }
        watched.saw_nothing().await;
    }
    assert!(wrong.is_empty(), "not refused once and for all: {wrong:#?}");
    scene.check().await;
}

/// A listener where what is hidden would be seen.
struct Watched(Socket);

impl Watched {
    async fn new(scene: &Scene) -> Self {
        Self(Socket::subscribed(&scene.gateway, &["smuggled", "plain"]).await)
    }

    async fn saw_nothing(&mut self) {
        let pushes = self.0.pending().await;
        let smuggled: Vec<&Value> = pushes.iter().filter(|push| push["group"] == "smuggled").collect();
        assert!(smuggled.is_empty(), "it was done: {smuggled:?}");
    }
}

/// All that comes back until the gateway hangs up. Behind the bytes comes a request that asks it to.
async fn answers(scene: &Scene, bytes: &str) -> Vec<Reply> {
    let mut raw = Raw::connect(scene.gateway.address()).await;
    raw.write(format!("{bytes}GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let mut answers = Vec::new();
    while let Some(answer) = raw.try_reply().await {
        // 100 (Continue) is no answer.
        if answer.status != 100 {
            answers.push(answer);
        }
    }
    answers
}

/// Answers as a failed test shows them.
fn told(answers: &[Reply]) -> String {
    answers.iter().map(|answer| format!("{} {:.120}; ", answer.status, answer.text())).collect()
}

/// A `group_send` to `plain` with these fields and what follows the head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /v1/groups/plain/send HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{rest}")
}

fn websocket(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n\r\n"
    )
}
