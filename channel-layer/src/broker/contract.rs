//! The one list of tests that every broker passes.
//!
//! [`run`] takes a way to connect nodes to one fresh, empty broker. Time is real: each wait is for a state, with a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{GroupName, Message, NodeId, Position, TraceContext};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Ask, Broker, BrokerEvent, BrokerInbox, ChannelBound, Kept, Publication, WhereIs};
use crate::config::HistoryRule;
use crate::contract::{channel, group, message};

/// A node's way to the broker.
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its calls.
    pub broker: Arc<dyn Broker>,
    /// What it is told.
    pub inbox: BrokerInbox,
}

/// Nothing takes longer than this, unless it does not come at all.
const SOON: Duration = Duration::from_secs(5);
/// What has not come by then does not.
const A_WHILE: Duration = Duration::from_millis(150);

/// Runs the whole list; each test gets nodes on a broker of its own. Panics at the first promise that is not kept.
pub async fn run<F: Future<Output = Vec<Node>>>(connect: impl Fn(usize) -> F) {
    messages_are_numbered_and_reach_who_follows(ready(connect(3).await).await).await;
    one_order_for_all(ready(connect(3).await).await).await;
    a_trace_goes_with_its_message(ready(connect(2).await).await).await;
    groups_that_are_followed_no_more_are_silent(ready(connect(2).await).await).await;
    a_group_begins_where_it_is_asked_for(ready(connect(2).await).await).await;
    history_is_read_in_parts(ready(connect(1).await).await).await;
    history_has_bounds(ready(connect(1).await).await).await;
    what_is_too_old_is_passed_over(ready(connect(1).await).await).await;
    a_direct_message_reaches_its_node(ready(connect(2).await).await).await;
    a_channel_has_a_capacity_and_each_message_one_taker(ready(connect(2).await).await).await;
    who_found_a_channel_empty_is_told(ready(connect(2).await).await).await;
    messages_in_channels_expire(ready(connect(1).await).await).await;
    notes_reach_all(ready(connect(3).await).await).await;
    calls_fail_when_it_is_closed(ready(connect(1).await).await).await;
}

/// Waits for all links.
async fn ready(mut nodes: Vec<Node>) -> Vec<Node> {
    for node in &mut nodes {
        assert_eq!(node.next().await, BrokerEvent::Up);
        assert_eq!(node.broker.ready(), Ok(()));
    }
    nodes
}

async fn messages_are_numbered_and_reach_who_follows(mut nodes: Vec<Node>) {
    let room = group("room");
    nodes[0].broker.publish(publication("room", 0)).await.expect("it is there");
    for node in &nodes[1..] {
        node.broker.follow(vec![room.clone()]).await.expect("it is there");
        node.broker.follow(vec![room.clone(), group("other")]).await.expect("again is no error");
    }
    let mut positions = Vec::new();
    for n in 1..=20 {
        let node = &nodes[n % 3];
        positions.push(node.broker.publish(publication("room", n)).await.expect("it is there").position);
    }
    for node in &mut nodes[1..] {
        for (n, position) in (1..=20).zip(&positions) {
            let (at, name, text) = node.message().await;
            assert_eq!((&at, name, text), (position, room.clone(), message(n)));
            assert_eq!(at.offset, n as u64 + 1);
        }
        node.silent().await;
    }
    nodes[0].silent().await;
}

async fn one_order_for_all(mut nodes: Vec<Node>) {
    for node in &nodes {
        node.broker.follow(vec![group("room")]).await.expect("it is there");
    }
    let publish = |node: usize| {
        let broker = nodes[node].broker.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                broker.publish(publication("room", node * 1000 + n)).await.expect("it is there");
            }
        })
    };
    for sender in [publish(0), publish(1), publish(2)] {
        sender.await.expect("it lives");
    }
    let mut seen: Vec<Vec<(Position, Message)>> = Vec::new();
    for node in &mut nodes {
        let mut own = Vec::new();
        for _ in 0..300 {
            let (at, _, text) = node.message().await;
            own.push((at, text));
        }
        seen.push(own);
    }
    assert!(seen[0].iter().zip(1..).all(|((at, _), offset)| at.offset == offset), "without holes");
    assert!(seen.iter().all(|other| *other == seen[0]), "the same for all");
    for sender in 0..3 {
        let expected: Vec<Message> = (0..100).map(|n| message(sender * 1000 + n)).collect();
        let own: Vec<Message> =
            seen[0].iter().map(|(_, text)| text.clone()).filter(|text| expected.contains(text)).collect();
        assert_eq!(own, expected, "each sender's in his order");
    }
}

/// Also of messages that are sent at once, which a broker may number together.
async fn a_trace_goes_with_its_message(mut nodes: Vec<Node>) {
    let traced = |n: usize| {
        let state = n.is_multiple_of(4).then_some(&b"rojo=a b,congo=t61"[..]);
        let trace = TraceContext::parse(format!("00-{:032x}-{:016x}-01", n + 1, n + 7), state);
        message(n).with_trace(trace.filter(|_| n.is_multiple_of(2)).map(Arc::new))
    };
    nodes[1].broker.follow(vec![group("room")]).await.expect("it is there");
    let mut sending = JoinSet::new();
    for n in 0..12 {
        let publication = Publication { message: traced(n), ..publication("room", n) };
        let broker = nodes[0].broker.clone();
        sending.spawn(async move { broker.publish(publication).await.expect("it is there") });
    }
    sending.join_all().await;
    let mut arrived = Vec::new();
    for _ in 0..12 {
        arrived.push(nodes[1].message().await.2);
    }
    let missing: Vec<Message> = (0..12).map(traced).filter(|sent| !arrived.contains(sent)).collect();
    assert!(missing.is_empty(), "{missing:?} is not among {arrived:?}");
}

async fn groups_that_are_followed_no_more_are_silent(mut nodes: Vec<Node>) {
    let (room, other) = (group("room"), group("other"));
    nodes[1].broker.follow(vec![room.clone(), other.clone()]).await.expect("it is there");
    nodes[1].broker.unfollow(vec![room.clone()]).await.expect("it is there");
    nodes[1].broker.unfollow(vec![group("never")]).await.expect("no error");
    nodes[0].broker.publish(publication("room", 1)).await.expect("it is there");
    nodes[0].broker.publish(publication("other", 2)).await.expect("it is there");
    assert_eq!(nodes[1].message().await.1, other);
    nodes[1].silent().await;
}

async fn a_group_begins_where_it_is_asked_for(nodes: Vec<Node>) {
    let ask = |epoch: &str| {
        let ask = |name| WhereIs { group: group(name), fresh_epoch: epoch.into() };
        vec![ask("a"), ask("b"), ask("c")]
    };
    let sent = nodes[0].broker.publish(publication("b", 1)).await.expect("it is there").position;
    let heads = nodes[1].broker.heads(ask("e1")).await.expect("it is there");
    let begun = |text: &str| text.parse::<Position>().expect("a valid position");
    assert_eq!(heads, [begun("e1:0"), sent.clone(), begun("e1:0")]);
    assert_eq!(nodes[0].broker.heads(ask("e2")).await.expect("it is there"), heads, "it began once");
    let next = nodes[1].broker.publish(publication("a", 1)).await.expect("it is there").position;
    assert_eq!(next, begun("e1:1"));
    let kept = nodes[0].broker.history(asked("d", 0, 10)).await.expect("it is there");
    assert_eq!((kept.head.offset, kept.messages, kept.more), (0, vec![], false));
}

async fn history_is_read_in_parts(nodes: Vec<Node>) {
    let node = &nodes[0];
    for n in 1..=7 {
        node.broker.publish(Publication { keep: Some(RULE), ..publication("kept", n) }).await.expect("it is there");
    }
    let read = async |after, limit| {
        let Kept { head, messages, more } =
            node.broker.history(asked("kept", after, limit)).await.expect("it is there");
        assert_eq!(head.offset, 7);
        let expected: Vec<_> = messages.iter().map(|(offset, _)| (*offset, message(*offset as usize))).collect();
        assert_eq!(messages, expected);
        (messages.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), more)
    };
    assert_eq!(read(0, 3).await, (vec![1, 2, 3], true));
    assert_eq!(read(3, 3).await, (vec![4, 5, 6], true));
    assert_eq!(read(6, 3).await, (vec![7], false));
    assert_eq!(read(4, 3).await, (vec![5, 6, 7], false));
    assert_eq!(read(7, 3).await, (vec![], false));
    assert_eq!(read(99, 3).await, (vec![], false));
    assert_eq!(read(u64::MAX, 3).await, (vec![], false));
}

async fn history_has_bounds(nodes: Vec<Node>) {
    let node = &nodes[0];
    let few = HistoryRule { messages: 3, age: Duration::from_secs(60) };
    let short = HistoryRule { messages: 100, age: Duration::from_millis(300) };
    for n in 1..=300 {
        node.broker.publish(Publication { keep: Some(few), ..publication("few", n) }).await.expect("it is there");
    }
    let kept = node.broker.history(Ask { rule: few, ..asked("few", 0, 1000) }).await.expect("it is there");
    let offsets: Vec<u64> = kept.messages.iter().map(|(offset, _)| *offset).collect();
    assert_eq!((kept.head.offset, offsets, kept.more), (300, vec![298, 299, 300], false));
    node.broker.publish(Publication { keep: Some(short), ..publication("short", 1) }).await.expect("it is there");
    let read = async || node.broker.history(Ask { rule: short, ..asked("short", 0, 9) }).await.expect("it is there");
    assert_eq!(read().await.messages.len(), 1);
    eventually(async || read().await.messages.is_empty()).await;
    assert_eq!(read().await.head.offset, 1, "where it was is not forgotten with what was kept");
}

async fn what_is_too_old_is_passed_over(nodes: Vec<Node>) {
    let short = HistoryRule { messages: 1000, age: Duration::from_millis(100) };
    let publish = async |n| {
        nodes[0].broker.publish(Publication { keep: Some(short), ..publication("old", n) }).await.expect("it is there")
    };
    for n in 1..=6 {
        publish(n).await;
    }
    // More are published all the while: what is old stays among them.
    eventually(async || {
        publish(7).await;
        let asked = Ask { rule: short, ..asked("old", 0, 2) };
        let kept = nodes[0].broker.history(asked).await.expect("it is there");
        assert!(!kept.messages.is_empty() || !kept.more, "it says what to go on behind");
        kept.messages.first().is_some_and(|(offset, _)| *offset > 6)
    })
    .await;
}

async fn a_direct_message_reaches_its_node(mut nodes: Vec<Node>) {
    let to = channel("specific.n1!c7");
    let (id, nobody) = (nodes[1].id.clone(), NodeId::parse("nobody").expect("a valid name"));
    assert!(nodes[0].broker.send(id, to.clone(), message(1)).await.expect("it is there"));
    assert_eq!(nodes[1].next().await, BrokerEvent::Direct { channel: to.clone(), message: message(1) });
    assert!(!nodes[0].broker.send(nobody, to, message(2)).await.expect("it is there"));
}

async fn a_channel_has_a_capacity_and_each_message_one_taker(nodes: Vec<Node>) {
    let inbox = channel("inbox");
    for n in 0..3 {
        assert!(nodes[n % 2].broker.push(inbox.clone(), message(n), BOUND).await.expect("it is there"));
    }
    assert!(!nodes[0].broker.push(inbox.clone(), message(9), BOUND).await.expect("it is there"), "it is full");
    for n in 0..3 {
        let taken = nodes[(n + 1) % 2].broker.take(inbox.clone()).await.expect("it is there");
        assert_eq!(taken, Some(message(n)));
    }
    assert_eq!(nodes[0].broker.take(inbox).await.expect("it is there"), None);
}

async fn who_found_a_channel_empty_is_told(mut nodes: Vec<Node>) {
    let inbox = channel("inbox");
    assert_eq!(nodes[1].broker.take(inbox.clone()).await.expect("it is there"), None);
    nodes[0].broker.push(inbox.clone(), message(1), BOUND).await.expect("it is there");
    assert_eq!(nodes[1].next().await, BrokerEvent::Mail { channel: inbox.clone() });
    assert_eq!(nodes[1].broker.take(inbox).await.expect("it is there"), Some(message(1)));
}

async fn messages_in_channels_expire(nodes: Vec<Node>) {
    let (node, inbox) = (&nodes[0], channel("inbox"));
    let short = ChannelBound { capacity: 1, expiry: Duration::from_millis(200) };
    assert!(node.broker.push(inbox.clone(), message(1), short).await.expect("it is there"));
    eventually(async || node.broker.push(inbox.clone(), message(2), short).await.expect("it is there")).await;
    assert_eq!(node.broker.take(inbox).await.expect("it is there"), Some(message(2)));
}

async fn notes_reach_all(mut nodes: Vec<Node>) {
    for n in 0..10_u8 {
        nodes[0].broker.tell(Bytes::from(vec![n, 0, 255])).await.expect("it is there");
    }
    for node in &mut nodes {
        for n in 0..10 {
            assert_eq!(node.next().await, BrokerEvent::Note(Bytes::from(vec![n, 0, 255])));
        }
    }
}

async fn calls_fail_when_it_is_closed(nodes: Vec<Node>) {
    let node = &nodes[0];
    timeout(SOON, node.broker.close()).await.expect("it ends");
    let failed = timeout(SOON, node.broker.publish(publication("room", 1))).await.expect("it ends");
    assert!(failed.is_err() && node.broker.ready().is_err(), "{failed:?}");
}

const RULE: HistoryRule = HistoryRule { messages: 100, age: Duration::from_secs(60) };
const BOUND: ChannelBound = ChannelBound { capacity: 3, expiry: Duration::from_secs(60) };

fn publication(name: &str, n: usize) -> Publication {
    Publication { group: group(name), message: message(n), keep: None, fresh_epoch: format!("p-{name}-{n}").into() }
}

fn asked(name: &str, after: u64, limit: usize) -> Ask {
    Ask { group: group(name), rule: RULE, after, limit, fresh_epoch: "asked".into() }
}

async fn eventually(state: impl AsyncFn() -> bool) {
    let reached = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, reached).await.expect("it comes about");
}

impl Node {
    async fn next(&mut self) -> BrokerEvent {
        let event = timeout(SOON, self.inbox.recv()).await.expect("something comes");
        event.expect("the broker is there")
    }

    async fn message(&mut self) -> (Position, GroupName, Message) {
        match self.next().await {
            BrokerEvent::Message { group, envelope } => (envelope.position, group, envelope.message),
            other => panic!("{other:?} is no message of a group"),
        }
    }

    async fn silent(&mut self) {
        let event = timeout(A_WHILE, self.inbox.recv()).await;
        assert!(event.is_err(), "{event:?} was not to come");
    }
}
