//! What is read of an answer: bytes, never more than are wanted.

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It has more bytes than are taken.
    TooLarge,
    /// It did not come to its end.
    Broken(reqwest::Error),
}

/// Reads a body as it comes, never more than `max` bytes of it.
pub(crate) async fn read(mut response: Response, max: usize) -> Result<Bytes, ReadError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(ReadError::Broken)? {
        if body.len() + chunk.len() > max {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// `application/json`, or a type that says it is JSON (RFC 6839).
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_several_names() {
        let is = |text: &'static str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, text.parse().expect("a value"))]));
        assert!(is("application/json") && is("Application/JSON; charset=utf-8") && is("application/problem+json"));
        assert!(!is("text/html") && !is("text/json") && !is("application/jsonp") && !is_json(&HeaderMap::new()));
    }
}
