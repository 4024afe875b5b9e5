//! Floods over WebSocket and of connections: whoever floods is closed or told, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use futures_util::future::join_all;
use groupcast_tests::home::BARE;
use groupcast_tests::kernel::server_ends;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::socket::End;
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Gateway, Raw};
use tokio::time::interval;

use super::scene::Scene;

const TEXT: u8 = 0x81;
const BEGIN: u8 = 0x01;
const CONTINUE: u8 = 0x00;
const COMPRESSED: u8 = 0xC1;
/// How many do it at once.
const ATTACKERS: usize = 20;
/// Rounds of a flood that the gateway ends.
const MANY: usize = 100_000;
const CLOSED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn frames_that_carry_nothing_are_closed_with_1008() {
    let mut scene = Scene::start(BARE).await;
    let gateway = &scene.gateway;
    let flood = async |first: u8, next: u8, payload: &[u8]| {
        let mut raw = Raw::websocket(gateway.address()).await;
        raw.send_frame(first, true, payload).await;
        for _ in 0..MANY / 1000 {
            raw.write(&[next, 0x80, 0, 0, 0, 0].repeat(1000)).await;
        }
        within_time(CLOSED, "a flood ends", raw.end()).await
    };
    let floods = async {
        let empty = join_all((0..ATTACKERS).map(|_| flood(BEGIN, CONTINUE, b"")));
        let begun = join_all((0..ATTACKERS).map(|_| flood(BEGIN, CONTINUE, br#"{"type":"ping""#)));
        tokio::join!(empty, begun)
    };
    let (empty, begun) = floods.await;
    for end in empty.into_iter().chain(begun) {
        // A reset may overtake the close frame, since the flood goes on behind it.
        assert!(matches!(end, End::Closed(1008) | End::Unclean), "{end:?}");
    }
    scene.check().await;
}

#[tokio::test]
async fn messages_that_carry_nothing_are_each_told_so() {
    let mut scene = Scene::start(BARE).await;
    let address = scene.gateway.address();
    let flood = async || {
        let mut raw = Raw::websocket(address).await;
        for _ in 0..20 {
            raw.write(&[TEXT, 0x80, 0, 0, 0, 0].repeat(500)).await;
            for _ in 0..500 {
                let (opcode, answer) = raw.frame().await.expect("the connection lives");
                assert!(
                    opcode == 1 && answer.starts_with(br#"{"type":"error""#),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
    };
    scene.beside(join_all((0..ATTACKERS).map(|_| flood()))).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_end_the_connection_that_asked_for_them() {
    let mut scene = Scene::start(&format!("{BARE}\n[limits]\nwrite_timeout = \"1s\"\n")).await;
    let address = scene.gateway.address();
    // The answer to an error repeats the id, so it is as long as what was asked.
    let ask = format!(r#"{{"type":"nonsense","id":"{}"}}"#, "x".repeat(200));
    let mut one = vec![TEXT, 0xFE];
    one.extend(u16::try_from(ask.len()).expect("a short frame").to_be_bytes());
    one.extend([0; 4]);
    one.extend(ask.as_bytes());
    let asks = one.repeat(100);
    let deaf = async || {
        let mut raw = Raw::narrow(address, 4096).await.upgraded(address).await;
        let mut turns = interval(Duration::from_millis(50));
        for _ in 0..MANY {
            turns.tick().await;
            // As much as is taken; the rest of a frame that was cut makes no difference to whom nobody reads.
            while raw.write_some(&asks) > 0 {}
            if !is_held(address, &raw) {
                return;
            }
        }
        panic!("all that nobody reads the answers of was taken");
    };
    scene.beside(join_all((0..ATTACKERS).map(|_| deaf()))).await;
}

#[tokio::test]
async fn what_unpacks_to_more_than_a_message_is_closed_with_1009() {
    let mut scene = Scene::start(&BARE.replace("[server]", "[server]\ncompression = true")).await;
    let address = scene.gateway.address();
    let offer = [("Sec-WebSocket-Extensions", Some("permessage-deflate"))];
    // As much as a frame may have; it unpacks to a thousand times that.
    let bomb = deflate(&vec![b' '; 60 << 20]);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    let attack = async || {
        let mut raw = Raw::connect(address).await;
        raw.write(handshake_head(address, &offer).as_bytes()).await;
        assert_eq!(raw.reply().await.status, 101);
        raw.send_frame(COMPRESSED, true, &bomb).await;
        within_time(CLOSED, "a bomb", raw.end()).await
    };
    for end in scene.beside(join_all((0..2 * ATTACKERS).map(|_| attack()))).await {
        assert_eq!(end, End::Closed(1009));
    }
}

#[tokio::test]
async fn connections_that_come_and_go_leave_nothing_behind() {
    const ROUNDS: usize = 2000;
    let mut scene = Scene::start(BARE).await;
    let address = scene.gateway.address();
    let before = scene.gateway.usage().open_files;
    let beginnings = [
        handshake_head(address, &[]),
        format!("{}\u{81}", handshake_head(address, &[])),
        "GET /v1/events?group=g HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{".to_owned(),
        String::new(),
    ];
    let churn = async {
        for round in 0..ROUNDS {
            let mut raw = Raw::connect(address).await;
            raw.write(beginnings[round % beginnings.len()].as_bytes()).await;
            if round % 2 == 0 {
                raw.reset();
            }
        }
    };
    scene.beside(churn).await;
    let left = || async { (open_files(&scene.gateway) <= before + 10).then_some(()) };
    eventually("all are forgotten", left).await;
    let members = scene.http.get("/v1/groups/g").await.expect(200);
    assert_eq!(members["members"], 0, "{members}");
}

fn open_files(gateway: &Gateway) -> usize {
    gateway.usage().open_files
}

/// Whether the gateway's end is still open.
fn is_held(server: SocketAddr, raw: &Raw) -> bool {
    server_ends(server).get(&raw.address().port()).is_some_and(|end| end.open)
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() / 500 + 1024);
    Compress::new(Compression::best(), false).compress_vec(payload, &mut out, FlushCompress::Sync).expect("it fits");
    out.strip_suffix(&[0, 0, 0xFF, 0xFF]).expect("a flush").to_vec()
}
