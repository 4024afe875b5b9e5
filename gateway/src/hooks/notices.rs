//! `Notices`: what the service is told and nobody waits for.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use groupcast_protocol::Trace;
use groupcast_protocol::asgi::Event;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::service::Service;

/// Notices that wait. At the bound the newest is dropped: each is a help and no promise.
const WAITING_MAX: usize = 1024;
/// Notices that are told at once: the turns of the line are for who waits.
const AT_ONCE: usize = 4;

/// An event that has been encoded, and the trace of the connection that it is about.
type Notice = (&'static str, Vec<u8>, Trace);

/// A bounded queue, and the one task that empties it.
pub(super) struct Notices {
    service: Arc<Service>,
    way_in: mpsc::Sender<Notice>,
    /// Taken by who runs it.
    way_out: Mutex<Option<mpsc::Receiver<Notice>>>,
}

impl Notices {
    pub(super) fn new(service: Arc<Service>) -> Self {
        let (way_in, way_out) = mpsc::channel(WAITING_MAX);
        Self { service, way_in, way_out: Mutex::new(Some(way_out)) }
    }

    /// Never waits.
    pub(super) fn tell(&self, event: &Event<'_>, trace: &Trace) {
        if self.way_in.try_send((event.kind(), event.encode(), trace.clone())).is_err() {
            self.service.counters().notices_dropped.inc();
        }
    }

    /// Tells one after the other, a few at once, until stopped; what is left then is dropped. A notice that gets no answer is
    /// not told again.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let Some(mut notices) = self.way_out.lock().take() else { return };
        let mut telling = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // What is answered is not read, and what could not be told has been counted.
                Some(_) = telling.next(), if !telling.is_empty() => {}
                Some((event, body, trace)) = notices.recv(), if telling.len() < AT_ONCE => {
                    telling.push(self.service.ask_as(event, body, trace));
                }
            }
        }
        let left = (notices.len() + telling.len()) as u64;
        self.service.counters().notices_dropped.inc_by(left);
    }
}
