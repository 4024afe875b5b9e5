//! Nodes of one process on one broker in memory: what members see when messages, links and the broker itself are lost.

mod chaos;
mod cluster;
mod presence;

use std::time::Duration;

use cluster::Cluster;

use crate::ChannelLayer;
use crate::broker::memory::Hub;
use crate::contract::{self, channel, group, message};
use crate::error::LayerError;

#[tokio::test(start_paused = true)]
async fn a_layer_with_a_broker_keeps_the_contract() {
    contract::run(|config| async {
        let (broker, inbox) = Hub::default().connect(config.node.clone());
        let (layer, _inboxes, carrier) = ChannelLayer::with_broker(config, broker, inbox, Box::new(drop));
        let carried = layer.clone();
        tokio::spawn(async move { carried.carry(carrier).await });
        layer
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_the_members_on_all_nodes_in_order() {
    let cluster = Cluster::of(3).await;
    let members = cluster.join_all("room").await;
    for n in 0..50 {
        cluster.layer(n % 3).group_send(&group("room"), &message(n)).await.expect("the broker is there");
    }
    cluster.settle().await;
    let all: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for member in &members {
        assert_eq!(member.told(), all);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_follows_what_it_needs_and_no_more() {
    let cluster = Cluster::of(2).await;
    let member = cluster.join(0, "room").await;
    assert_eq!(cluster.followed(0), ["room"]);
    assert!(cluster.followed(1).is_empty());
    cluster.leave(&member);
    let again = cluster.join(0, "room").await;
    cluster.pass(Duration::from_secs(20)).await;
    assert_eq!(cluster.followed(0), ["room"], "somebody came back in time");
    cluster.leave(&again);
    cluster.pass(Duration::from_secs(20)).await;
    assert!(cluster.followed(0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_told() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("room").await;
    cluster.send("room", 0..2).await;
    cluster.lose(1, 3);
    cluster.send("room", 2..6).await;
    assert_eq!(members[0].told(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(members[1].told(), ["0", "1"], "the broker has to be asked, and what is missing may still come");
    cluster.pass(Duration::from_secs(3)).await;
    assert_eq!(members[1].told(), ["0", "1", "gap 3", "5"]);
    cluster.send("room", 6..7).await;
    assert_eq!(members[1].told(), ["0", "1", "gap 3", "5", "6"]);
}

#[tokio::test(start_paused = true)]
async fn a_forged_place_keeps_nobody_from_what_comes() {
    let cluster = Cluster::of(2).await;
    for name in ["room", "kept"] {
        let members = cluster.join_all(name).await;
        cluster.send(name, 0..2).await;
        for offset in [3, 4, 1000, 1 << 40] {
            cluster.forge(1, name, None, offset);
            cluster.forge(1, name, Some("x"), offset);
        }
        cluster.send(name, 2..4).await;
        cluster.pass(Duration::from_secs(3)).await;
        cluster.send(name, 4..5).await;
        for member in &members {
            assert_eq!(member.told(), ["0", "1", "2", "3", "4"], "{name}");
        }
    }
    assert_eq!(cluster.misplaced(1), 16);
}

#[tokio::test(start_paused = true)]
async fn a_forged_place_hides_no_loss() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("room").await;
    cluster.send("room", 0..1).await;
    cluster.lose(1, 2);
    cluster.send("room", 1..3).await;
    cluster.forge(1, "room", None, 1 << 40);
    cluster.pass(Duration::from_secs(3)).await;
    assert_eq!(members[1].told(), ["0", "gap 2"], "though nothing has come since");
    cluster.send("room", 3..4).await;
    assert_eq!(members[1].told(), ["0", "gap 2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_begins_while_the_link_holds_is_taken_when_the_broker_says_so() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("room").await;
    cluster.send("room", 0..2).await;
    cluster.hub.forget();
    cluster.send("room", 2..4).await;
    cluster.pass(Duration::from_secs(1)).await;
    cluster.send("room", 4..5).await;
    for member in &members {
        assert_eq!(member.told(), ["0", "1", "gap", "2", "3", "4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_read_from_history() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("kept").await;
    cluster.send("kept", 0..2).await;
    cluster.lose(1, 3);
    cluster.send("kept", 2..8).await;
    assert_eq!(members[1].told(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(cluster.layer(0).position(&group("kept")), cluster.layer(1).position(&group("kept")));
}

#[tokio::test(start_paused = true)]
async fn the_last_message_before_a_cut_is_not_missed_in_silence() {
    let cluster = Cluster::of(2).await;
    let (plain, kept) = (cluster.join_all("room").await, cluster.join_all("kept").await);
    cluster.send("room", 0..1).await;
    cluster.send("kept", 0..1).await;
    cluster.cut(1).await;
    cluster.send("room", 1..3).await;
    cluster.send("kept", 1..3).await;
    cluster.rejoin(1).await;
    cluster.pass(Duration::from_secs(3)).await;
    assert_eq!(plain[1].told(), ["0", "gap 2"], "though nothing has come since");
    assert_eq!(kept[1].told(), ["0", "1", "2"]);
    cluster.send("room", 3..4).await;
    cluster.send("kept", 3..4).await;
    assert_eq!(plain[1].told(), ["0", "gap 2", "3"]);
    assert_eq!(kept[1].told(), ["0", "1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_lost_nothing_tells_nothing() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("room").await;
    cluster.send("room", 0..2).await;
    for _ in 0..3 {
        cluster.cut(1).await;
        cluster.rejoin(1).await;
    }
    cluster.pass(Duration::from_secs(3)).await;
    cluster.send("room", 2..3).await;
    assert_eq!(members[1].told(), ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_forgotten_begins_anew_and_says_so() {
    let cluster = Cluster::of(2).await;
    let (plain, kept) = (cluster.join_all("room").await, cluster.join_all("kept").await);
    cluster.send("room", 0..2).await;
    cluster.send("kept", 0..2).await;
    let before = cluster.layer(0).position(&group("kept")).expect("it keeps history");
    cluster.restart().await;
    cluster.send("room", 2..4).await;
    cluster.send("kept", 2..4).await;
    cluster.pass(Duration::from_secs(3)).await;
    for member in plain.iter().chain(&kept) {
        assert_eq!(member.told(), ["0", "1", "gap", "2", "3"]);
    }
    let after = cluster.layer(0).position(&group("kept")).expect("it keeps history");
    assert!(before.epoch != after.epoch && after.offset == 2, "{before} {after}");
    assert_eq!(cluster.layer(1).position(&group("kept")), Some(after));
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_finds_the_history_of_before() {
    let cluster = Cluster::of(2).await;
    let first = cluster.join(0, "kept").await;
    cluster.send("kept", 0..700).await;
    assert_eq!(first.told().len(), 700);
    let _open = cluster.layer(1).open(&group("kept")).await.expect("the broker is there");
    let page = cluster.layer(1).history(&group("kept"), 0, 1000, usize::MAX).expect("it keeps history");
    assert_eq!(page.messages.len(), 700, "in two answers of the broker");
}

#[tokio::test(start_paused = true)]
async fn without_a_broker_nobody_is_told_that_he_is_subscribed() {
    let cluster = Cluster::of(1).await;
    cluster.cut(0).await;
    let refused = cluster.layer(0).open(&group("room")).await;
    assert!(matches!(refused, Err(LayerError::Broker(_))), "{refused:?}");
    let refused = cluster.layer(0).group_send(&group("room"), &message(1)).await;
    assert!(matches!(refused, Err(LayerError::Broker(_))), "{refused:?}");
    cluster.rejoin(0).await;
    cluster.layer(0).open(&group("room")).await.expect("it is back");
}

#[tokio::test(start_paused = true)]
async fn a_direct_message_finds_the_connection_on_whatever_node() {
    let cluster = Cluster::of(2).await;
    let member = cluster.join(1, "room").await;
    cluster.layer(0).send(member.channel(), message(7)).await.expect("it is there");
    cluster.settle().await;
    assert_eq!(member.told(), ["7"]);
    let gone = channel("specific.n9!c1");
    assert_eq!(cluster.layer(0).send(&gone, message(1)).await, Err(LayerError::Gone { channel: gone }));
}

#[tokio::test(start_paused = true)]
async fn a_local_group_stays_on_its_node() {
    let cluster = Cluster::of(2).await;
    let members = cluster.join_all("local").await;
    cluster.send("local", 0..1).await;
    assert_eq!((members[0].told().len(), members[1].told().len()), (1, 0));
    assert!(cluster.followed(0).is_empty());
}

/// Nodes that are cut off, lose messages and come back at random, with members that count: what a member did not get was
/// told, and nothing came twice or out of order.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_loss_is_told() {
    for seed in chaos::seeds() {
        chaos::run(seed).await;
    }
}
