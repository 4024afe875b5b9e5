//! The state of one connection: what came in and the time go in, what to do comes out.
//!
//! The session never waits, reads no clock and touches no socket. Its driver hands it whole text messages, the answers
//! to the commands it asked for, and the time, and after each input takes [`Session::poll`] until `None`.
//!
//! # Contract
//!
//! - Commands are started and answered in the order they came in, up to [`Limits::in_flight_max`] at a time; then
//!   [`Session::wants_input`] is false and the driver stops reading. `ping` may overtake.
//! - `group_send`, `query`, `cancel`, `members` and `history` run side by side; answers still leave in order.
//! - `subscribe`, `unsubscribe` and `authenticate` are barriers: they start when everything before is answered, and
//!   nothing after them starts until they are. So the driver may move a cursor as soon as it has taken `subscribed`.
//! - A command that cannot be understood or done is answered by `error`, in its place; the connection lives. The driver is told
//!   of each by [`Output::Refused`], for its counters.
//! - After [`Output::Close`] nothing comes out any more.
//!
//! Who may do what is decided by whoever executes the commands.
//!
//! ```
//! use std::time::Instant;
//! use groupcast_protocol::session::{Answer, Limits, Output, Session};
//! use groupcast_protocol::ChannelName;
//!
//! let channel = ChannelName::parse("specific.gw1!c12")?;
//! let mut session = Session::new(channel, None, Limits::default(), Instant::now());
//! session.on_text(r#"{"type":"subscribe","id":1,"group":"my_group"}"#, Instant::now());
//! let mut sent = Vec::new();
//! while let Some(output) = session.poll() {
//!     match output {
//!         Output::Send(text) => sent.push(text),
//!         // A driver does the work first; here it is done at once.
//!         Output::Execute(ticket, _) => {
//!             session.complete(ticket, Ok(Answer::Subscribed { position: None, recovery: None }));
//!         }
//!         Output::Forward(_) | Output::Refused(..) | Output::Ping | Output::Close(..) => {}
//!     }
//! }
//! assert_eq!(sent[1], r#"{"type":"subscribed","id":1,"group":"my_group"}"#);
//! # Ok::<(), groupcast_protocol::NameError>(())
//! ```

mod answer;
mod in_flight;
mod rate;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::answer::Answer;
use self::in_flight::InFlight;
pub use self::in_flight::Ticket;
use self::rate::Allowance;
pub use self::rate::Rate;
use self::subscriptions::Subscriptions;
use self::timer::{Due, Timer};
use crate::close::CloseCode;
use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
pub use crate::frame::Command;
use crate::frame::{ClientFrame, Request, RequestId, ServerFrame};
use crate::names::{ChannelName, GroupName};

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Groups one connection may subscribe to.
    pub subscriptions_max: usize,
    /// Commands that may be under way; then reading stops.
    pub in_flight_max: usize,
    /// Bytes of a message in `group_send`.
    pub message_bytes_max: usize,
    /// Text messages; one beyond is refused with `rate_limited`.
    pub commands: Rate,
    /// Pings, pongs and frames with nothing in them; one beyond closes with 1008.
    pub control_frames: Rate,
    /// Silence of the client after which it is pinged.
    pub ping_interval: Duration,
    /// Silence after a ping after which the connection is closed.
    pub pong_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions_max: 100,
            in_flight_max: 64,
            message_bytes_max: 65_536,
            commands: Rate { per_second: 100, burst: 200 },
            control_frames: Rate { per_second: 20, burst: 100 },
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
        }
    }
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sends this JSON text as one text message.
    Send(Bytes),
    /// Sends this, which whoever gave it to [`Session::forward`] has framed.
    Forward(Bytes),
    /// Executes the command and hands the answer to [`Session::complete`] with this ticket.
    Execute(Ticket, Command),
    /// Counts a command that is answered by `error`: its code, and by whom it was refused. Nothing is sent.
    Refused(ErrorCode, RefusedBy),
    /// Sends a WebSocket ping.
    Ping,
    /// Sends a close frame and ends the connection. The last output.
    Close(CloseCode, String),
}

/// Who has refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// The session, by its own rules and [`Limits`].
    Session,
    /// Whoever executed it.
    Driver,
}

/// The protocol state of one connection. See the [module](self).
#[derive(Debug)]
pub struct Session {
    user: Option<String>,
    /// Shared by all connections: an idle one is to be small.
    limits: Arc<Limits>,
    subscriptions: Subscriptions,
    commands: InFlight,
    commands_left: Allowance,
    control_frames_left: Allowance,
    outputs: VecDeque<Output>,
    timer: Timer,
    state: State,
}

/// `Open => Draining => Closed`, or `Open => Closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// New commands are refused; what is under way is still answered.
    Draining,
    Closed,
}

impl Session {
    /// Opens a session; the first output is `welcome`.
    pub fn new(channel: ChannelName, user: Option<String>, limits: impl Into<Arc<Limits>>, now: Instant) -> Self {
        let welcome = ServerFrame::Welcome { channel, user: user.clone() }.encode();
        Self {
            user,
            timer: Timer::new(now),
            limits: limits.into(),
            subscriptions: Subscriptions::default(),
            commands: InFlight::default(),
            commands_left: Allowance::full(now),
            control_frames_left: Allowance::full(now),
            outputs: VecDeque::from([Output::Send(welcome)]),
            state: State::Open,
        }
    }

    /// Subscribes as `?group=` of the address asks: like a `subscribe` without an `id`.
    ///
    /// Call it before the first input. These do not count against [`Limits::in_flight_max`] one by one, only in that
    /// nothing is read while there are as many; the driver bounds their number.
    pub fn subscribe_at_open(&mut self, group: GroupName, after: Option<Position>) {
        if self.state != State::Closed {
            self.commands.push(None, Command::Subscribe { group, after });
            self.advance();
        }
    }

    /// Takes a whole text message.
    ///
    /// Ask [`Session::wants_input`] before each: a message beyond the bound closes the connection with 1013, because
    /// to keep it would be a queue without a bound.
    pub fn on_text(&mut self, text: &str, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        if !self.wants_input() {
            return self.close(CloseCode::TryAgainLater, "more commands than may be in flight");
        }
        self.timer.heard(now);
        let allowed = self.commands_left.take(&self.limits.commands, now);
        match ClientFrame::decode(text, self.limits.message_bytes_max) {
            Ok(ClientFrame { id, request }) => match (allowed, request) {
                (Err(wait), _) => self.refuse_command(id, wait),
                (Ok(()), Request::Ping) => self.send(&ServerFrame::Pong { id }),
                (Ok(()), Request::Command(command)) => self.on_command(id, command),
            },
            Err(refused) => self.refuse(refused.id, refused.refusal),
        }
        self.advance();
    }

    /// Takes notice of a binary message, of which there are none in this protocol.
    pub fn on_binary(&mut self) {
        self.close(CloseCode::Unsupported, "this protocol has text messages only");
    }

    /// Takes notice of a ping, a pong or a frame with nothing in it. More than [`Limits::control_frames`] close the
    /// connection: they cost work and say nothing.
    pub fn on_control(&mut self, now: Instant) {
        self.timer.heard(now);
        if self.control_frames_left.take(&self.limits.control_frames, now).is_err() {
            self.close(CloseCode::Policy, "too many pings, pongs or empty frames");
        }
    }

    /// Takes notice of any other sign of life, such as a part of a message.
    pub fn on_activity(&mut self, now: Instant) {
        self.timer.heard(now);
    }

    /// Takes the answer to an [`Output::Execute`]. Each ticket is answered once, in any order; a second answer and one
    /// that comes after the close are passed over.
    pub fn complete(&mut self, ticket: Ticket, answer: Result<Answer, Refusal>) {
        if self.state == State::Closed {
            return;
        }
        let Some((id, asked)) = self.commands.running(ticket) else { return };
        let reply = answer.and_then(|answer| answer.into_frame(id.clone(), asked));
        let reply = reply.unwrap_or_else(|refusal| {
            self.outputs.push_back(Output::Refused(refusal.code, RefusedBy::Driver));
            ServerFrame::Error { id, refusal }
        });
        self.note(&reply);
        self.commands.answer(ticket, reply.encode());
        self.advance();
    }

    /// Whether the connection may be added to a group, of which only the driver knows that a command means it.
    ///
    /// # Errors
    /// `already_subscribed`.
    pub fn check_new(&self, group: &GroupName) -> Result<(), Refusal> {
        if !self.subscriptions.contains(group) {
            return Ok(());
        }
        let message = format!("this connection is subscribed to `{group}` already; unsubscribe first to start anew");
        Err(Refusal::new(ErrorCode::AlreadySubscribed, message))
    }

    /// Queues what many connections are sent behind what this one has been answered so far: the state of a query behind
    /// its `subscribed`.
    pub fn forward(&mut self, frame: Bytes) {
        if self.state != State::Closed {
            self.outputs.push_back(Output::Forward(frame));
        }
    }

    /// Takes notice that the server side has added the connection to a group. The client has been told already:
    /// `subscribed` must go out before the group's messages, and only who moves the cursor can see to that.
    pub fn added(&mut self, group: GroupName) {
        self.subscriptions.insert(group);
    }

    /// Takes notice that the server side has removed the connection from a group. The client has been told already.
    pub fn removed(&mut self, group: &GroupName) {
        self.subscriptions.remove(group);
    }

    /// Tells the client that it is in a group no longer, because it may not be. It has been taken out of it already.
    pub fn revoke(&mut self, group: &GroupName) {
        self.subscriptions.remove(group);
        if self.state != State::Closed {
            self.send(&ServerFrame::Unsubscribed { id: None, group: group.clone() });
        }
    }

    /// Tells the client to come back later. What is under way is still answered, later commands are refused; the
    /// driver closes with [`CloseCode::Restart`] when it has nothing left to send.
    pub fn drain(&mut self, retry_after_ms: u64) {
        if self.state == State::Open {
            self.state = State::Draining;
            self.send(&ServerFrame::Closing { retry_after_ms });
        }
    }

    /// Ends the session. What was queued before is still sent; commands under way get no answer.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.commands = InFlight::default();
            self.outputs.push_back(Output::Close(code, reason.to_owned()));
        }
    }

    /// When [`Session::handle_timeout`] wants to be called; `None` while nothing is read, because then no pong could
    /// be seen.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.wants_input() { self.timer.deadline(&self.limits) } else { None }
    }

    /// Pings a client that has been silent, or closes with 3008 if that did not help. Too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.wants_input() {
            return;
        }
        match self.timer.due(&self.limits, now) {
            Due::Nothing => {}
            Due::Ping => self.outputs.push_back(Output::Ping),
            Due::Close => self.close(CloseCode::Timeout, "no pong came in time"),
        }
    }

    /// The next thing to do; call it after each input until it is `None`.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // Most connections are idle most of the time: what a burst needed is given back.
            self.outputs = VecDeque::new();
            self.commands.release();
        }
        output
    }

    /// Whether the driver may read: not while [`Limits::in_flight_max`] commands are under way, nor after the close.
    pub fn wants_input(&self) -> bool {
        self.state != State::Closed && self.commands.len() < self.limits.in_flight_max
    }

    /// Whether a command that was started has not been answered, or its answer waits for its turn. While one that makes
    /// jobs is open, the driver holds back what else is for the client: `accepted` comes before any event of a job.
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.state != State::Closed && self.commands.is_open(ticket)
    }

    /// Whether every command so far is answered.
    pub fn is_idle(&self) -> bool {
        self.commands.len() == 0
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Who the client is, if known.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The groups that the connection is subscribed to, in no order.
    pub fn subscriptions(&self) -> impl Iterator<Item = &GroupName> {
        self.subscriptions.iter()
    }

    fn on_command(&mut self, id: Option<RequestId>, command: Command) {
        match self.state {
            State::Open => self.commands.push(id, command),
            State::Draining | State::Closed => {
                let message = "the gateway is about to restart; reconnect and send the command again";
                self.refuse(id, Refusal::new(ErrorCode::Unavailable, message));
            }
        }
    }

    /// Queues every answer that is next in order and starts every command that may start.
    fn advance(&mut self) {
        loop {
            while let Some(answer) = self.commands.pop_answered() {
                self.outputs.push_back(Output::Send(answer));
            }
            let Some((ticket, command)) = self.commands.start_next() else { return };
            match self.check(&command) {
                Ok(()) => self.outputs.push_back(Output::Execute(ticket, command)),
                Err(refusal) => {
                    let id = self.commands.running(ticket).and_then(|(id, _)| id);
                    self.outputs.push_back(Output::Refused(refusal.code, RefusedBy::Session));
                    self.commands.answer(ticket, ServerFrame::Error { id, refusal }.encode());
                }
            }
        }
    }

    fn refuse(&mut self, id: Option<RequestId>, refusal: Refusal) {
        self.outputs.push_back(Output::Refused(refusal.code, RefusedBy::Session));
        self.commands.push_answered(ServerFrame::Error { id, refusal }.encode());
    }

    fn refuse_command(&mut self, id: Option<RequestId>, wait: Duration) {
        let Rate { per_second, .. } = self.limits.commands;
        let message = format!("more than {per_second} commands a second; this one was not done, send it again later");
        self.refuse(id, Refusal::new(ErrorCode::RateLimited, message).again_in(wait));
    }

    /// What the session itself knows about a command that is about to start.
    fn check(&self, command: &Command) -> Result<(), Refusal> {
        let subscribed = |group: &GroupName| self.subscriptions.contains(group);
        match command {
            Command::Subscribe { group, .. } | Command::GroupSend { group, .. } if group.is_of_live_query() => {
                Err(Refusal::group_of_live_query(group))
            }
            Command::Subscribe { group, .. } => self.check_new(group).and_then(|()| self.check_room()),
            Command::SubscribeQuery { .. } => self.check_room(),
            Command::Unsubscribe { group } if !subscribed(group) => Err(Refusal::new(
                ErrorCode::NotSubscribed,
                format!("this connection is not subscribed to `{group}`; nothing to do"),
            )),
            Command::Unsubscribe { .. }
            | Command::GroupSend { .. }
            | Command::Query { .. }
            | Command::Cancel { .. }
            | Command::Members { .. }
            | Command::History { .. }
            | Command::Authenticate { .. } => Ok(()),
        }
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let max = self.limits.subscriptions_max;
        if self.subscriptions.len() < max {
            return Ok(());
        }
        let message = format!("this connection has {max} subscriptions, the most allowed; leave a group first");
        Err(Refusal::new(ErrorCode::LimitExceeded, message))
    }

    /// Keeps what the session knows in step with what the client is told.
    fn note(&mut self, reply: &ServerFrame) {
        match reply {
            ServerFrame::Subscribed { group, .. } | ServerFrame::SubscribedQuery { group, .. } => {
                self.subscriptions.insert(group.clone());
            }
            ServerFrame::Unsubscribed { group, .. } => {
                self.subscriptions.remove(group);
            }
            ServerFrame::Authenticated { user, .. } => self.user.clone_from(user),
            _ => {}
        }
    }

    fn send(&mut self, frame: &ServerFrame) {
        self.outputs.push_back(Output::Send(frame.encode()));
    }
}
