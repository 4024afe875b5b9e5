//! One connection, from its first byte to the protocol that serves it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Stop;
use super::accept::{Accepted, Peer};
use super::admission::Place;
use super::first::{First, first};
use super::guarded::{Guarded, Transport};
use super::paced::{Paced, Streams};
use super::shard::{Arrival, Local};
use super::tls::Tls;
use super::watch::{Busy, Expired, Watch};
use crate::http::Api;
use crate::metrics::RouteMeter;
use crate::stream::Stream;
use crate::websocket;

/// What is read before it is known what a connection speaks. A longer head goes on with hyper.
const SCRATCH_BYTES: usize = 4096;
/// What a request that is under way when a drain has come this far may still take.
const HTTP_GRACE: Duration = Duration::from_secs(5);
/// The same for HTTP/2, whose WebSockets are closed over seconds.
const HTTP2_GRACE: Duration = Duration::from_secs(15);
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// A peer of HTTP/2 that does not answer a ping in time is gone.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection has become.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What the connections of one shard need to be served. Never leaves its thread.
pub(super) struct Front {
    pub(super) local: Rc<Local>,
    pub(super) api: Rc<Api>,
    pub(super) tls: Option<Tls>,
    /// Counts WebSockets; `None` where there are none.
    pub(super) upgrades: Option<RouteMeter>,
    pub(super) way_in: mpsc::Sender<Arrival>,
    pub(super) stop: Stop,
    /// Where first bytes are read to, by one connection at a time.
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) tasks: TaskTracker,
}

impl Front {
    pub(super) fn scratch() -> RefCell<Box<[u8]>> {
        RefCell::new(vec![0; SCRATCH_BYTES].into())
    }

    /// Serves one connection, as one task from its first byte to its last. What it becomes is boxed, so that the task is
    /// small: most connections are idle WebSockets.
    pub(super) async fn serve(self: Rc<Self>, accepted: Accepted) {
        let serving = match self.tls.is_some() {
            true => Box::pin(self.shake_hands(accepted)).await,
            false => self.begin(accepted).await,
        };
        if let Some(serving) = serving {
            serving.await;
        }
    }

    async fn shake_hands(self: Rc<Self>, accepted: Accepted) -> Option<Serving> {
        let Accepted { stream, address, place } = accepted;
        let timeout = self.local.app.config.limits.handshake_timeout.0;
        let (stream, is_http2) = self.tls.as_ref()?.accept(stream, timeout).await?;
        let (transport, peer) = (Transport::Tls(Box::new(stream)), self.peer(address, place));
        Some(match is_http2 {
            true => Box::pin(self.http2(transport, Bytes::new(), peer)),
            false => Box::pin(self.http1(transport, Bytes::new(), peer)),
        })
    }

    async fn begin(self: Rc<Self>, accepted: Accepted) -> Option<Serving> {
        let Accepted { stream, address, place } = accepted;
        Some(match first(&self, &stream).await {
            First::Over => return None,
            First::WebSocket { head, request, rest } => match self.handshake(&request, address, &place) {
                Some(opening) => Box::pin(websocket::drive(self.local.clone(), Stream::Tcp(stream), rest, opening)),
                // Refused: hyper has the machinery to say so.
                None => {
                    let (prefix, peer) = (Bytes::from([head, rest].concat()), self.peer(address, place));
                    Box::pin(self.http1(Transport::Tcp(stream), prefix, peer))
                }
            },
            First::Http1(prefix) => {
                let peer = self.peer(address, place);
                Box::pin(self.http1(Transport::Tcp(stream), prefix, peer))
            }
            First::Http2(prefix) => {
                let peer = self.peer(address, place);
                Box::pin(self.http2(Transport::Tcp(stream), prefix, peer))
            }
        })
    }

    fn peer(&self, address: SocketAddr, place: Place) -> Peer {
        Peer { address, shard: self.way_in.clone(), place, watch: Watch::new(&self.local.app.config.limits) }
    }

    /// The usual way to a WebSocket, by the checks of the usual way to anything. Who has to be asked about goes the other
    /// way, which can wait.
    fn handshake(&self, request: &Request<()>, address: SocketAddr, place: &Place) -> Option<websocket::Opening> {
        let started = Instant::now();
        let (app, upgrades) = (&self.local.app, self.upgrades.as_ref()?);
        if app.hooks.asks_connect() {
            return None;
        }
        crate::http::head::permit(request, &app.config).ok()?;
        let accepted = websocket::accept(app, request, address, place).ok()?;
        let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        upgrades.count(status, started.elapsed());
        Some(accepted.into_opening())
    }

    async fn http1(self: Rc<Self>, transport: Transport, prefix: Bytes, peer: Peer) {
        let watch = peer.watch.clone();
        let io = TokioIo::new(Guarded::http1(transport, prefix, watch.clone()));
        let connection = http1::Builder::new()
            // All deadlines are the watch's.
            .header_read_timeout(None)
            // Twice what is allowed: a head that is a little too large gets a problem that says by how much.
            .max_buf_size(self.local.app.config.limits.header_bytes.0 * 2)
            .serve_connection(io, self.service(peer, |answer| answer))
            .with_upgrades();
        self.finish(pin!(connection), |connection| connection.graceful_shutdown(), &watch, HTTP_GRACE).await;
    }

    async fn http2(self: Rc<Self>, transport: Transport, prefix: Bytes, peer: Peer) {
        let watch = peer.watch.clone();
        let io = TokioIo::new(Guarded::http2(transport, prefix, watch.clone()));
        let streams = Streams { tasks: self.tasks.clone(), at_most: self.local.app.config.limits.idle_timeout.0 };
        let mut builder = http2::Builder::new(streams);
        let connection = builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(self.local.app.config.limits.header_bytes.0).unwrap_or(u32::MAX))
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .enable_connect_protocol()
            .serve_connection(io, self.service(peer, Paced::new));
        self.finish(pin!(connection), |connection| connection.graceful_shutdown(), &watch, HTTP2_GRACE).await;
    }

    /// Serves a connection until it ends, does not go on in time, or the gateway ends: then in good order, within `grace`.
    async fn finish<C: Future<Output = hyper::Result<()>>>(
        &self,
        mut connection: Pin<&mut C>,
        shut_down: impl FnOnce(Pin<&mut C>),
        watch: &Watch,
        grace: Duration,
    ) {
        let ended = tokio::select! {
            outcome = connection.as_mut() => Some(outcome),
            why = watch.expired() => self.on_expired(why),
            () = self.stop.serving.cancelled() => None,
        };
        let outcome = match ended {
            Some(outcome) => outcome,
            None => {
                shut_down(connection.as_mut());
                // Whoever has not even finished his request's head by then is not waited for.
                timeout(grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }

    /// `None`: to be ended in good order.
    fn on_expired(&self, why: Expired) -> Option<hyper::Result<()>> {
        tracing::debug!(?why, "an HTTP connection did not go on in time");
        match why {
            Expired::Idle => None,
            Expired::Stalled => Some(Ok(())),
        }
    }

    fn service<B, F>(
        &self,
        peer: Peer,
        body_of: F,
    ) -> impl HttpService<Incoming, ResBody = B, Error = Infallible, Future: 'static> + use<B, F>
    where
        B: hyper::body::Body + 'static,
        F: Fn(Answer) -> B + Copy + 'static,
    {
        let (api, peer) = (self.api.clone(), Rc::new(peer));
        service_fn(move |request: Request<Incoming>| {
            let (api, peer, busy) = (api.clone(), peer.clone(), peer.busy());
            async move {
                let response = api.answer(request, &peer).await?;
                Ok(response.map(|body| body_of(Answer { body, _busy: busy })))
            }
        })
    }
}

/// The body of an answer; its connection is busy as long as it exists.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
