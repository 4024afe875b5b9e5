//! What a backend's answer means: a result, or why there is none.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::retry_after::retry_after;
use super::unreached;
use crate::backend::{ReadError, is_json, read};
use crate::clock;
use crate::consumer::work::Failure;

/// Bytes that are read of an answer that is no result, to find out why.
const REASON_BYTES: usize = 64 << 10;

/// How long such an answer is read.
const REASON_TIME: Duration = Duration::from_secs(5);

/// Characters that are shown of what a backend says about its refusal.
const REASON_CHARS: usize = 500;

/// Characters of a backend's own code that is taken over.
const CODE_CHARS: usize = 64;

/// The result that a good answer carries: its JSON, or `null` if it is empty. Whether it is JSON to the letter is looked at
/// when it is stored.
pub(super) async fn result(response: Response, max: usize) -> Result<Bytes, Failure> {
    let headers = response.headers().clone();
    let body = read(response, max).await.map_err(|error| match error {
        ReadError::TooLarge => {
            let message = format!("the backend's answer has more than {max} bytes; send less, or raise `max_bytes`");
            Failure::permanent("too_large", message)
        }
        ReadError::Broken(error) => unreached(&error),
    })?;
    if body.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    let bad = |what: String| Failure::permanent("bad_result", format!("the backend's answer {what}"));
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(bad("is encoded, which nobody asked for; send it as it is".into()));
    }
    if !is_json(&headers) {
        return Err(bad("is not JSON; send it with `Content-Type: application/json`".into()));
    }
    Ok(body)
}

/// Why an answer that is not good was given, and whether the job is tried again.
pub(super) async fn refused(response: Response) -> Failure {
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_redirection() {
        let message = format!("the backend answered {status}, and redirects are not followed; name the address itself");
        return Failure::permanent("redirect_refused", message);
    }
    // However little is understood, the status counts.
    let body = timeout(REASON_TIME, read(response, REASON_BYTES)).await.ok().and_then(Result::ok);
    let reason = Reason::of(body.filter(|_| is_json(&headers)).as_deref().unwrap_or_default());
    let message = reason.message(status);
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => {
            let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = asked.and_then(|text| retry_after(text, clock::now_ms()));
            let code = if status == StatusCode::TOO_MANY_REQUESTS { "backend_busy" } else { "backend_failed" };
            Failure { retry_after, ..Failure::transient(code, message) }
        }
        _ => Failure::permanent(reason.code.unwrap_or_else(|| "backend_refused".to_owned()), message),
    }
}

/// What a backend says about its refusal: `{"code","detail"}` of a problem (RFC 9457), or what frameworks write in their
/// place.
struct Reason {
    code: Option<String>,
    detail: Option<String>,
}

impl Reason {
    fn of(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let detail = ["detail", "message", "error", "title"].into_iter().find_map(text);
        Self {
            code: text("code").filter(|code| is_code(code)).map(str::to_owned),
            detail: detail.map(|text| text.chars().take(REASON_CHARS).map(plain).collect()),
        }
    }

    fn message(&self, status: StatusCode) -> String {
        match (&self.code, &self.detail) {
            (Some(code), Some(detail)) => format!("the backend answered {status} ({code}): {detail}"),
            (Some(code), None) => format!("the backend answered {status} ({code})"),
            (None, Some(detail)) => format!("the backend answered {status}: {detail}"),
            (None, None) => format!("the backend answered {status}"),
        }
    }
}

/// A code is a word that can be counted by.
fn is_code(text: &str) -> bool {
    text.len() <= CODE_CHARS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// No control characters: a terminal would obey them.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_and_plain() {
        let message = |body: &str| Reason::of(body.as_bytes()).message(StatusCode::UNPROCESSABLE_ENTITY);
        let status = "the backend answered 422 Unprocessable Entity";
        assert_eq!(message(r#"{"code":"no_such","detail":"a\u001b[1mb"}"#), format!("{status} (no_such): a [1mb"));
        assert_eq!(message(r#"{"code":"not a word","error":"x"}"#), format!("{status}: x"));
        for nothing in ["", "[]", "{", r#"{"detail":7}"#, r#""text""#] {
            assert_eq!(message(nothing), status, "{nothing}");
        }
        let long = message(&format!(r#"{{"detail":"{}"}}"#, "é".repeat(10_000)));
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), REASON_CHARS);
    }
}
