//! One connection: reads its socket, asks the session, does what it says.
//!
//! `select!` only picks an input; what follows is done in [`Connection::turn`], in one place.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_channel_layer::{LayerError, Origin, Signal, Slot, Subscribed, Wrote};
use groupcast_protocol::close::CloseCode;
use groupcast_protocol::frame::Command;
use groupcast_protocol::session::{Answer, Limits, Output, Session, Ticket};
use groupcast_protocol::{Format, GroupName, Position, websocket};
use tokio::time::{Instant, sleep_until, timeout};

use super::commands::Commands;
use super::reader::{Incoming, Reader};
use super::socket::Socket;
use super::upgrade::Opening;
use crate::clock;
use crate::metrics::CloseLabels;
use crate::server::Place;
use crate::server::shard::Local;
use crate::stream::Stream;

/// From our close frame to the end of the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a drain looks again for commands that are still under way.
const DRAIN_RETRY: Duration = Duration::from_millis(50);
/// A client that is told to come back does so within this time, spread by chance.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Messages of one socket that are taken before others get their turn.
const MESSAGES_PER_TURN: usize = 32;
/// Bytes that a command takes beside the message in it.
const FRAME_ROOM: usize = 1024;

/// Drives a WebSocket until it ends. `already_read` is what came behind the request.
pub(crate) async fn drive(local: Rc<Local>, stream: Stream, already_read: Bytes, opening: Opening) {
    let socket = Rc::new(Socket::new(stream));
    let frame_bytes_max = local.app.config.limits.message_bytes.0 + FRAME_ROOM;
    let reader = Reader::new(socket.clone(), already_read, frame_bytes_max);
    match Connection::open(local, socket, reader, opening) {
        Ok(connection) => connection.run().await,
        Err(error) => tracing::warn!(%error, "a connection was refused"),
    }
}

struct Connection {
    local: Rc<Local>,
    socket: Rc<Socket>,
    reader: Reader,
    /// There may be more to read, of which the socket's readiness tells nothing: tungstenite has a buffer of its own.
    more: bool,
    /// The stream makes no sense any more: what comes is not read, only its end waited for.
    broken: bool,
    session: Session,
    commands: Commands,
    slot: Slot,
    /// Held until the connection is over.
    _place: Place,
    state: State,
    /// The code it ended with, ours or the peer's; 1006 as long as nobody has said any.
    close_code: u16,
    /// Since when the socket has taken nothing though there is something for it.
    stalled_since: Option<Instant>,
}

/// `Open => Draining => Closing => Over`; each step may be left out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// The client has been told; closes at this time.
    Draining(Instant),
    /// Our close frame is queued or out; the peer's is waited for until this time.
    Closing(Instant),
    /// The peer has closed or hung up; what is queued is written until this time.
    PeerClosed(Instant),
    Over,
}

impl Connection {
    fn open(local: Rc<Local>, socket: Rc<Socket>, reader: Reader, opening: Opening) -> Result<Self, LayerError> {
        let origin = Origin { peer: opening.peer, user: None, connected_at: clock::now_ms() };
        let (slot, channel) = local.shard.borrow_mut().connect(socket.clone(), Format::WebSocket, origin)?;
        let limits = &local.app.config.limits;
        let limits = Limits {
            subscriptions_max: limits.subscriptions_per_connection,
            in_flight_max: limits.commands_in_flight,
            message_bytes_max: limits.message_bytes.0,
            ping_interval: limits.ping_interval.0,
            pong_timeout: limits.pong_timeout.0,
        };
        let mut session = Session::new(channel.clone(), None, limits, std::time::Instant::now());
        if !opening.head.is_empty() {
            // First of all: the answer to the handshake leaves in one write with `welcome`.
            local.shard.borrow_mut().push(slot, opening.head);
        }
        for (group, after) in opening.groups {
            session.subscribe_at_open(group, after);
        }
        let commands = Commands::new(local.app.clone(), channel);
        local.app.metrics.websockets_opened.inc();
        let (state, _place) = (State::Open, opening.place);
        Ok(Self {
            local,
            socket,
            reader,
            more: true,
            broken: false,
            session,
            commands,
            slot,
            _place,
            state,
            close_code: 1006,
            stalled_since: None,
        })
    }

    async fn run(mut self) {
        // Whoever is told to go has been told before this connection was there to hear it.
        if self.local.app.health.is_draining() {
            self.drain(Duration::ZERO);
        }
        self.turn();
        while self.state != State::Over {
            self.wait().await;
            self.turn();
        }
        self.local.shard.borrow_mut().disconnect(self.slot);
        if let Some(leave) = self.commands.leave() {
            self.local.spawn(leave);
        }
        let code = CloseLabels { code: self.close_code };
        self.local.app.metrics.websockets_closed.get_or_create(&code).inc();
        let Self { socket, reader, .. } = self;
        drop(reader);
        if let Some(socket) = Rc::into_inner(socket) {
            // An end that does not come in time is not waited for.
            let _ = timeout(CLOSE_TIMEOUT, socket.stream.shutdown_and_linger()).await;
        }
    }

    /// Waits for the next input and takes it in. Every branch survives being dropped.
    async fn wait(&mut self) {
        let (socket, local) = (self.socket.clone(), self.local.clone());
        let reads = self.wants_to_read();
        let blocked = local.shard.borrow().is_blocked(self.slot);
        let deadline = self.deadline();
        tokio::select! {
            ready = socket.stream.readable(), if reads && !self.more => match ready {
                Ok(()) => self.more = true,
                Err(_) => self.state = State::Over,
            },
            () = tokio::task::yield_now(), if reads && self.more => {}
            ready = socket.stream.writable(), if blocked => match ready {
                Ok(()) => local.shard.borrow_mut().unblock(self.slot),
                Err(_) => self.state = State::Over,
            },
            (ticket, outcome) = self.commands.next(), if !self.commands.is_empty() => {
                self.session.complete(ticket, outcome);
            }
            () = socket.bell.notified() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.on_time(),
        }
    }

    /// Reads what is there, does what the session and the shard say, then writes.
    fn turn(&mut self) {
        self.hear_signals();
        if self.more {
            self.read();
        }
        self.act_all();
        let mut shard = self.local.shard.borrow_mut();
        shard.hold(self.slot, self.commands.hold(&self.session));
        while shard.write(self.slot) == Wrote::Part {}
        let (flushed, blocked) = (shard.is_flushed(self.slot), shard.is_blocked(self.slot));
        drop(shard);
        self.hear_signals();
        if self.socket.take_progress() || !blocked {
            self.stalled_since = None;
        }
        if blocked {
            self.stalled_since.get_or_insert_with(Instant::now);
        }
        if flushed && self.broken && matches!(self.state, State::Closing(_)) {
            self.state = State::Over;
        }
        // What the client asked before it closed is still done.
        if flushed && matches!(self.state, State::PeerClosed(_)) && self.session.is_idle() {
            self.state = State::Over;
        }
    }

    fn act_all(&mut self) {
        while let Some(output) = self.session.poll() {
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            // Nothing may follow a close frame, ours or the answer to the peer's.
            Output::Send(_) | Output::Ping if self.has_closed() => {}
            Output::Send(text) => self.push(websocket::text(&text)),
            Output::Ping => self.push(websocket::ping(b"")),
            Output::Execute(ticket, Command::Subscribe { group, after }) => {
                self.subscribe(ticket, &group, after.as_ref());
            }
            Output::Execute(ticket, Command::Unsubscribe { group }) => {
                self.local.shard.borrow_mut().unsubscribe(self.slot, &group);
                self.session.complete(ticket, Ok(Answer::Unsubscribed));
            }
            Output::Execute(ticket, command) => self.commands.start(ticket, command),
            Output::Close(code, reason) => {
                self.close_code = code.as_u16();
                self.local.shard.borrow_mut().end(self.slot);
                if self.has_closed() {
                    return;
                }
                self.push(websocket::close(code, &reason));
                self.state = State::Closing(Instant::now() + CLOSE_TIMEOUT);
            }
        }
    }

    /// The cursor is set and `subscribed` queued in the same turn, so no message can come before it.
    fn subscribe(&mut self, ticket: Ticket, group: &GroupName, after: Option<&Position>) {
        let Subscribed { position, recovery } = self.local.shard.borrow_mut().subscribe(self.slot, group, after);
        self.session.complete(ticket, Ok(Answer::Subscribed { position, recovery }));
    }

    fn has_closed(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::PeerClosed(_) | State::Over)
    }

    fn push(&self, frame: Bytes) {
        self.local.shard.borrow_mut().push(self.slot, frame);
    }

    fn hear_signals(&mut self) {
        for signal in self.socket.take_signals() {
            match signal {
                Signal::Blocked => {}
                Signal::Failed(error) => {
                    tracing::debug!(%error, "a socket broke");
                    self.state = State::Over;
                }
                Signal::Added(group) => self.session.added(group),
                Signal::Removed(group) => self.session.removed(&group),
                Signal::Kicked => self.session.close(CloseCode::Policy, "disconnected by an operator"),
                Signal::Closing => self.tell_closing(),
                Signal::Drain(spread) => self.drain(spread),
            }
        }
    }

    fn wants_to_read(&self) -> bool {
        match self.state {
            State::Open | State::Draining(_) => {
                self.session.wants_input() && self.local.shard.borrow().has_room(self.slot)
            }
            State::Closing(_) => !self.broken,
            State::PeerClosed(_) | State::Over => false,
        }
    }

    fn read(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            if !self.wants_to_read() {
                return;
            }
            let incoming = self.reader.next();
            if let Some(answers) = self.reader.answers()
                // Nothing may follow our own close frame.
                && !matches!(self.state, State::Closing(_))
            {
                self.push(answers);
            }
            match incoming {
                Incoming::Nothing => {
                    self.more = false;
                    return;
                }
                incoming => self.take(incoming),
            }
            self.act_all();
        }
    }

    fn take(&mut self, incoming: Incoming) {
        let now = std::time::Instant::now();
        let closing = matches!(self.state, State::Closing(_));
        match incoming {
            Incoming::Closed(code) => {
                self.close_code = code.filter(|_| !closing).unwrap_or(self.close_code);
                self.local.shard.borrow_mut().end(self.slot);
                self.state = State::PeerClosed(Instant::now() + CLOSE_TIMEOUT);
            }
            Incoming::Broken(..) if closing => self.state = State::Over,
            Incoming::Broken(code, reason) => {
                self.broken = true;
                self.session.close(code, &reason);
            }
            Incoming::Text(_) | Incoming::Binary | Incoming::Control if closing => {}
            Incoming::Text(text) => self.session.on_text(&text, now),
            Incoming::Binary => self.session.on_binary(),
            Incoming::Control => self.session.on_activity(now),
            Incoming::Nothing => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match self.state {
            State::Draining(at) | State::Closing(at) | State::PeerClosed(at) => Some(at),
            State::Open | State::Over => None,
        };
        let stalled = self.stalled_since.map(|since| since + self.local.app.config.limits.write_timeout.0);
        let session = self.session.poll_timeout().map(Instant::from_std);
        [own, stalled, session].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let write_timeout = self.local.app.config.limits.write_timeout.0;
        if self.stalled_since.is_some_and(|since| now >= since + write_timeout) {
            // 3008, but a socket that takes nothing takes no close frame either.
            self.close_code = CloseCode::Timeout.as_u16();
            self.state = State::Over;
            return;
        }
        match self.state {
            State::Closing(at) | State::PeerClosed(at) if now >= at => self.state = State::Over,
            State::Draining(at) if now >= at && self.session.is_idle() => {
                self.session.close(CloseCode::Restart, "the gateway restarts; connect again");
            }
            State::Draining(at) if now >= at => self.state = State::Draining(now + DRAIN_RETRY),
            State::Open | State::Draining(_) | State::Closing(_) | State::PeerClosed(_) | State::Over => {
                self.session.handle_timeout(now.into_std());
            }
        }
    }

    fn tell_closing(&mut self) {
        let retry_after = RETRY_AFTER_MAX.mul_f64(clock::random_fraction());
        self.session.drain(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
    }

    /// Closes at a moment within `spread`: a thousand clients shall not come back at once.
    fn drain(&mut self, spread: Duration) {
        if self.state == State::Open {
            self.tell_closing();
            self.state = State::Draining(Instant::now() + spread.mul_f64(clock::random_fraction()));
        }
    }
}
