//! `run = "http"`: a job is posted to a backend, and what it answers is the result. A Django view, or any service in any
//! language, does work this way.
//!
//! ```text
//! POST /jobs HTTP/1.1
//! content-type: application/json
//! webhook-id: 01JD8ZJ4M5E8RAX0V4C9QW2N7K
//! webhook-timestamp: 1764191234
//! webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=
//! idempotency-key: 01JD8ZJ4M5E8RAX0V4C9QW2N7K
//! groupcast-job: 01JD8ZJ4M5E8RAX0V4C9QW2N7K
//! groupcast-attempt: 1
//! traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01     if whoever asked has named a trace; tracestate, too
//!
//! {"job":"01JD…","consumer":"views","attempt":1,"max_attempts":5,"timeout_ms":60000,"message":{"type":"execute_query","queryset_id":7}}
//! ```
//!
//! Reading order: this file (the request; `crate::backend` has the client), `answer` (what the answer means), `calls` (what is
//! counted).

mod answer;
mod calls;
mod retry_after;
#[cfg(test)]
mod tests;

pub(crate) use self::calls::Calls;
#[cfg(feature = "fuzzing")]
pub(super) use self::retry_after::retry_after;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::JobContext;
use super::problem::Problem;
use super::work::{Consumer, Failure, Outcome};
use crate::backend::{Backend, Place, RefusedAddress, Step, causes, with_causes};
use crate::config::ConsumerConfig;
use crate::trace;

/// Bytes that an answer may have unless the consumer says otherwise.
const MAX_BYTES: usize = 8 << 20;

/// Posts jobs to one backend.
///
/// - As many connections as jobs run at once: `concurrency`. Proxies of the environment are not used.
/// - The time of the attempt bounds it all; when that is over, or the job is cancelled, the connection is closed, which the
///   backend sees.
/// - The same job may be posted more than once: after a timeout, an error, or a crash of the gateway. `idempotency-key` is the
///   same each time.
pub(crate) struct HttpConsumer {
    backend: Backend,
    max_bytes: usize,
    calls: Calls,
}

/// What a backend gets.
#[derive(Serialize)]
struct Body<'a> {
    job: &'a str,
    consumer: &'a str,
    attempt: u32,
    max_attempts: u32,
    /// How much time the attempt has.
    timeout_ms: u64,
    message: &'a RawValue,
}

impl HttpConsumer {
    /// Makes the client of a consumer. Connects to nothing.
    ///
    /// # Errors
    /// When its address, its secret or its certificates cannot be used.
    pub(crate) fn new(config: &ConsumerConfig, calls: Calls) -> Result<Self, Problem> {
        let backend = Backend::new(&place(config))
            .map_err(|(key, message)| Problem::new(format!("consumer.{}.{key}", config.name), message))?;
        if !backend.signs() {
            let consumer = &config.name;
            tracing::warn!(consumer, "its requests are not signed; set `secret_env`, so that its backend knows them");
        }
        let max_bytes = config.max_bytes.map_or(MAX_BYTES, |size| size.0);
        Ok(Self { backend, max_bytes, calls })
    }

    async fn call(&self, job: &JobContext) -> Result<Outcome, Failure> {
        let id = job.id().to_string();
        let request = self
            .backend
            .post(&id, body(job, &id)?)
            .header("idempotency-key", &id)
            .header("groupcast-job", &id)
            .header("groupcast-attempt", job.attempt());
        let mut step = self.backend.step();
        let trace = step.as_ref().map_or_else(|| job.trace().clone(), Step::trace);
        let response = request.headers(trace::headers(&trace)).send().await.map_err(|error| unreached(&error));
        if let Some(step) = &mut step {
            step.answered(response.as_ref().map(Response::status).map_err(|failure| failure.code.as_str()));
        }
        self.read(response?).await
    }

    async fn read(&self, response: Response) -> Result<Outcome, Failure> {
        let status = response.status();
        if !status.is_success() {
            return Err(answer::refused(response).await);
        }
        answer::result(response, self.max_bytes).await.map(Outcome::Json)
    }
}

impl Consumer for HttpConsumer {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        async move {
            let call = self.calls.begin(job.consumer());
            let told = self.call(job).await;
            call.end(told.as_ref().err());
            told
        }
        .boxed()
    }
}

fn place(config: &ConsumerConfig) -> Place<'_> {
    Place {
        url: config.url.as_deref().unwrap_or_default(),
        allow_private: config.allow_private,
        secret: config.secret.as_ref(),
        secret_is_named: config.secret_env.is_some() || config.secret_file.is_some(),
        ca: config.ca.as_deref(),
        connections: config.concurrency,
    }
}

fn body(job: &JobContext, id: &str) -> Result<Vec<u8>, Failure> {
    let refused = |error: serde_json::Error| Failure::permanent("bad_message", error.to_string());
    let body = Body {
        job: id,
        consumer: job.consumer(),
        attempt: job.attempt(),
        max_attempts: job.max_attempts(),
        timeout_ms: u64::try_from(job.time_left().as_millis()).unwrap_or(u64::MAX),
        message: serde_json::from_str(job.message().as_str()).map_err(refused)?,
    };
    serde_json::to_vec(&body).map_err(refused)
}

/// No answer came, or no whole one.
fn unreached(error: &reqwest::Error) -> Failure {
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<RefusedAddress>()) {
        return Failure::permanent("address_refused", refused.to_string());
    }
    // The address belongs to the operator and is not shown to whoever may read the job.
    let what = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "cannot be reached in time",
        (false, true) => "cannot be reached",
        (false, false) => "hung up before its answer was complete",
    };
    tracing::debug!(error = with_causes(error), "a backend gave no answer");
    Failure::transient("backend_unreachable", format!("the backend {what}; the job is tried again"))
}
