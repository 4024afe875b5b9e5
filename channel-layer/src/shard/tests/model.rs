//! Clients that come, go, stall, break off and come back at random, each with a ledger of what it saw: nothing missing,
//! nothing twice, in order, and every loss told.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use groupcast_protocol::{Format, GroupName, NodeId, Pattern, Position, sse};
use serde_json::Value;

use super::fixture::{Node, Seen, Socket};
use crate::contract::{group, message};
use crate::{ChannelLayer, GroupRule, HistoryRule, LayerConfig};

const SHARDS: usize = 2;
const CLIENTS: usize = 12;
const STEPS: usize = 40_000;

#[tokio::test]
async fn agrees_with_a_model() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x9E37_79B9_7F4A_7C15_u64);
    eprintln!("SEED={seed}");
    let mut world = World::new(seed);
    for n in 0..STEPS {
        world.step(n).await;
    }
    world.finish();
    let stats = world.nodes[0].layer.stats();
    for (what, counter) in [
        ("catch_ups", stats.catch_ups.value()),
        ("replayed", stats.replayed.value()),
        ("gaps", stats.gaps.value()),
        ("missed", stats.missed.value()),
    ] {
        assert!(counter > 50, "{what}: {counter}, too few to prove anything");
    }
}

struct World {
    random: u64,
    nodes: Vec<Node>,
    groups: Vec<GroupName>,
    /// For each group, the numbers of its messages in the order they were sent.
    sent: Vec<Vec<u64>>,
    clients: Vec<Client>,
}

/// A client that may have had several connections.
struct Client {
    node: usize,
    socket: Socket,
    /// The groups of its present connection, each with how many messages had been sent when it subscribed.
    subscribed: BTreeMap<usize, usize>,
    /// Where it would go on.
    positions: HashMap<usize, Position>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
        let rule = |pattern, messages| GroupRule {
            pattern: Pattern::parse(pattern).expect("a valid pattern"),
            history: Some(HistoryRule { messages, age: Duration::from_secs(600) }),
            presence: false,
            is_local: false,
        };
        config.groups = vec![rule("short", 40), rule("long", 100_000)];
        (config.shards, config.log_bytes) = (SHARDS, 3000);
        let (layer, inboxes) = ChannelLayer::new(config);
        let mut nodes: Vec<_> = inboxes.into_iter().map(|inbox| Node::of(layer.clone(), inbox)).collect();
        let groups: Vec<_> = ["plain", "short", "long"].map(group).into();
        let clients = (0..CLIENTS).map(|n| Client::new(&mut nodes, n)).collect();
        Self { random: seed, nodes, sent: vec![vec![]; groups.len()], groups, clients }
    }

    fn dice(&mut self, sides: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as usize % sides
    }

    async fn step(&mut self, n: usize) {
        let (c, g) = (self.dice(CLIENTS), self.dice(self.groups.len()));
        match self.dice(24) {
            0 | 1 => self.subscribe(c, g),
            2 => self.unsubscribe(c, g).await,
            23 => self.add(c, g).await,
            3 if self.dice(4) == 0 => self.break_off(c),
            4 => {
                let room = self.dice(300);
                self.clients[c].socket.sink.room.set(room);
            }
            5 => self.let_in(c, 1000),
            6 => self.let_in(c, usize::MAX),
            7 => self.node(c).turn(),
            8..=10 => self.node(c).write_one(),
            11 | 12 => self.node(c).apply(),
            _ => {
                self.nodes[0].layer.group_send(&self.groups[g], &message(n)).await.expect("there is room");
                self.sent[g].push(n as u64);
            }
        }
        if n.is_multiple_of(500) {
            self.nodes.iter_mut().for_each(Node::apply);
        }
    }

    fn may_join(&self, c: usize, g: usize) -> bool {
        let client = &self.clients[c];
        let one_only = client.socket.format == Format::Events;
        !client.subscribed.contains_key(&g) && (!one_only || client.subscribed.is_empty())
    }

    /// Added from outside: the shard tells the client, once it hears of it.
    async fn add(&mut self, c: usize, g: usize) {
        if self.may_join(c, g) {
            let channel = self.clients[c].socket.channel.clone();
            self.nodes[0].layer.group_add(&self.groups[g], &channel).await.expect("it lives");
            self.clients[c].subscribed.insert(g, self.sent[g].len());
        }
    }

    fn subscribe(&mut self, c: usize, g: usize) {
        if !self.may_join(c, g) {
            return;
        }
        let client = &mut self.clients[c];
        let after = client.positions.get(&g).cloned();
        client.subscribed.insert(g, self.sent[g].len());
        self.nodes[client.node].subscribe(&client.socket, &self.groups[g], after.as_ref());
    }

    /// Everything that was for it is written first, so that the ledger need not know what was on its way.
    async fn unsubscribe(&mut self, c: usize, g: usize) {
        if self.clients[c].subscribed.contains_key(&g) {
            self.let_in(c, usize::MAX);
            self.node(c).turn();
            self.check(c, true);
            self.clients[c].subscribed.remove(&g);
            let (slot, channel) = (self.clients[c].socket.slot, self.clients[c].socket.channel.clone());
            let name = self.groups[g].clone();
            if self.dice(2) == 0 {
                self.node(c).shard.unsubscribe(slot, &name);
            } else {
                self.node(c).layer.group_discard(&name, &channel).await.expect("it lives");
            }
            self.reconnect(c);
        }
    }

    fn break_off(&mut self, c: usize) {
        self.check(c, false);
        self.reconnect(c);
    }

    /// A new connection, in the groups of the old one, from the positions the client has seen.
    fn reconnect(&mut self, c: usize) {
        let groups: Vec<usize> = self.clients[c].subscribed.keys().copied().collect();
        let old = &self.clients[c];
        let slot = old.socket.slot;
        self.node(c).shard.disconnect(slot);
        let positions = std::mem::take(&mut self.clients[c].positions);
        self.clients[c] = Client { positions, ..Client::new(&mut self.nodes, c) };
        for g in groups {
            self.subscribe(c, g);
        }
    }

    fn finish(&mut self) {
        for c in 0..CLIENTS {
            self.let_in(c, usize::MAX);
        }
        self.nodes.iter_mut().for_each(Node::turn);
        for c in 0..CLIENTS {
            self.check(c, true);
        }
        for node in &self.nodes {
            assert_eq!(node.shard.log_bytes, 0);
        }
    }

    fn let_in(&mut self, c: usize, room: usize) {
        let client = &self.clients[c];
        self.nodes[client.node].let_in(&client.socket, room);
    }

    fn node(&mut self, c: usize) -> &mut Node {
        &mut self.nodes[self.clients[c].node]
    }

    /// Goes through all that a client's connection has seen.
    fn check(&mut self, c: usize, complete: bool) {
        let client = &mut self.clients[c];
        let mut ledger =
            Ledger { groups: &self.groups, sent: &self.sent, client: c, began: &client.subscribed, at: HashMap::new() };
        for seen in client.socket.seen() {
            ledger.read(&seen, &mut client.positions, client.socket.format);
        }
        for g in client.subscribed.keys().filter(|_| complete) {
            assert_eq!(ledger.at.get(g), Some(&self.sent[*g].len()), "client {c} has all of {}", self.groups[*g]);
        }
    }
}

impl Client {
    fn new(nodes: &mut [Node], n: usize) -> Self {
        let node = n % nodes.len();
        let format = [Format::WebSocket, Format::Deflated, Format::Events, Format::EventsOfMany][n / SHARDS % 4];
        Self { node, socket: nodes[node].connect_as(format), subscribed: BTreeMap::new(), positions: HashMap::new() }
    }
}

/// What one connection has seen.
struct Ledger<'a> {
    groups: &'a [GroupName],
    sent: &'a [Vec<u64>],
    client: usize,
    began: &'a BTreeMap<usize, usize>,
    /// For each group, how many of its messages have come or were told to be lost.
    at: HashMap<usize, usize>,
}

impl Ledger<'_> {
    fn read(&mut self, seen: &Seen, positions: &mut HashMap<usize, Position>, format: Format) {
        if let Some(frame) = &seen.frame {
            let g = self.groups.iter().position(|group| frame["group"] == group.as_str()).expect("one of the groups");
            self.read_frame(g, frame, positions);
            // The client's own bookkeeping; a stream of events has only its ids.
            if matches!(format, Format::WebSocket | Format::Deflated)
                && let Some(position) = positions.get_mut(&g)
            {
                position.offset = self.at[&g] as u64;
            }
        }
        if let Some(id) = &seen.id {
            self.read_id(id, positions, format);
        }
    }

    fn read_frame(&mut self, g: usize, frame: &Value, positions: &mut HashMap<usize, Position>) {
        let (client, group, at) = (self.client, &self.groups[g], self.at.get(&g).copied());
        let offset = frame["offset"].as_u64().map(|offset| offset as usize);
        let number = |key: &str| frame[key].as_u64().expect("a number") as usize;
        let at = match (frame["type"].as_str().expect("has a type"), at) {
            ("subscribed", None) => {
                let head = offset.unwrap_or(self.began[&g]);
                assert_eq!(head, self.began[&g]);
                match frame["recovered"].as_bool() {
                    Some(true) => positions[&g].offset as usize,
                    Some(false) | None => {
                        positions.remove(&g);
                        if let Some(epoch) = frame["epoch"].as_str() {
                            positions.insert(g, Position::new(epoch, head as u64).expect("a valid position"));
                        }
                        head
                    }
                }
            }
            ("message", Some(at)) => {
                let number = frame["message"]["n"].as_u64();
                assert_eq!(number, Some(self.sent[g][at]), "client {client}, message {} of {group}", at + 1);
                at + 1
            }
            ("gap", Some(at)) => at + number("missed"),
            other => panic!("client {client}, group {group}: {other:?} in {frame}"),
        };
        assert!(offset.is_none_or(|offset| offset == at || frame["type"] == "subscribed"), "client {client}: {frame}");
        self.at.insert(g, at);
    }

    /// An id claims exactly what came before it.
    fn read_id(&self, id: &str, positions: &mut HashMap<usize, Position>, format: Format) {
        let claimed: Vec<(usize, Position)> = match format {
            Format::EventsOfMany => {
                let read = sse::Positions::parse(id, 9).expect("what the shard wrote");
                let of = |(g, name): (usize, &GroupName)| Some((g, read.of(name)?.clone()));
                self.groups.iter().enumerate().filter_map(of).collect()
            }
            Format::Events | Format::WebSocket | Format::Deflated => {
                let only = *self.began.keys().next().expect("in one group");
                vec![(only, id.parse().expect("a position"))]
            }
        };
        for (g, position) in claimed {
            assert_eq!(self.at.get(&g), Some(&(position.offset as usize)), "client {}, {id}", self.client);
            positions.insert(g, position);
        }
    }
}
