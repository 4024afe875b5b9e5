//! Who goes when memory is short: whoever keeps most of it and takes nothing.

use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{Message, Pattern};

use super::fixture::{Node, Socket};
use crate::config::{GroupRule, HistoryRule};
use crate::contract::group;

fn large() -> Message {
    let text = format!(r#"{{"type":"tick","padding":"{}"}}"#, "x".repeat(10_000));
    Message::parse(Bytes::from(text)).expect("a message")
}

/// Sockets that are so many large messages behind, and take nothing.
async fn behind(node: &mut Node, counts: &[usize]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for (number, count) in counts.iter().enumerate() {
        let (socket, room) = (node.connect(), group(&format!("room.{number}")));
        node.shard.subscribe(socket.slot, &room, None);
        node.let_in(&socket, 0);
        for _ in 0..*count {
            node.layer.group_send(&room, &large()).await.expect("there is room");
        }
        node.turn();
        sockets.push(socket);
    }
    sockets
}

fn shed(sockets: &[Socket]) -> Vec<bool> {
    sockets.iter().map(|socket| socket.sink.shed.take()).collect()
}

#[tokio::test]
async fn those_with_most_waiting_go_first_and_no_more_than_has_to_be() {
    let mut node = Node::new(|_| ());
    let sockets = behind(&mut node, &[3, 9, 6]).await;
    assert_eq!((node.shard.shed(1), shed(&sockets)), (1, vec![false, true, false]));
    assert_eq!((node.shard.shed(100_000), shed(&sockets)), (2, vec![false, true, true]));
    assert_eq!((node.shard.shed(u64::MAX), shed(&sockets)), (3, vec![true; 3]));
    assert_eq!((node.shard.shed(0), shed(&sockets)), (0, vec![false; 3]));
}

#[tokio::test]
async fn who_keeps_little_or_reads_stays() {
    let mut node = Node::new(|_| ());
    let sockets = behind(&mut node, &[1, 9]).await;
    let idle = node.connect();
    node.shard.subscribe(idle.slot, &group("room.1"), None);
    node.let_in(&sockets[1], usize::MAX);
    assert_eq!(node.shard.shed(u64::MAX), 0, "the second takes bytes again, and is about to be written");
    node.turn();
    assert_eq!(node.shard.shed(u64::MAX), 0);
    assert_eq!(shed(&sockets), [false, false]);
}

#[tokio::test]
async fn histories_are_cut_by_what_has_to_go_and_who_comes_back_is_told() {
    let history = Some(HistoryRule { messages: 1000, age: Duration::from_secs(60) });
    let pattern = Pattern::parse("kept").expect("a pattern");
    let rule = GroupRule { pattern, history, presence: false, is_local: false };
    let mut node = Node::new(|config| config.groups = vec![rule]);
    let (kept, socket) = (group("kept"), node.connect());
    for _ in 0..100 {
        node.layer.group_send(&kept, &large()).await.expect("there is room");
    }
    let bytes = || node.layer.stats().history.bytes.value();
    let before = bytes();
    node.layer.shrink_histories(before / 2);
    assert!((before / 4..=before / 2).contains(&bytes()), "{} of {before}", bytes());
    let position = node.shard.subscribe(socket.slot, &kept, None).position.expect("it keeps history");
    assert_eq!(position.offset, 100, "numbers go on");
    node.layer.shrink_histories(u64::MAX);
    assert!(bytes() < before / 10, "{}", bytes());
}
