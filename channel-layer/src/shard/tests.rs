//! Connections, cursors and logs, with sockets made of memory.

mod events;
pub(crate) mod fixture;
mod model;
mod presence;
mod recovery;
mod shed;

use bytes::Bytes;
use groupcast_protocol::{Message, NodeId, websocket};
use serde_json::Value;

use super::*;
use crate::contract::{group, message};
use crate::{ChannelLayer, LayerConfig};
use fixture::Node;

#[tokio::test(start_paused = true)]
async fn the_memory_layer_keeps_the_contract() {
    crate::contract::run(|config| async { ChannelLayer::new(config).0 }).await;
}

#[tokio::test]
async fn a_message_reaches_every_subscriber_in_order() {
    let mut node = Node::new(|_| ());
    let (room, sockets) = (group("room"), [node.connect(), node.connect(), node.connect()]);
    for socket in &sockets {
        node.shard.subscribe(socket.slot, &room, None);
    }
    for n in 0..50 {
        assert_eq!(node.layer.group_send(&room, &message(n)).await.expect("there is room").members, Some(3));
    }
    node.turn();
    for socket in &sockets {
        assert_eq!(socket.numbers("room"), (0..50).collect::<Vec<_>>());
    }
    assert_eq!(node.shard.log_bytes, 0, "what everybody has is forgotten");
}

#[tokio::test]
async fn one_write_carries_all_that_is_new() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    for n in 0..20 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
    }
    node.turn();
    assert_eq!((socket.sink.writes.get(), socket.numbers("room").len()), (1, 20));
}

#[tokio::test]
async fn what_was_sent_before_a_subscription_is_not_for_it() {
    let mut node = Node::new(|_| ());
    let (room, first, second) = (group("room"), node.connect(), node.connect());
    node.shard.subscribe(first.slot, &room, None);
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    // The event is still on its way when the second one subscribes.
    node.shard.subscribe(second.slot, &room, None);
    node.layer.group_send(&room, &message(1)).await.expect("there is room");
    node.turn();
    assert_eq!((first.numbers("room"), second.numbers("room")), (vec![0, 1], vec![1]));
}

#[tokio::test]
async fn nothing_comes_after_an_unsubscription() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.apply();
    node.shard.unsubscribe(socket.slot, &room);
    node.layer.group_send(&room, &message(1)).await.expect("there is room");
    node.turn();
    assert_eq!(socket.numbers("room"), Vec::<u64>::new());
    assert_eq!(node.layer.group_len(&room), None);
}

#[tokio::test]
async fn leaving_one_group_leaves_the_others_alone() {
    let names = ["a", "b", "c", "d"];
    for left in names {
        let (mut node, mut stays) = (Node::new(|_| ()), names.to_vec());
        let socket = node.connect();
        for name in names {
            node.shard.subscribe(socket.slot, &group(name), None);
        }
        socket.sink.room.set(0);
        for (n, name) in ["c", "a", "d"].into_iter().enumerate() {
            node.layer.group_send(&group(name), &message(n)).await.expect("there is room");
            node.apply();
        }
        node.shard.unsubscribe(socket.slot, &group(left));
        stays.retain(|name| *name != left);
        for name in names {
            node.layer.group_send(&group(name), &message(9)).await.expect("there is room");
        }
        node.let_in(&socket, usize::MAX);
        node.turn();
        assert!(socket.numbers(left).is_empty(), "{left}");
        for name in stays {
            assert_eq!(socket.numbers(name).last(), Some(&9), "{name} without {left}");
        }
        node.shard.disconnect(socket.slot);
        assert!(node.shard.lanes.is_empty() && node.shard.cursors.is_empty());
    }
}

#[tokio::test]
async fn who_falls_off_the_log_is_told_how_much_and_the_others_notice_nothing() {
    let mut node = Node::new(|config| config.log_bytes = 4000);
    let (room, slow, quick) = (group("room"), node.connect(), node.connect());
    for socket in [&slow, &quick] {
        node.shard.subscribe(socket.slot, &room, None);
    }
    slow.sink.room.set(100);
    for n in 0..1000 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
        node.turn();
    }
    assert!(node.shard.log_bytes <= 4000);
    assert_eq!(quick.numbers("room"), (0..1000).collect::<Vec<_>>());
    slow.sink.room.set(usize::MAX);
    node.shard.unblock(slow.slot);
    node.turn();
    // The half-written frame was finished first, then came the gap, then the rest up to the end.
    let (before, missed, after) = slow.around_the_gap();
    assert_eq!(before + missed + after.len() as u64, 1000);
    assert_eq!(after, (before + missed..1000).collect::<Vec<_>>());
    assert!(before >= 1 && missed > 900);
}

#[tokio::test]
async fn a_log_that_only_blocked_sockets_read_keeps_its_bound_within_a_sweep() {
    let mut node = Node::new(|config| config.log_bytes = 4000);
    let (room, slow) = (group("room"), node.connect());
    node.shard.subscribe(slow.slot, &room, None);
    slow.sink.room.set(100);
    for n in 0..1000 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
        if n < 10 {
            node.turn();
        }
    }
    node.apply();
    assert!(node.shard.log_bytes <= 4000, "{}", node.shard.log_bytes);
    node.let_in(&slow, usize::MAX);
    node.turn();
    let (before, missed, after) = slow.around_the_gap();
    assert_eq!(before + missed + after.len() as u64, 1000);
}

#[tokio::test]
async fn a_message_larger_than_the_log_reaches_everybody() {
    let mut node = Node::new(|config| config.log_bytes = 1000);
    let (room, slow, quick) = (group("room"), node.connect(), node.connect());
    for socket in [&slow, &quick] {
        node.shard.subscribe(socket.slot, &room, None);
    }
    slow.sink.room.set(0);
    for n in 0..3 {
        let padding = "x".repeat(5000);
        let large = format!(r#"{{"type":"test","n":{n},"padding":"{padding}"}}"#);
        let large = Message::parse(Bytes::from(large)).expect("a valid message");
        node.layer.group_send(&room, &large).await.expect("there is room");
        node.turn();
    }
    assert_eq!(quick.numbers("room"), [0, 1, 2]);
    slow.sink.room.set(usize::MAX);
    node.shard.unblock(slow.slot);
    node.turn();
    assert_eq!((slow.missed("room"), slow.numbers("room")), (2, vec![2]));
    node.layer.group_send(&room, &message(3)).await.expect("there is room");
    node.turn();
    assert_eq!(slow.numbers("room"), [2, 3]);
    assert_eq!(node.layer.stats().log_bytes.value(), 0);
}

#[tokio::test]
async fn a_trickling_socket_gets_whole_frames_of_several_groups() {
    for step in 1..40 {
        let mut node = Node::new(|_| ());
        let socket = node.connect();
        for name in ["a", "b", "c"] {
            node.shard.subscribe(socket.slot, &group(name), None);
        }
        for n in 0..10 {
            for name in ["a", "b", "c"] {
                node.layer.group_send(&group(name), &message(n)).await.expect("there is room");
            }
            socket.sink.room.set(step);
            node.shard.unblock(socket.slot);
            node.turn();
        }
        socket.sink.room.set(usize::MAX);
        node.shard.unblock(socket.slot);
        node.turn();
        for name in ["a", "b", "c"] {
            assert_eq!(socket.numbers(name), (0..10).collect::<Vec<_>>(), "{step} bytes at a time");
        }
    }
}

#[tokio::test]
async fn the_budget_of_a_shard_cuts_the_longest_logs() {
    let mut node = Node::new(|config| config.shard_log_bytes = 20_000);
    let (stalled, other) = (node.connect(), node.connect());
    stalled.sink.room.set(0);
    for name in ["long", "short"] {
        node.shard.subscribe(stalled.slot, &group(name), None);
        node.shard.subscribe(other.slot, &group(name), None);
    }
    node.layer.group_send(&group("short"), &message(0)).await.expect("there is room");
    for n in 0..1000 {
        node.layer.group_send(&group("long"), &message(n)).await.expect("there is room");
        node.turn();
    }
    assert!(node.shard.log_bytes <= 20_000, "{}", node.shard.log_bytes);
    stalled.sink.room.set(usize::MAX);
    node.shard.unblock(stalled.slot);
    node.turn();
    assert_eq!(stalled.numbers("short"), [0], "a short log is left alone");
    assert!(stalled.around_the_gap().1 > 0);
    assert_eq!(other.numbers("long").len(), 1000);
}

#[tokio::test]
async fn a_direct_message_goes_to_one_connection() {
    let mut node = Node::new(|_| ());
    let (one, two) = (node.connect(), node.connect());
    for n in 0..40 {
        node.layer.send(&one.channel, message(n)).await.expect("there is room");
    }
    node.turn();
    let channel_of = |frame: &Value| frame["channel"].as_str().map(str::to_owned);
    let frames = one.frames();
    assert!(frames.iter().all(|frame| channel_of(frame).as_deref() == Some(one.channel.as_str())));
    let numbers: Vec<_> = frames.iter().filter_map(|frame| frame["message"]["n"].as_u64()).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert!(two.frames().is_empty());
    assert!(matches!(node.layer.receive(&one.channel).await, Err(LayerError::NotYours { .. })));
}

#[tokio::test]
async fn a_connection_that_does_not_read_fills_its_channel() {
    let mut node = Node::new(|_| ());
    let socket = node.connect();
    socket.sink.room.set(0);
    let mut refused = 0;
    for n in 0..500 {
        refused += u64::from(node.layer.send(&socket.channel, message(n)).await.is_err());
        node.turn();
    }
    // A hundred in the mailbox, and a few that had been moved on to the socket.
    assert!((350..400).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_connection_can_be_added_and_taken_out_from_outside() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.layer.group_add(&room, &socket.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.turn();
    node.layer.group_discard(&room, &socket.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(1)).await.expect("there is room");
    node.turn();
    let kinds: Vec<_> = socket.frames().iter().map(|f| f["type"].as_str().expect("has a type").to_owned()).collect();
    assert_eq!(kinds, ["subscribed", "message", "unsubscribed"]);
}

#[tokio::test]
async fn a_subscription_joins_an_addition_that_is_on_its_way() {
    let mut node = Node::new(|_| ());
    let (room, socket, other) = (group("room"), node.connect(), node.connect());
    node.layer.group_add(&room, &socket.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.shard.subscribe(other.slot, &room, None);
    node.shard.subscribe(socket.slot, &room, None);
    node.layer.group_send(&room, &message(1)).await.expect("there is room");
    node.turn();
    assert_eq!((socket.numbers("room"), other.numbers("room")), (vec![0, 1], vec![1]));
    assert_eq!(node.layer.group_len(&room), Some(2));
}

#[tokio::test]
async fn a_removal_that_comes_late_does_not_end_a_newer_subscription() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    node.layer.group_discard(&room, &socket.channel).await.expect("it lives");
    node.shard.unsubscribe(socket.slot, &room);
    node.shard.subscribe(socket.slot, &room, None);
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.turn();
    assert_eq!(socket.numbers("room"), [0]);
    node.shard.disconnect(socket.slot);
    assert_eq!(node.layer.group_len(&room), None);
}

#[tokio::test]
async fn what_others_do_to_a_socket_that_takes_nothing_is_bounded() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.let_in(&socket, 0);
    for _ in 0..connection::OUTBOX_FRAMES_CUT / 2 {
        assert!(!socket.sink.failed.get());
        node.layer.group_add(&room, &socket.channel).await.expect("it lives");
        node.turn();
        node.layer.group_discard(&room, &socket.channel).await.expect("it lives");
        node.turn();
    }
    assert!(socket.sink.failed.get(), "its driver is told to give it up");
}

#[tokio::test]
async fn an_ended_connection_gets_its_outbox_and_nothing_else() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.layer.send(&socket.channel, message(1)).await.expect("there is room");
    node.shard.push(socket.slot, websocket::text(br#"{"type":"last"}"#));
    node.shard.end(socket.slot);
    node.layer.group_add(&room, &socket.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(2)).await.expect("there is room");
    node.turn();
    assert_eq!(socket.frames().len(), 1);
    assert_eq!(node.layer.group_len(&room), None, "an addition to it is undone");
}

#[tokio::test]
async fn a_connection_that_ends_leaves_nothing_behind() {
    let mut node = Node::new(|_| ());
    let (room, one, two) = (group("room"), node.connect(), node.connect());
    node.shard.subscribe(one.slot, &room, None);
    node.shard.subscribe(two.slot, &room, None);
    node.layer.group_add(&group("late"), &one.channel).await.expect("it lives");
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.shard.disconnect(one.slot);
    let three = node.connect();
    node.turn();
    assert_eq!((two.numbers("room"), three.frames().len()), (vec![0], 0), "a slot's next owner gets nothing");
    assert_eq!((node.layer.group_len(&room), node.layer.group_len(&group("late"))), (Some(1), None));
    assert!(matches!(node.layer.send(&one.channel, message(1)).await, Err(LayerError::Gone { .. })));
    node.shard.disconnect(two.slot);
    assert!(
        node.shard.lanes.is_empty()
            && node.shard.lanes_of.is_empty()
            && node.shard.cursors.is_empty()
            && node.layer.groups("", None, 9).is_empty()
    );
}

#[tokio::test]
async fn a_held_connection_gets_its_answers_and_nothing_else() {
    let mut node = Node::new(|_| ());
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    node.shard.hold(socket.slot, true);
    node.layer.group_send(&room, &message(0)).await.expect("there is room");
    node.layer.send(&socket.channel, message(1)).await.expect("there is room");
    node.turn();
    assert!(socket.frames().is_empty());
    node.shard.push(socket.slot, websocket::text(br#"{"type":"accepted"}"#));
    node.turn();
    assert_eq!(socket.frames().len(), 1);
    node.shard.hold(socket.slot, false);
    node.turn();
    assert_eq!(socket.frames().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_move_makes_publishers_wait_and_then_refuses() {
    let mut node = Node::new(|config| config.shard_queue = 3);
    let (room, socket) = (group("room"), node.connect());
    node.shard.subscribe(socket.slot, &room, None);
    for n in 0..3 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
    }
    let refused = node.layer.group_send(&room, &message(3)).await;
    assert_eq!(refused, Err(LayerError::Overloaded { group: room.clone() }));
    node.turn();
    node.layer.group_send(&room, &message(4)).await.expect("there is room again");
    node.turn();
    assert_eq!(socket.numbers("room"), [0, 1, 2, 4], "a refused message reached nobody");
}

#[tokio::test]
async fn publishers_wait_for_room_on_every_shard() {
    let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
    (config.shards, config.shard_queue) = (2, 1);
    let (layer, inboxes) = ChannelLayer::new(config);
    let mut nodes: Vec<_> = inboxes.into_iter().map(|inbox| Node::of(layer.clone(), inbox)).collect();
    let room = group("room");
    let sockets: Vec<_> = nodes.iter_mut().map(Node::connect).collect();
    for (node, socket) in nodes.iter_mut().zip(&sockets) {
        node.shard.subscribe(socket.slot, &room, None);
    }
    for n in 0..20 {
        let (layer, room) = (layer.clone(), room.clone());
        let sending = tokio::spawn(async move { layer.group_send(&room, &message(n)).await });
        while !sending.is_finished() {
            nodes.iter_mut().for_each(Node::turn);
            tokio::task::yield_now().await;
        }
        assert_eq!(sending.await.expect("it lives").expect("there is room").members, Some(2));
    }
    nodes.iter_mut().for_each(Node::turn);
    for socket in &sockets {
        assert_eq!(socket.numbers("room"), (0..20).collect::<Vec<_>>());
    }
}
/// There are many, and most have nothing to do; whoever adds a field sees here what it costs.
#[test]
fn what_every_connection_takes_is_small() {
    use std::mem::size_of;
    assert!(size_of::<Connection>() <= 160, "{}", size_of::<Connection>());
    assert!(size_of::<Cursor>() <= 72, "{}", size_of::<Cursor>());
    assert!(size_of::<crate::mailbox::Mailbox>() <= 160, "{}", size_of::<crate::mailbox::Mailbox>());
    assert!(size_of::<Member>() <= 32, "{}", size_of::<Member>());
    assert!(size_of::<Event>() <= 64, "{}", size_of::<Event>());
}
