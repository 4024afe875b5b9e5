//! `Exporter`: sends what was recorded to a collector, on a thread of its own.
//!
//! Sent is what has gathered within [`GATHER`], in batches. A collector that does not answer costs spans, which are counted, and nothing
//! else: nobody waits for it, and the end of the gateway at most [`END_TIMEOUT`].

use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::otlp;
use super::span::Record;
use super::tracer::Counts;
use crate::backend::{client_of, with_causes};
use crate::config::TracingConfig;
use crate::config::tracing::address;

/// From the first span of a batch to its sending. The thread sleeps meanwhile: no span wakes it.
const GATHER: Duration = Duration::from_millis(200);
/// Spans in one request: half a megabyte of them at most.
const BATCH_MAX: usize = 512;
/// One request, from the connection to the answer.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before a batch is sent again to a collector that is away or busy.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// What a collector may ask for as a pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the last spans may take at the end of the gateway.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 64 << 10;

/// The thread that sends. Dropped, it ends within [`END_TIMEOUT`]; [`Exporter::end`] waits for that.
pub(crate) struct Exporter {
    stop: CancellationToken,
    /// Closed by the thread's end.
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts sending what comes out of the queue. Connects to nothing yet.
    ///
    /// # Errors
    /// What cannot be used, with the variable that said it, and without any secret.
    pub(super) fn start(
        config: &TracingConfig,
        traces: &str,
        node: &str,
        records: mpsc::Receiver<Record>,
        counts: Counts,
    ) -> Result<Self, String> {
        let url = address(traces).map_err(|why| format!("the collector's address {why}"))?;
        let client = client_of(&url, 1).map_err(|why| format!("the collector cannot be called: {why}"))?;
        let headers = headers(config)?;
        let resource = otlp::resource(config, node);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("there is no thread for traces: {error}"))?;
        let (alive, ended) = oneshot::channel::<()>();
        let stop = CancellationToken::new();
        let sending = Sending { records, stop: stop.clone(), client, url, headers, resource, counts, is_away: false };
        let run = move || {
            runtime.block_on(sending.run());
            // A look-up of a name that does not come back is not waited for.
            runtime.shutdown_background();
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("groupcast-traces".to_owned()).spawn(run);
        let thread = thread.map_err(|error| format!("there is no thread for traces: {error}"))?;
        Ok(Self { stop, ended, thread: Some(thread) })
    }

    /// Sends what is left, and ends the thread; within [`END_TIMEOUT`] and a moment.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        // An error is the very thing: the other end is dropped.
        let _ = (&mut self.ended).await;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of traces had panicked");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn headers(config: &TracingConfig) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.found.headers {
        let refused = || "OTEL_EXPORTER_OTLP_HEADERS has what cannot be a header; write it as in name=value,name=value";
        let name = HeaderName::try_from(name).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    Ok(headers)
}

struct Sending {
    records: mpsc::Receiver<Record>,
    stop: CancellationToken,
    client: Client,
    url: Url,
    headers: HeaderMap,
    resource: otlp::Resource,
    counts: Counts,
    /// The last batch was not taken: told once.
    is_away: bool,
}

/// Why a batch was not taken.
enum Refused {
    /// Again, after this or what is usual.
    Later(String, Option<Duration>),
    Never(String),
}

impl Sending {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let stop = self.stop.clone();
        while stop.run_until_cancelled(self.gather(&mut batch)).await == Some(true) {
            let Some(outcome) = stop.run_until_cancelled(self.send(&batch)).await else { break };
            self.note(batch.len(), outcome);
            batch.clear();
        }
        self.finish(batch, Instant::now() + END_TIMEOUT).await;
    }

    /// Waits for something to send. False: nothing comes any more.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was taken is in the batch.
    async fn gather(&mut self, batch: &mut Vec<Record>) -> bool {
        if self.records.is_empty() {
            if self.records.recv_many(batch, 1).await == 0 {
                return false;
            }
            sleep(GATHER).await;
        }
        self.fill(batch);
        !batch.is_empty()
    }

    fn fill(&mut self, batch: &mut Vec<Record>) {
        while batch.len() < BATCH_MAX
            && let Ok(record) = self.records.try_recv()
        {
            batch.push(record);
        }
    }

    /// Sends what is left until a time; the rest is lost, and counted.
    async fn finish(&mut self, mut batch: Vec<Record>, deadline: Instant) {
        self.records.close();
        loop {
            self.fill(&mut batch);
            if batch.is_empty() {
                return;
            }
            let sent = timeout_at(deadline, self.post(&batch)).await;
            let outcome = sent.unwrap_or_else(|_| Err(Refused::Never("the gateway ends".to_owned())));
            let is_over = outcome.is_err();
            self.note(batch.len(), outcome);
            batch.clear();
            if is_over {
                let lost = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
                self.counts.failed.inc_by(lost);
                return;
            }
        }
    }

    async fn send(&self, batch: &[Record]) -> Result<u64, Refused> {
        for usual in PAUSES {
            match self.post(batch).await {
                Err(Refused::Later(_, asked)) => sleep(asked.unwrap_or(usual).min(PAUSE_MAX)).await,
                outcome => return outcome,
            }
        }
        self.post(batch).await
    }

    /// Sends once. Answers how many spans the collector did not want.
    async fn post(&self, batch: &[Record]) -> Result<u64, Refused> {
        let body = otlp::encode(&self.resource, batch);
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let exchange = async {
            let mut response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut answer = Vec::new();
            while let Some(part) = response.chunk().await? {
                answer.extend_from_slice(&part);
                if answer.len() > ANSWER_MAX {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, headers, answer))
        };
        let (status, headers, answer) = match timeout(POST_TIMEOUT, exchange).await {
            Ok(Ok(answered)) => answered,
            // Its address may be a secret.
            Ok(Err(error)) => return Err(Refused::Later(with_causes(&error.without_url()), None)),
            Err(_elapsed) => return Err(Refused::Later("it did not answer in time".to_owned(), None)),
        };
        match status {
            status if status.is_success() => Ok(otlp::rejected(&answer)),
            // "OpenTelemetry Protocol Specification", section Failures: these alone.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refused::Later(format!("it answered {status}"), pause(&headers))),
            status => Err(Refused::Never(format!("it answered {status}"))),
        }
    }

    fn note(&mut self, spans: usize, outcome: Result<u64, Refused>) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        match outcome {
            Ok(rejected) => {
                self.counts.exported.inc_by(spans.saturating_sub(rejected));
                self.counts.failed.inc_by(rejected.min(spans));
                if std::mem::take(&mut self.is_away) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(Refused::Later(why, _) | Refused::Never(why)) => {
                self.counts.failed.inc_by(spans);
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(why, "the collector takes no spans; they are lost until it does");
                }
            }
        }
    }
}

/// A number of seconds; a date is not looked at.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
