//! JetStream's own subjects, as far as they are used here: requests of JSON, one answer each, within a deadline.
//!
//! Source: NATS documentation, "JetStream wire API Reference"; ADR-31 "JetStream Direct Get".

use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Client, RequestErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::time::ServerTime;
use crate::broker::BrokerError;

/// Codes of errors that decide something.
pub(super) const STREAM_NOT_FOUND: u64 = 10059;
const NO_MESSAGE: u64 = 10037;
const SEQUENCE_NOT_FOUND: u64 = 10043;
const NOBODY_THERE: &str = "JetStream is not there; start nats-server with `--jetstream`, or wait for its cluster";
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// The headers of what is stored: their first line, the number of the newest message, and the end.
const HEADERS: usize = 128;

/// A server's JetStream, as one client sees it. A cheap handle.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) timeout: Duration,
}

/// A message of a stream.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) at: ServerTime,
    pub(super) payload: Bytes,
}

/// A part of a subject's messages.
pub(super) struct Part {
    pub(super) messages: Vec<Stored>,
    /// Whether there is more behind them.
    pub(super) more: bool,
}

/// Why a server did not do what it was asked.
#[derive(Debug)]
pub(super) enum ApiError {
    /// It said no; its code and words.
    Said(u64, String),
    /// Nobody listens on the subject.
    NobodyThere,
    /// No answer that can be understood.
    Failed(BrokerError),
}

/// What became of a message that was to be stored.
pub(super) enum Outcome {
    Stored(u64),
    /// Somebody else was there before.
    Overtaken,
}

impl Api {
    /// Asks something of `$JS.API`.
    pub(super) async fn ask(&self, subject: &str, question: &Value) -> Result<Value, ApiError> {
        let payload = if question.is_null() { Bytes::new() } else { question.to_string().into() };
        let answer = self.request(format!("$JS.API.{subject}"), HeaderMap::new(), payload).await?;
        understood(&answer.payload)
    }

    /// Stores a message if the newest one of its subject has this number (0 for none).
    pub(super) async fn store(&self, subject: &str, payload: Bytes, expected: u64) -> Result<Outcome, ApiError> {
        self.store_with(HeaderMap::new(), subject, payload, expected).await
    }

    /// The same, with headers.
    pub(super) async fn store_with(
        &self,
        mut headers: HeaderMap,
        subject: &str,
        payload: Bytes,
        expected: u64,
    ) -> Result<Outcome, ApiError> {
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        let answer = self.request(subject.to_owned(), headers, payload).await?;
        match understood(&answer.payload) {
            Ok(answer) => Ok(Outcome::Stored(answer["seq"].as_u64().ok_or_else(not_understood)?)),
            Err(ApiError::Said(code, _)) if WRONG_LAST_SEQUENCE.contains(&code) => Ok(Outcome::Overtaken),
            Err(error) => Err(error),
        }
    }

    /// How many bytes of headers a server takes beside a payload and the headers that each request has.
    pub(super) fn room_beside(&self, payload: &Bytes) -> usize {
        self.client.max_payload().saturating_sub(payload.len() + HEADERS)
    }

    /// The newest message of a subject, from the server that decides.
    pub(super) async fn newest(&self, stream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
        self.one(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The oldest message of a subject, from the server that decides.
    pub(super) async fn oldest(&self, stream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
        self.one(stream, &json!({ "seq": 1, "next_by_subj": subject })).await
    }

    async fn one(&self, stream: &str, question: &Value) -> Result<Option<Stored>, ApiError> {
        match self.ask(&format!("STREAM.MSG.GET.{stream}"), question).await {
            Ok(answer) => Ok(Some(Stored::from_answer(&answer["message"]).ok_or_else(not_understood)?)),
            Err(ApiError::Said(NO_MESSAGE, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a message out of a stream. Says whether it was there: of several who try, one succeeds.
    pub(super) async fn remove(&self, stream: &str, sequence: u64) -> Result<bool, ApiError> {
        let question = json!({ "seq": sequence, "no_erase": true });
        match self.ask(&format!("STREAM.MSG.DELETE.{stream}"), &question).await {
            Ok(answer) => Ok(answer["success"] == true),
            Err(ApiError::Said(NO_MESSAGE | SEQUENCE_NOT_FOUND, _)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A subject's messages from a number on, from whichever server has them: it may not have the newest yet.
    pub(super) async fn several(&self, stream: &str, subject: &str, from: u64, most: usize) -> Result<Part, ApiError> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| unavailable(&error))?;
        let question = json!({ "seq": from, "next_by_subj": subject, "batch": most }).to_string();
        let asked = self.client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, question.into());
        timeout(self.timeout, asked).await.map_err(|_| self.timed_out())?.map_err(|error| unavailable(&error))?;
        let mut messages = Vec::new();
        loop {
            let answer = timeout(self.timeout, answers.next()).await.map_err(|_| self.timed_out())?;
            let answer = answer.ok_or_else(|| unavailable(&"the connection has ended"))?;
            match answer.status.map(u16::from) {
                None => messages.push(Stored::from_message(answer).ok_or_else(not_understood)?),
                // The end; or nothing at all is there.
                Some(204) => {
                    return Ok(Part { messages, more: number(answer.headers.as_ref(), "Nats-Num-Pending") > 0 });
                }
                Some(404) => return Ok(Part { messages, more: false }),
                Some(503) => return Err(ApiError::NobodyThere),
                Some(code) => return Err(ApiError::Said(code.into(), answer.description.unwrap_or_default())),
            }
        }
    }

    /// Sends a request and waits for the answer.
    pub(super) async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<async_nats::Message, ApiError> {
        let request = async_nats::Request::new().headers(headers).payload(payload);
        // The library's own deadline does not count the wait for room in its queue.
        match timeout(self.timeout, self.client.send_request(subject, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Err(_elapsed) => Err(self.timed_out()),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => self.timed_out(),
                RequestErrorKind::NoResponders => ApiError::NobodyThere,
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    ApiError::Failed(BrokerError::Refused { why: error.to_string() })
                }
                RequestErrorKind::Other => unavailable(&error),
            }),
        }
    }

    fn timed_out(&self) -> ApiError {
        ApiError::Failed(BrokerError::TimedOut { after: self.timeout })
    }
}

impl Stored {
    pub(super) fn from_answer(message: &Value) -> Option<Self> {
        let payload = STANDARD.decode(message["data"].as_str().unwrap_or_default()).ok()?;
        let at = ServerTime::parse(message["time"].as_str()?)?;
        Some(Self { sequence: message["seq"].as_u64()?, at, payload: payload.into() })
    }

    fn from_message(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers?;
        let at = ServerTime::parse(headers.get("Nats-Time-Stamp")?.as_str())?;
        let sequence = headers.get("Nats-Sequence")?.as_str().parse().ok()?;
        Some(Self { sequence, at, payload: message.payload })
    }
}

impl From<ApiError> for BrokerError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Failed(error) => error,
            ApiError::NobodyThere => Self::Unavailable { why: NOBODY_THERE.to_owned() },
            ApiError::Said(STREAM_NOT_FOUND, why) => Self::Unavailable { why },
            ApiError::Said(_, why) => Self::Refused { why },
        }
    }
}

fn number(headers: Option<&HeaderMap>, name: &str) -> u64 {
    headers.and_then(|headers| headers.get(name)?.as_str().parse().ok()).unwrap_or(0)
}

pub(super) fn understood(payload: &[u8]) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(payload).map_err(|_| not_understood())?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => {
            let code = error["err_code"].as_u64().unwrap_or(0);
            Err(ApiError::Said(code, error["description"].as_str().unwrap_or("no reason given").to_owned()))
        }
    }
}

fn not_understood() -> ApiError {
    unavailable(&"JetStream gave an answer that cannot be understood")
}

fn unavailable(why: &dyn std::fmt::Display) -> ApiError {
    ApiError::Failed(BrokerError::Unavailable { why: why.to_string() })
}
