//! What Django's processes publish: taken once, in order, whatever becomes of the node that takes it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use groupcast_channel_layer::broker::foreign::{Intake, Taken};
use groupcast_channel_layer::broker::nats::{DjangoConfig, NatsBroker, NatsConfig};
use groupcast_channel_layer::broker::{Broker, BrokerEvent, BrokerInbox, Publication};
use groupcast_channel_layer::contract::{group, message};
use groupcast_channel_layer::dialect::{To, msgpack};
use groupcast_protocol::{GroupName, Message, NodeId};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::config;
use super::server::{Nats, Talk};

const DEADLINE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn what_cannot_be_taken_waits_and_holds_up_its_own_group_only() {
    let server = Nats::start_jetstream("");
    let mut node = Member::start(&server, "n0", LONG).await;
    let mut django = server.connect();
    node.gate.closed.lock().insert("room".to_owned());
    (0..250).for_each(|n| send(&mut django, "room", n));
    node.gate.asked_often(3).await;
    (0..10).for_each(|n| send(&mut django, "other", n));
    node.have_arrived("other", 0..10).await;
    eventually(|| waiting(&server) == 250).await;
    node.gate.closed.lock().clear();
    node.have_arrived("room", 0..250).await;
    eventually(|| waiting(&server) == 0).await;
}

#[tokio::test]
async fn when_one_node_ends_another_one_goes_on() {
    let server = Nats::start_jetstream("");
    let first = Member::start(&server, "n0", LONG).await;
    eventually(|| is_registrar(&first)).await;
    let mut second = Member::start(&server, "n1", LONG).await;
    let mut django = server.connect();
    first.gate.closed.lock().insert("room".to_owned());
    (0..50).for_each(|n| send(&mut django, "room", n));
    first.gate.asked_often(1).await;
    // As if it were killed: it gives up nothing.
    drop(first);
    second.have_arrived("room", 0..50).await;
    assert!(is_registrar(&second));
    eventually(|| waiting(&server) == 0).await;
}

#[tokio::test]
async fn two_that_take_the_same_at_once_show_it_once_and_in_order() {
    let server = Nats::start_jetstream("");
    // By one name each takes the lease for its own, again and again.
    let (mut one, two) = (Member::start(&server, "n0", LONG).await, Member::start(&server, "n0", LONG).await);
    let mut django = server.connect();
    for n in 0..2000 {
        send(&mut django, "room", n);
        if n % 10 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    one.have_arrived("room", 0..2000).await;
    eventually(|| waiting(&server) == 0).await;
    assert!(count(&one, "foreign_shown") > 0 && count(&two, "foreign_shown") > 0, "both have been at it");
}

#[tokio::test]
async fn what_waits_when_the_server_dies_is_taken_when_it_is_back() {
    let mut server = Nats::start_jetstream(super::server::DURABLE);
    let mut node = Member::start(&server, "n0", LONG).await;
    let mut django = server.connect();
    node.gate.closed.lock().insert("room".to_owned());
    (0..20).for_each(|n| send(&mut django, "room", n));
    node.gate.asked_often(1).await;
    server.kill();
    node.next(|event| matches!(event, BrokerEvent::Down { .. })).await;
    node.gate.closed.lock().clear();
    server.restart();
    node.next(|event| *event == BrokerEvent::Up).await;
    node.broker.follow(vec![group("room")]).await.expect("it is there");
    node.have_arrived("room", 0..20).await;
    eventually(|| waiting(&server) == 0).await;
}

#[tokio::test]
async fn what_a_node_publishes_is_heard_by_django_and_stored_for_no_gateway() {
    let server = Nats::start_jetstream("");
    let node = Member::start(&server, "n0", LONG).await;
    let mut django = server.connect();
    django.subscribe("channels.grp.room", None).expect("it listens");
    for n in 0..20 {
        let (group, fresh_epoch) = (group("room"), format!("e{n}").into());
        let publication = Publication { group, message: message(n), keep: None, fresh_epoch };
        node.broker.publish(publication).await.expect("it is there");
    }
    // The client of the test waits in its thread.
    let heard = move || (0..20).map(|_| django.message().expect("it comes")).collect::<Vec<_>>();
    let heard = tokio::task::spawn_blocking(heard).await.expect("it ends");
    let sent = |n| ("channels.grp.room".to_owned(), packed(&message(n)));
    assert_eq!(heard, (0..20).map(sent).collect::<Vec<_>>());
    send(&mut server.connect(), "room", 20);
    eventually(|| count(&node, "foreign_arrived") > 0 && waiting(&server) == 0).await;
    assert_eq!(count(&node, "foreign_arrived"), 1, "only Django's own");
}

#[tokio::test]
async fn what_has_expired_is_given_as_work_and_not_shown() {
    let server = Nats::start_jetstream("");
    let mut node = Member::start(&server, "n0", Duration::ZERO).await;
    send(&mut server.connect(), "room", 1);
    eventually(|| count(&node, "foreign_expired") == 1 && waiting(&server) == 0).await;
    assert_eq!(node.gate.asked.load(Ordering::Relaxed), 1);
    node.broker
        .publish(Publication { group: group("room"), message: message(2), keep: None, fresh_epoch: "e".into() })
        .await
        .expect("it is there");
    node.have_arrived("room", 2..3).await;
}

/// A node that follows two groups and takes what Django sends.
struct Member {
    broker: Arc<NatsBroker>,
    inbox: BrokerInbox,
    gate: Arc<Gate>,
}

impl Member {
    async fn start(server: &Nats, name: &str, expiry: Duration) -> Self {
        let (prefix, run) = ("channels".to_owned(), format!("{name}-run"));
        let django = DjangoConfig { prefix, expiry, groups: Vec::new(), run };
        let config = NatsConfig { django: Some(django), ..config(server) };
        let id = NodeId::parse(name).expect("a valid name");
        let (broker, inbox) = NatsBroker::connect(config, &id).expect("valid settings");
        let mut member = Self { broker, inbox, gate: Arc::default() };
        member.next(|event| *event == BrokerEvent::Up).await;
        let groups = vec![group("room"), group("other")];
        member.broker.follow(groups.clone()).await.expect("it is there");
        let asks = groups.into_iter().map(|group| groupcast_channel_layer::broker::WhereIs {
            group,
            fresh_epoch: format!("{name}-fresh").into(),
        });
        member.broker.heads(asks.collect()).await.expect("it is there");
        member.broker.take_in(member.gate.clone()).await;
        member
    }

    /// The next messages of a group are these, in this order.
    async fn have_arrived(&mut self, name: &str, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let event = self.next(|event| matches!(event, BrokerEvent::Message { .. })).await;
            let BrokerEvent::Message { group, envelope } = event else { unreachable!("the line above has looked") };
            assert_eq!((group.as_str(), envelope.message), (name, message(n)));
        }
    }

    async fn next(&mut self, is: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
        let found = async {
            loop {
                let event = self.inbox.recv().await.expect("the broker is there");
                if is(&event) {
                    return event;
                }
            }
        };
        timeout(DEADLINE, found).await.expect("it comes")
    }
}

/// Shows everything, except in groups that are closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<HashSet<String>>,
    asked: AtomicUsize,
}

impl Gate {
    /// Waits until messages have been offered so often, each counted.
    async fn asked_often(&self, times: usize) {
        eventually(|| self.asked.load(Ordering::Relaxed) >= times).await;
    }
}

impl Intake for Gate {
    fn take<'a>(
        &'a self,
        group: &'a GroupName,
        _: &'a Message,
        _: &'a [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = Taken> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_closed = self.closed.lock().contains(group.as_str());
        Box::pin(async move { if is_closed { Taken::Later } else { Taken::Show } })
    }
}

/// Does what `group_send` of Django does.
fn send(django: &mut Talk, group: &str, n: usize) {
    django.publish(&format!("channels.grp.{group}"), &packed(&message(n))).expect("it is taken");
}

fn packed(message: &Message) -> Vec<u8> {
    msgpack::encode(message, &To::Nobody).expect("it can be written")
}

/// How many messages are in the stream of what Django sends.
fn waiting(server: &Nats) -> u64 {
    let page = server.monitoring("/jsz?streams=true");
    let (_, body) = page.split_once("\r\n\r\n").expect("a page");
    let told: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let streams = told["account_details"][0]["stream_detail"].as_array().expect("streams");
    let stream = streams.iter().find(|stream| stream["name"] == "t_foreign").expect("the stream");
    stream["state"]["messages"].as_u64().expect("a number")
}

fn is_registrar(member: &Member) -> bool {
    member.broker.gauges().iter().any(|gauge| gauge.0 == "foreign_registrar" && gauge.2 == 1)
}

fn count(member: &Member, name: &str) -> u64 {
    let found = member.broker.counters().into_iter().find(|counter| counter.0 == name);
    found.map_or(0, |(_, _, value)| value)
}

async fn eventually(mut state: impl FnMut() -> bool) {
    timeout(DEADLINE, async {
        while !state() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it comes to be");
}
