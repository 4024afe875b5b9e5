//! Many messages to many readers: complete and in order, or the loss is told.

use std::time::{Duration, Instant};

use groupcast_tests::home::BARE;
use groupcast_tests::ledger::Ledger;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::json;
use tokio::task::JoinSet;

const MESSAGES: u64 = 10_000;
const READERS: usize = 100;

#[tokio::test]
async fn ten_thousand_messages_reach_a_hundred_readers_complete_and_in_order() {
    let gateway = Gateway::start(BARE).await;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let socket = Socket::subscribed(&gateway, &["ticks"]).await;
        readers.spawn(follow(socket, MESSAGES));
    }
    let started = Instant::now();
    let http = gateway.http();
    // Each answer is awaited, so a reader that keeps up can miss nothing.
    for n in 0..MESSAGES {
        let accepted = http.group_send("ticks", &json!({"type": "tick", "n": n})).await;
        assert_eq!(accepted["members"], READERS, "{accepted}");
    }
    let published = started.elapsed();
    let ledgers = within_time(Duration::from_secs(60), "every reader has everything", readers.join_all()).await;
    eprintln!("published in {published:?}, all read after {:?}", started.elapsed());
    for ledger in ledgers {
        assert_eq!((ledger.received(), ledger.missed()), (MESSAGES, (0, 0)));
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_is_told_what_it_missed_and_the_others_notice_nothing() {
    const SENT: u64 = 5000;
    let config = format!("{BARE}\n[limits]\nlog_bytes = \"256KiB\"\nwrite_timeout = \"80s\"\n");
    let gateway = Gateway::start(&config).await;
    let mut sleeper = Socket::narrow(&gateway, 4096).await;
    sleeper.subscribe("ticks").await;
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let socket = Socket::subscribed(&gateway, &["ticks"]).await;
        readers.spawn(follow(socket, SENT));
    }
    // 20 MB: more than the kernel's buffers and the group's log can hold for somebody who does not read.
    publish(&gateway.http(), "ticks", SENT, 4096).await;
    let awake = within_time(Duration::from_secs(60), "the readers have everything", readers.join_all()).await;
    for ledger in awake {
        assert_eq!((ledger.received(), ledger.missed()), (SENT, (0, 0)), "the others notice nothing");
    }

    let ledger = within_time(Duration::from_secs(60), "the sleeper catches up", follow(sleeper, SENT)).await;
    let (missed, gaps) = ledger.missed();
    assert_eq!(ledger.received() + missed, SENT, "before + missed + after = sent");
    assert!(missed > 0 && gaps > 0, "a reader that slept through 20 MB has missed something");
    assert!(ledger.received() > 0);
}

#[tokio::test]
async fn a_gap_says_which_group_and_why() {
    let config = format!("{BARE}\n[limits]\nlog_bytes = \"64KiB\"\nwrite_timeout = \"80s\"\n");
    let gateway = Gateway::start(&config).await;
    let mut sleeper = Socket::narrow(&gateway, 4096).await;
    sleeper.subscribe("loud").await;
    sleeper.subscribe("quiet").await;
    let http = gateway.http();
    publish(&http, "loud", 2500, 8192).await;
    http.group_send("quiet", &json!({"type": "still.here"})).await;
    let (mut gap, mut heard) = (None, false);
    while gap.is_none() || !heard {
        let frame = sleeper.next().await;
        heard |= frame["group"] == "quiet" && frame["type"] == "message";
        if frame["type"] == "gap" {
            gap = Some(frame);
        }
    }
    let gap = gap.expect("the loop ended");
    assert_eq!((&gap["group"], &gap["reason"]), (&json!("loud"), &json!("slow_consumer")), "{gap}");
    assert!(gap["missed"].as_u64().is_some_and(|missed| missed > 0), "{gap}");
}

#[tokio::test]
async fn publishers_over_websocket_and_http_reach_the_same_group() {
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["both"]).await;
    let mut publisher = Socket::open(&gateway).await;
    let http = gateway.http();
    for n in 0..50 {
        let message = json!({"type": "tick", "n": n});
        if n % 2 == 0 {
            http.group_send("both", &message).await;
        } else {
            let accepted = publisher.command(json!({"type": "group_send", "group": "both", "message": message})).await;
            assert_eq!((&accepted["type"], &accepted["members"]), (&json!("accepted"), &json!(1)), "{accepted}");
        }
    }
    for n in 0..50 {
        assert_eq!(reader.message().await, json!({"type": "tick", "n": n}));
    }
}

#[tokio::test]
async fn order_holds_for_each_sender_when_many_send_at_once() {
    const SENDERS: u64 = 8;
    const EACH: u64 = 200;
    let gateway = Gateway::start(BARE).await;
    let mut reader = Socket::subscribed(&gateway, &["many"]).await;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let http = gateway.http();
        senders.spawn(async move {
            for n in 0..EACH {
                http.group_send("many", &json!({"type": "tick", "sender": sender, "n": n})).await;
            }
        });
    }
    let mut next = [0; SENDERS as usize];
    for _ in 0..SENDERS * EACH {
        let message = reader.message().await;
        let sender = message["sender"].as_u64().expect("a number") as usize;
        assert_eq!(message["n"], next[sender], "of sender {sender}");
        next[sender] += 1;
    }
    senders.join_all().await;
    assert_eq!(reader.pending().await.len(), 0);
}

#[tokio::test]
async fn shards_share_a_group() {
    let config = BARE.replace("data_dir", "shards = 3\ndata_dir");
    let gateway = Gateway::start(&config).await;
    let mut readers = Vec::new();
    for _ in 0..9 {
        readers.push(Socket::subscribed(&gateway, &["wide"]).await);
    }
    let http = gateway.http();
    for n in 0..100 {
        assert_eq!(http.group_send("wide", &json!({"type": "tick", "n": n})).await["members"], 9);
    }
    for mut reader in readers {
        for n in 0..100 {
            assert_eq!(reader.message().await["n"], n);
        }
        assert_eq!(reader.pending().await.len(), 0);
    }
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

async fn publish(http: &Http, group: &str, messages: u64, bytes: usize) {
    let padding = "x".repeat(bytes);
    for n in 0..messages {
        http.group_send(group, &json!({"n": n, "type": "tick", "padding": padding})).await;
    }
}
