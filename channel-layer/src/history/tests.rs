//! What is kept, for how long, and what becomes of a position.

use std::time::Duration;

use groupcast_protocol::{GroupName, Message, NodeId, Pattern, frame};

use super::*;
use crate::contract::{group, message};
use crate::{ChannelLayer, GroupRule, LayerConfig};

#[tokio::test(start_paused = true)]
async fn the_oldest_go_by_number_and_by_age() {
    let mut history = history(3, 60);
    for n in 1..=4 {
        push(&mut history, n);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(offsets(&history), [2, 3, 4]);
    tokio::time::advance(Duration::from_secs(30)).await;
    history.expire();
    assert_eq!((offsets(&history), history.first(), history.head()), (vec![3, 4], 3, 4));
    tokio::time::advance(Duration::from_secs(60)).await;
    history.expire();
    assert_eq!((offsets(&history), history.first(), history.head()), (vec![], 5, 4));
}

#[tokio::test]
async fn a_message_is_read_out_of_its_frame() {
    let mut history = history(9, 60);
    push(&mut history, 1);
    push(&mut history, 2);
    let (offset, text) = history.messages(2).next().expect("it is kept");
    assert_eq!((offset, &text[..]), (2, &message(2).raw()[..]));
}

#[tokio::test]
async fn a_position_is_recovered_when_all_behind_it_is_here() {
    let mut history = history(3, 60);
    for n in 1..=5 {
        push(&mut history, n);
    }
    let recovery =
        |epoch: &str, offset| history.recovery("x", &Position::new(epoch, offset).expect("a valid position"));
    for offset in 2..=5 {
        assert_eq!(recovery("x", offset), Recovery::Recovered, "{offset}");
    }
    assert_eq!(recovery("x", 1), Recovery::Unrecovered(Unrecovered::Trimmed));
    assert_eq!(recovery("x", 6), Recovery::Unrecovered(Unrecovered::Ahead));
    assert_eq!(recovery("x", u64::MAX), Recovery::Unrecovered(Unrecovered::Ahead));
    assert_eq!(recovery("y", 3), Recovery::Unrecovered(Unrecovered::EpochChanged));
}

#[tokio::test]
async fn an_empty_history_recovers_its_own_position() {
    let mut history = history(0, 60);
    let recovery =
        |history: &History, offset| history.recovery("x", &Position::new("x", offset).expect("a valid position"));
    assert_eq!(recovery(&history, 0), Recovery::Recovered);
    push(&mut history, 1);
    assert_eq!(recovery(&history, 1), Recovery::Recovered);
    assert_eq!(recovery(&history, 0), Recovery::Unrecovered(Unrecovered::Trimmed));
}

#[tokio::test]
async fn what_is_dropped_counts_for_nothing() {
    let total = Arc::new(HistoryUse::default());
    let mut history = History::new(rule(10, 60), total.clone());
    for n in 1..=20 {
        push(&mut history, n);
    }
    assert_eq!(total.messages.value(), 10);
    assert_eq!(total.bytes.value(), (history.bytes() + IDLE_BYTES) as u64);
    history.trim(history.bytes() / 2);
    assert_eq!(total.messages.value(), 5);
    drop(history);
    assert_eq!((total.messages.value(), total.bytes.value()), (0, 0));
}

#[tokio::test]
async fn the_longest_histories_give_way() {
    let layer = layer(20_000, 1000);
    for n in 0..10 {
        layer.group_send(&group("short"), &message(n)).await.expect("there is room");
    }
    for n in 0..1000 {
        layer.group_send(&group("long"), &message(n)).await.expect("there is room");
        assert!(layer.stats().history.bytes.value() <= 20_000);
    }
    assert_eq!(layer.history(&group("short"), 0, 100, usize::MAX).expect("it keeps history").messages.len(), 10);
    let long = layer.history(&group("long"), 0, 1000, usize::MAX).expect("it keeps history");
    let newest = long.messages.last().map(|(offset, _)| *offset);
    assert!(long.messages.len() > 30 && newest == Some(1000), "{}", long.messages.len());
}

#[tokio::test]
async fn groups_that_nobody_is_in_are_bounded_and_the_least_recently_used_go() {
    let layer = layer(100_000, 1000);
    for n in 0..1000 {
        layer.group_send(&group(&format!("g{n}")), &message(n)).await.expect("there is room");
    }
    let kept = layer.groups("", None, 1000);
    assert!((40..80).contains(&kept.len()), "{}", kept.len());
    assert_eq!(layer.position(&group("g0")), None);
    assert_eq!(layer.position(&group("g999")).map(|position| position.offset), Some(1));
    assert_eq!(layer.history(&group("g999"), 0, 9, usize::MAX).map(|page| page.messages.len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_uses_is_forgotten_and_begins_anew() {
    let layer = layer(1 << 20, 1000);
    let room = group("room");
    let first = layer.group_send(&room, &message(1)).await.expect("there is room").position.expect("it keeps history");
    tokio::time::advance(Duration::from_secs(61)).await;
    layer.sweep();
    assert_eq!(layer.position(&room).as_ref(), Some(&first), "nothing is kept but its position");
    assert_eq!(layer.stats().history.messages.value(), 0);
    tokio::time::advance(Duration::from_secs(60)).await;
    layer.sweep();
    assert_eq!((layer.position(&room), layer.stats().history.bytes.value()), (None, 0));
    let second = layer.group_send(&room, &message(2)).await.expect("there is room").position.expect("it keeps history");
    assert_eq!((first.offset, second.offset), (1, 1));
    assert_ne!(first.epoch, second.epoch);
}

#[tokio::test]
async fn a_group_without_members_has_one_history_however_many_publish() {
    let layer = layer(1 << 20, 10_000);
    let publishers = (0..4).map(|_| {
        let layer = layer.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                for n in 0..500 {
                    layer.group_send(&group("room"), &message(n)).await.expect("there is room");
                }
            });
        })
    });
    publishers.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("it lives"));
    let page = layer.history(&group("room"), 0, 10_000, usize::MAX).expect("it keeps history");
    let offsets: Vec<u64> = page.messages.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (1..=2000).collect::<Vec<_>>());
}

fn rule(messages: usize, age: u64) -> HistoryRule {
    HistoryRule { messages, age: Duration::from_secs(age) }
}

fn history(messages: usize, age: u64) -> History {
    History::new(rule(messages, age), Arc::default())
}

/// A layer whose groups all keep history.
fn layer(history_bytes: usize, messages: usize) -> ChannelLayer {
    let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
    let pattern = Pattern::parse("*").expect("a valid pattern");
    config.groups = vec![GroupRule { pattern, history: Some(rule(messages, 60)), presence: false, is_local: false }];
    config.history_bytes = history_bytes;
    ChannelLayer::new(config).0
}

fn push(history: &mut History, n: u64) {
    let (name, message): (GroupName, Message) = (group("room"), message(n as usize));
    let frame = frame::frame_group_message(&name, Some(n), &message);
    history.push(frame, message.raw().len());
}

fn offsets(history: &History) -> Vec<u64> {
    history.frames(history.first()).map(|(offset, _)| offset).collect()
}
