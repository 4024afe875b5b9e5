//! The HTTP side of the client commands: address, token, deadlines, and errors as a person reads them.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use super::CliError;

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take, on top of the time that was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the gateway is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Address of the gateway.
    #[arg(long, global = true, env = "GROUPCAST_URL", default_value = "http://127.0.0.1:8000", value_name = "URL")]
    pub url: String,
    /// API key or token, sent as `Authorization: Bearer`.
    #[arg(long, global = true, env = "GROUPCAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

impl Target {
    /// The checked address.
    ///
    /// # Errors
    /// When it is not an `http` URL.
    pub fn base(&self) -> Result<Url, CliError> {
        let usage = |why: String| CliError::Usage(format!("the gateway's address `{}` {why}", self.url));
        let url = Url::parse(&self.url)
            .map_err(|e| usage(format!("is not a URL: {e}; write it as in http://127.0.0.1:8000")))?;
        match url.scheme() {
            "http" if url.has_host() => Ok(url),
            "https" => Err(usage("needs TLS, which this build lacks; use http:// to a gateway or proxy nearby".into())),
            other => Err(usage(format!("has the scheme `{other}`; use http://"))),
        }
    }

    /// The address of a path below the gateway's; each segment is escaped.
    ///
    /// # Errors
    /// As [`Target::base`].
    pub fn url(&self, segments: &[&str]) -> Result<Url, CliError> {
        let mut url = self.base()?;
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(segments);
        url.set_query(None);
        Ok(url)
    }

    /// `Authorization`, if there is a token.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn authorization(&self) -> Result<Option<HeaderValue>, CliError> {
        let Some(token) = &self.token else { return Ok(None) };
        let refused = |_| CliError::Usage("the token has characters that cannot stand in a header; check it".into());
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(refused)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A client of one gateway.
#[derive(Debug)]
pub struct Client {
    target: Target,
    http: reqwest::Client,
}

/// One request.
#[derive(Debug)]
pub struct Ask {
    method: Method,
    url: Url,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    wait: Duration,
}

impl Ask {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a parameter, if it has a value.
    #[must_use]
    pub fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.url.query_pairs_mut().append_pair(name, &value.to_string());
        }
        self
    }

    /// Sends JSON along.
    #[must_use]
    pub fn json(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Gives the gateway more time to answer.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// When address or token are not usable.
    pub fn new(target: &Target) -> Result<Self, CliError> {
        target.base()?;
        let mut headers = HeaderMap::new();
        headers.extend(target.authorization()?.map(|value| (AUTHORIZATION, value)));
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("groupcast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // The gateway is named by --url; a proxy of the environment is for the way out into the world.
            .no_proxy()
            .build()
            .map_err(|e| CliError::Failed(format!("the HTTP client cannot be made: {}", chain(&e))))?;
        Ok(Self { target: target.clone(), http })
    }

    /// Begins a request to a path.
    ///
    /// # Errors
    /// When the address is not usable.
    pub fn ask(&self, method: Method, segments: &[&str]) -> Result<Ask, CliError> {
        let url = self.target.url(segments)?;
        Ok(Ask { method, url, headers: Vec::new(), body: None, wait: Duration::ZERO })
    }

    /// Begins a request to a path that the gateway gave, as in `/v1/jobs/…/result?format=html`.
    ///
    /// # Errors
    /// When the address is not usable.
    pub fn ask_path(&self, method: Method, path: &str) -> Result<Ask, CliError> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut ask = self.ask(method, &segments)?;
        ask.url.set_query(query);
        Ok(ask)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the gateway is not reached in time, or answers with an error.
    pub async fn send(&self, ask: Ask) -> Result<Answer, CliError> {
        let mut request = self.http.request(ask.method, ask.url).timeout(ANSWER_TIMEOUT + ask.wait);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        if let Some(body) = ask.body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|e| self.unreached(&e))?;
        Answer::read(response).await.map_err(|e| self.unreached(&e))?.or_problem()
    }

    fn unreached(&self, error: &reqwest::Error) -> CliError {
        let why = if error.is_timeout() {
            "did not answer in time; is it overloaded?".to_owned()
        } else if error.is_connect() {
            "cannot be reached; is it running, and is --url right?".to_owned()
        } else {
            format!("gave no complete answer: {}", chain(error))
        };
        CliError::Failed(format!("the gateway at {} {why}", self.target.url))
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Vec<u8>,
    retry_after: Option<String>,
}

impl Answer {
    async fn read(response: Response) -> Result<Self, reqwest::Error> {
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Self { status, retry_after, body: response.bytes().await?.to_vec() })
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none: then something else than a gateway answered.
    pub fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| CliError::Failed(format!("the answer is not JSON ({e}); is there a gateway at --url?")))
    }

    fn or_problem(self) -> Result<Self, CliError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let told = describe(self.status.as_u16(), &self.body);
        Err(CliError::Failed(match self.retry_after {
            Some(seconds) => format!("{told} (try again in {seconds} s)"),
            None => told,
        }))
    }
}

/// An error answer in one line: what `application/problem+json` says, or the status when it is none.
pub fn describe(status: u16, body: &[u8]) -> String {
    let problem = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let field = |name: &str| problem.get(name).and_then(Value::as_str);
    match (field("detail").or(field("title")), field("code")) {
        (Some(detail), Some(code)) => format!("refused with {status} {code}: {detail}"),
        (Some(detail), None) => format!("refused with {status}: {detail}"),
        (None, _) => format!("refused with {status}; that is no answer of a gateway, check --url"),
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target { url: url.to_owned(), token: None }
    }

    #[test]
    fn paths_are_escaped_and_a_prefix_is_kept() {
        let url = |base: &str| target(base).url(&["v1", "groups", "a b/ü"]).expect("a good address").to_string();
        assert_eq!(url("http://h:1"), "http://h:1/v1/groups/a%20b%2F%C3%BC");
        assert_eq!(url("http://h/gw/?x=1"), "http://h/gw/v1/groups/a%20b%2F%C3%BC");
    }

    #[test]
    fn addresses_that_cannot_be_used_are_bad_usage() {
        for (url, words) in [("https://h", "TLS"), ("h:8000", "scheme"), ("//", "not a URL"), ("ftp://h", "scheme")] {
            let error = target(url).base().expect_err(url);
            assert!(matches!(&error, CliError::Usage(text) if text.contains(words)), "{error}");
        }
    }

    #[test]
    fn a_problem_is_told_in_words() {
        let body = br#"{"status":422,"code":"unknown_query","detail":"there is no query `x`"}"#;
        assert_eq!(describe(422, body), "refused with 422 unknown_query: there is no query `x`");
        assert!(describe(502, b"<html>").contains("no answer of a gateway"));
    }
}
