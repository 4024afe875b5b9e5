//! HTTP/1.1 answers, out of the bytes as they come.

use std::ops::Range;

/// Heads with more fields are not ours.
const HEADERS_MAX: usize = 64;
/// Longer bodies are not ours.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A complete answer at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where the body is; the next answer begins behind it.
    pub(super) body: Range<usize>,
    /// The value of `Sec-WebSocket-Accept`.
    pub(super) accept: Option<String>,
    /// The server closes the connection.
    pub(super) last: bool,
}

/// Reads the first answer; `None` when it is not complete.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let begin = match head.parse(bytes) {
        Ok(httparse::Status::Complete(begin)) => begin,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("gave no HTTP answer ({error})")),
    };
    let status = head.code.unwrap_or_default();
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    if field("transfer-encoding").is_some() {
        return Err("answered in chunks, which this client does not read; is there a proxy in between?".to_owned());
    }
    let len = match field("content-length") {
        Some(len) => {
            len.parse().ok().filter(|len| *len <= BODY_BYTES_MAX).ok_or("gave an impossible Content-Length")?
        }
        None => 0,
    };
    let last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let answer =
        Answer { status, body: begin..begin + len, accept: field("sec-websocket-accept").map(str::to_owned), last };
    Ok((bytes.len() >= answer.body.end).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_its_body_is_there() {
        let text = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nconnection: Close\r\n\r\n{}HTTP/1.1 503";
        let whole = text.len() - 12;
        assert_eq!(read(&text[..whole - 1]), Ok(None));
        let answer = read(text).expect("an answer").expect("a whole one");
        assert_eq!((answer.status, &text[answer.body.clone()], answer.last), (202, &b"{}"[..], true));
        assert_eq!(read(&text[answer.body.end..]), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
