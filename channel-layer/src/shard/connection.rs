//! What waits for one socket beside the logs: replies, direct messages, the rest of a half-written frame.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::frame::{self, GapReason, ServerFrame};
use groupcast_protocol::{ChannelName, Format, sse};

use super::cursor::Lost;
use super::lane::Lane;
use super::{Address, Shard, Signal, Sink, Slot};
use crate::mailbox::Mailbox;

/// Frames in an outbox above which the driver stops reading the socket: its commands have to be answered, and every
/// answer needs room. Direct messages stay in the mailbox, whose capacity bounds them.
const OUTBOX_FRAMES_MAX: usize = 128;
/// The same in bytes: large answers (a page of members) count for what they are.
const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Frames in an outbox at which what others do to a connection ends it: they do it however full it is. Some hundred
/// bytes each.
pub(super) const OUTBOX_FRAMES_CUT: usize = 1024;
/// Direct messages are taken out of the mailbox while the outbox has fewer frames than this.
const MAIL_FRAMES: usize = 16;

/// Where a connection came from; shown to operators.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The other end's address.
    pub peer: String,
    /// The user that its token names.
    pub user: Option<String>,
    /// When it connected, in milliseconds since 1970.
    pub connected_at: u64,
}

/// An [`Origin`] without the room that strings have to grow.
struct Stored {
    peer: Box<str>,
    user: Option<Box<str>>,
    connected_at: u64,
}

/// What a shard knows of a connection. Small: there are many, and most have nothing to do.
pub(super) struct Connection {
    pub(super) address: Address,
    mailbox: Arc<Mailbox>,
    pub(super) sink: Rc<dyn Sink>,
    /// How its client wants what it is told.
    pub(super) format: Format,
    origin: Stored,
    /// All cursors of this connection.
    pub(super) cursors: Vec<usize>,
    /// How many of them are behind or catch up: those at the front.
    pub(super) dirty: u32,
    /// How many catch up.
    pub(super) catching_up: u32,
    /// Beside frames, the rest of one that the socket took only a part of; that is always first.
    pub(super) outbox: VecDeque<Bytes>,
    pub(super) outbox_bytes: usize,
    /// Something is in the mailbox.
    pub(super) mail: bool,
    /// Is on the shard's list.
    pub(super) queued: bool,
    /// The socket took no more bytes.
    pub(super) blocked: bool,
    /// Only what is in the outbox is still for it.
    pub(super) ended: bool,
    /// A cursor has lost something, and its client has not been told.
    pub(super) lost: bool,
    /// Its client has not been told where it has come to.
    pub(super) tells_positions: bool,
    /// An answer has to go before any event: only the outbox is written.
    pub(super) held: bool,
}

impl Connection {
    pub(super) fn new(
        address: Address,
        mailbox: Arc<Mailbox>,
        sink: Rc<dyn Sink>,
        format: Format,
        origin: Origin,
    ) -> Self {
        let Origin { peer, user, connected_at } = origin;
        Self {
            address,
            mailbox,
            sink,
            format,
            origin: Stored { peer: peer.into(), user: user.map(Into::into), connected_at },
            cursors: Vec::new(),
            dirty: 0,
            catching_up: 0,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            mail: false,
            queued: false,
            blocked: false,
            ended: false,
            lost: false,
            tells_positions: false,
            held: false,
        }
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.mailbox.name
    }

    pub(super) fn name_user(&mut self, user: Option<&str>) {
        self.origin.user = user.map(Into::into);
    }

    pub(super) fn origin(&self) -> Origin {
        let Stored { peer, user, connected_at } = &self.origin;
        Origin { peer: peer.as_ref().into(), user: user.as_deref().map(Into::into), connected_at: *connected_at }
    }

    /// How it wants what is told of the next group that it is in. The id of a stream of one group is a position in that
    /// group; of others, which it was added to from outside, it gets no ids.
    pub(super) fn next_format(&self) -> Format {
        match self.format {
            Format::Events if !self.cursors.is_empty() => Format::EventsOfMany,
            format @ (Format::WebSocket | Format::Events | Format::EventsOfMany | Format::Deflated) => format,
        }
    }

    /// The cursors that are behind or catch up.
    pub(super) fn dirty(&self) -> &[usize] {
        &self.cursors[..self.dirty as usize]
    }

    /// Whether it belongs on the shard's list and is not there yet.
    pub(super) fn may_write(&self) -> bool {
        !self.queued && !self.blocked
    }

    pub(super) fn queue(&mut self, frame: Bytes) {
        self.outbox_bytes += frame.len();
        self.outbox.push_back(frame);
    }

    /// The socket took a part of a frame: the rest goes before anything else.
    pub(super) fn queue_rest(&mut self, rest: Bytes) {
        self.outbox_bytes += rest.len();
        self.outbox.push_front(rest);
    }

    /// The socket took so many bytes; says how many of them were not in the outbox.
    pub(super) fn advance_outbox(&mut self, mut written: usize) -> usize {
        if self.outbox.capacity() == 0 {
            return written;
        }
        while written > 0
            && let Some(frame) = self.outbox.pop_front()
        {
            self.outbox_bytes -= frame.len();
            if written < frame.len() {
                self.queue_rest(frame.slice(written..));
                return 0;
            }
            written -= frame.len();
        }
        if self.outbox.is_empty() {
            // Most connections have nothing to say for long; then they keep no room for it.
            self.outbox = VecDeque::new();
        }
        written
    }

    /// Moves direct messages from the mailbox to the outbox, as many as have room.
    pub(super) fn take_mail(&mut self, expiry: std::time::Duration) {
        while self.mail && self.outbox.len() < MAIL_FRAMES {
            match self.mailbox.pop(expiry) {
                Some(item) => {
                    let frame = frame::encode_channel_message(&self.mailbox.name, &item.message);
                    self.queue(self.format.frame(&frame));
                }
                None => self.mail = false,
            }
        }
    }
}

impl Shard {
    /// Queues a ready frame for a connection alone: an answer, a pong, a close.
    pub fn push(&mut self, slot: Slot, frame: Bytes) {
        self.connections[slot.0].queue(frame);
        self.make_ready(slot.0);
    }

    /// Whether answers for the connection have room. When not, its socket is not read.
    pub fn has_room(&self, slot: Slot) -> bool {
        let connection = &self.connections[slot.0];
        connection.outbox.len() < OUTBOX_FRAMES_MAX && connection.outbox_bytes < OUTBOX_BYTES_MAX
    }

    /// Whether all answers and the frame in hand are written: a close frame that was pushed last has gone out.
    pub fn is_flushed(&self, slot: Slot) -> bool {
        self.connections[slot.0].outbox.is_empty()
    }

    /// Holds back, or lets go, everything but the outbox: `accepted` has to come before any event of its job.
    pub fn hold(&mut self, slot: Slot, held: bool) {
        let connection = &mut self.connections[slot.0];
        if connection.held != held {
            connection.held = held;
            self.make_ready(slot.0);
        }
    }

    /// The socket takes bytes again.
    pub fn unblock(&mut self, slot: Slot) {
        self.connections[slot.0].blocked = false;
        self.make_ready(slot.0);
    }

    /// Whether the socket takes no bytes at the moment.
    pub fn is_blocked(&self, slot: Slot) -> bool {
        self.connections[slot.0].blocked
    }

    pub(super) fn make_ready(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.may_write() {
            connection.queued = true;
            self.ready.push_back(slot);
        }
    }

    /// Notes that a cursor has missed messages, for [`Shard::tell_gaps`].
    pub(super) fn lose(&mut self, cursor: usize, missed: u64, reason: GapReason) {
        let cursor = &mut self.cursors[cursor];
        cursor.lose(missed, reason);
        self.connections[cursor.connection].lost = true;
    }

    /// Queues a `gap` for every cursor of the connection that has lost something, before what it can still have.
    pub(super) fn tell_gaps(&mut self, slot: usize) {
        self.connections[slot].lost = false;
        for at in 0..self.connections[slot].cursors.len() {
            let key = self.connections[slot].cursors[at];
            let Some(lost) = self.cursors[key].lost.take() else { continue };
            let Lost { missed, reason } = *lost;
            self.registry.stats.gaps.add(reason);
            self.registry.stats.missed.add(missed);
            let Lane { group, format, .. } = &self.lanes[self.cursors[key].lane];
            let seq = self.seq_of(key);
            let gap = ServerFrame::Gap {
                group: group.name.clone(),
                missed: Some(missed),
                reason,
                position: group.position(seq),
            };
            let connection = &mut self.connections[slot];
            connection.queue(format.frame_at(&gap.encode(), group.at(seq)));
            connection.tells_positions |= connection.format == Format::EventsOfMany;
        }
    }

    /// Queues the positions of all groups that an event stream asked for: with those it comes back, and of others it knows
    /// nothing then. Everything they claim is written, or is the rest of a frame that goes before them.
    pub(super) fn tell_positions(&mut self, slot: usize) {
        self.connections[slot].tells_positions = false;
        let place = |cursor: &usize| {
            if !self.cursors[*cursor].asked {
                return None;
            }
            let group = &self.lanes[self.cursors[*cursor].lane].group;
            Some((group.name.clone(), group.position(self.seq_of(*cursor))?))
        };
        let positions: sse::Positions = self.connections[slot].cursors.iter().filter_map(place).collect();
        if !positions.is_empty() {
            self.connections[slot].queue(sse::id_only(&positions));
        }
    }

    pub(super) fn fail(&mut self, slot: usize, error: std::io::Error) {
        let connection = &mut self.connections[slot];
        // Nothing more is written; the driver disconnects when it hears of it.
        connection.blocked = true;
        connection.sink.signal(Signal::Failed(error));
    }
}
