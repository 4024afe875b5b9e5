//! A layer that a test turns by hand, sockets made of memory, and clients that read them.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::IoSlice;
use std::rc::Rc;

use groupcast_protocol::format::At;
use groupcast_protocol::frame::{Recovery, ServerFrame};
use groupcast_protocol::{ChannelName, Format, GroupName, NodeId, Position};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::shard::{Event, Origin, Shard, ShardInbox, Signal, Sink, Slot, Subscribed};
use crate::{ChannelLayer, LayerConfig};

/// A layer with one shard that the test turns by hand.
pub(crate) struct Node {
    pub(crate) layer: ChannelLayer,
    pub(crate) shard: Shard,
    events: mpsc::Receiver<Event>,
}

impl Node {
    pub(crate) fn new(adjust: impl FnOnce(&mut LayerConfig)) -> Self {
        let mut config = LayerConfig::new(NodeId::parse("test").expect("a valid name"));
        adjust(&mut config);
        let (layer, inboxes) = ChannelLayer::new(config);
        Self::of(layer, inboxes.into_iter().next().expect("one shard"))
    }

    pub(crate) fn of(layer: ChannelLayer, inbox: ShardInbox) -> Self {
        let (shard, events) = inbox.open();
        Self { layer, shard, events }
    }

    pub(crate) fn connect(&mut self) -> Socket {
        self.connect_as(Format::WebSocket)
    }

    pub(crate) fn connect_as(&mut self, format: Format) -> Socket {
        let sink = Rc::new(Memory { room: Cell::new(usize::MAX), ..Memory::default() });
        let (slot, channel) = self.shard.connect(sink.clone(), format, Origin::default()).expect("there is room");
        Socket { slot, channel, sink, format }
    }

    /// Subscribes and tells the client so, as a driver does it.
    pub(crate) fn subscribe(&mut self, socket: &Socket, group: &GroupName, after: Option<&Position>) -> Subscribed {
        let subscribed = self.shard.subscribe(socket.slot, group, after);
        let Subscribed { position, recovery } = subscribed.clone();
        let at = match (recovery, after) {
            (Some(Recovery::Recovered), Some(after)) => Some(after.clone()),
            _ => position.clone(),
        };
        let at = at.as_ref().map(|at| At { epoch: &at.epoch, offset: at.offset });
        let frame = ServerFrame::Subscribed { id: None, group: group.clone(), position: position.clone(), recovery };
        self.shard.push(socket.slot, socket.format.subscribed(&frame.encode(), at));
        subscribed
    }

    /// Lets a socket take so many more bytes.
    pub(crate) fn let_in(&mut self, socket: &Socket, room: usize) {
        socket.sink.room.set(room);
        self.shard.unblock(socket.slot);
    }

    /// Writes once to one connection, if any is ready.
    pub(crate) fn write_one(&mut self) {
        if let Some(slot) = self.shard.next_ready() {
            self.shard.write(slot);
        }
    }

    /// Applies what has come, and writes nothing.
    pub(crate) fn apply(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.shard.apply(event);
        }
    }

    pub(crate) fn turn(&mut self) {
        self.apply();
        while let Some(slot) = self.shard.next_ready() {
            self.shard.write(slot);
        }
    }
}

pub(crate) struct Socket {
    pub(crate) slot: Slot,
    pub(crate) channel: ChannelName,
    pub(crate) sink: Rc<Memory>,
    pub(crate) format: Format,
}

/// What a client sees.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The frame; none for a block with nothing but an id.
    pub(crate) frame: Option<Value>,
    /// The name of an event.
    pub(crate) event: Option<String>,
    /// The id to come back with.
    pub(crate) id: Option<String>,
}

/// A socket that takes `room` more bytes.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) room: Cell<usize>,
    pub(crate) writes: Cell<usize>,
    written: RefCell<Vec<u8>>,
    /// Whether its driver was told that it is broken.
    pub(crate) failed: Cell<bool>,
    /// Whether its driver was told to close it.
    pub(crate) shed: Cell<bool>,
}

impl Sink for Memory {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = self.room.get();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = self.written.borrow_mut();
        let before = written.len();
        slices.iter().for_each(|slice| written.extend_from_slice(slice));
        let took = (written.len() - before).min(room);
        written.truncate(before + took);
        self.room.set(if room == usize::MAX { room } else { room - took });
        self.writes.set(self.writes.get() + 1);
        Ok(took)
    }

    fn signal(&self, signal: Signal) {
        match signal {
            Signal::Failed(_) => self.failed.set(true),
            Signal::Shed => self.shed.set(true),
            _ => {}
        }
    }
}

impl Socket {
    /// The whole frames that were written.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let bytes = self.sink.written.borrow();
        match self.format {
            Format::WebSocket | Format::Deflated => of_websocket(&bytes),
            Format::Events | Format::EventsOfMany => of_events(&bytes),
        }
    }

    /// The whole frames that were written, as JSON.
    pub(crate) fn frames(&self) -> Vec<Value> {
        self.seen().into_iter().filter_map(|seen| seen.frame).collect()
    }

    pub(crate) fn numbers(&self, group: &str) -> Vec<u64> {
        let of_group = |frame: &Value| (frame["group"] == group).then(|| frame["message"]["n"].as_u64()).flatten();
        self.frames().iter().filter_map(of_group).collect()
    }

    pub(crate) fn missed(&self, group: &str) -> u64 {
        let gap = |frame: &Value| (frame["group"] == group).then(|| frame["missed"].as_u64()).flatten();
        self.frames().iter().filter_map(gap).sum()
    }

    /// The types of all frames.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.frames().iter().map(|frame| frame["type"].as_str().expect("has a type").to_owned()).collect()
    }

    /// Messages before the only gap, how many it missed, the numbers after it.
    pub(crate) fn around_the_gap(&self) -> (u64, u64, Vec<u64>) {
        let frames: Vec<_> = self.frames().into_iter().filter(|frame| frame["group"] != "short").collect();
        let at = frames.iter().position(|frame| frame["type"] == "gap").expect("there is a gap");
        assert!(frames[at + 1..].iter().all(|frame| frame["type"] == "message"));
        let after = frames[at + 1..].iter().filter_map(|frame| frame["message"]["n"].as_u64()).collect();
        (at as u64, frames[at]["missed"].as_u64().expect("a number"), after)
    }
}

fn of_websocket(bytes: &[u8]) -> Vec<Seen> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while rest.len() >= 4 {
        assert_eq!(rest[0], 0x81, "a text frame begins here");
        let (start, len) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            len => (2, usize::from(len)),
        };
        if rest.len() < start + len {
            break;
        }
        let frame = serde_json::from_slice(&rest[start..start + len]).expect("a frame is JSON");
        all.push(Seen { frame: Some(frame), ..Seen::default() });
        rest = &rest[start + len..];
    }
    all
}

fn of_events(bytes: &[u8]) -> Vec<Seen> {
    let text = std::str::from_utf8(bytes).expect("a stream is UTF-8");
    let Some(end) = text.rfind("\n\n") else { return Vec::new() };
    text[..end].split("\n\n").map(of_block).collect()
}

fn of_block(block: &str) -> Seen {
    let (mut seen, mut data) = (Seen::default(), String::new());
    for line in block.lines() {
        match line.split_once(": ").expect("a field") {
            ("data", value) => data += value,
            ("event", value) => seen.event = Some(value.to_owned()),
            ("id", value) => seen.id = Some(value.to_owned()),
            (other, _) => panic!("{other} is no field of ours"),
        }
    }
    seen.frame = (!data.is_empty()).then(|| serde_json::from_str(&data).expect("a frame is JSON"));
    seen
}
