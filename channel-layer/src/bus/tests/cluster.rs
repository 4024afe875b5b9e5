//! Layers with a shard each on one hub, and members that note what they are told.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{ChannelName, Envelope, NodeId, Pattern};
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::broker::dropped::Reason;
use crate::broker::memory::{Hub, MemoryBroker};
use crate::contract::{group, message};
use crate::shard::tests::fixture::{Node, Socket};
use crate::{ChannelLayer, GroupRule, HistoryRule, LayerConfig};

/// Nodes on one broker.
pub(super) struct Cluster {
    pub(super) hub: Hub,
    nodes: RefCell<Vec<Node>>,
    layers: Vec<ChannelLayer>,
    runs: Vec<Run>,
}

/// What keeps a node going.
struct Run {
    broker: Arc<MemoryBroker>,
    tasks: JoinSet<()>,
}

/// A connection that reads everything at once.
pub(super) struct Member {
    pub(super) node: usize,
    pub(super) group: String,
    socket: Socket,
}

impl Member {
    pub(super) fn frames(&self) -> Vec<serde_json::Value> {
        self.socket.frames()
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.socket.channel
    }

    /// Messages by number, and gaps with what they missed, if that is known.
    pub(super) fn told(&self) -> Vec<String> {
        let told = |frame: &serde_json::Value| match frame["type"].as_str()? {
            "message" => Some(frame["message"]["n"].to_string()),
            "gap" => Some(format!("gap {}", frame["missed"]).replace(" null", "")),
            _ => None,
        };
        self.socket.frames().iter().filter_map(told).collect()
    }
}

impl Cluster {
    pub(super) async fn of(nodes: usize) -> Self {
        let hub = Hub::default();
        let mut cluster = Self { hub, nodes: RefCell::default(), layers: Vec::new(), runs: Vec::new() };
        (0..nodes).for_each(|_| cluster.start());
        cluster.settle().await;
        cluster
    }

    /// Starts one more node.
    pub(super) fn start(&mut self) {
        let (node, run) = start(&self.hub, self.layers.len());
        self.layers.push(node.layer.clone());
        self.nodes.get_mut().push(node);
        self.runs.push(run);
    }

    /// A node dies without a word.
    pub(super) async fn kill(&mut self, node: usize) {
        let Run { broker, tasks } = &mut self.runs[node];
        tasks.shutdown().await;
        broker.close().await;
    }

    /// A node ends as it should.
    pub(super) async fn end(&mut self, node: usize) {
        self.layers[node].part().await.expect("the broker is there");
        self.kill(node).await;
    }

    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn layer(&self, node: usize) -> &ChannelLayer {
        &self.layers[node]
    }

    /// Lets everything run that can.
    pub(super) async fn settle(&self) {
        self.pass(Duration::from_millis(5)).await;
    }

    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.nodes.borrow_mut().iter_mut().for_each(Node::turn);
    }

    pub(super) async fn join(&self, node: usize, name: &str) -> Member {
        let _open = self.layer(node).open(&group(name)).await.expect("the broker is there");
        let mut nodes = self.nodes.borrow_mut();
        let socket = nodes[node].connect();
        nodes[node].subscribe(&socket, &group(name), None);
        Member { node, group: name.to_owned(), socket }
    }

    pub(super) async fn join_all(&self, name: &str) -> Vec<Member> {
        let mut members = Vec::new();
        for node in 0..self.len() {
            members.push(self.join(node, name).await);
        }
        members
    }

    pub(super) fn leave(&self, member: &Member) {
        self.nodes.borrow_mut()[member.node].shard.disconnect(member.socket.slot);
    }

    pub(super) async fn send(&self, name: &str, numbers: Range<usize>) {
        for n in numbers {
            self.layer(0).group_send(&group(name), &message(n)).await.expect("the broker is there");
        }
        self.settle().await;
    }

    pub(super) fn followed(&self, node: usize) -> Vec<String> {
        let mut names: Vec<_> = self.hub.followed(&id(node)).iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    pub(super) fn lose(&self, node: usize, messages: usize) {
        self.hub.lose(&id(node), messages);
    }

    /// Hands a node a message of nobody, so far ahead of where the group is, or in an epoch of its own.
    pub(super) fn forge(&self, node: usize, name: &str, epoch: Option<&str>, ahead: u64) {
        let Some(mut position) = self.hub.position(&group(name)) else { return };
        position.offset += ahead;
        position.epoch = epoch.map_or(position.epoch, Into::into);
        self.hub.forge(&id(node), group(name), Envelope { position, message: message(usize::MAX) });
    }

    /// How many such a node has dropped.
    pub(super) fn misplaced(&self, node: usize) -> u64 {
        let dropped = self.layer(node).dropped();
        dropped.iter().find(|(reason, _)| *reason == Reason::Misplaced).map_or(0, |(_, count)| *count)
    }

    pub(super) fn lose_notes(&self, node: usize, notes: usize) {
        self.hub.lose_notes(&id(node), notes);
    }

    pub(super) async fn cut(&self, node: usize) {
        self.hub.cut(&id(node));
        self.settle().await;
    }

    pub(super) async fn rejoin(&self, node: usize) {
        self.hub.join(&id(node));
        self.pass(Duration::from_millis(600)).await;
    }

    /// The broker ends and comes back with nothing.
    pub(super) async fn restart(&self) {
        (0..self.len()).for_each(|node| self.hub.cut(&id(node)));
        self.settle().await;
        self.hub.forget();
        for node in 0..self.len() {
            self.rejoin(node).await;
        }
    }
}

fn start(hub: &Hub, n: usize) -> (Node, Run) {
    let (broker, inbox) = hub.connect(id(n));
    let config = LayerConfig { epoch_seed: n as u64 + 1, groups: rules(), ..LayerConfig::new(id(n)) };
    let (layer, inboxes, carrier) = ChannelLayer::with_broker(config, broker.clone(), inbox, Box::new(drop));
    let (carried, announced, mut tasks) = (layer.clone(), layer.clone(), JoinSet::new());
    tasks.spawn(async move { carried.carry(carrier).await });
    tasks.spawn(async move { announced.announce().await });
    (Node::of(layer, inboxes.into_iter().next().expect("one shard")), Run { broker, tasks })
}

fn rules() -> Vec<GroupRule> {
    let rule = |name: &str, history, presence, is_local| {
        let pattern = Pattern::parse(name).expect("a valid pattern");
        GroupRule { pattern, history, presence, is_local }
    };
    let history = Some(HistoryRule { messages: 1000, age: Duration::from_secs(3600) });
    vec![
        rule("kept", history, false, false),
        rule("local", None, false, true),
        rule("told.kept", history, true, false),
        rule("told.*", None, true, false),
    ]
}

fn id(n: usize) -> NodeId {
    NodeId::parse(&format!("n{n}")).expect("a valid name")
}
