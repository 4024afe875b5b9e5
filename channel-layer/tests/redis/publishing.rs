//! Many publications at once: they share calls, and each keeps its own place and outcome.

use futures_util::future::join_all;

use super::*;

/// How many; all of them find room in the queue.
const MANY: usize = 1000;

#[tokio::test]
async fn what_is_published_at_once_goes_together_and_in_order() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    node.broker.follow(vec![group("a"), group("b")]).await.expect("it is there");
    let before = calls(&server);
    let published = join_all((0..MANY).map(|n| publish_to(&node, ["a", "b"][n % 2], n))).await;
    let calls = calls(&server) - before;
    assert!(calls < MANY / 10, "{calls} calls for {MANY} messages");
    for (n, position) in published.into_iter().enumerate() {
        assert_eq!(position.expect("it is there").offset, n as u64 / 2 + 1, "message {n}");
    }
    for n in 0..MANY {
        let BrokerEvent::Message { group, envelope } = next(&mut node, is_message).await else { panic!("it is one") };
        assert_eq!((group.as_str(), &envelope.message), (["a", "b"][n % 2], &message(n)));
    }
}

#[tokio::test]
async fn in_a_cluster_each_slot_has_its_own_call() {
    let cluster = Cluster::start();
    let mut node = node(0, clustered(&cluster));
    next(&mut node, is_up).await;
    let published = join_all((0..MANY).map(|n| publish_to(&node, ["a", "b", "c", "d"][n % 4], n))).await;
    for (n, position) in published.into_iter().enumerate() {
        assert_eq!(position.expect("it is there").offset, n as u64 / 4 + 1, "message {n}");
    }
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_loaded_again() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    for turn in 0..3 {
        server.command(&["SCRIPT", "FLUSH"]);
        let published = join_all((0..MANY).map(|n| publish_to(&node, "a", n))).await;
        let offsets = published.into_iter().map(|position| position.expect("it is there").offset);
        assert!(offsets.eq((1..=MANY as u64).map(|n| n + turn * MANY as u64)), "turn {turn}");
    }
}

#[tokio::test]
async fn a_group_whose_key_is_garbage_harms_no_other_of_the_same_call() {
    let server = Redis::start(&[]);
    let mut node = fresh(&server, 1).remove(0);
    next(&mut node, is_up).await;
    publish_to(&node, "good", 0).await.expect("it is there");
    for garbage in [&["SET", "t:{bad}:h", "x"][..], &["HSET", "t:{bad}:h", "e", "e", "n", "9223372036854775807"]] {
        server.command(&["DEL", "t:{bad}:h"]);
        server.command(garbage);
        let published = join_all((0..100).map(|n| publish_to(&node, ["good", "bad"][n % 2], n))).await;
        let offset = |n: usize| published[n].as_ref().map(|position| position.offset);
        let (good, bad) = (offset(0).expect("it is there"), offset(1).expect("it is there"));
        assert_eq!(bad, 1, "{garbage:?}: it has begun anew");
        assert!((0..50).all(|n| offset(2 * n) == Some(good + n as u64)), "{garbage:?}: {published:?}");
        assert!((0..50).all(|n| offset(2 * n + 1) == Some(bad + n as u64)), "{garbage:?}: {published:?}");
    }
}

async fn publish_to(node: &Node, name: &str, n: usize) -> Option<Position> {
    let fresh_epoch = format!("e{n}").into();
    let publication = Publication { group: group(name), message: message(n), keep: None, fresh_epoch };
    node.broker.publish(publication).await.ok().map(|published| published.position)
}

/// How many scripts the server has run.
fn calls(server: &Redis) -> usize {
    let stats = server.command(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}
