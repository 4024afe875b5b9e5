//! NATS as the broker: the list that every broker passes, and what is NATS's own. Starts servers of its own.

// Shared with the tests of the gateway, which use more of them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/certificate.rs"]
mod certificate;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/daemon.rs"]
mod daemon;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/proxy.rs"]
mod proxy;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/src/nats.rs"]
mod server;

#[path = "nats/django_dialect.rs"]
mod django_dialect;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use certificate::Certificate;
use groupcast_channel_layer::HistoryRule;
use groupcast_channel_layer::broker::contract::{self, Node};
use groupcast_channel_layer::broker::dropped::Reason;
use groupcast_channel_layer::broker::nats::{NatsBroker, NatsConfig, SettingsError};
use groupcast_channel_layer::broker::{Ask, Broker, BrokerEvent, Kept, Level, Publication, WhereIs};
use groupcast_channel_layer::contract::{group, message};
use groupcast_protocol::{GroupName, Message, NodeId, Position, TraceContext};
use proxy::{Fault, Proxy};
use server::Nats;
use tokio::time::timeout;

#[tokio::test]
async fn keeps_the_contract() {
    let server = Nats::start_jetstream("");
    let (server, number) = (&server, AtomicUsize::new(0));
    contract::run(|nodes| {
        // Streams of their own for each test: nothing has to be emptied.
        let prefix = format!("t{}", number.fetch_add(1, Ordering::Relaxed));
        async move { connect(nodes, &NatsConfig { prefix, ..config(server) }) }
    })
    .await;
}

#[tokio::test]
async fn many_who_send_to_one_group_are_all_numbered() {
    let server = Nats::start_jetstream("");
    let mut nodes = connect(3, &config(&server));
    for node in &mut nodes {
        next(node, is_up).await;
        node.broker.follow(vec![group("room")]).await.expect("it is there");
    }
    let send = |n: usize| {
        let broker = nodes[n % 3].broker.clone();
        tokio::spawn(async move { broker.publish(publication("room", n)).await.expect("it is there").position.offset })
    };
    let senders: Vec<_> = (0..600).map(send).collect();
    let mut given = Vec::new();
    for sender in senders {
        given.push(sender.await.expect("it lives"));
    }
    given.sort_unstable();
    assert_eq!(given, (1..=600).collect::<Vec<_>>(), "each number once, none left out");
    for node in &mut nodes {
        for offset in 1..=600 {
            assert_eq!(next_position(node).await.offset, offset);
        }
    }
}

#[tokio::test]
async fn names_with_periods_anywhere_are_names() {
    let server = Nats::start_jetstream("");
    let mut node = connect(1, &config(&server)).remove(0);
    next(&mut node, is_up).await;
    for name in ["a.", ".a", "a..b", "a.b", "a-b", "..."] {
        node.broker.follow(vec![group(name)]).await.expect("it is there");
        node.broker.publish(publication(name, 1)).await.expect("it is there");
        let event = next(&mut node, |_| true).await;
        assert!(matches!(&event, BrokerEvent::Message { group, .. } if group.as_str() == name), "{name}: {event:?}");
    }
}

#[tokio::test]
async fn a_history_is_read_from_where_it_is_asked_for() {
    const MESSAGES: usize = 1000;
    let server = Nats::start_jetstream("");
    let proxy = Proxy::start(server.port()).await;
    let slow = NatsConfig { addresses: vec![format!("nats://{}", proxy.address())], ..config(&server) };
    let mut nodes = [connect(1, &slow).remove(0), connect(1, &config(&server)).remove(0)];
    for node in &mut nodes {
        next(node, is_up).await;
    }
    // Another group has far more of the stream at first, and nothing of it later.
    for n in 0..MESSAGES {
        for other in 0..if n < 20 { 10 } else { 0 } {
            keep(&nodes[1], "other", other).await;
        }
        keep(&nodes[1], "kept", n).await;
    }
    let ask = |after, limit| Ask { group: group("kept"), rule: RULE, after, limit, fresh_epoch: "asked".into() };
    for after in [0, 1, 5, 19, 20, 21, 500, 998, 999, 1000] {
        let Kept { messages, more, .. } = nodes[1].broker.history(ask(after, 100)).await.expect("it is there");
        let found: Vec<u64> = messages.iter().map(|(offset, _)| *offset).collect();
        let last = (after + 100).min(MESSAGES as u64);
        assert_eq!((found, more), ((after + 1..=last).collect(), last < MESSAGES as u64), "behind {after}");
    }
    // Five answers, as many as the whole of it takes, would be too late.
    proxy.inflict(Fault::Delay(Duration::from_millis(250)));
    let kept = nodes[0].broker.history(ask(990, 100)).await.expect("in time");
    assert_eq!(kept.messages.len(), 10);
}

#[tokio::test]
async fn a_server_that_was_started_anew_begins_new_epochs() {
    let mut server = Nats::start_jetstream("");
    let mut node = connect(1, &config(&server)).remove(0);
    next(&mut node, is_up).await;
    let (plain, kept) = (publish(&node, "room", 1).await, keep(&node, "kept", 1).await);
    server.kill();
    next(&mut node, is_down).await;
    assert!(node.broker.ready().is_err() && node.broker.publish(publication("room", 2)).await.is_err());
    server.restart();
    next(&mut node, is_up).await;
    let (plain_after, kept_after) = (publish(&node, "room", 3).await, keep(&node, "kept", 3).await);
    for (before, after) in [(plain, plain_after), (kept, kept_after)] {
        assert!(before.epoch != after.epoch && after.offset == 1, "{before} {after}");
    }
    let Kept { head, messages, .. } = history(&node, "kept").await;
    assert_eq!((head.offset, messages), (1, vec![(1, message(3))]), "nothing of before is given out");
}

#[tokio::test]
async fn a_server_that_waits_for_its_disk_goes_on_where_it_was() {
    let mut server = Nats::start_jetstream("sync_interval: always");
    let monitoring = Some(server.monitoring_address());
    let mut node = connect(1, &NatsConfig { monitoring, all_on_disk: true, ..config(&server) }).remove(0);
    next(&mut node, is_up).await;
    assert_eq!(node.broker.level(), Level::Fsync);
    let (plain, kept) = (publish(&node, "room", 1).await, keep(&node, "kept", 1).await);
    server.kill();
    next(&mut node, is_down).await;
    server.restart();
    next(&mut node, is_up).await;
    let (plain_after, kept_after) = (publish(&node, "room", 2).await, keep(&node, "kept", 2).await);
    for (before, after) in [(plain, plain_after), (kept, kept_after)] {
        assert_eq!((before.epoch, after.offset), (after.epoch, 2));
    }
    assert_eq!(history(&node, "kept").await.messages, vec![(1, message(1)), (2, message(2))]);
}

#[tokio::test]
async fn what_a_server_does_not_prove_is_not_claimed() {
    let (always, usual) = (Nats::start_jetstream("sync_interval: always"), Nats::start_jetstream(""));
    for (server, monitoring, all_on_disk) in [
        (&always, None, true),
        (&always, Some(always.monitoring_address()), false),
        (&always, Some(usual.monitoring_address()), true),
        (&always, Some("127.0.0.1:1".to_owned()), true),
        (&usual, Some(usual.monitoring_address()), true),
    ] {
        let prefix = format!("p{all_on_disk}");
        let case = NatsConfig { prefix, monitoring, all_on_disk, ..config(server) };
        let mut node = connect(1, &case).remove(0);
        next(&mut node, is_up).await;
        assert_eq!(node.broker.level(), Level::Broker, "{:?}", case.monitoring);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_noticed() {
    let server = Nats::start_jetstream("");
    let mut node = connect(1, &config(&server)).remove(0);
    next(&mut node, is_up).await;
    server.stop();
    next(&mut node, is_down).await;
    let failed = timeout(Duration::from_secs(1), node.broker.publish(publication("room", 1))).await;
    assert!(failed.expect("it fails at once").is_err());
    server.cont();
    next(&mut node, is_up).await;
    publish(&node, "room", 2).await;
}

#[tokio::test]
async fn what_is_asked_over_a_link_that_is_lost_ends_with_it() {
    let mut server = Nats::start_jetstream("");
    let patient = NatsConfig { timeout: Duration::from_secs(60), ..config(&server) };
    let mut node = connect(1, &patient).remove(0);
    next(&mut node, is_up).await;
    server.stop();
    let broker = node.broker.clone();
    let asked = async {
        tokio::join!(broker.publish(publication("room", 1)), broker.follow(vec![group("room")]), async {
            // Both have been asked: what is polled later runs later.
            tokio::task::yield_now().await;
            server.kill();
        })
    };
    let (published, followed, ()) = timeout(Duration::from_secs(30), asked).await.expect("it does not wait");
    assert!(published.is_err() && followed.is_err(), "{published:?} {followed:?}");
}

#[tokio::test]
async fn a_server_that_comes_later_is_waited_for() {
    let mut server = Nats::start_jetstream("");
    server.kill();
    let mut node = connect(1, &config(&server)).remove(0);
    assert!(node.broker.ready().is_err());
    server.restart();
    next(&mut node, is_up).await;
    publish(&node, "room", 1).await;
}

#[tokio::test]
async fn without_jetstream_it_says_what_to_do() {
    let server = Nats::start("");
    let node = connect(1, &config(&server)).remove(0);
    let why = eventually_not_ready(&node, "JetStream").await;
    assert!(why.contains("--jetstream"), "{why}");
}

#[tokio::test]
async fn streams_that_somebody_deleted_are_made_anew() {
    let server = Nats::start_jetstream("");
    let mut node = connect(1, &config(&server)).remove(0);
    next(&mut node, is_up).await;
    let before = keep(&node, "kept", 1).await;
    server.connect().publish("$JS.API.STREAM.DELETE.t_kept", b"").expect("it is taken");
    next(&mut node, is_down).await;
    next(&mut node, is_up).await;
    let after = keep(&node, "kept", 2).await;
    assert!(before.epoch != after.epoch && after.offset == 1, "{before} {after}");
}

#[tokio::test]
async fn what_is_no_record_is_dropped() {
    let server = Nats::start_jetstream("");
    let mut node = connect(1, &config(&server)).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    let mut outside = server.connect();
    let large = format!("gcn1 - e 1 70012\n{{\"type\":\"a\",\"x\":\"{}\"}}", "x".repeat(69_990));
    for garbage in ["", "x", "gcn1", "gcn1 - e 1 2\n{}", "gcn1 - e 1 12\n{\"type\":\"a\"}}", "\u{0}\u{1}", &large] {
        for subject in ["t.group.room", "t.plain.room", "t.kept.room", "t.node.n0", "t.channel.inbox"] {
            outside.publish(subject, garbage.as_bytes()).expect("it is taken");
        }
    }
    let room = publish(&node, "room", 7).await;
    assert_eq!((room.offset, history(&node, "room").await.messages), (1, vec![]));
    next(&mut node, |event| matches!(event, BrokerEvent::Message { envelope, .. } if envelope.message == message(7)))
        .await;
    let inbox = groupcast_channel_layer::contract::channel("inbox");
    assert_eq!(node.broker.take(inbox).await.expect("it is there"), None);
    let counts = node.broker.dropped().counts().collect::<Vec<_>>();
    assert!(counts[..3].iter().all(|(_, count)| *count > 0), "{counts:?}");
}

#[tokio::test]
async fn what_others_write_behind_a_record_does_not_begin_an_epoch() {
    let server = Nats::start_jetstream("");
    let mut nodes = connect(2, &config(&server));
    for node in &mut nodes {
        next(node, is_up).await;
        node.broker.follow(vec![group("room"), group("kept")]).await.expect("it is there");
    }
    let mut outside = server.connect();
    let (plain, kept) = (publish(&nodes[0], "room", 1).await, keep(&nodes[0], "kept", 1).await);
    for n in 2..=20 {
        for subject in ["t.plain.room", "t.kept.kept"] {
            for garbage in ["", "gcn1 - e 7 12\n", "x"] {
                outside.publish(subject, garbage.as_bytes()).expect("it is taken");
            }
        }
        // Neither who knows the group's newest record goes wrong, nor who has to read it.
        let node = &nodes[n % 2];
        let (plain_next, kept_next) = (publish(node, "room", n).await, keep(node, "kept", n).await);
        assert_eq!(plain_next, Position { offset: n as u64, ..plain.clone() });
        assert_eq!(kept_next, Position { offset: n as u64, ..kept.clone() });
    }
    outside.publish("t.plain.room", b"x").expect("it is taken");
    let ask = WhereIs { group: group("room"), fresh_epoch: "asked".into() };
    assert_eq!(nodes[0].broker.heads(vec![ask]).await.expect("it is there")[0].offset, 20);
    let read: Vec<u64> = history(&nodes[0], "kept").await.messages.into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(read, (1..=20).collect::<Vec<_>>());
    let strays = |node: &Node| node.broker.dropped().counts().find(|(reason, _)| *reason == Reason::Stray);
    let strays = nodes.iter().filter_map(strays).map(|(_, count)| count).sum::<u64>();
    assert_eq!(strays, 19 * 6 + 1, "each is counted by who has taken it out");
}

#[tokio::test]
async fn a_user_has_a_password_and_a_token_is_enough() {
    let user = Nats::start_with_user("gc", "s3cret");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = folder.path().display();
    let token = Nats::start(&format!("jetstream {{ store_dir: \"{store}\" }}\nauthorization {{ token: s3cret }}"));
    for (server, credentials) in [(&user, "gc:s3cret@"), (&token, "s3cret@")] {
        let address = |credentials: &str| server.address().replace("://", &format!("://{credentials}"));
        let with = |credentials| NatsConfig { addresses: vec![address(credentials)], ..config(server) };
        let mut good = connect(1, &with(credentials)).remove(0);
        next(&mut good, is_up).await;
        publish(&good, "room", 1).await;
        let wrong = credentials.replace("s3cret", "wr0ng");
        let bad = connect(1, &with(&wrong)).remove(0);
        let why = eventually_not_ready(&bad, "uthoriz").await;
        assert!(!why.contains("wr0ng") && !format!("{:?}", with(&wrong)).contains("wr0ng"), "{why}");
    }
}

#[tokio::test]
async fn a_server_behind_tls_is_known_by_its_certificate() {
    let Certificate { certificate, key } = Certificate::new();
    let (server, folder) = (Nats::start_secure(&certificate, &key), tempfile::tempdir().expect("a temporary folder"));
    let trusting = |name: &str, certificate: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, certificate).expect("it can be written");
        NatsConfig { addresses: vec![server.secure_address()], ca_file: Some(file), ..config(&server) }
    };
    let mut good = connect(1, &trusting("good.pem", &certificate)).remove(0);
    next(&mut good, is_up).await;
    publish(&good, "room", 1).await;
    let stranger = connect(1, &trusting("stranger.pem", &Certificate::new().certificate)).remove(0);
    eventually_not_ready(&stranger, "certificate").await;
}

#[tokio::test]
async fn what_three_servers_have_outlives_any_of_them() {
    let mut servers = Nats::start_cluster();
    let addresses = servers.iter().map(Nats::address).collect();
    let config = NatsConfig { addresses, replicas: 3, timeout: Duration::from_secs(5), ..bare() };
    let mut node = connect(1, &config).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    let mut kept = Vec::new();
    for (at, server) in servers.iter_mut().enumerate() {
        for n in 0..20 {
            kept.push(eventually_kept(&node, 20 * at + n).await);
        }
        server.kill();
        for n in 60..80 {
            kept.push(eventually_kept(&node, 20 * at + n).await);
        }
        server.restart();
    }
    let found = async {
        loop {
            let ask = Ask { group: group("room"), rule: RULE, after: 0, limit: 1000, fresh_epoch: "asked".into() };
            match node.broker.history(ask).await {
                Ok(kept) => return kept,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let found = timeout(Duration::from_secs(30), found).await.expect("it comes");
    let offsets: Vec<u64> = found.messages.iter().map(|(offset, _)| *offset).collect();
    assert!(kept.iter().all(|position| offsets.contains(&position.offset)), "{kept:?} in {offsets:?}");
    assert!(kept.iter().all(|position| position.epoch == found.head.epoch), "one epoch: nothing was forgotten");
}

/// Publishes until that is acknowledged: while another server takes over it is not.
async fn eventually_kept(node: &Node, n: usize) -> Position {
    let kept = async {
        loop {
            let publication = Publication { keep: Some(RULE), ..publication("room", n) };
            match node.broker.publish(publication).await {
                Ok(published) => return published.position,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(Duration::from_secs(30), kept).await.expect("it is acknowledged")
}

#[tokio::test]
async fn a_message_is_not_refused_for_its_trace() {
    const MAX_PAYLOAD: usize = 1 << 20;
    let server = Nats::start_jetstream("");
    let mut node = connect(1, &NatsConfig { message_bytes: MAX_PAYLOAD, ..config(&server) }).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    let state = format!("a={}", "x".repeat(500));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = TraceContext::parse(parent, Some(state.as_bytes())).map(Arc::new);
    for (bytes, is_traced) in [(MAX_PAYLOAD - 1200, true), (MAX_PAYLOAD - 400, false)] {
        let text = format!(r#"{{"type":"large","text":"{}"}}"#, "x".repeat(bytes));
        let sent = Message::parse(text.into()).expect("a valid message").with_trace(trace.clone());
        let publication = Publication { message: sent.clone(), ..publication("room", bytes) };
        node.broker.publish(publication).await.expect("there is room for the message");
        let BrokerEvent::Message { envelope, .. } = next(&mut node, |_| true).await else { panic!("a message comes") };
        assert_eq!((envelope.message.raw(), envelope.message.trace().is_some()), (sent.raw(), is_traced));
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused() {
    let node = NodeId::parse("n0").expect("a valid name");
    let usual = || NatsConfig { addresses: vec!["nats://127.0.0.1:1".to_owned()], ..bare() };
    let refused = |config| NatsBroker::connect(config, &node).map(drop).expect_err("it is refused");
    assert_eq!(refused(NatsConfig { addresses: vec![], ..usual() }), SettingsError::NoAddress);
    assert_eq!(refused(NatsConfig { prefix: "a.b".into(), ..usual() }), SettingsError::Prefix("a.b".into()));
    let addresses = vec!["nats://127.0.0.1:1".to_owned(), "nats://s3cret@:x".to_owned()];
    let error = refused(NatsConfig { addresses, ..usual() });
    assert!(matches!(&error, SettingsError::Address { at: 2, .. }) && !error.to_string().contains("s3cret"), "{error}");
}

fn is_up(event: &BrokerEvent) -> bool {
    *event == BrokerEvent::Up
}

fn is_down(event: &BrokerEvent) -> bool {
    matches!(event, BrokerEvent::Down { .. })
}

fn config(server: &Nats) -> NatsConfig {
    NatsConfig { addresses: vec![server.address()], ..bare() }
}

fn bare() -> NatsConfig {
    NatsConfig {
        addresses: Vec::new(),
        prefix: "t".to_owned(),
        timeout: Duration::from_secs(2),
        message_bytes: 65_536,
        ca_file: None,
        history: RULE,
        replicas: 1,
        all_on_disk: false,
        monitoring: None,
        django: None,
    }
}

const RULE: HistoryRule = HistoryRule { messages: 1000, age: Duration::from_secs(60) };

fn connect(nodes: usize, config: &NatsConfig) -> Vec<Node> {
    let node = |n| {
        let id = NodeId::parse(&format!("n{n}")).expect("a valid name");
        let (broker, inbox) = NatsBroker::connect(config.clone(), &id).expect("valid settings");
        Node { id, broker: broker as Arc<dyn Broker>, inbox }
    };
    (0..nodes).map(node).collect()
}

fn publication(name: &str, n: usize) -> Publication {
    let fresh_epoch = format!("e-{name}-{n}").replace("..", "-").into();
    Publication { group: GroupName::parse(name).expect("a valid name"), message: message(n), keep: None, fresh_epoch }
}

async fn publish(node: &Node, name: &str, n: usize) -> Position {
    node.broker.publish(publication(name, n)).await.expect("it is there").position
}

async fn keep(node: &Node, name: &str, n: usize) -> Position {
    let publication = Publication { keep: Some(RULE), ..publication(name, n) };
    node.broker.publish(publication).await.expect("it is there").position
}

async fn history(node: &Node, name: &str) -> Kept {
    let ask = Ask { group: group(name), rule: RULE, after: 0, limit: 100, fresh_epoch: "asked".into() };
    node.broker.history(ask).await.expect("it is there")
}

async fn next(node: &mut Node, is: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
    let found = async {
        loop {
            let event = node.inbox.recv().await.expect("the broker is there");
            if is(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(30), found).await.expect("it comes")
}

async fn next_position(node: &mut Node) -> Position {
    match next(node, |event| matches!(event, BrokerEvent::Message { .. })).await {
        BrokerEvent::Message { envelope, .. } => envelope.position,
        other => unreachable!("{other:?} was not asked for"),
    }
}

async fn eventually_not_ready(node: &Node, word: &str) -> String {
    let mut last = String::new();
    for _ in 0..1000 {
        match node.broker.ready() {
            Err(why) if why.contains(word) => return why,
            state => last = format!("{state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not say `{word}`: {last}");
}
