//! Floods of HTTP/2: cheap to send, and dear to whoever answers each.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use groupcast_tests::Socket;
use groupcast_tests::home::BARE;
use groupcast_tests::wait::{within, within_time};

use super::http2_frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, fields, frame, get, heard, request,
};
use super::scene::Scene;

/// `ENHANCE_YOUR_CALM`.
const CALM_DOWN: u32 = 11;
/// Rounds of a flood that never come to their end.
const MANY: u32 = 200_000;
/// Whoever asks nothing is hung up on long before.
const GONE: Duration = Duration::from_secs(40);

/// Deadlines that a test can wait for.
fn impatient() -> String {
    format!("{BARE}\n[limits]\nwrite_timeout = \"1s\"\nheader_timeout = \"2s\"\nidle_timeout = \"2s\"\n")
}

#[tokio::test]
async fn who_takes_back_what_he_asks_is_calmed_down() {
    let mut scene = Scene::start(BARE).await;
    let address = scene.gateway.address();
    let mut listener = Socket::subscribed(&scene.gateway, &["taken.back"]).await;
    let ask = request("POST", "/v1/groups/taken.back/send", &[("content-length", "12")]);
    let flood = flood(address, MANY, |n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS, stream, &ask), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    let outcome = scene.beside(flood).await;
    assert!(outcome.rounds < MANY, "it was let through to the end");
    assert_eq!(outcome.heard.goaway, Some(CALM_DOWN), "{outcome:?}");
    assert_eq!(listener.pending().await.len(), 0, "half a request is none");
}

#[tokio::test]
async fn who_makes_the_gateway_take_back_its_answers_is_calmed_down() {
    let mut scene = Scene::start(BARE).await;
    let address = scene.gateway.address();
    let ask = get("/openapi.json");
    for (what, odd) in [
        ("a window that grows by nothing", (WINDOW_UPDATE, vec![0; 4])),
        ("a window over 31 bits", (WINDOW_UPDATE, vec![0x7F, 0xFF, 0xFF, 0xFF])),
        ("a body behind the end", (DATA, b"x".to_vec())),
    ] {
        let flood = flood(address, MANY, |n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, &ask), frame(odd.0, 0, stream, &odd.1)].concat()
        });
        let outcome = scene.beside(flood).await;
        assert!(outcome.rounds < MANY, "{what}: it was let through to the end");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_given_up() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    let long = fields(&[("x-long", &"x".repeat(16_000))]);
    for (what, piece) in [("long pieces", &long[..]), ("pieces of one byte", &long[..1]), ("empty pieces", &[])] {
        let flood = flood(address, MANY, |n| match n {
            0 => frame(HEADERS, END_STREAM, 1, &get("/healthz")),
            _ => frame(CONTINUATION, 0, 1, piece),
        });
        let outcome = scene.beside(flood).await;
        assert!(outcome.rounds < MANY, "{what}: {outcome:?}");
        assert_eq!(outcome.heard.answers, 0, "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_head_that_unpacks_to_a_hundred_times_its_size_is_refused() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    // One field of 4,000 bytes goes into the table; then it is named by one byte each.
    let mut bomb = get("/healthz");
    let value = "x".repeat(4000);
    let mut entry = fields(&[("x-bomb", &value)]);
    entry[0] = 0x40;
    bomb.extend(entry);
    bomb.extend([0x80 | 62; 12_000]);
    for _ in 0..20 {
        let mut connection = Connection::open(address).await;
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
        let heard = scene.beside(connection.hung_up()).await;
        assert!(!String::from_utf8_lossy(&heard.body).contains("\"ok\""), "{heard:?}");
    }
    assert!(scene.grown() < 16 << 20, "48 MB were announced, {} KiB more are used", scene.grown() >> 10);
}

#[tokio::test]
async fn frames_that_ask_nothing_cost_nobody_else_anything() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    for (what, kind, stream, payload) in [
        ("pings", PING, 0, &[7; 8][..]),
        ("settings", SETTINGS, 0, &[]),
        ("settings of a size of the table", SETTINGS, 0, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 16, 0]),
        ("windows", WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        ("priorities", PRIORITY, 1, &[0, 0, 0, 0, 1]),
        ("frames of no kind", 0xFA, 0, &[0; 100]),
    ] {
        let sent = frame(kind, 0, stream, payload);
        let deaf = deaf(address, &sent);
        let reading = flood(address, u32::MAX, |_| sent.clone());
        let both = async { tokio::join!(reading, deaf) };
        let (reading, ()) = scene.beside(within_time(GONE, what, both)).await;
        assert!(reading.rounds > 0 && reading.heard.answers == 0, "{what}: {reading:?}");
    }
}

#[tokio::test]
async fn empty_pieces_of_a_body_are_given_up() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    let ask = request("POST", "/v1/groups/g/send", &[]);
    let flood = flood(address, MANY, |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &ask),
        _ => frame(DATA, 0, 1, &[]),
    });
    let outcome = scene.beside(flood).await;
    assert!(outcome.rounds < MANY, "{outcome:?}");
    assert_eq!(outcome.heard.goaway, Some(CALM_DOWN), "{outcome:?}");
}

#[tokio::test]
async fn what_is_no_http2_ends_the_connection() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    let block = get("/healthz");
    let mut asked = Vec::new();
    let setting = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
    for (what, bytes) in [
        ("a frame over the limit", frame(DATA, 0, 1, &[0; 20_000])),
        ("headers on stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &block)),
        ("headers on a stream of ours", frame(HEADERS, END_HEADERS | END_STREAM, 2, &block)),
        ("a body of a stream that is not open", frame(DATA, 0, 5, b"x")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block)),
        ("a push", frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block].concat())),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        ("a frame size that is none", frame(SETTINGS, 0, 0, &setting(5, 1))),
        ("a window that is none", frame(SETTINGS, 0, 0, &setting(4, u32::MAX))),
        ("a push setting that is none", frame(SETTINGS, 0, 0, &setting(2, 7))),
        ("padding longer than the frame", frame(HEADERS, END_HEADERS | 8, 1, &[255, 0])),
        ("an index that is not in the table", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xFF, 0xFF, 0x7F])),
        ("a field cut short", frame(HEADERS, END_HEADERS | END_STREAM, 1, &block[..block.len() - 3])),
        ("a window over 31 bits", frame(WINDOW_UPDATE, 0, 0, &[0x7F, 0xFF, 0xFF, 0xFF])),
    ] {
        asked.push(async move { (what, ask(address, &bytes).await) });
    }
    for (what, heard) in scene.beside(join_all(asked)).await {
        assert!(heard.goaway.is_some_and(|code| code != 0) && heard.answers == 0, "{what}: {heard:?}");
    }
}

#[tokio::test]
async fn fields_that_would_mean_something_else_in_http1_are_refused() {
    let mut scene = Scene::start(&impatient()).await;
    let address = scene.gateway.address();
    let mut listener = Socket::subscribed(&scene.gateway, &["g"]).await;
    let path = "/v1/groups/g/send";
    let post = |more: &[(&str, &str)]| request("POST", path, more);
    let message: &[u8] = br#"{"type":"x"}"#;
    let mut asked = Vec::new();
    for (what, block) in [
        ("chunked", post(&[("transfer-encoding", "chunked")])),
        ("a connection field", post(&[("connection", "upgrade")])),
        ("an upgrade", post(&[("upgrade", "h2c")])),
        ("capitals in a name", post(&[("X-Name", "x")])),
        ("a line end in a value", post(&[("x", "y\r\nz: 1")])),
        ("a zero byte in a value", post(&[("x", "y\0")])),
        ("a colon in a name", post(&[("x:y", "z")])),
        ("two paths", post(&[(":path", "/healthz")])),
        ("a body that is longer than it says", post(&[("content-length", "5")])),
        ("a body that is shorter than it says", post(&[("content-length", "100")])),
        ("two lengths", post(&[("content-length", "12"), ("content-length", "13")])),
        ("another host", post(&[("host", "b")])),
        ("no path", fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "a")])),
        ("a space in the path", request("POST", "/v1/groups/g/send HTTP/1.1", &[])),
        ("a line end in the method", request("POST / HTTP/1.1\r\n", path, &[])),
    ] {
        let bytes = [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, message)].concat();
        asked.push(async move { (what, ask(address, &bytes).await) });
    }
    for (what, heard) in scene.beside(join_all(asked)).await {
        let body = String::from_utf8_lossy(&heard.body).into_owned();
        assert!(!body.contains("message_id"), "{what} was taken: {body}");
    }
    assert_eq!(listener.pending().await.len(), 0, "something was done");
}

/// Sends this on a connection of its own and reads what comes.
async fn ask(address: SocketAddr, bytes: &[u8]) -> Heard {
    let mut connection = Connection::open(address).await;
    connection.send(bytes).await;
    connection.hung_up().await
}

/// How a flood went.
#[derive(Debug)]
struct Outcome {
    /// How often something was sent before the gateway hung up.
    rounds: u32,
    heard: Heard,
}

/// Sends what is made for each round until the gateway hangs up, and reads what comes.
async fn flood(address: SocketAddr, rounds: u32, made: impl Fn(u32) -> Vec<u8>) -> Outcome {
    let Connection { mut sends, mut receives } = Connection::open(address).await;
    let sending = async {
        for round in 0..rounds {
            if within("writing", tokio::io::AsyncWriteExt::write_all(&mut sends, &made(round))).await.is_err() {
                return round;
            }
        }
        drop(sends);
        rounds
    };
    let (rounds, heard) = tokio::join!(sending, heard(&mut receives));
    Outcome { rounds, heard }
}

/// Sends the same again and again and reads nothing, until the gateway hangs up.
async fn deaf(address: SocketAddr, sent: &[u8]) {
    let mut connection = Connection::open(address).await;
    let many = sent.repeat(1000);
    for _ in 0..MANY {
        if !connection.send(&many).await {
            return;
        }
    }
    panic!("a gateway that is not read from goes on reading");
}
