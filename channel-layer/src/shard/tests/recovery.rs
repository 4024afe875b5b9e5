//! Positions, coming back, catching up.

use std::time::Duration;

use groupcast_protocol::frame::{Recovery, Unrecovered};
use groupcast_protocol::{GroupName, Pattern, Position};

use super::fixture::{Node, Socket};
use crate::contract::{group, message};
use crate::{GroupRule, HistoryRule, LayerConfig};

#[tokio::test]
async fn who_comes_back_gets_what_he_missed_and_then_what_comes() {
    let (mut node, room) = (Node::new(keeps(100)), group("room"));
    let first = node.connect();
    let start = node.subscribe(&first, &room, None).position.expect("the group keeps history");
    assert_eq!(start.offset, 0);
    send(&mut node, &room, 0..10).await;
    node.turn();
    node.shard.disconnect(first.slot);
    send(&mut node, &room, 10..20).await;
    let second = node.connect();
    let subscribed = node.subscribe(&second, &room, Some(&at(&start, 4)));
    assert_eq!(subscribed.recovery, Some(Recovery::Recovered));
    assert_eq!(subscribed.position, Some(at(&start, 20)));
    send(&mut node, &room, 20..30).await;
    node.turn();
    assert_eq!(second.kinds()[0], "subscribed");
    assert_eq!(second.numbers("room"), (4..30).collect::<Vec<_>>());
    let frames = second.frames();
    let offsets: Vec<_> = frames[1..].iter().map(|frame| frame["offset"].as_u64()).collect();
    assert_eq!(offsets, (5..=30).map(Some).collect::<Vec<_>>());
    assert_eq!(node.layer.stats().replayed.value(), 26);
}

#[tokio::test]
async fn what_is_published_while_somebody_catches_up_comes_once_and_in_order() {
    let (mut node, room) = (Node::new(keeps(10_000)), group("room"));
    let live = node.connect();
    let start = node.subscribe(&live, &room, None).position.expect("the group keeps history");
    send(&mut node, &room, 0..2000).await;
    let back = node.connect();
    back.sink.room.set(0);
    node.subscribe(&back, &room, Some(&start));
    for n in 0..400 {
        node.let_in(&back, 500);
        send(&mut node, &room, 2000 + n * 5..2005 + n * 5).await;
        node.turn();
    }
    assert!(back.numbers("room").len() < 3500, "it is still behind");
    node.let_in(&back, usize::MAX);
    node.turn();
    assert_eq!(back.numbers("room"), (0..4000).collect::<Vec<_>>());
    assert_eq!((back.missed("room"), live.numbers("room").len()), (0, 4000));
}

#[tokio::test]
async fn a_long_replay_does_not_keep_other_groups_waiting() {
    let (mut node, long, other) = (Node::new(keeps(10_000)), group("long"), group("other"));
    send(&mut node, &long, 0..5000).await;
    let head = node.layer.position(&long).expect("the group keeps history");
    let back = node.connect();
    node.subscribe(&back, &long, Some(&at(&head, 0)));
    node.subscribe(&back, &other, None);
    (0..4).for_each(|_| node.write_one());
    send(&mut node, &other, 0..1).await;
    (0..2).for_each(|_| node.write_one());
    assert_eq!(back.numbers("other"), [0], "it is in the next writes");
    assert!(back.numbers("long").len() < 1000);
    node.turn();
    assert_eq!(back.numbers("long"), (0..5000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_long_replay_does_not_keep_publishers_waiting() {
    let (mut node, room, busy) = (
        Node::new(|config| {
            keeps(10_000)(config);
            config.log_bytes = 4000;
        }),
        group("room"),
        group("busy"),
    );
    let live = node.connect();
    node.subscribe(&live, &busy, None);
    send(&mut node, &room, 0..5000).await;
    let start = node.layer.position(&room).expect("the group keeps history");
    let back = node.connect();
    node.subscribe(&back, &room, Some(&at(&start, 0)));
    let mut writes = 0;
    for n in 0..500 {
        send(&mut node, &busy, n..n + 1).await;
        while !node.shard.may_apply() {
            node.write_one();
            writes += 1;
        }
    }
    assert!(back.numbers("room").len() < 4000, "it is still behind, after {writes} writes");
    node.turn();
    assert_eq!(back.numbers("room"), (0..5000).collect::<Vec<_>>());
    assert_eq!((live.numbers("busy"), live.missed("busy")), ((0..500).collect(), 0));
}

#[tokio::test]
async fn what_cannot_be_recovered_is_said_and_not_replayed() {
    let (mut node, room) = (Node::new(keeps(10)), group("room"));
    send(&mut node, &room, 0..50).await;
    let head = node.layer.position(&room).expect("the group keeps history");
    let cases = [
        (at(&head, 12), Unrecovered::Trimmed),
        (at(&head, 51), Unrecovered::Ahead),
        (Position::new("other", 45).expect("a valid position"), Unrecovered::EpochChanged),
    ];
    for (after, reason) in cases {
        let socket = node.connect();
        let subscribed = node.subscribe(&socket, &room, Some(&after));
        assert_eq!(subscribed.recovery, Some(Recovery::Unrecovered(reason)));
        assert_eq!(subscribed.position, Some(head.clone()));
        node.turn();
        assert!(socket.numbers("room").is_empty());
    }
    let (socket, plain) = (node.connect(), group("plain"));
    let subscribed = node.subscribe(&socket, &plain, Some(&head));
    assert_eq!(subscribed.recovery, Some(Recovery::Unrecovered(Unrecovered::Trimmed)));
    assert_eq!(subscribed.position, None, "this group keeps nothing");
}

#[tokio::test]
async fn a_slow_reader_goes_on_from_the_history() {
    let (mut node, room) = (
        Node::new(|config| {
            keeps(10_000)(config);
            config.log_bytes = 4000;
        }),
        group("room"),
    );
    let (slow, quick) = (node.connect(), node.connect());
    node.subscribe(&slow, &room, None);
    node.subscribe(&quick, &room, None);
    node.turn();
    slow.sink.room.set(100);
    for n in 0..1000 {
        send(&mut node, &room, n..n + 1).await;
        node.turn();
    }
    assert!(node.shard.log_bytes <= 4000);
    assert_eq!(node.layer.stats().catch_ups.value(), 1);
    node.let_in(&slow, usize::MAX);
    node.turn();
    for socket in [&slow, &quick] {
        assert_eq!((socket.numbers("room"), socket.missed("room")), ((0..1000).collect(), 0));
    }
    assert_eq!(node.shard.log_bytes, 0);
}

#[tokio::test]
async fn a_slow_reader_whom_the_history_has_left_behind_is_told() {
    let (mut node, room) = (
        Node::new(|config| {
            keeps(50)(config);
            config.log_bytes = 4000;
        }),
        group("room"),
    );
    let slow = node.connect();
    node.subscribe(&slow, &room, None);
    node.turn();
    slow.sink.room.set(100);
    send(&mut node, &room, 0..1000).await;
    for _ in 0..3 {
        node.let_in(&slow, 4000);
        node.turn();
        send(&mut node, &room, 1000..1200).await;
    }
    node.let_in(&slow, usize::MAX);
    node.turn();
    let gaps: Vec<_> = slow.frames().into_iter().filter(|frame| frame["type"] == "gap").collect();
    assert_eq!(gaps[0]["reason"], "slow_consumer");
    assert!(gaps.iter().any(|gap| gap["reason"] == "history_expired"), "{gaps:?}");
    assert_unbroken(&slow, 0, 1600);
}

#[tokio::test]
async fn a_history_that_ends_under_a_reader_is_told_as_expired() {
    let (mut node, room) = (Node::new(keeps(50)), group("room"));
    send(&mut node, &room, 0..50).await;
    let head = node.layer.position(&room).expect("the group keeps history");
    let back = node.connect();
    back.sink.room.set(0);
    assert_eq!(node.subscribe(&back, &room, Some(&at(&head, 0))).recovery, Some(Recovery::Recovered));
    send(&mut node, &room, 50..90).await;
    node.let_in(&back, usize::MAX);
    node.turn();
    let frames = back.frames();
    assert_eq!((&frames[1]["type"], &frames[1]["reason"]), (&"gap".into(), &"history_expired".into()));
    assert_eq!((frames[1]["missed"].as_u64(), frames[1]["offset"].as_u64()), (Some(40), Some(40)));
    assert_unbroken(&back, 0, 90);
}

#[tokio::test]
async fn leaving_drops_what_was_to_be_replayed_but_not_half_a_frame() {
    let (mut node, room, other) = (Node::new(keeps(1000)), group("room"), group("other"));
    send(&mut node, &room, 0..100).await;
    let head = node.layer.position(&room).expect("the group keeps history");
    let back = node.connect();
    back.sink.room.set(0);
    node.subscribe(&back, &room, Some(&at(&head, 0)));
    node.subscribe(&back, &other, None);
    node.let_in(&back, 555);
    node.turn();
    node.shard.unsubscribe(back.slot, &room);
    send(&mut node, &other, 0..1).await;
    send(&mut node, &room, 100..110).await;
    node.let_in(&back, usize::MAX);
    node.turn();
    let numbers = back.numbers("room");
    assert!((1..20).contains(&numbers.len()), "{numbers:?}");
    assert_eq!(back.numbers("other"), [0], "what follows half a frame is whole");
}

#[tokio::test]
async fn an_addition_from_outside_begins_where_it_says() {
    let (mut node, room) = (Node::new(keeps(100)), group("room"));
    send(&mut node, &room, 0..5).await;
    let (one, two) = (node.connect(), node.connect());
    node.layer.group_add(&room, &one.channel).await.expect("it lives");
    send_only(&node, &room, 5..8).await;
    // Subscribed while the addition and the messages are on their way.
    node.subscribe(&two, &room, None);
    send_only(&node, &room, 8..10).await;
    node.turn();
    let frames = one.frames();
    assert_eq!((frames[0]["type"].as_str(), frames[0]["offset"].as_u64()), (Some("subscribed"), Some(5)));
    assert_unbroken(&one, 5, 10);
    assert_unbroken(&two, 8, 10);
}

#[tokio::test]
async fn what_a_shard_without_members_was_not_sent_is_replayed() {
    let (mut node, room) = (Node::new(keeps(100)), group("room"));
    let one = node.connect();
    let start = node.subscribe(&one, &room, None).position.expect("the group keeps history");
    send(&mut node, &room, 0..4).await;
    node.turn();
    // The shard has not heard of the removal when somebody comes back.
    node.layer.group_discard(&room, &one.channel).await.expect("it lives");
    send_only(&node, &room, 4..5).await;
    let back = [4, 3, 0].map(|offset| {
        let socket = node.connect();
        let subscribed = node.subscribe(&socket, &room, Some(&at(&start, offset)));
        assert_eq!(subscribed.recovery, Some(Recovery::Recovered));
        (socket, offset)
    });
    node.turn();
    send_only(&node, &room, 5..7).await;
    node.turn();
    for (socket, offset) in &back {
        assert_eq!(socket.numbers("room"), (*offset..7).collect::<Vec<_>>());
    }
    assert_eq!(one.numbers("room"), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_flush_ends_histories() {
    let (mut node, room) = (Node::new(keeps(100)), group("room"));
    let socket = node.connect();
    node.subscribe(&socket, &room, None);
    send(&mut node, &room, 0..5).await;
    let before = node.layer.position(&room).expect("the group keeps history");
    node.layer.flush().await.expect("there is room");
    node.turn();
    assert_eq!((node.layer.position(&room), node.layer.stats().history.bytes.value()), (None, 0));
    let again = node.connect();
    let subscribed = node.subscribe(&again, &room, Some(&before));
    assert_eq!(subscribed.recovery, Some(Recovery::Unrecovered(Unrecovered::EpochChanged)));
}

/// Every group but `plain` keeps so many messages.
pub(super) fn keeps(messages: usize) -> impl Fn(&mut LayerConfig) {
    move |config| {
        let rule = |pattern, history| GroupRule {
            pattern: Pattern::parse(pattern).expect("a valid pattern"),
            history,
            presence: false,
            is_local: false,
        };
        let history = HistoryRule { messages, age: Duration::from_secs(600) };
        config.groups = vec![rule("plain", None), rule("*", Some(history))];
    }
}

fn at(of: &Position, offset: u64) -> Position {
    Position { offset, ..of.clone() }
}

async fn send(node: &mut Node, group: &GroupName, numbers: std::ops::Range<usize>) {
    send_only(node, group, numbers).await;
    node.apply();
}

async fn send_only(node: &Node, group: &GroupName, numbers: std::ops::Range<usize>) {
    for n in numbers {
        node.layer.group_send(group, &message(n)).await.expect("there is room");
    }
}

/// From offset `from` to offset `to`, everything came or was told to be lost.
fn assert_unbroken(socket: &Socket, from: u64, to: u64) {
    let mut at = from;
    for frame in socket.frames() {
        let offset = frame["offset"].as_u64().expect("the group keeps history");
        match frame["type"].as_str() {
            Some("message") => assert_eq!(offset, at + 1),
            Some("gap") => assert_eq!(Some(offset - at), frame["missed"].as_u64()),
            _ => continue,
        }
        at = offset;
    }
    assert_eq!(at, to);
}
