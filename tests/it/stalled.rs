//! Connections that stall in one way or another: the gateway lets go of each in time, and serves everybody else meanwhile.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use groupcast_tests::home::BARE;
use groupcast_tests::kernel::server_end;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Http, Raw, Socket};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// From the moment a connection stalls, on default settings.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// For a busy machine and for how often we look.
const SLACK: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(50);
/// How often a client that trickles sends a byte: often enough that no gap between bytes tells it.
const TRICKLE: Duration = Duration::from_millis(500);
const TEXT: u8 = 0x81;

#[tokio::test]
async fn whatever_way_a_connection_stalls_the_gateway_lets_go_of_it_and_others_notice_nothing() {
    let gateway = Gateway::start(BARE).await;
    let address = gateway.address();
    let mut stalled = JoinSet::new();
    stalled.spawn(measured("nothing is sent", silent(address)));
    stalled.spawn(measured("a head is trickled", trickled(address, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ")));
    stalled.spawn(measured("a request line is trickled", trickled(address, "GET /")));
    stalled.spawn(measured("a body is trickled", trickled(address, body_of(100_000))));
    stalled.spawn(measured(
        "half a WebSocket handshake",
        trickled(address, "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nX: "),
    ));
    stalled.spawn(measured("an answer is not read", unread_answers(address)));
    stalled.spawn(measured("a WebSocket is not read", unread_messages(address)));
    let (late, slowest) = tokio::join!(stalled.join_all(), healthy_for(&gateway, CLOSED_WITHIN + SLACK));
    let late: Vec<_> = late.into_iter().filter(|(_, took)| *took > CLOSED_WITHIN + SLACK).collect();
    assert!(late.is_empty(), "open longer than {CLOSED_WITHIN:?}: {late:?}");
    assert!(slowest < Duration::from_secs(2), "somebody healthy waited {slowest:?}");
}

#[tokio::test]
async fn a_client_that_will_say_no_more_is_let_go_of_at_once() {
    let gateway = Gateway::start(BARE).await;
    let address = gateway.address();

    let mut asker = Raw::connect(address).await;
    asker.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asker.half_close().await;

    let mut nobody = Raw::connect(address).await;
    nobody.half_close().await;

    let mut middle = Raw::connect(address).await;
    middle.write(body_of(100).as_bytes()).await;
    middle.half_close().await;

    let mut socket = Raw::websocket(address).await;
    socket.half_close().await;

    for (what, raw) in [("asked", asker), ("said nothing", nobody), ("in a body", middle), ("a WebSocket", socket)] {
        let took = let_go(address, raw.address()).await;
        assert!(took < Duration::from_secs(3), "{what}: {took:?}");
    }
}

#[tokio::test]
async fn a_connection_that_idles_between_requests_is_let_go_of() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nidle_timeout = \"1s\"\n")).await;
    let address = gateway.address();
    let mut idle = Raw::connect(address).await;
    for _ in 0..3 {
        idle.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(idle.reply().await.status, 200);
    }
    let took = let_go(address, idle.address()).await;
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nbody_timeout = \"300ms\"\n")).await;
    let mut slow = Raw::connect(gateway.address()).await;
    slow.write(body_of(1000).as_bytes()).await;
    slow.reply().await.problem(408, "request_timeout");
    slow.hung_up().await;
}

#[tokio::test]
async fn a_thousand_silent_connections_keep_nobody_out() {
    let gateway = Gateway::start(BARE).await;
    let address = gateway.address();
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(Raw::connect(address).await);
    }
    let slowest = healthy_for(&gateway, Duration::from_secs(1)).await;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let before = gateway.usage().open_files;
    for raw in silent {
        let took = let_go(address, raw.address()).await;
        assert!(took < CLOSED_WITHIN + SLACK, "{took:?}");
    }
    let after = gateway.usage().open_files;
    assert!(before >= 1000 && after < 100, "{before} files were open, {after} are");
}

/// A connection that has just stalled, with what keeps it alive meanwhile.
struct Stalled {
    raw: Raw,
    since: Instant,
    /// Sent byte by byte for as long as it is taken.
    trickle: bool,
    /// Of the group that floods it.
    flood: Option<String>,
}

impl Stalled {
    fn now(raw: Raw) -> Self {
        Self { raw, since: Instant::now(), trickle: false, flood: None }
    }
}

/// How long a connection is open after it has stalled.
async fn measured(what: &'static str, stall: impl Future<Output = Stalled>) -> (&'static str, Duration) {
    let mut stalled = stall.await;
    let server = stalled.raw.peer();
    let client = stalled.raw.address();
    let mut looks = every(LOOK);
    let (mut last_byte, mut unsent) = (Instant::now(), 0);
    let http = Http::new(server);
    loop {
        looks.tick().await;
        let Some(end) = server_end(server, client).filter(|end| end.open) else { break };
        if end.unsent != unsent {
            // The kernels' buffers still fill: it is not stalled yet.
            (unsent, stalled.since) = (end.unsent, Instant::now());
        }
        if stalled.trickle && last_byte.elapsed() >= TRICKLE {
            stalled.raw.write_some(b"a");
            last_byte = Instant::now();
        }
        if let Some(group) = &stalled.flood {
            flood(&http, group).await;
        }
        if stalled.since.elapsed() > 3 * CLOSED_WITHIN {
            eprintln!("{what}: still open after {:?}", stalled.since.elapsed());
            return (what, stalled.since.elapsed());
        }
    }
    let took = stalled.since.elapsed();
    // A client gets a moment to read why; one that stalls does not use it.
    let_go(server, client).await;
    eprintln!("{what}: closed after {took:?}, let go of after {:?}", stalled.since.elapsed());
    (what, took)
}

async fn silent(address: SocketAddr) -> Stalled {
    Stalled::now(Raw::connect(address).await)
}

/// Sends a beginning, and then a byte now and then.
async fn trickled(address: SocketAddr, beginning: impl AsRef<[u8]>) -> Stalled {
    let mut raw = Raw::connect(address).await;
    raw.write(beginning.as_ref()).await;
    Stalled { trickle: true, ..Stalled::now(raw) }
}

/// Asks for more than all buffers hold, and reads none of it.
async fn unread_answers(address: SocketAddr) -> Stalled {
    let mut raw = Raw::narrow(address, 4096).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let sent = raw.write_some(requests.as_bytes());
    assert!(sent > 10_000, "the gateway's kernel takes some requests: {sent}");
    Stalled::now(raw)
}

/// Is sent more than all buffers hold, and reads none of it.
async fn unread_messages(address: SocketAddr) -> Stalled {
    let mut raw = Raw::narrow(address, 4096).await.upgraded(address).await;
    raw.send_frame(TEXT, true, br#"{"type":"subscribe","group":"flood"}"#).await;
    raw.frame().await.expect("subscribed");
    Stalled { flood: Some("flood".to_owned()), ..Stalled::now(raw) }
}

/// 640 KB at a time.
async fn flood(http: &Http, group: &str) {
    let message = json!({"type": "flood", "padding": "x".repeat(64 << 10)});
    for _ in 0..10 {
        http.group_send(group, &message).await;
    }
}

/// Waits until the gateway has let go of a connection; how long that was.
async fn let_go(server: SocketAddr, client: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut looks = every(LOOK);
    let gone = async {
        while server_end(server, client).is_some() {
            looks.tick().await;
        }
    };
    within_time(2 * CLOSED_WITHIN, "the gateway lets go of a connection", gone).await;
    started.elapsed()
}

/// Asks over HTTP and over a WebSocket again and again; the longest wait.
async fn healthy_for(gateway: &Gateway, time: Duration) -> Duration {
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut turns = every(LOOK);
    let http = gateway.http();
    let mut socket = Socket::subscribed(gateway, &["healthy"]).await;
    while started.elapsed() < time {
        turns.tick().await;
        let asked = Instant::now();
        let round = async {
            Socket::open(gateway).await;
            http.group_send("healthy", &json!({"type": "how.are.you"})).await;
            socket.message_of("how.are.you").await;
        };
        timeout(Duration::from_secs(10), round).await.expect("a healthy client is served");
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

/// The head of a request whose body is to have this length.
fn body_of(length: usize) -> String {
    format!("POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{{\"type\":\"")
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut turns = interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}
