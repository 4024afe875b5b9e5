//! A thread that owns connections: their sockets, their place in the layer, their HTTP.
//!
//! One single-threaded runtime with three duties: accept and serve sockets, drive those that have become
//! WebSockets, and sweep: apply what the layer says and write what is ready.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use groupcast_channel_layer::{Event, Shard, ShardInbox};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::accept::{Accepted, Door, Peer};
use super::{StartError, Stop, spread};
use crate::app::App;
use crate::http::events;
use crate::websocket::{self, Upgrade};

/// Requests that are answered and not yet driven. At the bound they are refused.
const ARRIVALS_MAX: usize = 1024;
/// Writes before other tasks of the thread get their turn, and further messages may join the sweep: 0.3 ms or so.
const WRITES_PER_TURN: usize = 128;

/// What a request that is under way when a drain has come this far may still take.
const HTTP_GRACE: Duration = Duration::from_secs(5);

/// What a request may become on its shard's thread.
pub(crate) enum Arrival {
    /// A handshake that was accepted.
    WebSocket(Upgrade),
    /// An event stream that was asked for.
    Events(events::Opening),
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
        inbox: ShardInbox,
        door: Door,
        router: Router,
        app: App,
        stop: Stop,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (alive, ended) = watch::channel(());
        let run = move || {
            let (shard, events) = inbox.open();
            let websockets = websocket::Shared::new(&app.config.limits);
            let local = Rc::new(Local { app, shard: RefCell::new(shard), websockets, tasks: TaskTracker::new() });
            LocalSet::new().block_on(&runtime, run(local, events, door, router, stop));
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

async fn run(local: Rc<Local>, events: mpsc::Receiver<Event>, door: Door, router: Router, stop: Stop) {
    let (way_in, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let wheel = tokio::task::spawn_local(websocket::turn(local.clone()));
    let sweeper = tokio::task::spawn_local(sweep(local.clone(), events));
    tokio::task::spawn_local(take_arrivals(local.clone(), arrivals));
    tokio::task::spawn_local(take_sockets(local.clone(), door, router, way_in, stop.clone()));
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
    wheel.abort();
}

/// Serves HTTP on each socket that this thread accepts, until no more are taken.
async fn take_sockets(local: Rc<Local>, door: Door, router: Router, way_in: mpsc::Sender<Arrival>, stop: Stop) {
    let accepting = stop.accepting.clone();
    let serve = |accepted: Accepted| {
        let peer = Peer { address: accepted.address, shard: way_in.clone(), place: accepted.place };
        let serving = serve(local.clone(), accepted.stream, peer, router.clone(), stop.clone());
        local.tasks.spawn_local(serving);
    };
    if let Some(error) = accepting.run_until_cancelled(door.accept(serve)).await {
        tracing::error!(%error, "a shard cannot accept connections");
    }
}

async fn serve(local: Rc<Local>, stream: TcpStream, peer: Peer, router: Router, stop: Stop) {
    let limits = &local.app.config.limits;
    let asked = Rc::new(Cell::new(false));
    let first = first_request(asked.clone(), limits.header_timeout.0);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.set(true);
        request.extensions_mut().insert(peer.clone());
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout.0.max(limits.idle_timeout.0))
        // Twice what is allowed: a head that is a little too large gets a problem, and hyper's own 431 has no body.
        .max_buf_size(limits.header_bytes.0 * 2)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = first => return tracing::debug!("a connection asked nothing in time"),
        () = stop.serving.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Whoever has not even finished his request's head by then is not waited for.
            match tokio::time::timeout(HTTP_GRACE, connection).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Resolves when no request has come in time. hyper's own deadline has to leave room for the pauses between two.
async fn first_request(asked: Rc<Cell<bool>>, header_timeout: Duration) {
    tokio::time::sleep(header_timeout).await;
    if asked.get() {
        std::future::pending().await
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

/// Applies events and writes what they made ready. No wake-up for each subscriber: this one task writes to all.
async fn sweep(local: Rc<Local>, mut events: mpsc::Receiver<Event>) {
    loop {
        if !local.shard.borrow().has_ready() {
            let Some(event) = events.recv().await else { return };
            local.shard.borrow_mut().apply(event);
        }
        {
            let mut shard = local.shard.borrow_mut();
            while shard.may_apply()
                && let Ok(event) = events.try_recv()
            {
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
