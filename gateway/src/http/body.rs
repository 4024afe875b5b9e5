//! The body of a request: JSON of a bounded size, within a deadline.

use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use groupcast_protocol::ErrorCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::app::App;
use crate::limits::memory::Memory;

/// How much of a refused body is read, and for how long. Who sends more is cut off.
const DISCARD_BYTES_MAX: usize = 16 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// The bytes of a body that says, or does not deny, that it is JSON.
#[derive(Debug)]
pub(super) struct JsonBytes(pub(super) Bytes);

impl FromRequest<App> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Self::of(&parts.headers, body, &Room::of(app)).await
    }
}

impl JsonBytes {
    pub(super) async fn of<B: Bytewise>(headers: &HeaderMap, body: B, room: &Room<'_>) -> Result<Self, Problem> {
        let refused = check_media_type(headers).and_then(|()| room.check(declared_length(headers)));
        if let Err(problem) = refused {
            discard(body).await;
            return Err(problem);
        }
        read(body, room).await.map(Self)
    }
}

/// How long a body may be, and take.
pub(super) struct Room<'a> {
    bytes_max: usize,
    /// More is not taken while memory is short.
    small: usize,
    deadline: Duration,
    memory: &'a Memory,
}

impl<'a> Room<'a> {
    pub(super) fn of(app: &'a App) -> Self {
        let limits = &app.config.limits;
        let (bytes_max, small) = (limits.publish_bytes.0, limits.message_bytes.0);
        Self { bytes_max, small, deadline: limits.body_timeout.0, memory: app.limits.memory() }
    }

    /// Refuses a body of so many bytes, or more.
    fn check(&self, bytes: u64) -> Result<(), Problem> {
        if bytes > self.bytes_max as u64 {
            return Err(too_large(&format!("{bytes} bytes"), self.bytes_max));
        }
        if bytes > self.small as u64 { Ok(self.memory.check()?) } else { Ok(()) }
    }
}

/// A body as it comes from a connection or through a router.
pub(super) trait Bytewise: HttpBody<Data = Bytes> + Unpin {}

impl<B: HttpBody<Data = Bytes> + Unpin> Bytewise for B {}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    if is_json(value) {
        return Ok(());
    }
    let detail = "the body has to be JSON; send it with `Content-Type: application/json`";
    Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
}

fn is_json(value: &HeaderValue) -> bool {
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What the client declares, by which it may be refused before anything is read; 0 if it does not say.
fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// The deadline is for the whole body: a limit on each piece would let a client send one byte at a time for hours.
async fn read(body: impl Bytewise, room: &Room<'_>) -> Result<Bytes, Problem> {
    let late = |_| {
        let detail = format!("the body was not complete within {} s; send it faster", room.deadline.as_secs_f64());
        Problem::new(ErrorCode::RequestTimeout, detail)
    };
    tokio::time::timeout(room.deadline, collect(body, room)).await.map_err(late)?
}

async fn collect(mut body: impl Bytewise, room: &Room<'_>) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let cut = |_| Problem::new(ErrorCode::BadRequest, "the body ended early; send as much as was announced");
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        room.check((whole.len() + data.len()) as u64)?;
        // The usual body is one piece and is not copied.
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Reads a refused body off, within bounds: a client that is still sending when the connection ends sees a broken pipe
/// and not the reason.
async fn discard(mut body: impl Bytewise) {
    let read = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    drop(tokio::time::timeout(DISCARD_TIME_MAX, read).await);
}

fn too_large(found: &str, bytes_max: usize) -> Problem {
    let detail = format!("the body has {found}, at most {bytes_max} bytes are allowed; send less at once");
    Problem::new(ErrorCode::TooLarge, detail)
}

/// Reads JSON into a type; what is wrong is told with its place.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let told = |e: serde_path_to_error::Error<serde_json::Error>| match e.path().to_string().as_str() {
        "." => Problem::new(ErrorCode::BadRequest, format!("the body cannot be read: {}", e.inner())),
        path => Problem::new(ErrorCode::BadRequest, format!("the body cannot be read at `{path}`: {}", e.inner())),
    };
    let value = serde_path_to_error::deserialize(&mut reader).map_err(told)?;
    let more = |e| Problem::new(ErrorCode::BadRequest, format!("the body has more than one JSON value: {e}"));
    reader.end().map_err(more)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> ErrorCode {
        result.expect_err("to be refused").code()
    }

    #[test]
    fn json_is_taken_by_its_names_and_by_none() {
        for text in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            assert!(is_json(&HeaderValue::from_static(text)), "{text}");
        }
        for text in ["text/plain", "application/jsonp", "text/json+json", "", "application/x-www-form-urlencoded"] {
            assert!(!is_json(&HeaderValue::from_static(text)), "{text}");
        }
        assert!(check_media_type(&HeaderMap::new()).is_ok());
    }

    #[tokio::test]
    async fn while_memory_is_short_only_small_bodies_are_taken() {
        let memory = Memory::new(1);
        let room = Room { bytes_max: 10, small: 5, deadline: Duration::from_secs(1), memory: &memory };
        assert_eq!(read(Body::from("1234567890"), &room).await.expect("there is memory"), "1234567890");
        memory.read(0);
        assert_eq!(read(Body::from("12345"), &room).await.expect("small"), "12345");
        assert_eq!(code(read(Body::from("123456"), &room).await), ErrorCode::Overloaded);
        assert_eq!(code(read(Body::from("12345678901"), &room).await), ErrorCode::TooLarge);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("6"));
        assert_eq!(code(JsonBytes::of(&headers, Body::empty(), &room).await), ErrorCode::Overloaded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_too_slow_or_cut_is_refused() {
        let memory = Memory::new(u64::MAX);
        let room = &Room { bytes_max: 5, small: 5, deadline: Duration::from_secs(1), memory: &memory };
        let pieces = |texts: &[&'static str]| {
            let items: Vec<Result<&'static str, std::io::Error>> = texts.iter().map(|t| Ok(*t)).collect();
            Body::from_stream(futures_util::stream::iter(items))
        };
        assert_eq!(read(pieces(&["abc", "de"]), room).await.expect("fits"), "abcde");
        assert_eq!(read(Body::from("abcde"), room).await.expect("fits"), "abcde");
        assert_eq!(code(read(pieces(&["abc", "def"]), room).await), ErrorCode::TooLarge);
        let never = Body::from_stream(futures_util::stream::pending::<Result<&'static str, std::io::Error>>());
        assert_eq!(code(read(never, room).await), ErrorCode::RequestTimeout);
        let broken = futures_util::stream::iter([Ok("a"), Err(std::io::Error::other("reset"))]);
        assert_eq!(code(read(Body::from_stream(broken), room).await), ErrorCode::BadRequest);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[expect(dead_code)]
            n: u8,
        }
        let told = |text: &str| parse::<Vec<Inner>>(text.as_bytes()).expect_err(text).body().detail().to_owned();
        assert!(told(r#"[{"n":1},{"n":"x"}]"#).contains("`[1].n`"));
        assert!(told("[] []").contains("more than one"));
        assert!(told("").contains("cannot be read: EOF"));
    }
}
