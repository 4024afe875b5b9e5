//! One thread's connections: their cursors, and the only fan-out there is.
//!
//! A [`Shard`] decides which bytes a connection's socket gets next; the driver's [`Sink`] writes them. It belongs to
//! one thread and takes no lock on the way to a socket, unless the socket is far behind. Reading order: this file (events
//! in), `shard/lane.rs` (a group's log), `shard/cursor.rs` (a connection's place in it), `shard/catch_up.rs` (in the
//! group's history), `shard/connection.rs` (what waits for one socket), `shard/write.rs` (one vectored write),
//! `shard/bounds.rs` (who falls off), `shard/outside.rs` (what others do to a connection), `shard/shed.rs` (who goes when memory is short), `shard/renew.rs` (a group in a new epoch).

mod bounds;
mod catch_up;
mod connection;
mod cursor;
mod lane;
mod outside;
mod renew;
mod shed;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::frame::{Recovery, ServerFrame, Unrecovered};
use groupcast_protocol::{ChannelName, Format, GroupName, Position, Trace};
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

use crate::error::LayerError;
use crate::group::{Group, GroupState, Member};
use crate::registry::Registry;
use crate::reserved::Reserved;
use crate::witness::Witness;
use connection::Connection;
pub use connection::Origin;
use cursor::Cursor;
use lane::{Lane, Lanes, Start};
pub use write::Wrote;

/// Where a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) shard: u32,
    pub(crate) slot: u32,
    /// Never used again, unlike the slot.
    pub(crate) number: u64,
}

impl Address {
    pub(crate) fn shard(self) -> usize {
        self.shard as usize
    }

    fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What another thread tells a shard; for [`Shard::apply`].
#[derive(Debug)]
pub struct Event(pub(crate) EventKind);

#[derive(Debug)]
pub(crate) enum EventKind {
    /// A message of a group, encoded and numbered, with the trace that it belongs to.
    Deliver { group: Arc<Group>, seq: u64, frame: Bytes, trace: Trace },
    /// A group has begun anew: its members go on in the other one, behind a frame that says so.
    Renew { old: Arc<Group>, new: Arc<Group>, from_seq: u64, frame: Bytes },
    /// Who came and went in a group, as frames without a number.
    Presence { group: Arc<Group>, frames: Arc<[Bytes]> },
    /// Something is in a connection's mailbox.
    Mail { to: Address },
    /// A connection was added to a group from outside.
    Attach { to: Address, group: Arc<Group>, from_seq: u64, number: u64 },
    /// A connection was taken out of a group from outside.
    Detach { to: Address, group: Arc<Group>, number: u64 },
    /// A connection has to go.
    Kick { to: Address },
    /// Somebody wants to know about a connection.
    Inspect { to: Address, answer: oneshot::Sender<Option<ConnectionInfo>> },
}

/// What is known of a live connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Its own channel.
    pub channel: ChannelName,
    /// Where it came from.
    pub origin: Origin,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// Bytes that wait for its socket beside the logs.
    pub outbox_bytes: usize,
    /// Whether its socket takes no bytes at the moment.
    pub blocked: bool,
}

/// A socket, as the layer sees it: something that takes bytes when it can. Made by the driver, used on one thread.
pub trait Sink {
    /// Writes as much as the socket takes at once; [`io::ErrorKind::WouldBlock`] when it takes nothing.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the driver something about the connection. Must not call back into the shard.
    fn signal(&self, signal: Signal);
}

/// What the shard tells a connection's driver.
#[derive(Debug)]
pub enum Signal {
    /// The socket takes no more bytes: wait until it does, then call [`Shard::unblock`].
    Blocked,
    /// The socket is broken.
    Failed(io::Error),
    /// The connection was added to a group from outside; the client has been told.
    Added(GroupName),
    /// The connection was taken out of a group from outside; the client has been told.
    Removed(GroupName),
    /// The connection has to be closed with 1008.
    Kicked,
    /// Keys or rules have changed: ask whether the connection may go on.
    Rights,
    /// The connection has to be closed with 1013: memory is short, and much waits for it.
    Shed,
    /// The process is about to end: tell the client.
    Closing,
    /// Close with 1012 at some moment within this time.
    Drain(Duration),
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The group's position, when it keeps history.
    pub position: Option<Position>,
    /// What became of `after`, when there was one.
    pub recovery: Option<Recovery>,
}

/// A connection of a shard: what its driver calls it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The events for one shard. Goes to the shard's thread, which makes the [`Shard`] of it.
#[derive(Debug)]
pub struct ShardInbox {
    id: usize,
    registry: Arc<Registry>,
    events: mpsc::Receiver<Event>,
}

impl ShardInbox {
    pub(crate) fn new(id: usize, registry: Arc<Registry>, events: mpsc::Receiver<Event>) -> Self {
        Self { id, registry, events }
    }

    /// The shard, and the queue that its thread has to take events from.
    pub fn open(self) -> (Shard, mpsc::Receiver<Event>) {
        let shard = Shard {
            id: self.id,
            registry: self.registry,
            connections: Slab::new(),
            cursors: Slab::new(),
            lanes: Slab::new(),
            lanes_of: HashMap::new(),
            ready: VecDeque::new(),
            again: VecDeque::new(),
            log_bytes: 0,
            appended: 0,
            sweep: 0,
            witness: None,
        };
        (shard, self.events)
    }
}

/// The connections of one thread.
pub struct Shard {
    id: usize,
    registry: Arc<Registry>,
    connections: Slab<Connection>,
    cursors: Slab<Cursor>,
    lanes: Slab<Lane>,
    /// By the group's id.
    lanes_of: HashMap<u64, Lanes>,
    /// Connections that have something to write and a socket that may take it. Each is in here or in `again`, once; beside
    /// them slots whose connection has gone meanwhile.
    ready: VecDeque<usize>,
    /// Those of them that go on reading a history, when all others have had their turn: a replay may be long, and the
    /// sweep that ends without it must not wait for it.
    again: VecDeque<usize>,
    /// Bytes in all logs.
    log_bytes: usize,
    /// Bytes appended to logs in this sweep.
    appended: usize,
    /// How often `ready` has become empty: then everybody has had a turn.
    sweep: u64,
    /// Who is told of what belongs to a trace.
    witness: Option<Box<dyn Witness>>,
}

impl Shard {
    /// Tells somebody of deliveries that belong to a trace.
    pub fn watched_by(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// Takes a connection in. Its channel exists from here on.
    ///
    /// # Errors
    /// [`LayerError::TooManyChannels`] at the bound.
    pub fn connect(
        &mut self,
        sink: Rc<dyn Sink>,
        format: Format,
        origin: Origin,
    ) -> Result<(Slot, ChannelName), LayerError> {
        let reserved = Reserved::new(&self.registry);
        self.connect_as(reserved, sink, format, origin)
    }

    /// The same under a name that was reserved.
    ///
    /// # Errors
    /// As [`Shard::connect`].
    pub fn connect_as(
        &mut self,
        Reserved { number, channel }: Reserved,
        sink: Rc<dyn Sink>,
        format: Format,
        origin: Origin,
    ) -> Result<(Slot, ChannelName), LayerError> {
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let address = Address { shard: self.id as u32, slot: slot as u32, number };
        let mailbox = self.registry.make_mailbox(channel.clone(), Some(address))?;
        entry.insert(Connection::new(address, mailbox, sink, format, origin));
        self.registry.stats.connections.add(1);
        Ok((Slot(slot), channel))
    }

    /// Says whose a connection is from here on; shown to operators.
    pub fn name_user(&mut self, slot: Slot, user: Option<&str>) {
        self.connections[slot.0].name_user(user);
    }

    /// Ends what comes to a connection by itself: it leaves its groups, and its messages wait no more. What is in the
    /// outbox is still written; a close frame has to be the last.
    pub fn end(&mut self, slot: Slot) {
        while let Some(cursor) = self.connections[slot.0].cursors.last().copied() {
            let name = self.lanes[self.cursors[cursor].lane].group.name.clone();
            self.registry.leave(&name, self.connections[slot.0].channel(), |_, _| ());
            self.drop_cursor(cursor);
        }
        let connection = &mut self.connections[slot.0];
        connection.ended = true;
        connection.mail = false;
    }

    /// Lets a connection go: it leaves its groups, and its channel is gone.
    pub fn disconnect(&mut self, slot: Slot) {
        self.end(slot);
        // What is left of it in `ready` is passed over in its turn: to look for it now would make the end of many
        // connections at once quadratic.
        let connection = self.connections.remove(slot.0);
        self.registry.remove_mailbox(connection.channel());
        self.registry.stats.connections.sub(1);
    }

    /// Adds a connection to a group. Messages that are taken from here on reach it; the caller queues `subscribed`
    /// in the same turn, and so before any of them. With `after` the messages behind that position come first, if the
    /// group's history still has them all.
    pub fn subscribe(&mut self, slot: Slot, group: &GroupName, after: Option<&Position>) -> Subscribed {
        let connection = &self.connections[slot.0];
        if connection.ended {
            return Subscribed { position: None, recovery: after.map(|_| NOTHING_REPLAYED) };
        }
        if let Some(cursor) = self.cursor_of(slot.0, |name| name == group) {
            let position = self.lanes[self.cursors[cursor].lane].group.position(self.seq_of(cursor));
            return Subscribed { position, recovery: after.map(|_| NOTHING_REPLAYED) };
        }
        let member = Member::Connection(connection.address, self.registry.next_number());
        let (registry, channel) = (self.registry.clone(), connection.channel().clone());
        // Under the group's mutex: what is sent from here on comes live, what was sent before is in the history.
        let join = |group: &Arc<Group>, state: &mut GroupState, number, _new| {
            let (from_seq, recovery) = (state.next_seq, after.map(|after| recovery(group, state, after)));
            let replay_from = match (after, recovery) {
                (Some(after), Some(Recovery::Recovered)) => Some(after.offset + 1).filter(|next| *next < from_seq),
                _ => None,
            };
            (group.clone(), Start { number, from_seq, replay_from, asked: true }, recovery)
        };
        let (group, start, recovery) = registry.join(group, &channel, member, join);
        let position = group.position(start.from_seq - 1);
        self.add_cursor(slot.0, group, start);
        Subscribed { position, recovery }
    }

    /// Takes a connection out of a group. Nothing of the group is written after it, but the rest of a frame that is
    /// half written.
    pub fn unsubscribe(&mut self, slot: Slot, group: &GroupName) {
        let channel = self.connections[slot.0].channel().clone();
        self.registry.leave(group, &channel, |_, _| ());
        if let Some(cursor) = self.cursor_of(slot.0, |name| name == group) {
            self.drop_cursor(cursor);
        }
    }

    /// Signals [`Signal::Rights`] to every connection.
    pub fn tell_rights(&self) {
        self.connections.iter().for_each(|(_, connection)| connection.sink.signal(Signal::Rights));
    }

    /// Signals [`Signal::Closing`] to every connection.
    pub fn tell_closing(&self) {
        self.connections.iter().for_each(|(_, connection)| connection.sink.signal(Signal::Closing));
    }

    /// Signals [`Signal::Drain`] to every connection.
    pub fn drain(&self, spread: Duration) {
        self.connections.iter().for_each(|(_, connection)| connection.sink.signal(Signal::Drain(spread)));
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Applies what another thread told. Afterwards [`Shard::next_ready`] names the connections that have to write.
    pub fn apply(&mut self, event: Event) {
        match event.0 {
            EventKind::Deliver { group, seq, frame, trace: None } => self.deliver(&group, seq, &frame),
            EventKind::Deliver { group, seq, frame, trace } => self.deliver_traced(&group, seq, &frame, &trace),
            EventKind::Renew { old, new, from_seq, frame } => self.renew(&old, &new, from_seq, &frame),
            EventKind::Presence { group, frames } => self.deliver_presence(&group, &frames),
            EventKind::Mail { to } => {
                if let Some(connection) = self.connection_at(to).filter(|connection| !connection.ended) {
                    connection.mail = true;
                    self.make_ready(to.slot());
                }
            }
            EventKind::Attach { to, group, from_seq, number } => self.attach(to, group, from_seq, number),
            EventKind::Detach { to, group, number } => self.detach(to, &group, number),
            EventKind::Kick { to } => {
                if let Some(connection) = self.connection_at(to) {
                    connection.sink.signal(Signal::Kicked);
                }
            }
            EventKind::Inspect { to, answer } => {
                // Nobody waits any more when this fails.
                let _ = answer.send(self.inspect(to));
            }
        }
    }

    /// Whether more events may be applied before what is ready has been written. False when logs have grown by half
    /// of their bound meanwhile: readers that are not slow must not fall off because we do not write.
    pub fn may_apply(&self) -> bool {
        !self.has_ready() || self.appended < self.registry.config.log_bytes / 2
    }

    fn connection_at(&mut self, address: Address) -> Option<&mut Connection> {
        self.connections.get_mut(address.slot()).filter(|connection| connection.address == address)
    }

    fn push_server_frame(&mut self, slot: usize, frame: &ServerFrame) {
        self.push(Slot(slot), self.connections[slot].format.frame(&frame.encode()));
    }

    fn cursor_of(&self, slot: usize, is: impl Fn(&GroupName) -> bool) -> Option<usize> {
        let cursors = &self.connections[slot].cursors;
        cursors.iter().copied().find(|cursor| is(&self.lanes[self.cursors[*cursor].lane].group.name))
    }
}

/// The recovery of what keeps no history, or has been subscribed before: whatever was missed is gone, and that is
/// always said.
const NOTHING_REPLAYED: Recovery = Recovery::Unrecovered(Unrecovered::Trimmed);

fn recovery(group: &Group, state: &mut GroupState, after: &Position) -> Recovery {
    match (&group.epoch, &mut state.history) {
        (Some(epoch), Some(history)) => {
            history.expire();
            history.recovery(epoch, after)
        }
        _ => NOTHING_REPLAYED,
    }
}
