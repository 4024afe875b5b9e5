//! Connections that stall in one way or another: the gateway lets go of each in time, and serves everybody else meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use groupcast_tests::home::BARE;
use groupcast_tests::kernel::{ServerEnd, server_ends};
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Http, Raw, Socket};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// From the moment a connection stalls, on default settings.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// For a busy machine and for how often we look.
const SLACK: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(100);
/// How often a client that trickles sends a byte: often enough that no gap between bytes tells it.
const TRICKLE: Duration = Duration::from_millis(500);
const TEXT: u8 = 0x81;

#[tokio::test]
async fn whatever_way_a_connection_stalls_the_gateway_lets_go_of_it_and_others_notice_nothing() {
    let gateway = Gateway::start(BARE).await;
    let address = gateway.address();
    let kinds = vec![
        silent("nothing is sent", address).await,
        trickled("a head is trickled", address, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ").await,
        trickled("a request line is trickled", address, "GET /").await,
        trickled("a body is trickled", address, body_of(100_000)).await,
        trickled("half a WebSocket handshake", address, "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nX: ").await,
        unread_answers("answers are not read", address).await,
        unread_messages("a WebSocket is not read", address, "flood").await,
        unread_stream("an event stream is not read", address, "flood").await,
    ];
    let flood = flooded(gateway.http(), "flood", CLOSED_WITHIN);
    let healthy = healthy_for(&gateway, CLOSED_WITHIN + SLACK);
    let (late, slowest, ()) = tokio::join!(late(address, kinds), healthy, flood);
    assert!(late.is_empty(), "open longer than {CLOSED_WITHIN:?}: {late:?}");
    assert!(slowest < Duration::from_secs(2), "somebody healthy waited {slowest:?}");
}

#[tokio::test]
async fn whoever_stalls_before_or_after_shaking_hands_for_tls_is_let_go_of() {
    let gateway = Gateway::start_secure(BARE).await;
    let address = gateway.address();
    // The head of a record with a ClientHello of 512 bytes.
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03];
    let kinds = vec![
        silent("no handshake", address).await,
        trickled("a handshake is trickled", address, hello).await,
        begun("its first byte is all", address, [hello[0]]).await,
    ];
    let late = late(address, kinds).await;
    assert!(late.is_empty(), "open longer than {CLOSED_WITHIN:?}: {late:?}");
    gateway.http().get("/healthz").await.expect(200);
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
    let mut looks = every(LOOK);
    let all_gone = async {
        while silent.iter().any({
            let ends = server_ends(address);
            move |raw| ends.contains_key(&raw.address().port())
        }) {
            looks.tick().await;
        }
    };
    within_time(CLOSED_WITHIN + SLACK, "all are let go of", all_gone).await;
    let after = gateway.usage().open_files;
    assert!(before >= 1000 && after < 100, "{before} files were open, {after} are");
}

/// A connection that has just stalled, with what keeps it alive meanwhile.
struct Stalled {
    what: &'static str,
    raw: Raw,
    since: Instant,
    /// As the kernel of the gateway has it.
    unsent: u64,
    /// Sent byte by byte for as long as it is taken.
    trickle: bool,
    closed: Option<Duration>,
}

impl Stalled {
    fn now(what: &'static str, raw: Raw) -> Self {
        Self { what, raw, since: Instant::now(), unsent: 0, trickle: false, closed: None }
    }

    /// Looks at the gateway's end; whether its process still holds it.
    fn look(&mut self, end: Option<&ServerEnd>) -> bool {
        let waits = self.since.elapsed();
        match end {
            Some(end) if end.open && end.unsent != self.unsent => {
                // The kernels' buffers still fill: it is not stalled yet.
                (self.unsent, self.since) = (end.unsent, Instant::now());
            }
            Some(end) if end.open => {}
            // It gets a moment to read why, and does not use it.
            Some(_) => _ = self.closed.get_or_insert(waits),
            None => {
                let closed = *self.closed.get_or_insert(waits);
                eprintln!("{}: closed after {closed:?}, let go of after {waits:?}", self.what);
            }
        }
        end.is_some()
    }
}

/// Waits until the gateway has let go of all of them; those that were open for too long, with the time.
async fn late(server: SocketAddr, mut stalled: Vec<Stalled>) -> Vec<(&'static str, Duration)> {
    let mut looks = every(LOOK);
    let (started, mut last_byte) = (Instant::now(), Instant::now());
    let mut done = Vec::new();
    while !stalled.is_empty() {
        looks.tick().await;
        let ends = server_ends(server);
        done.extend(stalled.extract_if(.., |one| !one.look(ends.get(&one.raw.address().port()))));
        if last_byte.elapsed() >= TRICKLE {
            stalled.iter_mut().filter(|one| one.trickle).for_each(|one| _ = one.raw.write_some(b"a"));
            last_byte = Instant::now();
        }
        if started.elapsed() > 4 * CLOSED_WITHIN {
            break;
        }
    }
    // What was never closed is late, too.
    let took = |one: &Stalled| (one.what, one.closed.unwrap_or_else(|| one.since.elapsed()));
    done.iter().chain(&stalled).map(took).filter(|(_, took)| *took > CLOSED_WITHIN + SLACK).collect()
}

async fn silent(what: &'static str, address: SocketAddr) -> Stalled {
    Stalled::now(what, Raw::connect(address).await)
}

/// Sends a beginning, and nothing else.
async fn begun(what: &'static str, address: SocketAddr, beginning: impl AsRef<[u8]>) -> Stalled {
    let mut raw = Raw::connect(address).await;
    raw.write(beginning.as_ref()).await;
    Stalled::now(what, raw)
}

/// Sends a beginning, and then a byte now and then.
async fn trickled(what: &'static str, address: SocketAddr, beginning: impl AsRef<[u8]>) -> Stalled {
    Stalled { trickle: true, ..begun(what, address, beginning).await }
}

/// Asks for more than all buffers hold, and reads none of it.
async fn unread_answers(what: &'static str, address: SocketAddr) -> Stalled {
    let mut raw = Raw::narrow(address, 4096).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let sent = raw.write_some(requests.as_bytes());
    assert!(sent > 10_000, "the gateway's kernel takes some requests: {sent}");
    Stalled::now(what, raw)
}

/// Is sent more than all buffers hold, and reads none of it.
async fn unread_messages(what: &'static str, address: SocketAddr, group: &str) -> Stalled {
    let mut raw = Raw::narrow(address, 4096).await.upgraded(address).await;
    raw.send_frame(TEXT, true, json!({"type": "subscribe", "group": group}).to_string().as_bytes()).await;
    raw.frame().await.expect("subscribed");
    Stalled::now(what, raw)
}

/// The same, as Server-Sent Events.
async fn unread_stream(what: &'static str, address: SocketAddr, group: &str) -> Stalled {
    let mut raw = Raw::narrow(address, 4096).await;
    raw.write(format!("GET /v1/events?group={group} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    assert_eq!(raw.reply().await.status, 200);
    Stalled::now(what, raw)
}

/// Sends large messages to a group for as long as it takes, more than all buffers hold at first.
async fn flooded(http: Http, group: &str, time: Duration) {
    let message = json!({"type": "flood", "padding": "x".repeat(60 << 10)});
    for _ in 0..200 {
        http.group_send(group, &message).await;
    }
    let started = Instant::now();
    let mut turns = every(Duration::from_millis(250));
    while started.elapsed() < time {
        turns.tick().await;
        http.group_send(group, &message).await;
    }
}

/// Waits until the gateway has let go of a connection; how long that was.
async fn let_go(server: SocketAddr, client: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut looks = every(LOOK);
    let gone = async {
        while server_ends(server).contains_key(&client.port()) {
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
