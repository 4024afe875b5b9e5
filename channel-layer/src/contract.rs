//! The one list of tests that every layer passes, whatever broker is behind it.
//!
//! [`run`] takes a way to make a fresh layer with given bounds. Time is tokio's paused clock where a test needs it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId, Pattern};

use crate::{ChannelLayer, GroupRule, HistoryRule, LayerConfig, LayerError, Sent};

/// Runs the whole list; each test gets a layer of its own. Panics at the first promise that is not kept.
///
/// Needs a runtime with a paused clock (`#[tokio::test(start_paused = true)]`).
pub async fn run<F: Future<Output = ChannelLayer>>(fresh: impl Fn(LayerConfig) -> F) {
    let config = || LayerConfig::new(NodeId::parse("test").expect("a valid name"));
    a_message_is_received_once_and_in_order(&fresh(config()).await).await;
    readers_share_and_never_double(&fresh(config()).await).await;
    a_dropped_receive_takes_nothing(&fresh(config()).await).await;
    a_full_channel_refuses(&fresh(config()).await).await;
    large_messages_have_a_bound_in_bytes(&fresh(with_bytes(config())).await).await;
    capacity_goes_by_pattern(&fresh(with_capacity(config())).await).await;
    unread_messages_expire(&fresh(config()).await).await;
    new_channels_are_fresh_and_local(&fresh(config()).await).await;
    a_group_reaches_every_member_once(&fresh(config()).await).await;
    membership_is_idempotent_and_ends(&fresh(config()).await).await;
    a_full_member_is_passed_over(&fresh(config()).await).await;
    memberships_expire_unless_renewed(&fresh(config()).await).await;
    an_unknown_group_is_no_error(&fresh(config()).await).await;
    flush_empties_everything(&fresh(config()).await).await;
    history_has_offsets_without_holes(&fresh(with_history(config())).await).await;
    history_is_there_without_members(&fresh(with_history(config())).await).await;
    history_is_bounded_by_number_and_age(&fresh(with_history(config())).await).await;
    history_goes_by_pattern(&fresh(with_history(config())).await).await;
}

/// A group's name in a test.
pub fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a valid name")
}

/// A channel's name in a test.
pub fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

/// The nth message of a test.
pub fn message(n: usize) -> Message {
    Message::parse(Bytes::from(format!(r#"{{"type":"test","n":{n}}}"#))).expect("a valid message")
}

async fn a_message_is_received_once_and_in_order(layer: &ChannelLayer) {
    let inbox = channel("inbox");
    for n in 0..3 {
        layer.send(&inbox, message(n)).await.expect("there is room");
    }
    for n in 0..3 {
        let received = layer.receive(&inbox).await.expect("it was sent");
        assert_eq!((received.message, received.group), (message(n), None));
    }
    assert!(nothing_in(layer, &inbox).await);
}

async fn readers_share_and_never_double(layer: &ChannelLayer) {
    let inbox = channel("shared");
    let reader = |layer: ChannelLayer, inbox: ChannelName| async move { layer.receive(&inbox).await };
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(reader(layer.clone(), inbox.clone()))).collect();
    for n in 0..3 {
        layer.send(&inbox, message(n)).await.expect("there is room");
    }
    let mut seen = Vec::new();
    for reader in readers {
        let received = reader.await.expect("the reader lives").expect("it was sent");
        seen.push(received.message.as_str().to_owned());
    }
    seen.sort();
    assert_eq!(seen, (0..3).map(|n| message(n).as_str().to_owned()).collect::<Vec<_>>());
}

async fn a_dropped_receive_takes_nothing(layer: &ChannelLayer) {
    let inbox = channel("inbox");
    assert!(nothing_in(layer, &inbox).await);
    layer.send(&inbox, message(1)).await.expect("there is room");
    assert_eq!(layer.receive(&inbox).await.expect("it was sent").message, message(1));
}

async fn a_full_channel_refuses(layer: &ChannelLayer) {
    let inbox = channel("full");
    for n in 0..100 {
        layer.send(&inbox, message(n)).await.expect("there is room");
    }
    let refused = layer.send(&inbox, message(100)).await;
    assert_eq!(refused, Err(LayerError::ChannelFull { channel: inbox.clone(), capacity: 100 }));
    assert_eq!(layer.receive(&inbox).await.expect("it was sent").message, message(0));
    layer.send(&inbox, message(101)).await.expect("there is room again");
}

fn with_bytes(mut config: LayerConfig) -> LayerConfig {
    config.channel_bytes = 1000;
    config
}

async fn large_messages_have_a_bound_in_bytes(layer: &ChannelLayer) {
    let mut taken = 0;
    while layer.send(&channel(&format!("inbox.{taken}")), message(taken)).await.is_ok() {
        taken += 1;
    }
    assert!((5..9).contains(&taken), "{taken}");
    let refused = layer.send(&channel("one.more"), message(0)).await;
    assert_eq!(refused, Err(LayerError::OutOfRoom { channel: channel("one.more"), max: 1000 }));
    layer.receive(&channel("inbox.0")).await.expect("it was sent");
    layer.send(&channel("one.more"), message(0)).await.expect("there is room again");
    tokio::time::advance(Duration::from_secs(61)).await;
    layer.sweep();
    for n in 0..taken {
        layer.send(&channel("inbox"), message(n)).await.expect("what expired takes no room");
    }
}

fn with_capacity(mut config: LayerConfig) -> LayerConfig {
    let pattern = |text| Pattern::parse(text).expect("a valid pattern");
    config.channel_capacity = vec![(pattern("small.*"), 1), (pattern("small.not"), 9)];
    config
}

async fn capacity_goes_by_pattern(layer: &ChannelLayer) {
    for name in ["small.1", "small.not"] {
        layer.send(&channel(name), message(0)).await.expect("there is room");
        let refused = layer.send(&channel(name), message(1)).await;
        assert!(matches!(refused, Err(LayerError::ChannelFull { capacity: 1, .. })), "{name}: {refused:?}");
    }
}

async fn unread_messages_expire(layer: &ChannelLayer) {
    let inbox = channel("inbox");
    layer.send(&inbox, message(0)).await.expect("there is room");
    tokio::time::advance(Duration::from_secs(59)).await;
    layer.send(&inbox, message(1)).await.expect("there is room");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(layer.receive(&inbox).await.expect("it was sent").message, message(1));
    assert!(nothing_in(layer, &inbox).await);
}

async fn new_channels_are_fresh_and_local(layer: &ChannelLayer) {
    let one = layer.new_channel("specific").expect("there is room");
    let two = layer.new_channel("specific").expect("there is room");
    assert!(one != two && one.is_process_local() && one.as_str().starts_with("specific."));
    layer.send(&one, message(1)).await.expect("there is room");
    assert!(nothing_in(layer, &two).await);
    assert_eq!(layer.receive(&one).await.expect("it was sent").message, message(1));
    layer.close_channel(&one);
    assert_eq!(layer.send(&one, message(1)).await, Err(LayerError::Gone { channel: one }));
}

async fn a_group_reaches_every_member_once(layer: &ChannelLayer) {
    let room = group("room");
    let members = [channel("a"), channel("b"), layer.new_channel("specific").expect("there is room")];
    for member in &members {
        layer.group_add(&room, member).await.expect("it exists");
    }
    for n in 0..3 {
        reaches(&send(layer, &room, n).await, 3);
    }
    for member in &members {
        for n in 0..3 {
            let received = layer.receive(member).await.expect("it was sent");
            assert_eq!((received.message, received.group), (message(n), Some(room.clone())));
        }
        assert!(nothing_in(layer, member).await);
    }
}

async fn membership_is_idempotent_and_ends(layer: &ChannelLayer) {
    let (room, a) = (group("room"), channel("a"));
    layer.group_add(&room, &a).await.expect("it exists");
    layer.group_add(&room, &a).await.expect("it exists");
    send(layer, &room, 1).await;
    layer.receive(&a).await.expect("it was sent");
    assert!(nothing_in(layer, &a).await, "a member that was added twice gets a message once");
    for _ in 0..2 {
        layer.group_discard(&room, &a).await.expect("no error if absent");
    }
    send(layer, &room, 2).await;
    assert!(nothing_in(layer, &a).await);
}

async fn a_full_member_is_passed_over(layer: &ChannelLayer) {
    let (room, full, other) = (group("room"), channel("full"), channel("other"));
    layer.group_add(&room, &full).await.expect("it exists");
    for n in 0..100 {
        layer.send(&full, message(n)).await.expect("there is room");
    }
    layer.group_add(&room, &other).await.expect("it exists");
    send(layer, &room, 7).await;
    assert_eq!(layer.receive(&other).await.expect("it was sent").message, message(7));
    for n in 0..100 {
        assert_eq!(layer.receive(&full).await.expect("it was sent").message, message(n));
    }
    assert!(nothing_in(layer, &full).await);
}

async fn memberships_expire_unless_renewed(layer: &ChannelLayer) {
    let (room, old, renewed) = (group("room"), channel("old"), channel("renewed"));
    layer.group_add(&room, &old).await.expect("it exists");
    layer.group_add(&room, &renewed).await.expect("it exists");
    tokio::time::advance(Duration::from_secs(80_000)).await;
    layer.group_add(&room, &renewed).await.expect("it exists");
    tokio::time::advance(Duration::from_secs(10_000)).await;
    layer.sweep();
    reaches(&send(layer, &room, 1).await, 1);
    assert!(nothing_in(layer, &old).await);
    assert_eq!(layer.receive(&renewed).await.expect("it was sent").message, message(1));
}

async fn an_unknown_group_is_no_error(layer: &ChannelLayer) {
    reaches(&send(layer, &group("nobody"), 1).await, 0);
    layer.group_discard(&group("nobody"), &channel("a")).await.expect("no error if absent");
}

async fn flush_empties_everything(layer: &ChannelLayer) {
    let (room, a) = (group("room"), channel("a"));
    layer.group_add(&room, &a).await.expect("it exists");
    send(layer, &room, 1).await;
    layer.flush().await.expect("there is room");
    assert!(nothing_in(layer, &a).await);
    reaches(&send(layer, &room, 2).await, 0);
}

fn with_history(mut config: LayerConfig) -> LayerConfig {
    let pattern = Pattern::parse("kept.*").expect("a valid pattern");
    let history = Some(HistoryRule { messages: 10, age: Duration::from_secs(60) });
    config.groups = vec![GroupRule { pattern, history, presence: false, is_local: false }];
    config
}

async fn history_has_offsets_without_holes(layer: &ChannelLayer) {
    let (room, a) = (group("kept.room"), channel("a"));
    layer.group_add(&room, &a).await.expect("it exists");
    let start = layer.position(&room).expect("it keeps history");
    for n in 1..=5 {
        let sent = send(layer, &room, n).await;
        reaches(&sent, 1);
        let position = sent.position.expect("it keeps history");
        assert_eq!((&position.epoch, position.offset), (&start.epoch, start.offset + n as u64));
        assert_eq!(layer.position(&room), Some(position));
        assert_eq!(layer.receive(&a).await.expect("it was sent").message, message(n));
    }
    let page = layer.history(&room, start.offset + 1, 3, usize::MAX).expect("it keeps history");
    let messages: Vec<_> =
        page.messages.into_iter().map(|(offset, message)| (offset - start.offset, message)).collect();
    assert_eq!((page.epoch, page.more), (start.epoch, true));
    assert_eq!(messages, (2..=4).map(|n| (n as u64, message(n))).collect::<Vec<_>>());
    let bytes = message(1).raw().len();
    for (bytes, expected) in [(0, 1), (bytes, 1), (3 * bytes - 1, 2), (3 * bytes, 3), (4 * bytes, 3)] {
        let page = layer.history(&room, start.offset + 1, 3, bytes).expect("it keeps history");
        assert_eq!((page.messages.len(), page.more), (expected, true), "within {bytes} bytes");
    }
    let page = layer.history(&room, start.offset + 3, 9, 2 * bytes).expect("it keeps history");
    assert_eq!((page.messages.len(), page.more), (2, false));
    assert!(!layer.history(&room, start.offset + 4, 1, usize::MAX).expect("it keeps history").more);
    assert!(layer.history(&room, u64::MAX, 1, usize::MAX).expect("it keeps history").messages.is_empty());
}

async fn history_is_there_without_members(layer: &ChannelLayer) {
    let (room, a) = (group("kept.room"), channel("a"));
    assert_eq!(layer.position(&room), None, "nothing is known of it");
    let _open = layer.open(&room).await.expect("the broker is there");
    let first = send(layer, &room, 1).await;
    reaches(&first, 0);
    layer.group_add(&room, &a).await.expect("it exists");
    layer.group_discard(&room, &a).await.expect("it exists");
    let second = send(layer, &room, 2).await;
    let (first, second) = (first.position.expect("it keeps history"), second.position.expect("it keeps history"));
    assert_eq!(
        (&second.epoch, second.offset),
        (&first.epoch, first.offset + 1),
        "it is one sequence, whoever is there"
    );
    assert_eq!(layer.history(&room, 0, 10, usize::MAX).expect("it keeps history").messages.len(), 2);
    assert_eq!(layer.groups("kept.", None, 10), [(room.clone(), 0)]);
}

async fn history_is_bounded_by_number_and_age(layer: &ChannelLayer) {
    let room = group("kept.room");
    let _open = layer.open(&room).await.expect("the broker is there");
    let kept = || layer.history(&room, 0, 100, usize::MAX).expect("it keeps history").messages.len();
    for n in 0..15 {
        send(layer, &room, n).await;
    }
    assert_eq!(kept(), 10);
    tokio::time::advance(Duration::from_secs(59)).await;
    send(layer, &room, 15).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(kept(), 1, "what is too old is not shown, swept or not");
    layer.sweep();
    assert_eq!(kept(), 1);
}

async fn history_goes_by_pattern(layer: &ChannelLayer) {
    let plain = group("plain");
    layer.group_add(&plain, &channel("a")).await.expect("it exists");
    assert_eq!(send(layer, &plain, 1).await.position, None);
    assert_eq!((layer.position(&plain), layer.history(&plain, 0, 10, usize::MAX)), (None, None));
}

/// Sends the nth message, and waits until it is where it belongs: with a broker that is a moment later.
async fn send(layer: &ChannelLayer, group: &GroupName, n: usize) -> Sent {
    let sent = layer.group_send(group, &message(n)).await.expect("there is room");
    tokio::time::sleep(Duration::from_millis(1)).await;
    sent
}

/// Of a layer that counts them, whether a message was addressed to so many members.
fn reaches(sent: &Sent, members: u64) {
    assert!(sent.members.is_none_or(|counted| counted == members), "{members} expected: {sent:?}");
}

/// Whether a reader of the channel would wait.
async fn nothing_in(layer: &ChannelLayer, channel: &ChannelName) -> bool {
    tokio::time::timeout(Duration::from_millis(10), layer.receive(channel)).await.is_err()
}
