//! Event streams, as their clients see them.

use groupcast_protocol::{Format, sse};

use super::fixture::{Node, Seen};
use super::recovery::keeps;
use crate::contract::{group, message};

#[tokio::test]
async fn a_stream_of_one_group_has_an_id_in_each_of_its_events() {
    let (mut node, room, other) = (Node::new(keeps(100)), group("room"), group("other"));
    let socket = node.connect_as(Format::Events);
    let start = node.subscribe(&socket, &room, None).position.expect("it keeps history");
    // Whose offsets would mean nothing in the first one.
    node.layer.group_add(&other, &socket.channel).await.expect("it lives");
    for n in 0..2 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
        node.layer.group_send(&other, &message(n)).await.expect("there is room");
    }
    node.layer.send(&socket.channel, message(9)).await.expect("there is room");
    node.turn();
    let seen = socket.seen();
    let ids: Vec<_> = of_group(&seen, "room").map(|seen| seen.id.clone()).collect();
    let id = |offset| Some(format!("{}:{offset}", start.epoch));
    assert_eq!(ids, [id(0), id(1), id(2)]);
    assert!(of_group(&seen, "other").all(|seen| seen.id.is_none()));
    assert_eq!(of_group(&seen, "other").count(), 3);
    let names: Vec<_> = seen.iter().filter_map(|seen| seen.event.as_deref()).collect();
    assert_eq!(names, ["subscribed", "subscribed"]);
    assert_eq!(
        seen.iter().filter(|seen| seen.frame.as_ref().is_some_and(|frame| frame["channel"].is_string())).count(),
        1
    );
}

#[tokio::test]
async fn a_stream_of_many_groups_has_their_positions_behind_each_batch() {
    let (mut node, groups) = (Node::new(keeps(100)), [group("a"), group("b"), group("plain")]);
    let socket = node.connect_as(Format::EventsOfMany);
    for group in &groups {
        node.subscribe(&socket, group, None);
    }
    node.turn();
    for n in 0..3 {
        node.layer.group_send(&groups[0], &message(n)).await.expect("there is room");
        node.layer.group_send(&groups[2], &message(n)).await.expect("there is room");
    }
    node.turn();
    let seen = socket.seen();
    assert!(seen.iter().all(|seen| seen.frame.is_none() || seen.id.is_none()));
    let last = seen.last().expect("there is something");
    assert_eq!(last.frame, None);
    let positions = sse::Positions::parse(last.id.as_deref().expect("an id"), 3).expect("what the shard wrote");
    let offset = |at: usize| positions.of(&groups[at]).map(|position| position.offset);
    assert_eq!([offset(0), offset(1), offset(2)], [Some(3), Some(0), None]);
    let blocks = seen.iter().filter(|seen| seen.frame.is_none()).count();
    assert_eq!(blocks, 2, "one where it begins and one behind the batch");
}

#[tokio::test]
async fn a_stream_of_many_groups_tells_no_position_in_groups_it_did_not_ask_for() {
    let (mut node, asked, other) = (Node::new(keeps(100)), [group("a"), group("b")], group("other"));
    let socket = node.connect_as(Format::EventsOfMany);
    for group in &asked {
        node.subscribe(&socket, group, None);
    }
    node.layer.group_add(&other, &socket.channel).await.expect("it lives");
    for group in [&asked[0], &other] {
        node.layer.group_send(group, &message(0)).await.expect("there is room");
        node.turn();
    }
    assert_eq!((socket.numbers("a"), socket.numbers("other")), (vec![0], vec![0]));
    let seen = socket.seen();
    let ids: Vec<_> = seen.iter().filter_map(|seen| seen.id.as_deref()).collect();
    assert!(!ids.is_empty());
    for id in ids {
        let positions = sse::Positions::parse(id, 2).expect("as many as were asked for");
        assert_eq!(positions.of(&other), None);
    }
}

#[tokio::test]
async fn each_format_has_a_log_of_its_own_and_nobody_reads_what_is_not_there() {
    let (mut node, room) = (Node::new(keeps(100)), group("room"));
    let formats = [Format::WebSocket, Format::Events, Format::EventsOfMany];
    let sockets = formats.map(|format| node.connect_as(format));
    for socket in &sockets {
        node.subscribe(socket, &room, None);
    }
    node.turn();
    for n in 0..50 {
        node.layer.group_send(&room, &message(n)).await.expect("there is room");
    }
    node.turn();
    for socket in &sockets {
        assert_eq!(socket.numbers("room"), (0..50).collect::<Vec<_>>());
    }
    assert_eq!((node.shard.lanes.len(), node.shard.log_bytes), (3, 0));
    for socket in &sockets {
        node.shard.disconnect(socket.slot);
    }
    assert!(node.shard.lanes.is_empty() && node.shard.lanes_of.is_empty());
}

fn of_group<'a>(seen: &'a [Seen], group: &str) -> impl Iterator<Item = &'a Seen> {
    seen.iter().filter(move |seen| seen.frame.as_ref().is_some_and(|frame| frame["group"] == group))
}
