//! What is done, and what is not, around the close of a socket.

use std::time::Duration;

use futures_util::SinkExt;
use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::kernel::server_ends;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Raw, Socket};
use serde_json::json;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

#[tokio::test]
async fn what_a_client_sent_before_it_closed_is_done() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["g"]).await;
    for client in 0..20 {
        let mut sender = Socket::open(&gateway).await;
        let stream = sender.stream();
        for n in 0..5 {
            let send =
                json!({"type": "group_send", "group": "g", "message": {"type": "last.words", "n": client * 5 + n}});
            stream.feed(Message::text(send.to_string())).await.expect("the socket takes it");
        }
        stream.feed(Message::Close(None)).await.expect("the socket takes it");
        stream.flush().await.expect("the socket takes it");
        for n in 0..5 {
            assert_eq!(reader.message().await["n"], client * 5 + n);
        }
    }
}

#[tokio::test]
async fn nothing_follows_a_close() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let mut kicked = Raw::websocket(gateway.address()).await;
    let mut leaving = Raw::websocket(gateway.address()).await;
    for raw in [&mut kicked, &mut leaving] {
        raw.send_frame(TEXT, true, br#"{"type":"subscribe","group":"flood"}"#).await;
        raw.frame().await.expect("subscribed");
    }
    let members = http.get("/v1/groups/flood/members").await.expect(200)["members"].clone();
    let first = members[0].as_str().expect("a channel").to_owned();
    let flood = async {
        for n in 0..500 {
            http.group_send("flood", &json!({"type": "drop", "n": n})).await;
            if n == 100 {
                http.delete(&format!("/v1/connections/{first}")).await;
                leaving.send_frame(CLOSE, true, &[0x03, 0xE8]).await;
            }
        }
    };
    flood.await;
    for (who, raw) in [("kicked", &mut kicked), ("leaving", &mut leaving)] {
        let mut closed = false;
        while let Some((opcode, _)) = raw.frame().await {
            assert!(!closed, "{who}: a frame with opcode {opcode} follows the close");
            closed = opcode == 8;
            if closed && who == "kicked" {
                raw.send_frame(CLOSE, true, &[0x03, 0xE8]).await;
            }
        }
        assert!(closed, "{who}");
    }
}

#[tokio::test]
async fn who_does_not_answer_a_close_is_hung_up_on_when_its_time_is_over() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    // Binary is not spoken here.
    raw.send_frame(0x82, true, b"x").await;
    assert_eq!(raw.frame().await.map(|(opcode, _)| opcode), Some(8));
    let gone = async {
        while server_ends(gateway.address()).contains_key(&raw.address().port()) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    within_time(Duration::from_secs(7), "the gateway lets go of it", gone).await;
}

#[tokio::test]
async fn who_never_finishes_a_request_is_hung_up_on() {
    let gateway =
        Gateway::start(&format!("{BARE}\n[limits]\nfirst_byte_timeout = \"300ms\"\nheader_timeout = \"300ms\"\n"))
            .await;
    for beginning in ["", "GET / HT", "GET /healthz HTTP/1.1\r\nHost: a\r\n"] {
        let mut raw = Raw::connect(gateway.address()).await;
        raw.write(beginning.as_bytes()).await;
        within_time(Duration::from_secs(5), beginning, raw.hung_up()).await;
    }
    gateway.http().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn a_query_whose_asker_has_gone_is_cancelled() {
    let gateway = Gateway::start(JOBS).await;
    let mut asker = Socket::open(&gateway).await;
    let accepted = asker.command(json!({"type": "query", "name": "endless"})).await;
    let job = accepted["jobs"][0]["id"].as_str().expect("one job").to_owned();
    drop(asker);
    assert_eq!(gateway.http().ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn a_client_that_floods_its_own_group_misses_nothing() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\ncommands_per_second = 10000")).await;
    let mut socket = Socket::subscribed(&gateway, &["g"]).await;
    let (sends, mut seen) = (2000, 0);
    for n in 0..sends {
        let send = json!({"type": "group_send", "group": "g", "message": {"type": "tick", "n": n}});
        socket.stream().feed(Message::text(send.to_string())).await.expect("the socket takes it");
        if n % 50 == 0 {
            socket.stream().flush().await.expect("the socket takes it");
        }
    }
    socket.stream().flush().await.expect("the socket takes it");
    let mut answered = 0;
    while seen < sends || answered < sends {
        let frame = socket.next().await;
        match frame["type"].as_str() {
            Some("accepted") => answered += 1,
            Some("message") => {
                assert_eq!(frame["message"]["n"], seen);
                seen += 1;
            }
            _ => panic!("neither an answer nor a message: {frame}"),
        }
    }
}
