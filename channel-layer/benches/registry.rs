//! What the layer costs without sockets: joining and leaving a group, and `group_send` to connections that take
//! everything, through a real shard.
//!
//! `cargo bench -p groupcast-channel-layer` (with `-- --quick`: a few seconds).

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use groupcast_channel_layer::{ChannelLayer, Event, LayerConfig, Origin, Shard, Signal, Sink, Slot};
use groupcast_protocol::{Format, GroupName, Message, NodeId};
use tokio::sync::mpsc;

/// A socket that takes everything.
struct Null;

impl Sink for Null {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn signal(&self, _: Signal) {}
}

/// A layer with one shard, driven by hand.
struct Node {
    layer: ChannelLayer,
    shard: Shard,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn new() -> Self {
        let node = NodeId::parse("bench").expect("a name");
        let (layer, inboxes) = ChannelLayer::new(LayerConfig::new(node));
        let (shard, events) = inboxes.into_iter().next().expect("one shard").open();
        Self { layer, shard, events }
    }

    fn connect(&mut self) -> Slot {
        self.shard.connect(Rc::new(Null), Format::WebSocket, Origin::default()).expect("there is room").0
    }

    /// Applies what was sent and writes it: how many writes that took.
    fn turn(&mut self) -> u64 {
        let mut writes = 0;
        while let Ok(event) = self.events.try_recv() {
            self.shard.apply(event);
        }
        while let Some(slot) = self.shard.next_ready() {
            black_box(self.shard.write(slot));
            writes += 1;
        }
        writes
    }
}

fn group(n: usize) -> GroupName {
    GroupName::parse(&format!("room.{n}")).expect("a name")
}

fn join_and_leave(c: &mut Criterion) {
    let mut benches = c.benchmark_group("join_and_leave");
    for others in [0, 1000] {
        let (mut node, room) = (Node::new(), group(0));
        for _ in 0..others {
            let slot = node.connect();
            node.shard.subscribe(slot, &room, None);
        }
        let slot = node.connect();
        benches.bench_function(format!("beside_{others}"), |b| {
            b.iter(|| {
                node.shard.subscribe(slot, black_box(&room), None);
                node.shard.unsubscribe(slot, black_box(&room));
            });
        });
    }
}

fn connect_and_disconnect(c: &mut Criterion) {
    let (mut node, room) = (Node::new(), group(0));
    c.bench_function("connect_subscribe_disconnect", |b| {
        b.iter(|| {
            let slot = node.connect();
            node.shard.subscribe(slot, black_box(&room), None);
            node.shard.disconnect(slot);
        });
    });
}

/// `batch` messages, then one sweep: what a busy shard sees.
fn group_send(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let text = format!(r#"{{"type":"tick","data":"{}"}}"#, "x".repeat(100));
    let message = Message::parse(text.into()).expect("a message");
    let mut benches = c.benchmark_group("group_send");
    for (members, batch) in [(0, 1), (1, 1), (1000, 1), (1000, 8)] {
        let (mut node, room) = (Node::new(), group(0));
        for _ in 0..members {
            let slot = node.connect();
            node.shard.subscribe(slot, &room, None);
        }
        benches.throughput(Throughput::Elements(members.max(1) * batch));
        benches.bench_function(format!("{members}_members_batch_{batch}"), |b| {
            b.iter_custom(|turns| runtime.block_on(sends(&mut node, &room, &message, (members, batch), turns)));
        });
    }
}

async fn sends(
    node: &mut Node,
    room: &GroupName,
    message: &Message,
    (members, batch): (u64, u64),
    turns: u64,
) -> Duration {
    let began = Instant::now();
    for _ in 0..turns {
        for _ in 0..batch {
            node.layer.group_send(black_box(room), message).await.expect("there is room");
        }
        assert_eq!(node.turn(), members, "one write for each member, however many messages");
    }
    began.elapsed()
}

criterion_group!(benches, join_and_leave, connect_and_disconnect, group_send);
criterion_main!(benches);
