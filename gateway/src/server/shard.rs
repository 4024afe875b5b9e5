//! A thread that owns connections: their sockets, their place in the layer, their HTTP.
//!
//! One single-threaded runtime with three duties: accept and serve sockets, drive those that have become
//! WebSockets, and sweep: apply what the layer says and write what is ready.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_util::FutureExt;
use groupcast_channel_layer::{Event, Shard, ShardInbox, Slot};
use groupcast_protocol::Refusal;
use http::{Method, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Accepted, Door};
use super::doors::Doors;
use super::front::Front;
use super::tls::Tls;
use super::{StartError, Stop, memory, spread};
use crate::app::App;
use crate::consumer::Inline;
use crate::http::{Api, events};
use crate::lag::LoopLag;
use crate::live::Question;
use crate::telemetry::Deliveries;
use crate::websocket::{self, Upgrade};

/// Requests that are answered and not yet driven. At the bound they are refused.
const ARRIVALS_MAX: usize = 1024;
/// Events before other tasks of the thread get their turn: publishers on other threads could go on for ever.
const EVENTS_PER_TURN: usize = 1024;
/// Writes before other tasks of the thread get their turn, and further messages may join the sweep: 0.3 ms or so.
const WRITES_PER_TURN: usize = 128;

/// What a request may become on its shard's thread.
pub(crate) enum Arrival {
    /// A handshake that was accepted.
    WebSocket(Upgrade),
    /// An event stream that was asked for.
    Events(events::Opening),
}

/// What is served, and how.
#[derive(Clone)]
pub(crate) struct Served {
    pub(super) api: Api,
    /// What is answered on `[server] ops_listen`.
    pub(super) operators: Api,
    pub(super) tls: Option<Tls>,
    pub(super) lag: LoopLag,
    /// Work that computes and shall do it here, for measurements only.
    pub(super) inline: Option<Arc<Inline>>,
}

/// What the tasks of one shard share. Never leaves its thread.
pub(crate) struct Local {
    pub(crate) app: App,
    /// Borrowed for a few steps at a time, never over an await.
    pub(crate) shard: RefCell<Shard>,
    /// What the WebSockets of this thread share.
    pub(crate) websockets: websocket::Shared,
    tasks: TaskTracker,
}

impl Local {
    pub(crate) fn new(app: App, shard: Shard) -> Self {
        let websockets = websocket::Shared::new(&app.config.limits);
        Self { app, shard: RefCell::new(shard), websockets, tasks: TaskTracker::new() }
    }

    /// Puts a connection into the group of a live query, and says what its client has to be told in this turn. The
    /// cursor is set before the state is looked at, so no change lies between the two.
    ///
    /// # Errors
    /// `overloaded` when there are too many live queries; the connection is not in the group then.
    pub(crate) fn follow(&self, slot: Slot, question: &Arc<Question>) -> Result<Vec<Bytes>, Refusal> {
        self.shard.borrow_mut().subscribe(slot, question.group(), None);
        let leave = |_: &Refusal| self.shard.borrow_mut().unsubscribe(slot, question.group());
        self.app.live.join(question).inspect_err(leave)
    }

    /// Runs something that has to be done though its connection is over.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(task);
    }
}

/// The handle of a shard's thread.
pub(crate) struct ShardThread {
    thread: JoinHandle<()>,
    /// Closed when the thread's last connection has ended.
    ended: watch::Receiver<()>,
}

impl ShardThread {
    pub(crate) fn start(
        number: usize,
        inbox: ShardInbox,
        doors: Doors,
        served: Served,
        app: App,
        stop: Stop,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (alive, ended) = watch::channel(());
        let run = move || {
            let (mut shard, events) = inbox.open();
            if let Some(deliveries) = Deliveries::of(app.dispatch.tracer()) {
                shard.watched_by(Box::new(deliveries));
            }
            let local = Rc::new(Local::new(app, shard));
            LocalSet::new().block_on(&runtime, run(number, local, events, doors, served, stop));
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("groupcast-shard".to_owned()).spawn(run);
        Ok(Self { thread: thread.map_err(StartError::Thread)?, ended })
    }

    /// Waits until the thread has no connections left.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error is the very thing: the other end is dropped.
        while ended.changed().await.is_ok() {}
    }

    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard's thread had panicked");
        }
    }
}

async fn run(number: usize, local: Rc<Local>, events: mpsc::Receiver<Event>, doors: Doors, served: Served, stop: Stop) {
    let (way_in, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let wheel = tokio::task::spawn_local(websocket::turn(local.clone()));
    let sweeper = tokio::task::spawn_local(sweep_on(local.clone(), events));
    let shedder = tokio::task::spawn_local(memory::obey(local.clone()));
    tokio::task::spawn_local(take_arrivals(local.clone(), arrivals));
    tokio::task::spawn_local(ask_again(local.clone()));
    let Served { api, operators, tls, lag, inline } = served;
    let lag = tokio::task::spawn_local(async move { lag.measure(format!("shard-{number}")).await });
    if let Some(inline) = inline {
        local.spawn({
            let stop = stop.serving.clone();
            async move {
                tokio::select! {
                    () = inline.serve() => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }
    let front = |api, upgrades| {
        Rc::new(Front {
            local: local.clone(),
            api: Rc::new(api),
            tls: tls.clone(),
            upgrades,
            way_in: way_in.clone(),
            stop: stop.clone(),
            scratch: Front::scratch(),
            tasks: local.tasks.clone(),
        })
    };
    let upgrades = local.app.metrics.route(Method::GET, websocket::PATH, StatusCode::SWITCHING_PROTOCOLS.as_u16());
    tokio::task::spawn_local(take_connections(front(api, Some(upgrades)), doors.clients, stop.accepting.clone()));
    if let Some(door) = doors.operators {
        // Whoever looks may still see how a drain goes.
        tokio::task::spawn_local(take_connections(front(operators, None), door, stop.serving.clone()));
    }
    // The way in ends with the last front.
    drop(way_in);
    stop.taking.cancelled().await;
    local.shard.borrow().tell_closing();
    stop.serving.cancelled().await;
    local.shard.borrow().drain(spread(local.shard.borrow().len()));
    local.tasks.close();
    tokio::select! {
        () = local.tasks.wait() => {}
        () = stop.now.cancelled() => {}
    }
    // The layer may still send; what nobody takes is for nobody.
    sweeper.abort();
    shedder.abort();
    wheel.abort();
    lag.abort();
}

/// Has every connection ask whether it may go on, whenever keys or rules have changed.
async fn ask_again(local: Rc<Local>) {
    let Some(mut changes) = local.app.auth.changes() else { return };
    while changes.changed().await.is_ok() {
        local.shard.borrow().tell_rights();
    }
}

/// Serves each connection that this thread accepts, until no more are taken.
async fn take_connections(front: Rc<Front>, door: Door, until: CancellationToken) {
    let serve = |accepted: Accepted| {
        front.tasks.spawn_local(front.clone().serve(accepted));
    };
    if let Some(error) = until.run_until_cancelled(door.accept(serve)).await {
        tracing::error!(%error, "a shard cannot accept connections");
    }
}

/// Goes on with each connection whose request has become more than a request, as a task of its own: the request's is
/// freed.
async fn take_arrivals(local: Rc<Local>, mut arrivals: mpsc::Receiver<Arrival>) {
    while let Some(arrival) = arrivals.recv().await {
        match arrival {
            Arrival::WebSocket(upgrade) => local.tasks.spawn_local(websocket::take_over(local.clone(), upgrade)),
            Arrival::Events(opening) => local.tasks.spawn_local(events::drive(local.clone(), opening)),
        };
    }
}

/// Sweeps until the layer is gone. A panic costs what was in hand: without a sweep the thread would take connections and
/// never deliver to them.
async fn sweep_on(local: Rc<Local>, mut events: mpsc::Receiver<Event>) {
    while AssertUnwindSafe(sweep(&local, &mut events)).catch_unwind().await.is_err() {
        tracing::error!("a shard's sweep panicked; it goes on with what comes next");
        local.app.metrics.panics.inc();
    }
}

/// Applies events and writes what they made ready. No wake-up for each subscriber: this one task writes to all.
async fn sweep(local: &Local, events: &mut mpsc::Receiver<Event>) {
    loop {
        if !local.shard.borrow().has_ready() {
            let Some(event) = events.recv().await else { return };
            local.shard.borrow_mut().apply(event);
        }
        {
            let mut shard = local.shard.borrow_mut();
            for _ in 0..EVENTS_PER_TURN {
                if !shard.may_apply() {
                    break;
                }
                let Ok(event) = events.try_recv() else { break };
                shard.apply(event);
            }
            for _ in 0..WRITES_PER_TURN {
                let Some(slot) = shard.next_ready() else { break };
                shard.write(slot);
            }
        }
        tokio::task::yield_now().await;
    }
}
