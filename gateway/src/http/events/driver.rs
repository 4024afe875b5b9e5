//! One event stream: a connection like a WebSocket, of which the client hears and never speaks.
//!
//! The shard writes it as it writes sockets, into a pipe that hyper reads. `select!` only picks an input; what follows is
//! done in [`Stream::turn`], in one place.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use groupcast_channel_layer::{Origin, Reserved, Signal, Sink, Slot, Subscribed, Wrote};
use groupcast_protocol::asgi::Door;
use groupcast_protocol::format::At;
use groupcast_protocol::frame::{Recovery, ServerFrame};
use groupcast_protocol::{ChannelName, ErrorCode, Format, GroupName, Position, Refusal, Trace, sse};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::ask::Groups;
use super::pipe::{self, Reader, Writer};
use crate::auth::Caller;
use crate::clock;
use crate::dispatch;
use crate::limits::Seat;
use crate::live::Question;
use crate::server::Place;
use crate::server::shard::Local;
use crate::telemetry::Scope;

/// A client that lost its stream comes back after this time, spread by chance: between once and three times as long.
const RETRY: Duration = Duration::from_secs(1);
/// The same after a drain: anything up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// The part of a drain's spread in which streams end: when it is over, answers that are under way are cut.
const DRAIN_SHARE: f64 = 0.8;
/// From the end of a stream to its last byte read.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that has become a stream, on its way to the thread that owns its socket.
pub(crate) struct Opening {
    /// Groups to subscribe to, and where to go on in each.
    pub(super) groups: Groups,
    /// Keeps the groups coming to this node until their cursors are set.
    pub(super) open: Vec<groupcast_channel_layer::Opened>,
    /// Queries to follow.
    pub(super) questions: Vec<Arc<Question>>,
    /// Who asks: the stream ends with his token.
    pub(super) caller: Caller,
    /// The name of its channel.
    pub(super) reserved: Reserved,
    /// The other end's address.
    pub(super) peer: String,
    /// Its place among the connections that there may be.
    pub(super) place: Place,
    /// Its place among those of its user.
    pub(super) seat: Option<Seat>,
    /// The trace that the request belongs to.
    pub(super) trace: Trace,
    /// Who waits to answer the request.
    pub(super) answer: oneshot::Sender<Result<Opened, Refusal>>,
}

/// A stream that has begun.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its own channel.
    pub(super) channel: ChannelName,
    /// The body of the answer.
    pub(super) body: Reader,
}

/// Opens a stream, and drives it until it ends.
pub(crate) async fn drive(local: Rc<Local>, opening: Opening) {
    let (outlet, body) = Outlet::new();
    let format =
        if opening.groups.len() + opening.questions.len() == 1 { Format::Events } else { Format::EventsOfMany };
    let user = opening.caller.user().map(str::to_owned);
    let origin = Origin { peer: opening.peer, user: user.clone(), connected_at: clock::now_ms() };
    let connected = local.shard.borrow_mut().connect_as(opening.reserved, outlet.clone(), format, origin);
    let (slot, channel) = match connected {
        Ok(connected) => connected,
        // Whoever waits for it hears of it, or has gone.
        Err(error) => return drop(opening.answer.send(Err(dispatch::refusal(error)))),
    };
    let beat = Instant::now() + local.app.config.limits.ping_interval.0;
    let state = State::Open;
    let until = opening.caller.expires_ms().and_then(|expires_ms| {
        Instant::now().checked_add(Duration::from_millis(expires_ms.saturating_sub(clock::now_ms())))
    });
    let (caller, places) = (opening.caller, (opening.place, opening.seat));
    let (told, stalled_since) = (false, None);
    let mut stream =
        Stream { local, outlet, format, slot, state, beat, caller, until, told, stalled_since, _places: places };
    if let Err(refusal) = stream.begin(&opening.groups, &opening.questions) {
        stream.local.shard.borrow_mut().disconnect(slot);
        return drop(opening.answer.send(Err(refusal)));
    }
    // From here on the members keep their groups coming.
    drop(opening.open);
    // When nobody waits any more the body is dropped here, and the first turn finds its reader gone.
    drop(opening.answer.send(Ok(Opened { channel: channel.clone(), body })));
    // Keys may have changed while it was being made.
    stream.ask_again();
    let hooks = stream.local.app.hooks.clone();
    Scope::connection(channel.clone()).run(stream.run()).await;
    hooks.disconnected(Door::Events, &channel, user.as_deref(), None, &opening.trace);
}

struct Stream {
    local: Rc<Local>,
    outlet: Rc<Outlet>,
    format: Format,
    slot: Slot,
    state: State,
    /// When the next heartbeat is due.
    beat: Instant,
    /// Who opened it.
    caller: Caller,
    /// When the token ends that opened it.
    until: Option<Instant>,
    /// The client knows that the process is about to end.
    told: bool,
    /// Since when bytes wait in the pipe and none are read.
    stalled_since: Option<Instant>,
    /// Held until the stream is over.
    _places: (Place, Option<Seat>),
}

/// `Open => Draining => Ending => Over`; each step may be left out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// The client has been told; ends at this time.
    Draining(Instant),
    /// What is queued is written until this time.
    Ending(Instant),
    Over,
}

impl Stream {
    /// Subscribes and tells so. All of it is queued in this turn, so no message can come before it.
    ///
    /// # Errors
    /// When a query cannot be followed; what has been begun is the caller's to end.
    fn begin(&self, groups: &[(GroupName, Option<Position>)], questions: &[Arc<Question>]) -> Result<(), Refusal> {
        self.begin_groups(groups);
        questions.iter().try_for_each(|question| self.begin_query(question))
    }

    fn begin_query(&self, question: &Arc<Question>) -> Result<(), Refusal> {
        let state = self.local.follow(self.slot, question)?;
        let (query, group) = (question.name().into(), question.group().clone());
        let told = ServerFrame::SubscribedQuery { id: None, query, group }.encode();
        let mut shard = self.local.shard.borrow_mut();
        shard.push(self.slot, self.format.subscribed(&told, None));
        for frame in state {
            shard.push(self.slot, self.format.of_websocket(&frame, None));
        }
        Ok(())
    }

    fn begin_groups(&self, groups: &[(GroupName, Option<Position>)]) {
        let mut shard = self.local.shard.borrow_mut();
        let retry = RETRY + (2 * RETRY).mul_f64(clock::random_fraction());
        shard.push(self.slot, sse::retry(millis(retry)));
        for (group, after) in groups {
            let Subscribed { position, recovery } = shard.subscribe(self.slot, group, after.as_ref());
            // Of what was recovered nothing has been read: a cut before it must lead back to the same place. The place
            // in several groups is told by the shard.
            let at = if recovery == Some(Recovery::Recovered) { after.clone() } else { position.clone() };
            let id = at.as_ref().map(|at| At { epoch: &at.epoch, offset: at.offset });
            let told = ServerFrame::Subscribed { id: None, group: group.clone(), position, recovery };
            shard.push(self.slot, self.format.subscribed(&told.encode(), id));
        }
    }

    async fn run(mut self) {
        // Whoever is told to go has been told before this stream was there to hear it.
        if self.local.app.health.is_draining() {
            self.drain(Duration::ZERO);
        }
        self.turn();
        while self.state != State::Over {
            let deadline = self.deadline();
            tokio::select! {
                () = self.outlet.bell.notified() => {}
                () = sleep_until(deadline) => self.on_time(),
            }
            self.turn();
        }
        // The shard lets go of the pipe here; with our own end of it the body ends.
        self.local.shard.borrow_mut().disconnect(self.slot);
    }

    fn turn(&mut self) {
        self.hear_signals();
        let mut shard = self.local.shard.borrow_mut();
        if shard.is_blocked(self.slot) && self.outlet.writer.has_room() {
            shard.unblock(self.slot);
        }
        // Ends when the pipe is full.
        while shard.write(self.slot) == Wrote::Part {}
        let flushed = shard.is_flushed(self.slot);
        drop(shard);
        self.hear_signals();
        if self.outlet.writer.take_progress() {
            self.stalled_since = None;
        } else {
            self.stalled_since.get_or_insert_with(Instant::now);
        }
        let ended = matches!(self.state, State::Ending(_)) && flushed;
        if ended || self.outlet.writer.is_gone() {
            self.state = State::Over;
        }
    }

    fn hear_signals(&mut self) {
        for signal in self.outlet.signals.take() {
            match signal {
                // The client has been told of groups by the shard. When the pipe has room again its bell rings.
                Signal::Blocked | Signal::Added(_) | Signal::Removed(_) => {}
                Signal::Failed(_) => self.state = State::Over,
                Signal::Kicked | Signal::Shed => self.end(),
                Signal::Rights => self.ask_again(),
                Signal::Closing => self.tell_closing(),
                Signal::Drain(spread) => self.drain(spread),
            }
        }
    }

    fn deadline(&self) -> Instant {
        let own = match self.state {
            State::Open | State::Over => None,
            State::Draining(at) | State::Ending(at) => Some(at),
        };
        let stalled = self.stalled_since.map(|since| since + self.local.app.config.limits.write_timeout.0);
        [own, stalled, self.until].into_iter().flatten().fold(self.beat, Instant::min)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let limits = &self.local.app.config.limits;
        let (write_timeout, ping_interval) = (limits.write_timeout.0, limits.ping_interval.0);
        if self.stalled_since.is_some_and(|since| now >= since + write_timeout) {
            self.on_stall();
        }
        if self.until.is_some_and(|until| now >= until) {
            self.on_expiry();
        }
        match self.state {
            State::Draining(at) if now >= at => self.end(),
            State::Ending(at) if now >= at => self.state = State::Over,
            State::Open | State::Draining(_) | State::Ending(_) | State::Over => {}
        }
        if now >= self.beat {
            self.beat = now + ping_interval;
            // What waits is a sign of life already.
            if self.outlet.writer.has_room() && !self.has_ended() {
                self.local.shard.borrow_mut().push(self.slot, sse::heartbeat());
            }
        }
    }

    fn on_expiry(&mut self) {
        self.until = None;
        self.end_unauthenticated("the token has expired; open another stream with a new one");
    }

    /// Ends when the credential is worth nothing any more, before its time.
    fn ask_again(&mut self) {
        if self.local.app.auth.check_still(&self.caller).is_err() {
            self.end_unauthenticated("the credential is no longer valid; open another stream with a new one");
        }
    }

    /// The client of a stream cannot show another token on it; it is told why it ends.
    fn end_unauthenticated(&mut self, why: &str) {
        if !self.has_ended() {
            let refusal = Refusal::new(ErrorCode::Unauthenticated, why);
            let told = self.format.frame(&ServerFrame::Error { id: None, refusal }.encode());
            self.local.shard.borrow_mut().push(self.slot, told);
            self.end();
        }
    }

    /// Something has waited for long: that which waits at the moment, or one piece after the other.
    fn on_stall(&mut self) {
        if self.outlet.writer.take_progress() {
            self.stalled_since = None;
            return;
        }
        tracing::debug!("an event stream that nobody reads is cut");
        self.outlet.writer.abort();
        self.state = State::Over;
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending(_) | State::Over)
    }

    /// Ends the stream after what is queued.
    fn end(&mut self) {
        if !self.has_ended() {
            self.local.shard.borrow_mut().end(self.slot);
            self.state = State::Ending(Instant::now() + END_TIMEOUT);
        }
    }

    fn tell_closing(&mut self) {
        if self.told || self.has_ended() {
            return;
        }
        self.told = true;
        let retry_after_ms = millis(RETRY_AFTER_MAX.mul_f64(clock::random_fraction()));
        let mut shard = self.local.shard.borrow_mut();
        shard.push(self.slot, sse::retry(retry_after_ms));
        shard.push(self.slot, self.format.frame(&ServerFrame::Closing { retry_after_ms }.encode()));
    }

    /// Ends at a moment within `spread`: a thousand clients shall not come back at once.
    fn drain(&mut self, spread: Duration) {
        if self.state == State::Open {
            self.tell_closing();
            self.state = State::Draining(Instant::now() + spread.mul_f64(DRAIN_SHARE * clock::random_fraction()));
        }
    }
}

/// A panic must not leave its slot behind: the shard would keep the pipe and write to it for ever.
impl Drop for Stream {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (local, slot) = (self.local.clone(), self.slot);
            local.app.metrics.panics.inc();
            // By a task of its own: a second panic within this one would end the process.
            self.local.spawn(async move { local.shard.borrow_mut().disconnect(slot) });
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The stream as the layer's sink.
struct Outlet {
    writer: Writer,
    /// Rung for each signal, and by the pipe; the driver sleeps on it.
    bell: Arc<Notify>,
    signals: RefCell<Vec<Signal>>,
}

impl Outlet {
    fn new() -> (Rc<Self>, Reader) {
        let bell = Arc::new(Notify::new());
        let (writer, reader) = pipe::pipe(bell.clone());
        (Rc::new(Self { writer, bell, signals: RefCell::default() }), reader)
    }
}

impl Sink for Outlet {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writer.write(slices)
    }

    fn signal(&self, signal: Signal) {
        self.signals.borrow_mut().push(signal);
        self.bell.notify_one();
    }
}
