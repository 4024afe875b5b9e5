//! More than somebody can take or may ask: he alone notices, he is told, and memory stays bounded.

use std::ops::Range;
use std::time::Duration;

use futures_util::SinkExt;
use groupcast_tests::home::BARE;
use groupcast_tests::ledger::Ledger;
use groupcast_tests::socket::End;
use groupcast_tests::wait::{eventually, within, within_time};
use groupcast_tests::{Gateway, Http, Raw, Socket};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

const TEXT: u8 = 0x81;
const BEGIN: u8 = 0x01;
const CONTINUE: u8 = 0x00;
const END: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// A client that sleeps is neither closed for not reading nor for not answering pings.
const PATIENT: &str = "write_timeout = \"80s\"\nping_interval = \"80s\"\n";
/// Who breaks a rule is closed at once.
const CLOSED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn one_sleeper_among_a_hundred_readers_costs_only_himself() {
    const READERS: usize = 99;
    const SENT: u64 = 12_000;
    let config = format!("{BARE}\n[limits]\nlog_bytes = \"1MiB\"\n{PATIENT}");
    let gateway = Gateway::start(&config).await;
    let mut sleeper = Socket::narrow(&gateway, 4096).await;
    sleeper.subscribe("ticks").await;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let socket = Socket::subscribed(&gateway, &["ticks"]).await;
        readers.spawn(follow(socket, SENT));
    }
    publish(&gateway.http(), "ticks", 0..100, 1024).await;
    let before = gateway.usage().resident_bytes;
    // 12 MB: more than the kernels' buffers and the log hold for somebody who does not read.
    publish(&gateway.http(), "ticks", 100..SENT, 1024).await;
    for ledger in within_time(Duration::from_secs(60), "the readers have everything", readers.join_all()).await {
        assert_eq!((ledger.received(), ledger.missed()), (SENT, (0, 0)), "the others notice nothing");
    }
    let grown = gateway.usage().resident_bytes.saturating_sub(before);
    eprintln!("with a sleeper, {} KiB more memory are used", grown >> 10);
    assert!(grown < 16 << 20, "a sleeper costs a log's bound, not what he missed: {} KiB", grown >> 10);

    let ledger = within_time(Duration::from_secs(60), "the sleeper catches up", follow(sleeper, SENT)).await;
    let (missed, gaps) = ledger.missed();
    assert_eq!(ledger.received() + missed, SENT, "before + missed + after = sent");
    assert!(missed > 0 && gaps > 0 && ledger.received() > 0, "{missed} missed in {gaps} gaps");
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_closed_with_3008_and_its_log_is_freed() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nwrite_timeout = \"1s\"\n")).await;
    let mut deaf = Socket::narrow(&gateway, 4096).await;
    deaf.subscribe("flood").await;
    let http = gateway.http();
    let left = || async {
        publish(&http, "flood", 0..100, 60 << 10).await;
        (http.get("/v1/groups/flood").await.expect(200)["members"] == 0).then_some(())
    };
    eventually("the deaf member is gone", left).await;
    // It reads again, and finds what the kernels had taken, and an end.
    let end = deaf.end().await;
    assert!(matches!(end, End::Closed(3008) | End::Unclean), "{end:?}");
}

#[tokio::test]
async fn more_commands_than_allowed_are_refused_one_by_one_and_the_connection_lives() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\ncommands_per_second = 20\n")).await;
    let mut greedy = Socket::open(&gateway).await;
    let mut modest = Socket::subscribed(&gateway, &["g"]).await;
    let sends = 200;
    for n in 0..sends {
        let send = json!({"type": "group_send", "id": n, "group": "g", "message": {"type": "tick", "n": n}});
        greedy.stream().feed(Message::text(send.to_string())).await.expect("the socket takes it");
    }
    greedy.stream().flush().await.expect("the socket takes it");
    let mut accepted = Vec::new();
    for n in 0..sends {
        let answer = greedy.next().await;
        assert_eq!(answer["id"], n, "each is answered, in order: {answer}");
        if answer["type"] == "accepted" {
            accepted.push(n);
            continue;
        }
        assert_eq!((&answer["code"], &answer["retriable"]), (&json!("rate_limited"), &json!(true)), "{answer}");
    }
    // A burst of two seconds' worth, and what came in meanwhile.
    assert!((40..120).contains(&accepted.len()), "{} of {sends} were accepted", accepted.len());
    for n in &accepted {
        assert_eq!(modest.message().await["n"], *n, "what was refused is not sent");
    }
    let again = || async { (gateway.http().get("/healthz").await.status == 200).then_some(()) };
    eventually("others are served", again).await;
    assert_eq!(modest.pending().await, [] as [Value; 0]);
    // A second later there is room again.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while greedy.command(json!({"type": "subscribe", "group": "later"})).await["type"] != "subscribed" {
        assert!(tokio::time::Instant::now() < deadline, "no room comes back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn floods_of_control_frames_are_closed_with_1008() {
    let gateway = Gateway::start(BARE).await;
    let mut bystander = Socket::subscribed(&gateway, &["calm"]).await;
    for (what, first, payload) in [("pings", PING, &b"x"[..]), ("pongs", PONG, b"")] {
        let mut raw = Raw::websocket(gateway.address()).await;
        for _ in 0..2000 {
            raw.send_frame(first, true, payload).await;
        }
        let end = within_time(CLOSED, what, raw.end()).await;
        assert_eq!(end, End::Closed(1008), "{what}");
    }
    gateway.http().group_send("calm", &json!({"type": "still.here"})).await;
    assert_eq!(bystander.message().await["type"], "still.here");
}

#[tokio::test]
async fn a_few_control_frames_are_everybodys_right() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    for n in 0..15_u8 {
        raw.send_frame(PING, true, &[n]).await;
    }
    for n in 0..15_u8 {
        assert_eq!(raw.frame().await, Some((0xA, vec![n])));
    }
}

#[tokio::test]
async fn a_message_has_at_most_128_fragments() {
    let gateway = Gateway::start(BARE).await;
    let check = async |fragments: usize| {
        let mut raw = Raw::websocket(gateway.address()).await;
        raw.send_frame(BEGIN, true, br#"{"type":"#).await;
        for _ in 0..fragments - 2 {
            // An empty one would count as a control frame, too.
            raw.send_frame(CONTINUE, true, b" ").await;
        }
        raw.send_frame(END, true, br#""ping","id":3}"#).await;
        within(&format!("{fragments} fragments are answered"), raw.frame()).await
    };
    assert_eq!(check(128).await, Some((1, br#"{"type":"pong","id":3}"#.to_vec())));
    let (opcode, payload) = check(129).await.expect("a close comes");
    assert_eq!((opcode, &payload[..2]), (8, &1008_u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn a_message_that_never_ends_is_closed_in_time() {
    let gateway = Gateway::start(BARE).await;
    let mut raw = Raw::websocket(gateway.address()).await;
    raw.send_frame(BEGIN, true, br#"{"type":"#).await;
    let end = within_time(Duration::from_secs(12), "a message without an end is given up", raw.end()).await;
    assert_eq!(end, End::Closed(1008));
}

#[tokio::test]
async fn subscriptions_of_a_connection_are_limited() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nsubscriptions_per_connection = 3\n")).await;
    let mut socket = Socket::subscribed(&gateway, &["a", "b", "c"]).await;
    socket.refused(json!({"type": "subscribe", "group": "d"}), "limit_exceeded").await;
    let counted = gateway.http().get("/metrics").await.text();
    for line in ["refusals_total{code=\"limit_exceeded\"} 1", "limited_total{limit=\"subscriptions_per_connection\"} 1"]
    {
        assert!(counted.contains(&format!("\ngroupcast_{line}\n")), "{line} is not in\n{counted}");
    }
    let answer = socket.command(json!({"type": "unsubscribe", "group": "a"})).await;
    assert_eq!(answer["type"], "unsubscribed", "{answer}");
    socket.subscribe("d").await;
    let refused = Socket::dial(gateway.address(), "/ws?group=a&group=b&group=c&group=d", &[], None).await;
    let reply = refused.expect_err("four are too many");
    assert!((400..500).contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn connections_are_limited_in_all_and_the_limit_is_told() {
    check_connection_limit("connections", 503, "overloaded").await;
}

#[tokio::test]
async fn connections_of_an_address_are_limited_and_the_limit_is_told() {
    check_connection_limit("connections_per_address", 429, "rate_limited").await;
}

/// As many as are allowed are served; one more is told so, and let in when another has gone.
async fn check_connection_limit(key: &str, status: u16, code: &str) {
    const ALLOWED: usize = 8;
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\n{key} = {ALLOWED}\n")).await;
    let address = gateway.address();
    // The connection that asked whether the gateway is ready may still be there; then it is one of them.
    let mut served: Vec<Raw> = Vec::new();
    while served.len() < ALLOWED {
        let raw = Raw::connect(address).await;
        if let Ok(raw) = try_upgrade(raw).await {
            served.push(raw);
        }
    }
    for _ in 0..3 {
        let reply = try_upgrade(Raw::connect(address).await).await.expect_err("one too many");
        reply.problem(status, code);
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    for raw in &mut served {
        raw.send_frame(TEXT, true, br#"{"type":"ping"}"#).await;
        assert_eq!(raw.frame().await.map(|(opcode, _)| opcode), Some(1), "who is in, stays in");
    }
    drop(served.pop());
    let let_in = || async { try_upgrade(Raw::connect(address).await).await.ok() };
    eventually("there is a place again", let_in).await;
}

/// Opens a WebSocket, or tells how that was refused.
async fn try_upgrade(mut raw: Raw) -> Result<Raw, groupcast_tests::Reply> {
    let head = groupcast_tests::raw::handshake_head(raw.peer(), &[]);
    raw.write(head.as_bytes()).await;
    let reply = raw.reply().await;
    if reply.status != 101 {
        return Err(reply);
    }
    raw.frame().await.expect("a welcome comes");
    Ok(raw)
}

/// Reads until all is accounted for, as received or as missed.
async fn follow(mut socket: Socket, sent: u64) -> Ledger {
    let mut ledger = Ledger::default();
    while ledger.position() < sent {
        let frame = socket.next_text().await;
        let frame = frame.unwrap_or_else(|| panic!("the socket ended at message {}", ledger.position()));
        ledger.take(&frame);
    }
    ledger
}

/// Publishes in batches, which are as good as one by one and much faster.
async fn publish(http: &Http, group: &str, numbers: Range<u64>, bytes: usize) {
    const BATCH: usize = 10;
    let padding = "x".repeat(bytes);
    let numbers: Vec<u64> = numbers.collect();
    for batch in numbers.chunks(BATCH) {
        let message = |n: &u64| json!({"group": group, "message": {"n": n, "type": "tick", "padding": padding}});
        let batch: Vec<Value> = batch.iter().map(message).collect();
        let sent = http.post("/v1/send", &json!(batch)).await.expect(202);
        let results = sent["results"].as_array().expect("a list");
        assert!(results.iter().all(|result| result["status"] == 202), "{sent}");
    }
}
