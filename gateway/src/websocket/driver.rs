//! One connection: reads its socket, asks the session, does what it says.
//!
//! The task sleeps in one place, [`Connection::poll_input`], which only picks inputs; what follows is done in
//! [`Connection::turn`]. Most connections sleep most of the time, so nothing here is larger than a sleeper needs: what is
//! read into, counted by and bounded by is the thread's.

mod access;
mod input;
mod open;
#[cfg(test)]
mod tests;
mod time;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use groupcast_channel_layer::{LayerError, Origin, Signal, Slot, Subscribed, Wrote};
use groupcast_protocol::asgi::Door;
use groupcast_protocol::close::CloseCode;
use groupcast_protocol::frame::Command;
use groupcast_protocol::session::{Answer, Output, Session, Ticket};
use groupcast_protocol::websocket::reader::Reader;
use groupcast_protocol::{ChannelName, Format, GroupName, Position, RawObject, Refusal, Trace, websocket};
use tokio::time::{Instant, timeout};

use self::access::Access;
use self::input::Unread;
use super::commands::Commands;
use super::socket::Socket;
use super::upgrade::Opening;
use super::wheel::Alarm;
use crate::clock;
use crate::metrics::CloseLabels;
use crate::server::Place;
use crate::server::shard::Local;
use crate::stream::Stream;
use crate::telemetry::Scope;

/// Writes to one socket before others get their turn: a replay may be long.
const WRITES_PER_TURN: usize = 8;
/// From our close frame to the end of the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Drives a WebSocket until it ends. `already_read` is what came behind the request.
pub(crate) fn drive(
    local: Rc<Local>,
    stream: Stream,
    already_read: Bytes,
    opening: Opening,
) -> impl Future<Output = ()> + 'static {
    // Opened here and boxed, not within the future: that would have room for all of it several times over.
    let opened = Connection::open(local, stream, &already_read, opening).map(Box::new);
    async move {
        match opened {
            Ok(connection) => connection.run().await,
            Err(error) => tracing::warn!(%error, "a connection was refused"),
        }
    }
}

struct Connection {
    local: Rc<Local>,
    socket: Rc<Socket>,
    reader: Reader,
    unread: Unread,
    session: Session,
    access: Access,
    /// There while any are under way.
    commands: Option<Box<Commands>>,
    /// There while a subscription waits for its group.
    opening: Option<Box<open::Opening>>,
    channel: ChannelName,
    /// What is asked by this connection belongs to it.
    trace: Trace,
    slot: Slot,
    alarm: Alarm,
    /// Held until the connection is over.
    place: Place,
    state: State,
    /// Since when the socket has taken nothing though there is something for it.
    stalled_since: Option<Instant>,
    /// Since when a message that has begun has not ended, as long as its rest is waited for.
    unfinished_since: Option<Instant>,
    /// The code it ended with, ours or the peer's; 1006 as long as nobody has said any.
    close_code: u16,
    /// There may be more to read, of which the socket's readiness tells nothing.
    more: bool,
    /// There may be more to write to a socket that takes it.
    unwritten: bool,
    /// The stream makes no sense any more: what comes is not read, only its end waited for.
    broken: bool,
    /// permessage-deflate was agreed on.
    deflate: bool,
    /// Messages go back as they came, and the session has no part in them.
    echo: bool,
}

/// `Open => Draining => Closing => Over | Cut`; each step may be left out.
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
    /// The socket is broken, or its other end had its time: nothing more is waited for.
    Cut,
}

impl Connection {
    fn open(local: Rc<Local>, stream: Stream, already_read: &[u8], opening: Opening) -> Result<Self, LayerError> {
        let socket = Rc::new(Socket::new(stream));
        let access = Access::new(opening.caller, opening.seat, &opening.given);
        let user = access.user().map(str::to_owned);
        let origin = Origin { peer: opening.peer, user: user.clone(), connected_at: clock::now_ms() };
        let format = if opening.deflate { Format::Deflated } else { Format::WebSocket };
        let (slot, channel) = local.shard.borrow_mut().connect_as(opening.reserved, socket.clone(), format, origin)?;
        let limits = local.websockets.session_limits.clone();
        let mut session = Session::new(channel.clone(), user, limits, std::time::Instant::now());
        if opening.echo {
            // `welcome` is of a protocol that is not spoken then.
            while session.poll().is_some() {}
        }
        if !opening.head.is_empty() {
            // First of all: the answer to the handshake leaves in one write with `welcome`.
            local.shard.borrow_mut().push(slot, opening.head);
        }
        let given = opening.given.into_iter().filter(|given| opening.groups.iter().all(|(group, _)| group != given));
        let given: Vec<_> = given.map(|group| (group, None)).collect();
        for (group, after) in opening.groups.into_iter().chain(given) {
            session.subscribe_at_open(group, after);
        }
        local.app.metrics.websockets_opened.inc();
        let alarm = Alarm::new(local.clone());
        Ok(Self {
            local,
            socket,
            reader: Reader::default(),
            unread: Unread::new(already_read),
            session,
            access,
            commands: None,
            opening: None,
            channel,
            trace: opening.trace,
            slot,
            alarm,
            place: opening.place,
            state: State::Open,
            stalled_since: None,
            unfinished_since: None,
            close_code: 1006,
            more: true,
            unwritten: false,
            broken: false,
            deflate: opening.deflate,
            echo: opening.echo,
        })
    }

    async fn run(mut self: Box<Self>) {
        // Whoever is told to go has been told before this connection was there to hear it.
        if self.local.app.health.is_draining() {
            self.drain(Duration::ZERO);
        }
        self.ask_again();
        self.scope().run_now(|| self.turn());
        while !self.is_over() {
            let more = self.unwritten || (self.more && self.wants_to_read());
            if more {
                // Others first: this one could go on for ever.
                tokio::task::yield_now().await;
            }
            let input = |cx: &mut Context<'_>| {
                let there = self.scope().run_now(|| self.poll_input(cx));
                if there || more { Poll::Ready(()) } else { Poll::Pending }
            };
            poll_fn(input).await;
            self.scope().run_now(|| self.turn());
        }
        // Rare, and larger than all that sleeps.
        Box::pin(self.leave()).await;
    }

    /// For a step, not for the whole task: a sleeper does not pay for it.
    fn scope(&self) -> Scope {
        Scope::connection(self.channel.clone())
    }

    async fn leave(mut self: Box<Self>) {
        self.local.shard.borrow_mut().disconnect(self.slot);
        if let Some(leave) = self.commands.take().and_then(|mut commands| commands.leave()) {
            self.local.spawn(leave);
        }
        let code = CloseLabels { code: self.close_code };
        self.local.app.metrics.websockets_closed.get_or_create(&code).inc();
        if !self.echo {
            let hooks = &self.local.app.hooks;
            hooks.disconnected(Door::WebSocket, &self.channel, self.access.user(), Some(self.close_code), &self.trace);
        }
        let (socket, lingers, _place) = (self.socket.clone(), self.state == State::Over, self.place.clone());
        drop(self);
        if lingers && let Some(socket) = Rc::into_inner(socket) {
            // An end that does not come in time is not waited for.
            let _ = timeout(CLOSE_TIMEOUT, socket.stream.shutdown_and_linger()).await;
        }
    }

    /// Takes in whatever is new; false when nothing is, and then the task will be woken when something is.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> bool {
        let rung = self.socket.listen(cx.waker());
        let socket = self.poll_socket(cx);
        let commands = self.poll_commands(cx);
        let opening = self.poll_opening(cx);
        self.poll_time(cx) || rung || socket || commands || opening
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> bool {
        let socket = self.socket.clone();
        let mut ready = false;
        if !self.more && self.wants_to_read() {
            match socket.stream.poll_readable(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => (self.more, ready) = (true, true),
                Poll::Ready(Err(_)) => (self.state, ready) = (State::Cut, true),
            }
        }
        if self.is_blocked() {
            match socket.stream.poll_writable(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.local.shard.borrow_mut().unblock(self.slot);
                    ready = true;
                }
                Poll::Ready(Err(_)) => (self.state, ready) = (State::Cut, true),
            }
        }
        ready
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(commands) = &mut self.commands else { return false };
        let Poll::Ready((ticket, outcome)) = commands.poll_next(cx) else { return false };
        self.session.complete(ticket, outcome);
        true
    }

    /// Reads what is there, does what the session and the shard say, then writes.
    fn turn(&mut self) {
        self.hear_signals();
        if self.more {
            self.read();
        }
        self.act_all();
        self.note_unfinished();
        let mut shard = self.local.shard.borrow_mut();
        shard.hold(self.slot, self.commands.as_mut().is_some_and(|commands| commands.hold(&self.session)));
        self.unwritten = (0..WRITES_PER_TURN).all(|_| shard.write(self.slot) == Wrote::Part);
        let flushed = shard.is_flushed(self.slot) && !self.socket.stream.is_flushing();
        drop(shard);
        self.commands.take_if(|commands| commands.is_done());
        let blocked = self.is_blocked();
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
            Output::Send(_) | Output::Forward(_) | Output::Ping if self.has_closed() => {}
            Output::Send(text) => self.push(websocket::text(&text)),
            Output::Forward(frame) => self.push(frame),
            Output::Ping => self.push(websocket::ping(b"")),
            Output::Refused(code, by) => self.count_refused(code, by),
            Output::Execute(ticket, command) => match self.charge() {
                Ok(()) => self.execute(ticket, command),
                Err(refusal) => self.session.complete(ticket, Err(refusal)),
            },
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

    fn execute(&mut self, ticket: Ticket, command: Command) {
        match command {
            Command::Subscribe { group, after } => self.begin_subscription(ticket, group, after),
            Command::SubscribeQuery { query, params } => self.subscribe_query(ticket, &query, &params),
            Command::Unsubscribe { group } => {
                self.local.shard.borrow_mut().unsubscribe(self.slot, &group);
                self.access.left(&group);
                self.session.complete(ticket, Ok(Answer::Unsubscribed));
            }
            Command::Authenticate { token } => self.authenticate(ticket, &token),
            command @ (Command::Members { .. } | Command::History { .. }) => match self.check_read(&command) {
                Ok(()) => self.start(ticket, command),
                Err(refusal) => self.session.complete(ticket, Err(refusal)),
            },
            command @ (Command::GroupSend { .. } | Command::Query { .. } | Command::Cancel { .. }) => {
                self.start(ticket, command);
            }
        }
    }

    fn start(&mut self, ticket: Ticket, command: Command) {
        let by = self.by();
        let new = || Box::new(Commands::new(self.local.app.clone()));
        self.commands.get_or_insert_with(new).start(by, ticket, command);
    }

    /// The cursor is set and `subscribed` queued in the same turn, so no message can come before it.
    fn subscribe(&mut self, ticket: Ticket, group: &GroupName, after: Option<&Position>) {
        let Subscribed { position, recovery } = self.local.shard.borrow_mut().subscribe(self.slot, group, after);
        self.session.complete(ticket, Ok(Answer::Subscribed { position, recovery }));
    }

    /// As [`Connection::subscribe`]; behind `subscribed`, what is known of the query's rows.
    fn subscribe_query(&mut self, ticket: Ticket, query: &str, params: &RawObject) {
        match self.follow(query, params) {
            Ok((group, state)) => {
                self.session.complete(ticket, Ok(Answer::SubscribedQuery { group }));
                state.into_iter().for_each(|frame| self.session.forward(frame));
            }
            Err(refusal) => self.session.complete(ticket, Err(refusal)),
        }
    }

    fn follow(&mut self, query: &str, params: &RawObject) -> Result<(GroupName, Vec<Bytes>), Refusal> {
        self.access.check_query(query)?;
        let asker = self.by().caller.asker();
        let question = self.local.app.live.ask(query, params, asker.as_ref())?;
        self.session.check_new(question.group())?;
        let state = self.local.follow(self.slot, &question)?;
        self.access.follows(&question, asker.as_ref());
        Ok((question.group().clone(), state))
    }

    /// Whether the socket has to be waited for before anything else is written.
    fn is_blocked(&self) -> bool {
        self.local.shard.borrow().is_blocked(self.slot) || self.socket.stream.is_flushing()
    }

    fn has_closed(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::PeerClosed(_)) || self.is_over()
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over | State::Cut)
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
                    self.state = State::Cut;
                }
                Signal::Added(group) => {
                    self.access.added(&group);
                    self.session.added(group);
                }
                Signal::Removed(group) => {
                    self.access.left(&group);
                    self.session.removed(&group);
                }
                Signal::Kicked => self.session.close(CloseCode::Policy, "disconnected by an operator"),
                Signal::Rights => self.ask_again(),
                Signal::Shed => {
                    let why = "memory is short, and much waits to be read here; connect again later";
                    self.session.close(CloseCode::TryAgainLater, why);
                }
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
            State::PeerClosed(_) | State::Over | State::Cut => false,
        }
    }
}

/// A panic must not leave its slot behind: the shard would keep the socket and write to it for ever.
impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (local, slot) = (self.local.clone(), self.slot);
            local.app.metrics.panics.inc();
            // By a task of its own: a second panic within this one would end the process.
            self.local.spawn(async move { local.shard.borrow_mut().disconnect(slot) });
        }
    }
}
