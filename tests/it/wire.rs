//! Below the protocol: frames that break RFC 6455 close the socket that sent them with the right code, and only that.

use std::time::{Duration, Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use futures_util::{SinkExt, StreamExt};
use groupcast_tests::home::BARE;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::socket::End;
use groupcast_tests::wait::{within, within_time};
use groupcast_tests::{Gateway, Raw, Socket};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

const TEXT: u8 = 0x81;
/// A bad client is closed at once, not when it times out.
const CLOSED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn bad_frames_close_with_their_code_and_nobody_else_notices() {
    let gateway = Gateway::start(BARE).await;
    let mut bystander = Socket::subscribed(&gateway, &["calm"]).await;
    let ping: &[u8] = br#"{"type":"ping"}"#;
    let large = vec![b' '; 80 * 1024];
    for (what, first, masked, payload, code) in [
        ("a binary message", 0x82, true, ping, 1003),
        ("text that is not UTF-8", TEXT, true, &[b'"', 0xC3, 0x28, b'"'][..], 1007),
        ("a message over the limit", TEXT, true, &large[..], 1009),
        ("an unmasked frame", TEXT, false, ping, 1002),
        ("a reserved opcode", 0x83, true, ping, 1002),
        ("a reserved control opcode", 0x8B, true, b"", 1002),
        ("a reserved bit", 0xC1, true, ping, 1002),
        ("a continuation of nothing", 0x80, true, ping, 1002),
        ("a fragmented ping", 0x09, true, b"", 1002),
        ("a ping of 126 bytes", 0x89, true, &large[..126], 1002),
        ("a close frame of one byte", 0x88, true, b"x", 1002),
        ("a close code that is never sent", 0x88, true, &[0x03, 0xED], 1002),
    ] {
        let mut raw = Raw::websocket(gateway.address()).await;
        raw.send_frame(first, masked, payload).await;
        let end = within_time(CLOSED, what, raw.end()).await;
        assert_eq!(end, End::Closed(code), "{what}");
    }
    gateway.http().group_send("calm", &json!({"type": "still.here"})).await;
    assert_eq!(bystander.message().await["type"], "still.here");
}

#[tokio::test]
async fn the_limit_of_a_message_is_the_configured_one() {
    let config = format!("{BARE}\n[limits]\nmessage_bytes = \"2KiB\"\n");
    let gateway = Gateway::start(&config).await;
    let mut socket = Socket::open(&gateway).await;
    let of_size = |bytes: usize| {
        let message = json!({"type": "x", "p": "x".repeat(bytes - 19)});
        assert_eq!(message.to_string().len(), bytes);
        json!({"type": "group_send", "group": "g", "message": message})
    };
    assert_eq!(socket.command(of_size(2048)).await["type"], "accepted");
    // A command has some room beside its message, so one that is a little too large is told and survived.
    socket.refused(of_size(2049), "too_large").await;
    assert_eq!(socket.command(of_size(2048)).await["type"], "accepted");
    socket.send(&of_size(4096)).await;
    assert_eq!(socket.end().await, End::Closed(1009));
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_a_ping_between() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.send_frame(0x01, true, br#"{"type":"#).await;
    raw.send_frame(0x89, true, b"between").await;
    raw.send_frame(0x80, true, br#""ping","id":3}"#).await;
    let mut frames = [raw.frame().await, raw.frame().await].map(|frame| frame.expect("two answers"));
    frames.sort();
    assert_eq!(frames[0], (0x1, br#"{"type":"pong","id":3}"#.to_vec()));
    assert_eq!(frames[1], (0xA, b"between".to_vec()));
}

#[tokio::test]
async fn fragments_together_keep_to_the_limit() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    let piece = vec![b' '; 30 * 1024];
    raw.send_frame(0x01, true, &piece).await;
    raw.send_frame(0x00, true, &piece).await;
    raw.send_frame(0x80, true, &piece).await;
    assert_eq!(raw.end().await, End::Closed(1009));
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload_and_a_close_with_a_close() {
    let gateway = Gateway::start(BARE).await;
    let mut socket = Socket::open(&gateway).await;
    let stream = socket.stream();
    stream.send(Message::Ping("payload".into())).await.expect("the socket is open");
    let answer = within("a pong comes", stream.next()).await;
    assert_eq!(answer.and_then(Result::ok), Some(Message::Pong("payload".into())));
    assert_eq!(socket.close().await, End::Closed(1000));
}

#[tokio::test]
async fn a_client_that_lives_is_pinged_and_kept() {
    let config = format!("{BARE}\n[limits]\nping_interval = \"200ms\"\npong_timeout = \"500ms\"\n");
    let gateway = Gateway::start(&config).await;
    let mut socket = Socket::open(&gateway).await;
    for _ in 0..5 {
        let ping = within("a ping comes", socket.stream().next()).await;
        assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    }
    assert_eq!(socket.pending().await.len(), 0, "it is open after more than a pong's deadline");
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed_with_3008() {
    let config = format!("{BARE}\n[limits]\nping_interval = \"200ms\"\npong_timeout = \"300ms\"\n");
    let gateway = Gateway::start(&config).await;
    let mut deaf = Raw::websocket(gateway.address()).await;
    assert_eq!(deaf.end().await, End::Closed(3008));
}

#[tokio::test]
async fn a_socket_that_vanishes_leaves_no_member_behind() {
    let gateway = Gateway::start(BARE).await;
    let socket = Socket::subscribed(&gateway, &["g"]).await;
    let http = gateway.http();
    assert_eq!(http.group_send("g", &json!({"type": "x"})).await["members"], 1);
    drop(socket);
    let left = || async { (http.get("/v1/groups/g").await.expect(200)["members"] == 0).then_some(()) };
    groupcast_tests::wait::eventually("the member is gone", left).await;
}

#[tokio::test]
async fn who_sends_too_many_commands_is_told_and_lives() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\ncommands_per_second = 5\n")).await;
    let mut socket = Socket::open(&gateway).await;
    for id in 0..40 {
        socket.send(&json!({"type": "members", "id": id, "group": "g"})).await;
    }
    let mut refused = 0;
    for id in 0..40 {
        let answer = socket.next().await;
        assert_eq!(answer["id"], id, "answers keep their order: {answer}");
        match answer["type"].as_str() {
            Some("members") => assert!(id >= 10 || refused == 0, "twice the rate may come at once"),
            _ => {
                assert_eq!((&answer["code"], &answer["retriable"]), (&json!("rate_limited"), &json!(true)));
                refused += 1;
            }
        }
    }
    assert!(refused >= 20, "{refused} of 40 were refused");
    let allowed = async {
        while socket.command(json!({"type": "members", "group": "g"})).await["type"] != "members" {
            tokio::task::yield_now().await;
        }
    };
    within_time(CLOSED, "the next second", allowed).await;
}

#[tokio::test]
async fn a_flood_of_control_frames_is_closed() {
    let gateway = Gateway::start(BARE).await;
    for (what, first) in [("pings", 0x89), ("pongs", 0x8A)] {
        let mut raw = Raw::websocket(gateway.address()).await;
        for _ in 0..300 {
            raw.send_frame(first, true, b"").await;
        }
        assert_eq!(within_time(CLOSED, what, raw.end()).await, End::Closed(1008), "{what}");
    }
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.send_frame(0x01, true, b"").await;
    for _ in 0..300 {
        raw.send_frame(0x00, true, b"").await;
    }
    assert_eq!(within_time(CLOSED, "empty frames", raw.end()).await, End::Closed(1008));
}

#[tokio::test]
async fn a_message_has_128_fragments_at_most_and_ten_seconds() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.send_frame(0x01, true, b" ").await;
    for _ in 0..128 {
        raw.send_frame(0x00, true, b" ").await;
    }
    assert_eq!(within_time(CLOSED, "fragments", raw.end()).await, End::Closed(1008));
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.send_frame(0x01, true, b" ").await;
    assert_eq!(within_time(Duration::from_secs(15), "the rest", raw.end()).await, End::Closed(1008));
}

#[tokio::test]
async fn a_message_in_one_frame_has_ten_seconds_too() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.write(&[0x81, 0x80 | 126, 0x10, 0, 0, 0, 0, 0, b' ']).await;
    let started = Instant::now();
    // A byte now and then: something is heard of it all the time.
    while started.elapsed() < Duration::from_secs(9) {
        raw.write(b" ").await;
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(within_time(Duration::from_secs(5), "the rest", raw.end()).await, End::Closed(1008));
}

#[tokio::test]
async fn messages_are_compressed_where_both_sides_want_it() {
    let offer = [("Sec-WebSocket-Extensions", Some("permessage-deflate; client_max_window_bits"))];
    let text = "again and ".repeat(100);
    for compression in [false, true] {
        let config = BARE.replace("[server]", &format!("[server]\ncompression = {compression}"));
        let gateway = Gateway::start(&config).await;
        let mut raw = Raw::connect(gateway.address()).await;
        raw.write(handshake_head(gateway.address(), &offer).as_bytes()).await;
        let extensions = raw.reply().await.header("sec-websocket-extensions").map(str::to_owned);
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(extensions.as_deref(), compression.then_some(answer));
        raw.frame().await.expect("welcome");
        let command = json!({"type": "subscribe", "group": text.len().to_string()}).to_string();
        match compression {
            true => raw.send_frame(0xC1, true, &deflate(command.as_bytes())).await,
            false => raw.send_frame(TEXT, true, command.as_bytes()).await,
        }
        raw.frame().await.expect("subscribed");
        gateway.http().group_send("1000", &json!({"type": "long", "text": text})).await;
        let (_, mut message) = raw.frame().await.expect("the message");
        if compression {
            assert!(message.len() < 200, "{} bytes are not compressed", message.len());
            message = inflate(&message);
        }
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        assert_eq!(message["message"]["text"], text);
        if compression {
            raw.send_frame(0xC1, true, &deflate(&vec![b' '; 1 << 20])).await;
            assert_eq!(within_time(CLOSED, "a bomb", raw.end()).await, End::Closed(1009));
        }
    }
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Compress::new(Compression::default(), false).compress_vec(payload, &mut out, FlushCompress::Sync).expect("it fits");
    out.strip_suffix(&[0, 0, 0xFF, 0xFF]).expect("a flush").to_vec()
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(65_536);
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("a compressed message");
    out
}
