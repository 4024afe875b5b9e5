//! Who comes and goes.

use std::collections::BTreeSet;

use groupcast_protocol::{Format, NodeId, Pattern};

use super::fixture::{Node, Socket};
use crate::contract::{group, message};
use crate::{ChannelLayer, GroupRule, HistoryRule, LayerConfig};

#[tokio::test]
async fn everybody_is_told_who_comes_and_the_newcomer_after_he_is_in() {
    let (mut node, room) = (Node::new(tells), group("room"));
    let one = node.connect();
    node.subscribe(&one, &room, None);
    announce(&node.layer).await;
    node.turn();
    let two = node.connect();
    node.subscribe(&two, &room, None);
    node.layer.group_add(&room, &crate::contract::channel("mailbox")).await.expect("there is room");
    announce(&node.layer).await;
    node.turn();
    assert_eq!(two.kinds(), ["subscribed", "joined", "joined"]);
    assert_eq!(one.kinds(), ["subscribed", "joined", "joined", "joined"]);
    assert_eq!(one.members("room"), names([one.channel.as_str(), two.channel.as_str(), "mailbox"]));
    node.shard.disconnect(two.slot);
    announce(&node.layer).await;
    node.turn();
    assert_eq!(one.members("room"), names([one.channel.as_str(), "mailbox"]));
}

#[tokio::test]
async fn who_comes_and_goes_at_once_is_not_told() {
    let (mut node, room) = (Node::new(tells), group("room"));
    let one = node.connect();
    node.subscribe(&one, &room, None);
    announce(&node.layer).await;
    let two = node.connect();
    node.subscribe(&two, &room, None);
    node.shard.disconnect(two.slot);
    announce(&node.layer).await;
    node.turn();
    assert_eq!(one.kinds(), ["subscribed", "joined"]);
}

#[tokio::test]
async fn groups_that_have_ended_wait_for_nobody() {
    let mut node = Node::new(tells);
    let one = node.connect();
    for n in 0..100 {
        let room = group(&format!("room.{n}"));
        node.subscribe(&one, &room, None);
        node.shard.unsubscribe(one.slot, &room);
    }
    node.subscribe(&one, &group("room"), None);
    assert_eq!(node.layer.registry.unannounced.len(), 1);
    announce(&node.layer).await;
    assert_eq!(node.layer.registry.unannounced.len(), 0);
}

#[tokio::test]
async fn who_comes_on_another_shard_while_there_is_no_room_is_told_too() {
    let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
    tells(&mut config);
    (config.shards, config.shard_queue) = (2, 1);
    let (layer, inboxes) = ChannelLayer::new(config);
    let mut nodes: Vec<_> = inboxes.into_iter().map(|inbox| Node::of(layer.clone(), inbox)).collect();
    let (room, one) = (group("room"), nodes[0].connect());
    nodes[0].subscribe(&one, &room, None);
    layer.group_send(&room, &message(0)).await.expect("there is room for one");
    let announcing = tokio::spawn({
        let layer = layer.clone();
        async move { layer.announce().await }
    });
    tokio::task::yield_now().await;
    let two = nodes[1].connect();
    nodes[1].subscribe(&two, &room, None);
    let all = names([one.channel.as_str(), two.channel.as_str()]);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while one.members("room") != all || two.members("room") != all {
        assert!(tokio::time::Instant::now() < deadline, "{:?} {:?}", one.members("room"), two.members("room"));
        nodes.iter_mut().for_each(Node::turn);
        tokio::task::yield_now().await;
    }
    announcing.abort();
}

#[tokio::test]
async fn many_changes_are_told_in_parts() {
    let (mut node, room) = (Node::new(tells), group("room"));
    let sockets: Vec<_> = (0..1000).map(|_| node.connect()).collect();
    for socket in &sockets {
        node.subscribe(socket, &room, None);
    }
    announce(&node.layer).await;
    node.turn();
    assert_eq!(sockets[0].members("room").len(), 1000);
    sockets[1..].iter().for_each(|socket| node.shard.disconnect(socket.slot));
    announce(&node.layer).await;
    node.turn();
    assert_eq!(sockets[0].members("room"), names([sockets[0].channel.as_str()]));
}

#[tokio::test]
async fn presence_has_no_offset_and_is_in_no_history() {
    for format in [Format::WebSocket, Format::Events, Format::EventsOfMany] {
        let (mut node, room) = (Node::new(tells), group("kept"));
        let one = node.connect_as(format);
        let start = node.subscribe(&one, &room, None).position.expect("it keeps history");
        for n in 0..3 {
            node.layer.group_send(&room, &message(n)).await.expect("there is room");
            let other = node.connect();
            node.subscribe(&other, &room, None);
            announce(&node.layer).await;
            node.turn();
        }
        let kinds = one.kinds();
        assert_eq!(kinds.iter().filter(|kind| *kind == "joined").count(), 4, "{kinds:?}");
        for seen in one.seen() {
            let presence = seen.frame.as_ref().is_some_and(|frame| frame["type"] == "joined");
            assert!(!presence || (seen.id.is_none() && seen.frame.expect("it is there")["offset"].is_null()));
        }
        let page = node.layer.history(&room, start.offset, 100, usize::MAX).expect("it keeps history");
        assert_eq!(page.messages.len(), 3);
        assert_eq!(one.numbers("kept"), [0, 1, 2]);
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_that_it_may_not_know_who_is_there() {
    for (name, missed) in [("room", false), ("kept", true)] {
        let (mut node, room) = (
            Node::new(|config| {
                tells(config);
                config.log_bytes = 2000;
            }),
            group(name),
        );
        let slow = node.connect();
        node.subscribe(&slow, &room, None);
        node.turn();
        slow.sink.room.set(10);
        for _ in 0..40 {
            let other = node.connect();
            node.subscribe(&other, &room, None);
            announce(&node.layer).await;
            node.turn();
        }
        node.layer.group_send(&room, &message(1)).await.expect("there is room");
        node.turn();
        node.let_in(&slow, usize::MAX);
        node.turn();
        let gap = slow.frames().into_iter().find(|frame| frame["type"] == "gap").expect("it is told");
        assert_eq!(gap["missed"], 0, "presence is no message");
        assert_eq!(gap["offset"].is_u64(), missed);
        assert_eq!(slow.numbers(name), [1]);
    }
}

#[tokio::test]
async fn who_goes_on_from_the_history_is_told_once_who_comes() {
    // Wherever the log begins, seen from where the reader's batches end.
    for stalled_at in (100..200).step_by(10) {
        let (mut node, room) = (
            Node::new(|config| {
                tells(config);
                config.log_bytes = 4000;
            }),
            group("kept"),
        );
        let (slow, keeps_the_log) = (node.connect(), node.connect());
        for socket in [&slow, &keeps_the_log] {
            node.subscribe(socket, &room, None);
        }
        announce(&node.layer).await;
        node.turn();
        slow.sink.room.set(10);
        for n in 0..stalled_at + 30 {
            if n == stalled_at {
                keeps_the_log.sink.room.set(0);
            }
            node.layer.group_send(&room, &message(n)).await.expect("there is room");
            node.turn();
        }
        let other = node.connect();
        node.subscribe(&other, &room, None);
        announce(&node.layer).await;
        node.turn();
        for socket in [&slow, &keeps_the_log] {
            node.let_in(socket, usize::MAX);
            node.turn();
            let all = (0..stalled_at as u64 + 30).collect::<Vec<_>>();
            assert_eq!((socket.numbers("kept"), socket.missed("kept")), (all, 0));
            let kinds = socket.kinds();
            assert_eq!(kinds.iter().filter(|kind| *kind == "joined").count(), 3, "{stalled_at}");
        }
    }
}

#[tokio::test]
async fn an_addition_that_is_older_than_the_lane_leaves_presence_whole() {
    let (mut node, room) = (Node::new(tells), group("room"));
    let (late, one) = (node.connect(), node.connect());
    node.layer.group_add(&room, &late.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.subscribe(&one, &room, None);
    announce(&node.layer).await;
    node.turn();
    node.layer.group_send(&room, &message(1)).await.expect("there is room");
    node.turn();
    assert_eq!((late.numbers("room"), one.numbers("room")), (vec![0, 1], vec![1]));
    for socket in [&late, &one] {
        assert_eq!(socket.members("room"), names([late.channel.as_str(), one.channel.as_str()]));
    }
}

/// Connections on two shards come, go and crash at random while messages are sent; in the end everybody who is left
/// knows exactly who is there.
#[tokio::test]
async fn everybody_knows_who_is_there_in_the_end() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x9E37_79B9_7F4A_7C15_u64);
    eprintln!("SEED={seed}");
    let mut random = seed;
    let mut dice = move |sides: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % sides
    };
    let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
    tells(&mut config);
    (config.shards, config.shard_queue) = (2, 100_000);
    let (layer, inboxes) = ChannelLayer::new(config);
    let mut nodes: Vec<_> = inboxes.into_iter().map(|inbox| Node::of(layer.clone(), inbox)).collect();
    let groups = [group("room"), group("kept")];
    let mut clients: Vec<(usize, Socket)> = Vec::new();
    for n in 0..10_000 {
        let (at, room) = (dice(2), &groups[dice(2)]);
        match dice(12) {
            0 if clients.len() < 20 => {
                let format = [Format::WebSocket, Format::EventsOfMany][dice(2)];
                let socket = nodes[at].connect_as(format);
                for room in &groups {
                    nodes[at].subscribe(&socket, room, None);
                }
                clients.push((at, socket));
            }
            1 if !clients.is_empty() => {
                let (at, socket) = clients.swap_remove(dice(clients.len()));
                nodes[at].shard.disconnect(socket.slot);
            }
            2 => nodes[at].turn(),
            3 => nodes[at].apply(),
            4 => nodes[at].write_one(),
            5 => announce(&layer).await,
            _ => drop(layer.group_send(room, &message(n)).await.expect("there is room")),
        }
    }
    announce(&layer).await;
    nodes.iter_mut().for_each(Node::turn);
    let there: Vec<String> = clients.iter().map(|(_, socket)| socket.channel.to_string()).collect();
    for (_, socket) in &clients {
        assert_eq!(socket.missed("room") + socket.missed("kept"), 0);
        for room in &groups {
            // Who was there before is asked for, not told; who went meanwhile is told.
            let mut known = socket.members(room.as_str());
            known.extend(there.iter().filter(|name| older(name, socket.channel.as_str())).cloned());
            assert_eq!(known, names(there.iter().map(String::as_str)), "{} in {room}", socket.channel);
        }
    }
}

/// Every group tells who comes and goes; `kept` keeps history, too.
fn tells(config: &mut LayerConfig) {
    let rule = |pattern, history| GroupRule {
        pattern: Pattern::parse(pattern).expect("a valid pattern"),
        history,
        presence: true,
        is_local: false,
    };
    let history = HistoryRule { messages: 10_000, age: std::time::Duration::from_secs(600) };
    config.groups = vec![rule("kept", Some(history)), rule("*", None)];
}

/// Lets the announcing task do all there is to do.
async fn announce(layer: &ChannelLayer) {
    tokio::select! {
        biased;
        () = layer.announce() => {}
        () = tokio::task::yield_now() => {}
    }
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn older(one: &str, other: &str) -> bool {
    let number = |name: &str| name.rsplit('c').next().and_then(|number| number.parse::<u64>().ok());
    number(one) < number(other)
}

impl Socket {
    /// Who is in a group, as far as this client was told.
    fn members(&self, group: &str) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        for frame in self.frames().iter().filter(|frame| frame["group"] == group) {
            let member = || frame["member"].as_str().expect("a name").to_owned();
            match frame["type"].as_str() {
                Some("joined") => drop(members.insert(member())),
                Some("left") => drop(members.remove(&member())),
                _ => {}
            }
        }
        members
    }
}
