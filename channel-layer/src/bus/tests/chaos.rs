//! Links that are lost at random, and members that count.

use std::collections::HashMap;
use std::time::Duration;

use super::cluster::{Cluster, Member};
use crate::contract::{group, message};

const STEPS: usize = 300;
const NAMES: [&str; 2] = ["room", "kept"];

/// The seed that is asked for, or a few.
pub(super) fn seeds() -> Vec<u64> {
    let asked = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    asked.map_or_else(|| (1..=40).collect(), |seed| vec![seed])
}

pub(super) async fn run(seed: u64) {
    let mut chance = Chance::new(seed);
    let cluster = Cluster::of(3).await;
    let mut members: HashMap<&str, Vec<Member>> = HashMap::new();
    for name in NAMES {
        members.insert(name, cluster.join_all(name).await);
    }
    let mut up = [true; 3];
    let mut sent: HashMap<&str, Vec<usize>> = HashMap::new();
    for n in 0..STEPS {
        let node = chance.below(3);
        match chance.below(20) {
            0 if up[node] => {
                cluster.cut(node).await;
                up[node] = false;
            }
            1 | 2 if !up[node] => {
                cluster.rejoin(node).await;
                up[node] = true;
            }
            3 => cluster.lose(node, chance.below(4)),
            4 => cluster.pass(Duration::from_millis(chance.below(1500) as u64)).await,
            6 => {
                let epoch = [None, Some("x")][chance.below(2)];
                cluster.forge(node, NAMES[chance.below(2)], epoch, 1 << (10 + chance.below(30)));
            }
            5 if chance.below(10) == 0 => {
                cluster.restart().await;
                up = [true; 3];
            }
            _ => {
                let name = NAMES[chance.below(2)];
                if cluster.layer(node).group_send(&group(name), &message(n)).await.is_ok() {
                    sent.entry(name).or_default().push(n);
                }
            }
        }
        if chance.below(4) == 0 {
            cluster.settle().await;
        }
    }
    for (node, is_up) in up.into_iter().enumerate() {
        cluster.lose(node, 0);
        if !is_up {
            cluster.rejoin(node).await;
        }
    }
    for name in NAMES {
        // So that what was lost last is noticed, also where no link was.
        cluster.layer(0).group_send(&group(name), &message(STEPS)).await.expect("all are up");
        sent.entry(name).or_default().push(STEPS);
    }
    cluster.pass(Duration::from_secs(5)).await;
    for (name, members) in members {
        for member in members {
            judge(&member.told(), &sent[name], &format!("seed {seed}, {name} on node {}", member.node));
        }
    }
}

/// What was sent came once and in order, or a gap stands in its place; a gap of known length has that length.
fn judge(told: &[String], sent: &[usize], what: &str) {
    let mut rest = sent.iter().map(ToString::to_string);
    // Behind a gap of unknown length, what comes next says how long it was.
    let mut is_unknown = false;
    for frame in told {
        match frame.strip_prefix("gap") {
            None if is_unknown => {
                assert!(rest.any(|next| next == *frame), "{what}: {frame} comes again, or too late: {told:?}");
                is_unknown = false;
            }
            None => assert_eq!(rest.next().as_ref(), Some(frame), "{what}: {told:?}"),
            Some("") => is_unknown = true,
            Some(_) if is_unknown => {}
            Some(missed) => {
                let missed = missed.trim().parse().expect("a number");
                assert_eq!(rest.by_ref().take(missed).count(), missed, "{what}: missed more than was sent");
            }
        }
    }
    let missing: Vec<_> = rest.filter(|_| !is_unknown).collect();
    assert!(missing.is_empty(), "{what}: lost in silence: {missing:?}");
}

pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}
