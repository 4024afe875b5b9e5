//! `Service`: one question to the team's own service, from its turn in line to what the answer says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groupcast_protocol::asgi::{self, Action, Event};
use groupcast_protocol::{ErrorCode, Refusal, Trace};
use parking_lot::Mutex;
use reqwest::header::CONTENT_ENCODING;
use reqwest::{Response, StatusCode};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::circuit::{Circuit, Pass};
use super::counters::Counters;
use super::line::Line;
use crate::backend::{Backend, ReadError, RefusedAddress, Step, causes, is_json, read, with_causes};
use crate::clock;
use crate::config::HooksConfig;
use crate::trace;

/// The log has one line about bad answers in this time, however many there are: clients may be able to provoke them.
const QUIET_MS: u64 = 1000;

/// The service, and how it has been of late.
pub(super) struct Service {
    post: Arc<Post>,
    line: Line,
    circuit: Mutex<Circuit>,
    counters: Counters,
    timeout: Duration,
    /// Where calls are made: their sockets, and what TLS costs, are not a shard's.
    runtime: Handle,
    complained_ms: AtomicU64,
}

/// What a call needs, on the runtime that it is made on.
struct Post {
    backend: Backend,
    max_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
enum NoAnswer {
    /// 401 or 403: it is one, in the service's own words of HTTP.
    Denied(ErrorCode),
    /// It did not come in time.
    Late,
    /// No connection, one that ended early, or somebody in front of the service who says that it is away.
    Unreachable(String),
    /// Another status.
    Failed(StatusCode),
    /// It makes no sense.
    Bad(String),
}

impl Service {
    pub(super) fn new(config: &HooksConfig, backend: Backend) -> Self {
        let counters = Counters::default();
        Self {
            post: Arc::new(Post { backend, max_bytes: config.max_bytes.0 }),
            line: Line::new(config.max_concurrent, config.max_waiting, counters.waiting.clone()),
            circuit: Mutex::new(Circuit::new(config.circuit_failures, config.circuit_open.0)),
            counters,
            timeout: config.timeout.0,
            runtime: Handle::current(),
            complained_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks. Takes at most the configured time; dropped, the call is given up and its connection closed.
    ///
    /// # Errors
    /// What a client is told: `forbidden` or `unauthenticated` when the service says so by its status, otherwise
    /// `unavailable`.
    pub(super) async fn ask(&self, event: &Event<'_>, trace: &Trace) -> Result<Vec<Action>, Refusal> {
        self.ask_as(event.kind(), event.encode(), trace.clone()).await
    }

    /// The same with an event that has been encoded.
    pub(super) async fn ask_as(
        &self,
        event: &'static str,
        body: Vec<u8>,
        trace: Trace,
    ) -> Result<Vec<Action>, Refusal> {
        let asked = self.counters.begin(event);
        let deadline = Instant::now() + self.timeout;
        if !self.circuit.lock().would_pass(Instant::now()) {
            asked.end("open");
            return Err(away());
        }
        let Some(_turn) = self.line.turn(deadline).await else {
            asked.end("busy");
            return Err(away());
        };
        let Some(call) = Call::enter(self) else {
            asked.end("open");
            return Err(away());
        };
        let post = self.post.clone();
        let mut step = post.backend.step();
        let trace = step.as_ref().map_or(trace, Step::trace);
        let posting = self.runtime.spawn(async move { timeout_at(deadline, post.run(body, trace)).await });
        let told = match AbortOnDropHandle::new(posting).await {
            Ok(Ok(told)) => told,
            Ok(Err(_elapsed)) => Err(NoAnswer::Late),
            Err(error) => Err(NoAnswer::Unreachable(error.to_string())),
        };
        call.end(told.as_ref().err());
        if let Some(step) = &mut step {
            step.set("groupcast.hook.event", event);
            step.ended(told.as_ref().err().map(NoAnswer::outcome));
        }
        asked.end(told.as_ref().map_or_else(NoAnswer::outcome, |_| "ok"));
        told.map_err(|why| self.refusal(event, why))
    }

    /// Counts an answer that could be read and cannot be followed, and says so in the log.
    pub(super) fn note_wrong(&self, event: &'static str, why: &str) {
        self.counters.wrong(event);
        self.complain(event, why);
    }

    fn refusal(&self, event: &'static str, why: NoAnswer) -> Refusal {
        match why {
            NoAnswer::Denied(code) => {
                return Refusal::new(code, "the service of this gateway does not allow it");
            }
            NoAnswer::Late => self.complain(event, "it did not answer in time"),
            NoAnswer::Unreachable(why) => self.complain(event, &why),
            NoAnswer::Failed(status) if status.is_redirection() => {
                self.complain(
                    event,
                    &format!("it answered {status}, and redirects are not followed; name the address itself"),
                );
            }
            NoAnswer::Failed(status) => self.complain(event, &format!("it answered {status}")),
            NoAnswer::Bad(why) => self.complain(event, &why),
        }
        away()
    }

    fn complain(&self, event: &'static str, why: &str) {
        let (now, last) = (clock::now_ms(), self.complained_ms.load(Ordering::Relaxed));
        if now.saturating_sub(last) < QUIET_MS {
            return tracing::debug!(event, why, "the service of [hooks] gave no answer that can be followed");
        }
        self.complained_ms.store(now, Ordering::Relaxed);
        tracing::warn!(
            event,
            why,
            "the service of [hooks] gave no answer that can be followed; others within a second are not logged"
        );
    }
}

impl Post {
    async fn run(&self, body: Vec<u8>, trace: Trace) -> Result<Vec<Action>, NoAnswer> {
        let id = clock::new_id().to_string();
        let request = self.backend.post(&id, body).headers(trace::headers(&trace));
        let response = request.send().await.map_err(|error| unreachable_because(&error))?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED => return Err(NoAnswer::Denied(ErrorCode::Unauthenticated)),
            StatusCode::FORBIDDEN => return Err(NoAnswer::Denied(ErrorCode::Forbidden)),
            // What is said for a service that is not there, or wants to be left alone.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => return Err(NoAnswer::Unreachable(format!("it answered {status}"))),
            status => return Err(NoAnswer::Failed(status)),
        }
        self.read(response).await
    }

    async fn read(&self, response: Response) -> Result<Vec<Action>, NoAnswer> {
        let headers = response.headers().clone();
        let body = read(response, self.max_bytes).await.map_err(|error| match error {
            ReadError::TooLarge => {
                NoAnswer::Bad(format!("its answer has more than {} bytes; raise `max_bytes`", self.max_bytes))
            }
            ReadError::Broken(error) => unreachable_because(&error),
        })?;
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(NoAnswer::Bad("its answer is encoded, which nobody asked for".to_owned()));
        }
        if !body.is_empty() && !is_json(&headers) {
            return Err(NoAnswer::Bad("its answer is not JSON by its `Content-Type`".to_owned()));
        }
        asgi::decode(&body).map_err(|error| NoAnswer::Bad(error.to_string()))
    }
}

impl NoAnswer {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Late => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
            Self::Bad(_) => "bad_answer",
        }
    }

    /// Whether the service is not there. An error of its code is no such thing: else one client could have all others
    /// refused by a message that it cannot cope with.
    fn is_away(&self) -> bool {
        match self {
            Self::Late | Self::Unreachable(_) => true,
            Self::Denied(_) | Self::Failed(_) | Self::Bad(_) => false,
        }
    }
}

fn unreachable_because(error: &reqwest::Error) -> NoAnswer {
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<RefusedAddress>()) {
        return NoAnswer::Unreachable(refused.to_string());
    }
    NoAnswer::Unreachable(with_causes(error))
}

/// What a client is told for want of an answer.
pub(super) fn away() -> Refusal {
    let why = "the service that decides about this cannot be asked; try again in a moment";
    Refusal::new(ErrorCode::Unavailable, why)
}

/// A call that the circuit has let pass. Dropped without an end, nothing is known of it.
struct Call<'a> {
    service: &'a Service,
    pass: Option<Pass>,
}

impl<'a> Call<'a> {
    fn enter(service: &'a Service) -> Option<Self> {
        let mut circuit = service.circuit.lock();
        let pass = circuit.enter(Instant::now())?;
        service.counters.circuit.set(circuit.level());
        Some(Self { service, pass: Some(pass) })
    }

    fn end(mut self, why: Option<&NoAnswer>) {
        let Some(pass) = self.pass.take() else { return };
        let mut circuit = self.service.circuit.lock();
        let before = circuit.level();
        if why.is_some_and(NoAnswer::is_away) {
            let opened = circuit.failed(pass, Instant::now());
            if opened && before == 0 {
                tracing::warn!("the service of [hooks] is away: it is left alone, and tried by one call now and then");
            }
        } else {
            circuit.succeeded(pass);
            if before == 1 && circuit.level() == 0 {
                tracing::info!("the service of [hooks] is back");
            }
        }
        self.service.counters.circuit.set(circuit.level());
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass {
            let mut circuit = self.service.circuit.lock();
            circuit.given_up(pass, Instant::now());
            self.service.counters.circuit.set(circuit.level());
        }
    }
}
