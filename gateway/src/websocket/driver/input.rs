//! What comes in: bytes to messages, messages to the session.

use std::io;

use groupcast_protocol::close::CloseCode;
use groupcast_protocol::websocket;
use groupcast_protocol::websocket::reader::{Incoming, ReadLimits};
use tokio::time::Instant;

use super::{CLOSE_TIMEOUT, Connection, State};

/// Messages of one socket that are taken before others get their turn.
const MESSAGES_PER_TURN: usize = 32;
/// Buffers full that are read before others get their turn.
const READS_PER_TURN: usize = 4;
/// What a compressed message counts for: it may be a thousand times as long as what came of it.
const DEFLATED_COST: usize = 8;
/// Bytes that a command takes beside the message in it.
const FRAME_ROOM: usize = 1024;
/// Frames of one message.
const FRAGMENTS_MAX: usize = 128;

/// What was read and not taken: it waits for room for the answers, or for its turn.
#[derive(Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unread {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), taken: 0 }
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

impl Connection {
    /// Reads and takes what is there, as much as is its turn's.
    pub(super) fn read(&mut self) {
        let mut messages = MESSAGES_PER_TURN;
        let mut unread = std::mem::take(&mut self.unread);
        if !unread.is_empty() {
            unread.taken += self.hear(&mut unread.bytes[unread.taken..], &mut messages);
            if !unread.is_empty() {
                self.unread = unread;
                return;
            }
        }
        let mut scratch = self.local.websockets.take_scratch();
        for _ in 0..READS_PER_TURN {
            if messages == 0 || !self.wants_to_read() || !self.read_once(&mut scratch, &mut messages) {
                break;
            }
        }
        self.local.websockets.give_back(scratch);
    }

    /// Whether there may be more.
    fn read_once(&mut self, scratch: &mut [u8], messages: &mut usize) -> bool {
        match self.socket.stream.try_read(scratch) {
            Ok(0) => self.on_end(),
            Ok(read) => {
                let read = &mut scratch[..read];
                let taken = self.hear(read, messages);
                if taken < read.len() {
                    self.unread = Unread::new(&read[taken..]);
                }
                return taken == read.len();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.more = false,
            Err(_) => self.on_end(),
        }
        false
    }

    /// Takes messages until there is no room for answers; says how many bytes are done with.
    fn hear(&mut self, bytes: &mut [u8], messages: &mut usize) -> usize {
        self.session.on_activity(Instant::now().into_std());
        let limits = self.read_limits();
        let all = bytes.len();
        let mut left = bytes;
        while *messages > 0 && self.wants_to_read() {
            let Some(incoming) = self.reader.next(&mut left, &limits) else { return all };
            *messages = messages.saturating_sub(cost(&incoming));
            self.take(incoming);
            self.act_all();
        }
        all - left.len()
    }

    pub(super) fn read_limits(&self) -> ReadLimits {
        ReadLimits {
            message_bytes_max: self.local.app.config.limits.message_bytes.0 + FRAME_ROOM,
            fragments_max: if self.echo { usize::MAX } else { FRAGMENTS_MAX },
            deflate: self.deflate,
        }
    }

    fn take(&mut self, incoming: Incoming<'_>) {
        let closing = matches!(self.state, State::Closing(_));
        match incoming {
            Incoming::Close(code, _) => self.on_close(code),
            Incoming::Broken(..) if closing => self.state = State::Over,
            Incoming::Broken(code, reason) => {
                self.broken = true;
                self.session.close(code, &reason);
            }
            // Our close frame is out, and nothing may follow it.
            _ if closing => {}
            Incoming::Text(text) if self.echo => self.push(websocket::text(text.as_bytes())),
            Incoming::Binary(bytes) if self.echo => self.push(websocket::binary(&bytes)),
            Incoming::Text(text) => {
                self.unfinished_since = None;
                self.session.on_text(&text, Instant::now().into_std());
            }
            Incoming::Binary(_) => self.session.on_binary(),
            Incoming::Deflated { text, payload } => self.take_deflated(text, &payload),
            Incoming::Ping(payload) => {
                self.push(websocket::pong(&payload));
                self.on_control();
            }
            Incoming::Pong | Incoming::Part { empty: true } => self.on_control(),
            Incoming::Part { empty: false } => {}
        }
    }

    /// A compressed message: what it says is taken like any other.
    fn take_deflated(&mut self, text: bool, payload: &[u8]) {
        let bytes_max = self.read_limits().message_bytes_max;
        let inflated = self.local.websockets.inflate(payload, bytes_max);
        self.take(match inflated {
            Err((code, reason)) => Incoming::Broken(code, reason),
            Ok(bytes) if !text => Incoming::Binary(bytes.into()),
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Incoming::Text(text.into()),
                Err(_) => Incoming::Broken(CloseCode::NotUtf8, "a text message is not UTF-8".to_owned()),
            },
        });
    }

    fn on_control(&mut self) {
        if !self.echo {
            self.session.on_control(Instant::now().into_std());
        }
    }

    /// The other end says goodbye: it is answered with its own code, and nothing of ours follows (RFC 6455, section
    /// 5.5.1).
    fn on_close(&mut self, code: Option<u16>) {
        if !matches!(self.state, State::Closing(_)) {
            self.push(websocket::close_reply(code));
            self.close_code = known_code(code);
        }
        self.on_end();
    }

    /// Nothing comes any more.
    fn on_end(&mut self) {
        self.local.shard.borrow_mut().end(self.slot);
        self.state = State::PeerClosed(Instant::now() + CLOSE_TIMEOUT);
    }

    /// While nothing is read the rest may be there and wait for us: that is not the client's time.
    pub(super) fn note_unfinished(&mut self) {
        if self.reader.is_within_message() && !self.echo && !self.has_closed() && self.wants_to_read() {
            self.unfinished_since.get_or_insert_with(Instant::now);
        } else {
            self.unfinished_since = None;
        }
    }
}

/// What taking it uses of a turn.
fn cost(incoming: &Incoming<'_>) -> usize {
    match incoming {
        Incoming::Deflated { .. } => DEFLATED_COST,
        Incoming::Text(_)
        | Incoming::Binary(_)
        | Incoming::Part { .. }
        | Incoming::Ping(_)
        | Incoming::Pong
        | Incoming::Close(..)
        | Incoming::Broken(..) => 1,
    }
}

/// A client may send any code up to 4999; as a label of a metric only the registered ones are kept.
fn known_code(code: Option<u16>) -> u16 {
    match code {
        Some(code @ (1000..=1015 | 3000 | 3003 | 3008)) => code,
        Some(_) => 4000,
        None => 1005,
    }
}
