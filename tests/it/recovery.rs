//! History: who vanishes and comes back within the window misses nothing; who comes back too late is told how much.
//!
//! `GROUPCAST_CHECK_SECONDS=600` lets the thousand clients go on for ten minutes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groupcast_tests::book::{Acknowledged, Book, Counts, position};
use groupcast_tests::chance::Chance;
use groupcast_tests::gateway::check_time;
use groupcast_tests::home::BARE;
use groupcast_tests::kernel::allow_many_files;
use groupcast_tests::reader::{Reader, Way};
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout_at};

#[tokio::test]
async fn a_thousand_clients_that_vanish_again_and_again_miss_nothing() {
    let time = check_time(24);
    let gateway = Gateway::start(&history_of("room.*", 1000, "1h")).await;
    let crowd = Crowd { groups: 10, clients: 1000, period: Duration::from_millis(200), time };
    let (counts, sent) = crowd.run(&gateway).await;
    eprintln!("{sent} messages, {counts:?}");
    assert_eq!((counts.refused, counts.told_lost, counts.gaps), (0, 0, 0), "the window was never left");
    assert!(counts.recovered > 2000 && counts.replayed > 10_000, "too little happened: {counts:?}");
}

#[tokio::test]
async fn who_comes_back_too_late_is_told_how_much_is_lost() {
    for (messages, age) in [(5, "1h"), (100_000, "500ms")] {
        let gateway = Gateway::start(&history_of("room.*", messages, age)).await;
        let crowd = Crowd { groups: 2, clients: 40, period: Duration::from_millis(50), time: Duration::from_secs(8) };
        let (counts, sent) = crowd.run(&gateway).await;
        eprintln!("{messages} messages for {age}: {sent} messages, {counts:?}");
        assert_eq!((counts.recovered, counts.gaps), (0, 0), "two seconds are more than {messages} messages or {age}");
        assert!(counts.refused > 40 && counts.told_lost > counts.refused * 20, "{counts:?}");
    }
}

#[tokio::test]
async fn a_restart_is_a_new_epoch_and_is_said() {
    let gateway = Gateway::start(&history_of("room.*", 1000, "1h")).await;
    let http = gateway.http();
    let mut reader = Reader::join(gateway.address(), "room.a", Way::Command).await;
    for n in 0..10 {
        http.group_send("room.a", &tick(n)).await;
        reader.read().await;
    }
    let after = reader.book.after();
    let home = gateway.kill().await;
    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    // The new process has as many messages, so that only the epoch can tell.
    for n in 0..20 {
        http.group_send("room.a", &tick(100 + n)).await;
    }
    let path = format!("/ws?group=room.a&after={after}");
    let mut socket = Socket::open_at(&gateway, &path, &[]).await;
    let subscribed = socket.expect("subscribed").await;
    assert_eq!(
        (&subscribed["recovered"], &subscribed["reason"]),
        (&json!(false), &json!("epoch_changed")),
        "{subscribed}"
    );
    let (epoch, offset) = position(&subscribed);
    assert_ne!(epoch, reader.book.position().0);
    let accepted = http.group_send("room.a", &tick(200)).await;
    assert_eq!(position(&accepted), (epoch, offset + 1), "the position that was told is the one to go on from");
    let push = socket.expect("message").await;
    assert_eq!(
        (&push["offset"], &push["message"]["n"]),
        (&json!(offset + 1), &json!(200)),
        "nothing is replayed: {push}"
    );
}

#[tokio::test]
async fn a_position_ahead_of_the_group_is_said() {
    let gateway = Gateway::start(&history_of("room.*", 1000, "1h")).await;
    let http = gateway.http();
    let (epoch, offset) = position(&http.group_send("room.a", &tick(0)).await);
    let mut socket = Socket::open(&gateway).await;
    let after = json!({"epoch": epoch, "offset": offset + 5});
    let subscribed = socket.command(json!({"type": "subscribe", "group": "room.a", "after": after})).await;
    assert_eq!((&subscribed["recovered"], &subscribed["reason"]), (&json!(false), &json!("ahead")), "{subscribed}");
    assert_eq!(position(&subscribed), (epoch, offset), "{subscribed}");
    http.group_send("room.a", &tick(1)).await;
    assert_eq!(socket.expect("message").await["message"]["n"], 1, "nothing is replayed");
}

#[tokio::test]
async fn the_edges_of_the_window_are_exact() {
    const KEPT: u64 = 10;
    let gateway = Gateway::start(&history_of("room.*", KEPT, "1h")).await;
    let http = gateway.http();
    let mut late = Reader::join(gateway.address(), "room.a", Way::Address).await;
    late.vanish(false);
    let (epoch, start) = (late.book.position().0.to_owned(), late.book.position().1);
    for n in 0..30 {
        let accepted = position(&http.group_send("room.a", &tick(n)).await);
        assert_eq!(accepted, (epoch.clone(), start + 1 + n), "offsets of a group have no holes");
    }
    let head = start + 30;
    for (behind, recovered) in [(0, true), (1, true), (KEPT, true), (KEPT + 1, false), (30, false)] {
        let path = format!("/ws?group=room.a&after={epoch}:{}", head - behind);
        let mut socket = Socket::open_at(&gateway, &path, &[]).await;
        let subscribed = socket.expect("subscribed").await;
        assert_eq!(subscribed["recovered"], recovered, "{behind} behind: {subscribed}");
        assert_eq!(position(&subscribed).1, head, "{subscribed}");
        let replayed = if recovered { behind } else { 0 };
        for offset in head - replayed + 1..=head {
            assert_eq!(socket.expect("message").await["offset"], offset, "{behind} behind");
        }
        assert_eq!(socket.pending().await, [] as [Value; 0], "{behind} behind: and nothing else");
    }
    assert!(!late.rejoin().await);
    assert_eq!(late.counts().told_lost, 30);
}

#[tokio::test]
async fn a_long_absence_is_caught_up_while_messages_flow() {
    const MISSED: u64 = 5000;
    let gateway = Gateway::start(&history_of("room.*", 20_000, "1h")).await;
    let http = gateway.http();
    for way in [Way::Address, Way::Command, Way::Events] {
        let group = format!("room.{way:?}");
        let mut reader = Reader::join(gateway.address(), &group, way).await;
        // So that an event stream has an id.
        let mut acknowledged = batches(&http, &group, 0..1, 200).await;
        reader.read().await;
        reader.vanish(true);
        acknowledged.extend(batches(&http, &group, 1..MISSED, 200).await);
        assert!(reader.rejoin().await, "{way:?}");
        let (start, last) = (reader.book.position().1 - 1, 2 * MISSED);
        let (more, ()) = tokio::join!(batches(&http, &group, MISSED..last, 200), reader.read_to(start + last));
        acknowledged.extend(more);
        check(&reader.book, &acknowledged);
        let counts = reader.counts();
        assert_eq!((counts.told_lost, counts.gaps), (0, 0), "{way:?}: {counts:?}");
        assert!(counts.replayed >= MISSED - 1, "{way:?}: {counts:?}");
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_in_a_group_with_history_catches_up_without_a_gap() {
    const SENT: u64 = 4000;
    let patient = "[limits]\nlog_bytes = \"256KiB\"\nwrite_timeout = \"80s\"\nping_interval = \"80s\"\n";
    let gateway = Gateway::start(&format!("{}{patient}", history_of("room.*", SENT, "1h"))).await;
    let mut sleeper = Socket::narrow(&gateway, 4096).await;
    let subscribed = sleeper.command(json!({"type": "subscribe", "group": "room.a"})).await;
    let mut book = Book::open(&subscribed);
    // 16 MB: far more than the kernels' buffers and the log hold.
    let acknowledged = batches(&gateway.http(), "room.a", 0..SENT, 4096).await;
    let everything = async {
        while book.counts.received < SENT {
            book.take(&sleeper.next_text().await.expect("it is open"));
        }
    };
    within_time(Duration::from_secs(60), "the sleeper catches up", everything).await;
    check(&book, &acknowledged);
    assert_eq!(book.counts, Counts { received: SENT, ..Counts::default() }, "no gap");
}

/// Clients that vanish and come back, and publishers at a steady rate.
struct Crowd {
    groups: usize,
    /// In all groups together.
    clients: usize,
    /// Between two messages of a group.
    period: Duration,
    time: Duration,
}

/// How a group has ended: its position, and what was acknowledged before.
type Ended = Arc<(String, u64, Acknowledged)>;

impl Crowd {
    /// How long a client is away, and how long it is there before.
    const AWAY: Duration = Duration::from_secs(2);
    const THERE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));

    /// Runs, and checks the book of each client; all counts, and how many messages were sent.
    async fn run(&self, gateway: &Gateway) -> (Counts, usize) {
        allow_many_files();
        let mut chance = Chance::new();
        let end = Instant::now() + self.time;
        let mut publishers = JoinSet::new();
        let mut clients = JoinSet::new();
        for group in 0..self.groups {
            let (ended, over) = watch::channel(None);
            let name = format!("room.{group}");
            publishers.spawn(publish_until(gateway.http(), name.clone(), self.period, end, ended));
            for n in 0..self.clients / self.groups {
                let client = Reader::join(gateway.address(), &name, way(n)).await;
                clients.spawn(come_and_go(client, chance.fork(), end, over.clone()));
            }
        }
        let deadline = self.time + Duration::from_secs(40);
        let (sent, counts) =
            tokio::join!(publishers.join_all(), within_time(deadline, "all is read", clients.join_all()));
        (counts.into_iter().sum(), sent.into_iter().sum())
    }
}

/// Publishes until the end, and says then what was acknowledged; how much that was.
async fn publish_until(
    http: Http,
    group: String,
    period: Duration,
    end: Instant,
    ended: watch::Sender<Option<Ended>>,
) -> usize {
    let mut acknowledged = Acknowledged::new();
    let mut turns = interval(period);
    let mut head = None;
    while Instant::now() < end {
        turns.tick().await;
        let n = acknowledged.len() as u64;
        let (epoch, offset) = position(&http.group_send(&group, &tick(n)).await);
        assert_eq!(acknowledged.insert(offset, n), None, "an offset was given twice: {offset}");
        head = Some((epoch, offset));
    }
    let (epoch, offset) = head.expect("there was time for one");
    let sent = acknowledged.len();
    // Without readers there is nobody to tell.
    let _ = ended.send(Some(Arc::new((epoch, offset, acknowledged))));
    sent
}

/// One client: reads, vanishes, comes back, until the group has ended and everything was read.
async fn come_and_go(
    mut reader: Reader,
    mut chance: Chance,
    end: Instant,
    mut over: watch::Receiver<Option<Ended>>,
) -> Counts {
    loop {
        let leave = tokio::time::Instant::now() + chance.between(Crowd::THERE.0, Crowd::THERE.1);
        while timeout_at(leave, reader.read()).await.is_ok() {}
        // Whoever left now would miss less than an absence's worth.
        if Instant::now() + Crowd::AWAY > end {
            break;
        }
        reader.vanish(chance.coin());
        // Being away is what is tested.
        sleep(Crowd::AWAY).await;
        reader.rejoin().await;
    }
    let ended = loop {
        tokio::select! {
            () = reader.read() => {}
            ended = over.wait_for(Option::is_some) => break ended.expect("the publisher has said it").clone(),
        }
    };
    let (epoch, head, acknowledged) = ended.as_deref().expect("it was waited for");
    reader.read_to(*head).await;
    reader.book.check(epoch, *head, acknowledged);
    reader.counts()
}

/// One of ten clients is a browser's event stream, the others come back in turn by address and by command.
fn way(n: usize) -> Way {
    match n % 10 {
        0 => Way::Events,
        n if n % 2 == 0 => Way::Address,
        _ => Way::Command,
    }
}

/// All that was acknowledged is in the book, each message where it belongs.
fn check(book: &Book, acknowledged: &Acknowledged) {
    let head = *acknowledged.keys().max().expect("there are some");
    book.check(book.position().0, head, acknowledged);
}

/// Publishes numbered messages of a size in batches; what was acknowledged.
async fn batches(http: &Http, group: &str, numbers: std::ops::Range<u64>, bytes: usize) -> Acknowledged {
    const BATCH: usize = 10;
    let padding = "x".repeat(bytes);
    let numbers: Vec<u64> = numbers.collect();
    let mut acknowledged = Acknowledged::new();
    for batch in numbers.chunks(BATCH) {
        let message = |n: &u64| json!({"group": group, "message": {"n": n, "type": "tick", "padding": padding}});
        let all: Vec<Value> = batch.iter().map(message).collect();
        let sent = http.post("/v1/send", &json!(all)).await.expect(202);
        for (result, n) in sent["results"].as_array().expect("a list").iter().zip(batch) {
            acknowledged.insert(position(result).1, *n);
        }
    }
    acknowledged
}

fn tick(n: u64) -> Value {
    json!({"n": n, "type": "tick"})
}

fn history_of(name: &str, messages: u64, age: &str) -> String {
    format!("{BARE}\n[[group]]\nname = \"{name}\"\nhistory = {{ messages = {messages}, age = \"{age}\" }}\n\n")
}
