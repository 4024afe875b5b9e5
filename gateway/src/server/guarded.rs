//! A socket as hyper sees it: strict about what comes in, with a word about what is refused, and watched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use groupcast_protocol::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::watch::{Heard, Watch};
use crate::http::problem::Problem;
use crate::stream::Stream;

/// Bytes that a client may still send behind what was refused, before it is hung up on.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What carries a connection.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection of HTTP.
#[derive(Debug)]
pub(crate) struct Guarded {
    transport: Transport,
    /// What was read before hyper came.
    prefix: Bytes,
    watch: Arc<Watch>,
    /// HTTP/2 has no lines.
    lines: Option<Lines>,
    /// Our words instead of hyper's answer, as far as they are not written.
    instead: Option<Bytes>,
    /// Bytes that may still come after the end of our half; `None`: the end was not by refusal.
    linger: Option<usize>,
}

impl Guarded {
    pub(super) fn http1(transport: Transport, prefix: Bytes, watch: Arc<Watch>) -> Self {
        Self { transport, prefix, watch, lines: Some(Lines::default()), instead: None, linger: None }
    }

    pub(super) fn http2(transport: Transport, prefix: Bytes, watch: Arc<Watch>) -> Self {
        Self { lines: None, ..Self::http1(transport, prefix, watch) }
    }

    /// The connection without HTTP.
    pub(crate) fn into_stream(self) -> Stream {
        match self.transport {
            Transport::Tcp(stream) => Stream::Tcp(stream),
            Transport::Tls(stream) => Stream::other(*stream),
        }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(_) => self.watch.progressed(),
            Poll::Pending => self.watch.stalled(),
        }
    }

    /// Writes what stands in for an answer of hyper's; `Some` when this write was one.
    fn poll_instead(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() && self.lines.is_some() {
            let refused = refused_by_hyper(answer)?;
            let why_lines = self.lines.as_ref().is_some_and(|lines| lines.bad);
            self.instead = Some(refused.problem(why_lines).into_http1());
            self.linger = Some(LINGER_BYTES_MAX);
        }
        let instead = self.instead.as_mut()?;
        while instead.has_remaining() {
            let written = match Pin::new(&mut self.transport).poll_write(cx, instead) {
                Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written,
                Poll::Pending => {
                    self.watch.stalled();
                    return Some(Poll::Pending);
                }
            };
            match written {
                Ok(written) => instead.advance(written),
                Err(error) => return Some(Poll::Ready(Err(error))),
            }
        }
        self.instead = None;
        Some(Poll::Ready(Ok(answer.len())))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.prefix.has_remaining() {
            let part = this.prefix.split_to(this.prefix.len().min(buf.remaining()));
            buf.put_slice(&part);
        } else {
            ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
        }
        let new = &mut buf.filled_mut()[before..];
        if !new.is_empty()
            && let Some(lines) = &mut this.lines
        {
            match this.watch.heard() {
                Heard::NewHead => *lines = Lines::default(),
                Heard::Head => {}
                Heard::Other => return Poll::Ready(Ok(())),
            }
            lines.check(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(instead) = self.poll_instead(cx, buf) {
            return instead;
        }
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && let Some(instead) = self.poll_instead(cx, only)
        {
            return instead;
        }
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        match flushed {
            Poll::Ready(_) => self.watch.progressed(),
            Poll::Pending => self.watch.stalled(),
        }
        flushed
    }

    /// After a refusal what the client still sends is read off: a socket that is closed with unread bytes is reset, and
    /// the reset overtakes the reason.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.transport).poll_shutdown(cx))?;
        let mut scratch = [0; 1024];
        while let Some(left) = this.linger {
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.transport).poll_read(cx, &mut buf))?;
            let read = buf.filled().len();
            this.linger = left.checked_sub(read).filter(|_| read > 0);
        }
        Poll::Ready(Ok(()))
    }
}

/// Looks at the lines of a head. hyper takes a bare LF for the end of a line, RFC 9112 does not, and a proxy may not: two
/// who disagree about where a head ends can be made to disagree about whose request comes next.
#[derive(Debug, Default)]
struct Lines {
    previous: u8,
    /// Whether a line has come that has anything in it: hyper passes over empty ones before the first.
    begun: bool,
    /// Whether the line has anything in it.
    filled: bool,
    /// The empty line has come: what follows is none of ours.
    over: bool,
    bad: bool,
}

impl Lines {
    /// Makes of a bare LF a byte that no head may have.
    fn check(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.over {
                return;
            }
            match *byte {
                b'\n' if self.previous != b'\r' => {
                    *byte = 0;
                    self.bad = true;
                }
                b'\n' => {
                    self.over = self.begun && !self.filled;
                    self.filled = false;
                }
                b'\r' => {}
                _ => (self.begun, self.filled) = (true, true),
            }
            self.previous = *byte;
        }
    }
}

/// An answer that hyper makes when it cannot read a head: a status and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedByHyper {
    Malformed,
    TooLarge,
}

fn refused_by_hyper(answer: &[u8]) -> Option<RefusedByHyper> {
    let status = answer.strip_prefix(b"HTTP/1.1 4").and_then(|rest| rest.first_chunk::<2>())?;
    let text = std::str::from_utf8(answer).ok().filter(|text| text.len() < 200 && text.ends_with("\r\n\r\n"))?;
    let ours = text.contains("content-type") || !text.contains("\r\nconnection: close\r\ncontent-length: 0\r\n");
    match status {
        _ if ours => None,
        b"00" => Some(RefusedByHyper::Malformed),
        b"14" | b"31" => Some(RefusedByHyper::TooLarge),
        _ => None,
    }
}

impl RefusedByHyper {
    fn problem(self, lines: bool) -> Problem {
        match self {
            Self::Malformed if lines => Problem::new(
                ErrorCode::BadRequest,
                "a line of the request's head ends with LF alone; end it with CR LF",
            ),
            Self::Malformed => Problem::new(ErrorCode::BadRequest, "the request's head is not HTTP/1.1; see RFC 9112"),
            Self::TooLarge => Problem::new(
                ErrorCode::HeadersTooLarge,
                "the request's head is too large; send fewer or shorter headers",
            ),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pieces: &[&str]) -> (String, bool) {
        let mut lines = Lines::default();
        let mut seen = String::new();
        for piece in pieces {
            let mut bytes = piece.as_bytes().to_vec();
            lines.check(&mut bytes);
            seen += &String::from_utf8(bytes).expect("UTF-8 stays UTF-8");
        }
        (seen, lines.bad)
    }

    #[test]
    fn a_bare_lf_in_a_head_is_made_invalid_and_a_body_is_left_alone() {
        let good = "GET / HTTP/1.1\r\nhost: a\r\n\r\na\nb";
        assert_eq!(checked(&[good]), (good.to_owned(), false));
        assert_eq!(checked(&["GET / HTTP/1.1\r", "\nhost: a\r\n\r", "\na\nb"]), (good.to_owned(), false));
        assert_eq!(checked(&["GET / HTTP/1.1\nhost: a\r\n\r\n"]), ("GET / HTTP/1.1\0host: a\r\n\r\n".to_owned(), true));
        assert!(checked(&["GET / HTTP/1.1\r\nhost: a\r\n\n"]).1);
        assert!(checked(&["\r\n\r", "\nGET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"]).1);
        assert!(!checked(&["\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\n"]).1);
    }

    #[test]
    fn only_answers_of_hyper_are_replaced() {
        let hypers = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(refused_by_hyper(hypers), Some(RefusedByHyper::Malformed));
        let ours = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(refused_by_hyper(ours), None);
        assert_eq!(refused_by_hyper(b"HTTP/1.1 4"), None);
    }
}
