//! Who is in groups with presence, on all nodes: what lists say and what members are told, also when notes, links, nodes and
//! the broker are lost.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chaos::{self, Chance};
use super::cluster::{Cluster, Member};
use crate::contract::{channel, group};

/// The longest that the members of a node which is not heard of are kept, and a little.
const LEASE: Duration = Duration::from_secs(13);
const STEPS: usize = 300;

#[tokio::test(start_paused = true)]
async fn members_of_all_nodes_are_listed_by_name_and_told() {
    let cluster = Cluster::of(3).await;
    let watchers = cluster.join_all("told.room").await;
    cluster.pass(Duration::from_millis(50)).await;
    let guest = cluster.join(1, "told.room").await;
    cluster.layer(2).group_add(&group("told.room"), &channel("inbox")).await.expect("it is there");
    cluster.pass(Duration::from_millis(50)).await;
    let all = [
        "inbox",
        watchers[0].channel().as_str(),
        watchers[1].channel().as_str(),
        guest.channel().as_str(),
        watchers[2].channel().as_str(),
    ];
    for (node, watcher) in watchers.iter().enumerate() {
        assert_eq!(listed(&cluster, node, "told.room"), all);
        let page = cluster.layer(node).members(&group("told.room"), Some(all[1]), 2).expect("it is known");
        assert_eq!(page.iter().map(|name| name.as_str()).collect::<Vec<_>>(), all[2..4]);
        assert_eq!(cluster.layer(node).group_len(&group("told.room")), Some(5));
        assert_eq!(known_to(watcher), names(&all));
    }
    cluster.leave(&guest);
    cluster.pass(Duration::from_millis(50)).await;
    for watcher in &watchers {
        assert!(!known_to(watcher).contains(guest.channel().as_str()));
    }
    let sent = cluster.layer(0).group_send(&group("told.room"), &crate::contract::message(1)).await;
    assert_eq!(sent.expect("it is there").members, Some(4), "they are known");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_only_others_are_in_is_listed() {
    let cluster = Cluster::of(2).await;
    let guest = cluster.join(1, "told.room").await;
    let plain = cluster.join(1, "room").await;
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!(cluster.layer(0).groups("", None, 9), [(group("told.room"), 1)], "and none without presence");
    assert!(cluster.followed(0).is_empty(), "its messages do not come for that");
    cluster.leave(&guest);
    cluster.leave(&plain);
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!((cluster.layer(0).groups("", None, 9), sizes(&cluster, 0)), (vec![], (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn who_starts_later_knows_who_is_there_at_once() {
    let mut cluster = Cluster::of(2).await;
    let members = cluster.join_all("told.room").await;
    for n in 0..3000 {
        let inbox = channel(&format!("a-rather-long-name-for-an-inbox-that-fills-a-note-{n:04}"));
        cluster.layer(0).group_add(&group("told.kept"), &inbox).await.expect("it is there");
    }
    cluster.start();
    cluster.pass(Duration::from_millis(200)).await;
    assert_eq!(listed(&cluster, 2, "told.room").len(), members.len());
    assert_eq!(cluster.layer(2).group_len(&group("told.kept")), Some(3000), "in several notes");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_two_nodes_have_in_a_group_is_one_member() {
    let cluster = Cluster::of(3).await;
    let watcher = cluster.join(2, "told.room").await;
    for node in 0..2 {
        cluster.layer(node).group_add(&group("told.room"), &channel("inbox")).await.expect("it is there");
    }
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!(listed(&cluster, 2, "told.room"), ["inbox", watcher.channel().as_str()]);
    cluster.layer(0).group_discard(&group("told.room"), &channel("inbox")).await.expect("it is there");
    cluster.pass(Duration::from_millis(50)).await;
    assert!(known_to(&watcher).contains("inbox"), "it is there by the other one");
    cluster.layer(1).group_discard(&group("told.room"), &channel("inbox")).await.expect("it is there");
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!(known_to(&watcher), names(&[watcher.channel().as_str()]));
}

#[tokio::test(start_paused = true)]
async fn members_of_a_node_that_dies_are_let_go_after_its_lease() {
    let mut cluster = Cluster::of(2).await;
    let members = cluster.join_all("told.room").await;
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(known_to(&members[0]).len(), 2, "who says nothing new is there all the same");
    cluster.kill(1).await;
    cluster.pass(Duration::from_secs(9)).await;
    assert_eq!(known_to(&members[0]).len(), 2, "it may come back");
    cluster.pass(LEASE - Duration::from_secs(9)).await;
    assert_eq!(known_to(&members[0]), names(&[members[0].channel().as_str()]));
    assert_eq!((listed(&cluster, 0, "told.room").len(), sizes(&cluster, 0)), (1, (1, 0)), "it is swept");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_lets_its_members_go_at_once() {
    let mut cluster = Cluster::of(2).await;
    let members = cluster.join_all("told.room").await;
    cluster.pass(Duration::from_millis(50)).await;
    cluster.end(1).await;
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!(known_to(&members[0]), names(&[members[0].channel().as_str()]));
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_leaves_for_the_others_and_nobody_leaves_for_him() {
    let cluster = Cluster::of(3).await;
    let members = cluster.join_all("told.room").await;
    cluster.pass(Duration::from_millis(50)).await;
    cluster.cut(2).await;
    cluster.pass(Duration::from_secs(120)).await;
    assert_eq!((known_to(&members[0]).len(), known_to(&members[1]).len()), (2, 2));
    assert_eq!(known_to(&members[2]).len(), 3, "he knows nothing of them");
    cluster.leave(&members[1]);
    cluster.rejoin(2).await;
    for node in [0, 2] {
        assert_eq!(listed(&cluster, node, "told.room").len(), 2);
        assert_eq!(known_to(&members[node]).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_note_is_noticed_also_when_it_was_the_last() {
    let cluster = Cluster::of(2).await;
    let watcher = cluster.join(0, "told.room").await;
    cluster.pass(Duration::from_secs(1)).await;
    cluster.lose_notes(0, 1);
    let guest = cluster.join(1, "told.room").await;
    cluster.pass(Duration::from_millis(100)).await;
    assert_eq!(listed(&cluster, 0, "told.room").len(), 1, "it was lost");
    cluster.pass(Duration::from_secs(4)).await;
    assert_eq!(known_to(&watcher), names(&[watcher.channel().as_str(), guest.channel().as_str()]));
}

#[tokio::test(start_paused = true)]
async fn groups_without_presence_cost_no_notes() {
    let cluster = Cluster::of(2).await;
    cluster.pass(Duration::from_secs(1)).await;
    let before = cluster.layer(1).stats().presence.wholes.value();
    cluster.lose_notes(1, 1);
    let _member = cluster.join(0, "room").await;
    cluster.pass(Duration::from_millis(500)).await;
    cluster.lose_notes(1, 0);
    let told = cluster.join(0, "told.room").await;
    cluster.pass(Duration::from_millis(50)).await;
    assert_eq!(listed(&cluster, 1, "told.room"), [told.channel().as_str()], "so none was lost");
    assert_eq!(cluster.layer(1).stats().presence.wholes.value(), before);
}

/// Members come and go on nodes that are cut off, die and are started, while notes are lost and the broker forgets everything:
/// after a quiet while all nodes agree with the truth, and who was there all the time was told each change once.
#[tokio::test(start_paused = true)]
async fn whatever_happens_all_know_who_is_there() {
    for seed in chaos::seeds() {
        let mut course = Course::new(seed).await;
        for _ in 0..STEPS {
            course.step().await;
        }
        course.check().await;
    }
}

struct Course {
    seed: u64,
    chance: Chance,
    cluster: Cluster,
    /// Nodes that live, and whether they are connected.
    nodes: Vec<(usize, bool)>,
    /// On the nodes that never die.
    watchers: Vec<Member>,
    guests: Vec<Member>,
}

const NAMES: [&str; 2] = ["told.room", "told.kept"];

impl Course {
    async fn new(seed: u64) -> Self {
        let cluster = Cluster::of(3).await;
        let mut watchers = Vec::new();
        for node in 0..2 {
            for name in NAMES {
                watchers.push(cluster.join(node, name).await);
            }
        }
        cluster.pass(Duration::from_millis(50)).await;
        let nodes = (0..3).map(|node| (node, true)).collect();
        Self { seed, chance: Chance::new(seed), cluster, nodes, watchers, guests: Vec::new() }
    }

    async fn step(&mut self) {
        let at = self.chance.below(self.nodes.len());
        let (node, is_up) = self.nodes[at];
        match self.chance.below(24) {
            0 if is_up => {
                self.cluster.cut(node).await;
                self.nodes[at].1 = false;
            }
            1 | 2 if !is_up => {
                self.cluster.rejoin(node).await;
                self.nodes[at].1 = true;
            }
            3 => self.cluster.lose_notes(node, self.chance.below(5)),
            4 => self.cluster.pass(Duration::from_millis(self.chance.below(8000) as u64)).await,
            5 if self.chance.below(10) == 0 => self.restart_broker().await,
            6 if at == 2 && is_up && self.chance.below(5) == 0 => self.replace_node().await,
            7..=13 if is_up => {
                let guest = self.cluster.join(node, NAMES[self.chance.below(2)]).await;
                self.guests.push(guest);
            }
            14..=19 if !self.guests.is_empty() => {
                let guest = self.guests.swap_remove(self.chance.below(self.guests.len()));
                self.cluster.leave(&guest);
            }
            _ => self.cluster.settle().await,
        }
    }

    async fn restart_broker(&mut self) {
        for (node, _) in &self.nodes {
            self.cluster.cut(*node).await;
        }
        self.cluster.hub.forget();
        for (node, is_up) in &mut self.nodes {
            self.cluster.rejoin(*node).await;
            *is_up = true;
        }
    }

    async fn replace_node(&mut self) {
        let (node, _) = self.nodes[2];
        self.guests.retain(|guest| guest.node != node);
        match self.chance.below(2) {
            0 => self.cluster.kill(node).await,
            _ => self.cluster.end(node).await,
        }
        self.cluster.start();
        self.cluster.settle().await;
        self.nodes[2] = (self.cluster.len() - 1, true);
    }

    async fn check(mut self) {
        for (node, is_up) in std::mem::take(&mut self.nodes) {
            self.cluster.lose_notes(node, 0);
            if !is_up {
                self.cluster.rejoin(node).await;
            }
            self.nodes.push((node, true));
        }
        self.cluster.pass(LEASE * 2).await;
        for name in NAMES {
            let in_group = |member: &&Member| member.group == name;
            let there = self.watchers.iter().chain(&self.guests).filter(in_group);
            let truth: BTreeSet<String> = there.map(|member| member.channel().to_string()).collect();
            let what = format!("seed {}, {name}", self.seed);
            for (node, _) in &self.nodes {
                let listed: BTreeSet<String> = listed(&self.cluster, *node, name).into_iter().collect();
                assert_eq!(listed, truth, "{what}: listed by node {node}");
            }
            for watcher in self.watchers.iter().filter(in_group) {
                assert_eq!(known_to(watcher), truth, "{what}: told to {}", watcher.channel());
            }
        }
        let total = self.watchers.len() + self.guests.len();
        for (node, _) in &self.nodes {
            let (here, elsewhere) = sizes(&self.cluster, *node);
            assert_eq!(here + elsewhere, total as u64, "seed {}: kept by node {node}", self.seed);
        }
    }
}

fn listed(cluster: &Cluster, node: usize, name: &str) -> Vec<String> {
    let members = cluster.layer(node).members(&group(name), None, usize::MAX).expect("it has presence");
    members.iter().map(ToString::to_string).collect()
}

/// Memberships that a node keeps: its own, and those of others.
fn sizes(cluster: &Cluster, node: usize) -> (u64, u64) {
    cluster.layer(node).registry.rosters.count()
}

/// Who is there, as far as a member was told; what it was told was news each time.
fn known_to(member: &Member) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for frame in member.frames() {
        let name = || frame["member"].as_str().expect("a name").to_owned();
        let is_news = match frame["type"].as_str() {
            Some("joined") => known.insert(name()),
            Some("left") => known.remove(&name()),
            _ => true,
        };
        assert!(is_news, "told twice: {frame}");
    }
    known
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
