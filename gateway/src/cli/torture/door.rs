//! `Door`: the HTTP side of a gateway that may be killed in the middle of an answer.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::config::GROUP;
use super::work::Work;
use crate::cli::CliError;
use crate::cli::client::{CONNECT_TIMEOUT, chain};

/// How long an answer may take: a gateway that stands still for longer has not answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A client of one gateway after the other.
#[derive(Debug, Clone)]
pub(super) struct Door {
    http: reqwest::Client,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; `null` when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem, or the status where there is none.
    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

impl Door {
    pub(super) fn new() -> Result<Self, CliError> {
        let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT);
        let http = builder.build();
        let http = http.map_err(|e| CliError::Failed(format!("the HTTP client cannot be made: {}", chain(&e))))?;
        Ok(Self { http })
    }

    /// Asks for work; `None` when no whole answer came, and so nobody knows whether it was taken.
    pub(super) async fn send(&self, gateway: SocketAddr, work: &Work) -> Option<Reply> {
        let request = self.request(Method::POST, gateway, &format!("/v1/groups/{GROUP}/send"));
        let request = request.header("content-type", "application/json");
        finish(request.header("idempotency-key", work.idempotency_key()).body(work.message())).await
    }

    /// Reads something; `None` when no whole answer came.
    pub(super) async fn get(&self, gateway: SocketAddr, path: &str) -> Option<Reply> {
        finish(self.request(Method::GET, gateway, path)).await
    }

    /// A number of `/metrics`; `None` when no whole answer came, or there is none of this name.
    pub(super) async fn metric(&self, gateway: SocketAddr, name: &str) -> Option<u64> {
        let text = self.get(gateway, "/metrics").await?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))?;
        line.parse().ok()
    }

    fn request(&self, method: Method, gateway: SocketAddr, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{gateway}{path}"))
    }
}

async fn finish(request: reqwest::RequestBuilder) -> Option<Reply> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    Some(Reply { status, body: response.bytes().await.ok()?.to_vec() })
}
