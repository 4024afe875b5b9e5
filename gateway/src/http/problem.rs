//! Errors as they leave over HTTP: RFC 9457 `application/problem+json`, with a stable `code`.
//!
//! ```text
//! {"type":"urn:groupcast:problem:not_found","title":"Not found","status":404,
//!  "detail":"there is no job 01JD…","code":"not_found"}
//! ```

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use groupcast_protocol::{ErrorCode, Refusal};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

/// Seconds that a client is told to wait after `overloaded` and the like, where nobody knows better: such states pass quickly,
/// and more would make clients slower than they have to be.
const RETRY_AFTER_SECONDS: u64 = 1;

const MEDIA_TYPE: &str = "application/problem+json";

/// An error on its way to a client.
#[derive(Debug)]
pub struct Problem {
    refusal: Refusal,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a client reads.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// Names the kind of problem: `urn:groupcast:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What, why, and what to do.
    detail: &'a str,
    /// The stable code that programs decide by.
    code: &'static str,
}

impl Problem {
    /// A problem with a sentence of its own.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::from(Refusal::new(code, detail))
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.refusal.code
    }

    /// The status that the code means.
    pub fn status(&self) -> StatusCode {
        status_and_title(self.refusal.code).0
    }

    /// What, why, and what to do.
    pub(super) fn into_detail(self) -> String {
        self.refusal.message
    }

    /// The whole answer of HTTP/1.1, for a connection that ends with it.
    pub(crate) fn into_http1(self) -> Bytes {
        let body = self.json();
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {title}\r\ncontent-type: {MEDIA_TYPE}\r\nconnection: close\r\ncontent-length: {}\r\n",
            status.as_u16(),
            body.len()
        );
        let mut answer = head.into_bytes();
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                answer.extend_from_slice(part);
            }
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        answer.into()
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body()).expect("texts and numbers are always JSON")
    }

    /// What a client reads.
    pub(super) fn body(&self) -> ProblemBody<'_> {
        let (status, title) = status_and_title(self.refusal.code);
        let code = self.refusal.code.as_str();
        let kind = format!("urn:groupcast:problem:{code}");
        ProblemBody { kind, title, status: status.as_u16(), detail: &self.refusal.message, code }
    }
}

#[cfg(test)]
impl ProblemBody<'_> {
    pub(super) fn detail(&self) -> &str {
        self.detail
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut headers = Vec::new();
        if matches!(status_and_title(refusal.code).0.as_u16(), 429 | 503 | 507) {
            // Whole seconds are all that HTTP can say.
            let told = refusal.retry_after_ms().map(|ms| ms.div_ceil(1000).max(1));
            headers.push((RETRY_AFTER, told.unwrap_or(RETRY_AFTER_SECONDS).into()));
        }
        // RFC 9110, section 11.6.1: whoever is told 401 is told by what he may come in.
        if refusal.code == ErrorCode::Unauthenticated {
            headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        Self { refusal, headers }
    }
}

/// The code of the problem that an answer is: an extension of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) ErrorCode);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.json()).into_response();
        let json = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, json);
        // For who counts answers.
        response.extensions_mut().insert(Code(self.code()));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The one place that says what a code is over HTTP.
fn status_and_title(code: ErrorCode) -> (StatusCode, &'static str) {
    match code {
        ErrorCode::BadRequest => (StatusCode::BAD_REQUEST, "Bad request"),
        ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, "No valid credentials"),
        ErrorCode::Forbidden => (StatusCode::FORBIDDEN, "Not allowed"),
        ErrorCode::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        ErrorCode::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        ErrorCode::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "No acceptable representation"),
        ErrorCode::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive"),
        ErrorCode::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, "WebSocket only"),
        ErrorCode::IdempotencyConflict => (StatusCode::CONFLICT, "Idempotency key used for another body"),
        ErrorCode::NotReady => (StatusCode::CONFLICT, "Not ready"),
        ErrorCode::Finished => (StatusCode::CONFLICT, "Already finished"),
        ErrorCode::Expired => (StatusCode::GONE, "No longer kept"),
        ErrorCode::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
        ErrorCode::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type"),
        ErrorCode::InvalidMessage => (StatusCode::UNPROCESSABLE_ENTITY, "Not a message"),
        ErrorCode::InvalidName => (StatusCode::UNPROCESSABLE_ENTITY, "Not a name"),
        ErrorCode::UnknownQuery => (StatusCode::UNPROCESSABLE_ENTITY, "Unknown query"),
        ErrorCode::BadParams => (StatusCode::UNPROCESSABLE_ENTITY, "Bad parameters"),
        ErrorCode::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        ErrorCode::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large"),
        ErrorCode::ChannelFull => (StatusCode::SERVICE_UNAVAILABLE, "Channel full"),
        ErrorCode::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        ErrorCode::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        ErrorCode::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "Storage full"),
        // These three belong to the WebSocket's commands.
        ErrorCode::UnknownType => (StatusCode::BAD_REQUEST, "Unknown type"),
        ErrorCode::NotSubscribed => (StatusCode::BAD_REQUEST, "Not subscribed"),
        ErrorCode::AlreadySubscribed => (StatusCode::BAD_REQUEST, "Already subscribed"),
        ErrorCode::LimitExceeded => (StatusCode::TOO_MANY_REQUESTS, "Limit exceeded"),
        ErrorCode::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_contracts_fields() {
        let response = Problem::new(ErrorCode::ChannelFull, "channel `x` is full; send later").into_response();
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a small body");
        let expected = r#"{"type":"urn:groupcast:problem:channel_full","title":"Channel full","status":503,"detail":"channel `x` is full; send later","code":"channel_full"}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn the_contracts_codes_have_the_contracts_status() {
        let expected = [
            (400, "bad_request"),
            (401, "unauthenticated"),
            (403, "forbidden"),
            (404, "not_found"),
            (405, "method_not_allowed"),
            (406, "not_acceptable"),
            (408, "request_timeout"),
            (409, "idempotency_conflict"),
            (409, "not_ready"),
            (409, "finished"),
            (410, "expired"),
            (413, "too_large"),
            (415, "unsupported_media_type"),
            (422, "invalid_message"),
            (422, "invalid_name"),
            (422, "unknown_query"),
            (422, "bad_params"),
            (429, "rate_limited"),
            (431, "headers_too_large"),
            (503, "channel_full"),
            (503, "unavailable"),
            (503, "overloaded"),
            (507, "storage_full"),
        ];
        for (status, text) in expected {
            let code = ErrorCode::ALL.iter().find(|code| code.as_str() == text).expect(text);
            assert_eq!(Problem::new(*code, "").status().as_u16(), status, "{text}");
        }
    }
}
