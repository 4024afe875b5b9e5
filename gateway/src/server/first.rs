//! The first bytes of a connection: what they are, and the WebSocket handshake that is answered without hyper.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::front::Front;
use crate::stream;

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Headers of a handshake; one with more goes the long way, by hyper.
const HEADERS_MAX: usize = 64;

/// What came first.
#[expect(clippy::large_enum_variant, reason = "lives for a moment; a box would be an allocation for each WebSocket")]
pub(super) enum First {
    /// Nothing, in time; or the end.
    Over,
    /// A whole head of `GET /ws`, and what came behind it.
    WebSocket { head: Bytes, request: Request<()>, rest: Bytes },
    /// HTTP/1, or nothing that makes sense: hyper tells the two apart.
    Http1(Bytes),
    /// HTTP/2 by prior knowledge.
    Http2(Bytes),
}

/// Waits for the first bytes. The usual request is there in one piece and is not copied before it is understood.
pub(super) async fn first(front: &Front, stream: &TcpStream) -> First {
    let deadline = Instant::now() + front.local.app.config.limits.first_byte_timeout.0;
    let mut gathered = Vec::new();
    loop {
        let Ok(Ok(())) = timeout_at(deadline, stream.readable()).await else { return First::Over };
        let mut scratch = front.scratch.borrow_mut();
        let read = match stream::try_read(stream, &mut scratch) {
            Ok(0) => return First::Over,
            Ok(read) => &scratch[..read],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return First::Over,
        };
        if gathered.is_empty() && !is_part_of_preface(read) {
            return understand(read);
        }
        gathered.extend_from_slice(read);
        if !is_part_of_preface(&gathered) {
            return understand(&gathered);
        }
    }
}

fn is_part_of_preface(bytes: &[u8]) -> bool {
    bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes)
}

fn understand(bytes: &[u8]) -> First {
    if bytes.starts_with(PREFACE) {
        return First::Http2(Bytes::copy_from_slice(bytes));
    }
    match handshake(bytes) {
        Some((head, request)) => {
            let rest = Bytes::copy_from_slice(&bytes[head.len()..]);
            First::WebSocket { head, request, rest }
        }
        None => First::Http1(Bytes::copy_from_slice(bytes)),
    }
}

/// The head of a `GET /ws` that is whole and beyond doubt. Whatever else it may be, hyper finds out.
fn handshake(bytes: &[u8]) -> Option<(Bytes, Request<()>)> {
    let path = bytes.strip_prefix(b"GET /ws")?;
    if !matches!(path.first(), Some(b' ' | b'?')) {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    if parsed.version != Some(1) || has_bare_line_end(&bytes[..length]) {
        return None;
    }
    // One copy; the values are parts of it.
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let part = |slice: &[u8]| {
        let at = slice.as_ptr().addr() - bytes.as_ptr().addr();
        head.slice(at..at + slice.len())
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from_maybe_shared(part(parsed.path?.as_bytes())).ok()?;
    for header in parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(part(header.value)).ok()?;
        request.headers_mut().append(name, value);
    }
    Some((head, request))
}

/// How long the head is, and what it asks.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_head(bytes: &[u8]) -> Option<(usize, Request<()>)> {
    handshake(bytes).map(|(head, request)| (head.len(), request))
}

fn has_bare_line_end(head: &[u8]) -> bool {
    head.iter().zip(&head[1..]).any(|(before, byte)| *byte == b'\n' && *before != b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /ws?group=a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";

    #[test]
    fn a_whole_handshake_is_read_without_hyper() {
        let First::WebSocket { head, request, rest } = understand(format!("{GOOD}more").as_bytes()) else {
            panic!("it is a handshake");
        };
        assert_eq!((&head[..], &rest[..]), (GOOD.as_bytes(), &b"more"[..]));
        assert_eq!(request.uri(), "/ws?group=a");
        assert_eq!(request.headers()["host"], "x");
        assert_eq!(request.headers().len(), 2);
    }

    #[test]
    fn what_is_odd_is_left_to_hyper() {
        for odd in [
            "GET /wsx HTTP/1.1\r\n\r\n",
            "GET /ws HTTP/1.0\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: x\r\n",
            "GET /ws HTTP/1.1\nHost: x\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost x\r\n\r\n",
            "POST /ws HTTP/1.1\r\n\r\n",
            "nonsense",
        ] {
            let First::Http1(bytes) = understand(odd.as_bytes()) else { panic!("{odd:?}") };
            assert_eq!(bytes, odd);
        }
    }

    #[test]
    fn http2_is_known_by_its_preface_however_cut() {
        assert!(is_part_of_preface(b"P") && is_part_of_preface(b"PRI * HTTP/2.0\r\n"));
        assert!(!is_part_of_preface(b"POST") && !is_part_of_preface(PREFACE));
        assert!(matches!(understand(PREFACE), First::Http2(_)));
    }
}
