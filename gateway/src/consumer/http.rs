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
//!
//! {"job":"01JD…","consumer":"views","attempt":1,"max_attempts":5,"timeout_ms":60000,"message":{"type":"execute_query","queryset_id":7}}
//! ```
//!
//! Reading order: this file (the request), `signature`, `resolver` (which addresses it goes to), `answer` (what the answer
//! means), `calls` (what is counted).

mod answer;
mod calls;
mod resolver;
mod retry_after;
mod signature;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use self::calls::Calls;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use rustls::ClientConfig;
use serde::Serialize;
use serde_json::value::RawValue;

use self::resolver::{CheckedResolver, RefusedAddress};
use self::signature::Signer;
use super::context::JobContext;
use super::problem::Problem;
use super::work::{Consumer, Failure, Outcome};
use crate::clock;
use crate::config::ConsumerConfig;
use crate::config::backend::backend_url;

/// How long a connection may take to be made, its name looked up and TLS agreed on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that nobody uses is kept. Shorter than what common servers grant (5 s), so that they are not
/// written to while they hang up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

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
    client: Client,
    url: Url,
    signer: Signer,
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
        let problem = |key: &str, message: String| Problem::new(format!("consumer.{}.{key}", config.name), message);
        let text = config.url.as_deref().unwrap_or_default();
        let url = backend_url(text, config.allow_private).map_err(|message| problem("url", message))?;
        let named = config.secret_env.is_some() || config.secret_file.is_some();
        let keys = match &config.secret {
            Some(secret) => secret.keys().map_err(|error| problem("secret", error.to_string()))?,
            None if named => {
                return Err(problem("secret_env", "was not read; load the configuration with `Config::load`".into()));
            }
            None => {
                let consumer = &config.name;
                tracing::warn!(
                    consumer,
                    "its requests are not signed; set `secret_env`, so that its backend knows them"
                );
                Vec::new()
            }
        };
        let tls = tls::client_config(&url, config.ca.as_deref()).map_err(|message| problem("ca", message))?;
        let resolver = CheckedResolver { allow_private: config.allow_private };
        let client = client(tls, resolver, config.concurrency).map_err(|error| problem("url", with_causes(&error)))?;
        let max_bytes = config.max_bytes.map_or(MAX_BYTES, |size| size.0);
        Ok(Self { client, url, signer: Signer::new(&keys), max_bytes, calls })
    }

    async fn call(&self, job: &JobContext) -> Result<Outcome, Failure> {
        let id = job.id().to_string();
        let body = body(job, &id)?;
        let at = clock::now_ms() / 1000;
        let json = HeaderValue::from_static("application/json");
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, json.clone())
            .header(ACCEPT, json)
            // What is counted against `max_bytes` is what is stored.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header("idempotency-key", &id)
            .header("groupcast-job", &id)
            .header("groupcast-attempt", job.attempt())
            .header("webhook-id", &id)
            .header("webhook-timestamp", at);
        if let Some(signature) = self.signer.sign(&id, at, &body) {
            request = request.header("webhook-signature", signature);
        }
        let response = request.body(body).send().await.map_err(|error| unreached(&error))?;
        self.read(response).await
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

fn client(tls: ClientConfig, resolver: CheckedResolver, connections: usize) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(connections)
        .user_agent(concat!("groupcast/", env!("CARGO_PKG_VERSION")))
        .build()
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

fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error).map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| cause.source())
}
