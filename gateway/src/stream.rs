//! A connection's bytes, whatever carries them.
//!
//! The driver waits for a stream and reads it; the shard's sweep writes it in between, from another task of the same
//! thread. So reading and writing never wait, and who waits is always the driver.

mod other;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
#[cfg(test)]
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

pub(crate) use self::other::Other;

/// A connection's bytes. TCP itself where possible: the sweep writes it without waking its task. Anything else (TLS, a
/// stream of HTTP/2) through its task's waker.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// Boxed: most connections are TCP, and these are to be small.
    Other(Box<RefCell<Other>>),
}

impl Stream {
    /// A stream that is not TCP itself.
    pub(crate) fn other(io: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        Self::Other(Box::new(RefCell::new(Other::new(io))))
    }

    /// Waits until [`Stream::try_read`] has something: bytes, the end or an error. Cancel safe.
    #[cfg(test)]
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Waits until it is worth while to write again. May resolve too early, never too late. Cancel safe.
    #[cfg(test)]
    pub(crate) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// [`Stream::readable`], for the one task that drives the stream.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Other(other) => other.borrow_mut().poll_readable(cx),
        }
    }

    /// [`Stream::writable`], for the one task that drives the stream.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Other(other) => other.borrow_mut().poll_writable(cx),
        }
    }

    /// Reads what is there; 0 at the end, [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => try_read(stream, buffer),
            Self::Other(other) => other.borrow_mut().try_read(buffer),
        }
    }

    /// Writes what is taken at once; [`io::ErrorKind::WouldBlock`] when that is nothing.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            // The kernel takes one slice for less than a list of one.
            Self::Tcp(stream) => match slices {
                [only] => stream.try_write(only),
                _ => stream.try_write_vectored(slices),
            },
            Self::Other(other) => other.borrow_mut().try_write_vectored(slices),
        }
    }

    /// Whether bytes were taken that have not left yet: then [`Stream::writable`] has to be waited for, though there be
    /// nothing more to write.
    pub(crate) fn is_flushing(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Other(other) => other.borrow().is_flushing(),
        }
    }

    /// Ends our half and reads on until the other end does the same: a stream that is dropped with unread bytes is
    /// reset, and the reset overtakes what is still on its way to the client. Takes as long as the other end likes.
    pub(crate) async fn shutdown_and_linger(self) {
        // Nobody is told when this fails: the connection is over either way.
        let _ = match self {
            Self::Tcp(stream) => linger(stream).await,
            Self::Other(other) => linger(other.into_inner().into_io()).await,
        };
    }
}

/// Reads what is there. When that did not fill the buffer there is no more, and nobody has to ask the kernel again to hear
/// so: whatever comes later makes the socket readable anew.
pub(crate) fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let read = stream.try_read(buffer)?;
    if (1..buffer.len()).contains(&read) {
        let drained = stream.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
        debug_assert!(drained.is_err());
    }
    Ok(read)
}

async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    io.shutdown().await?;
    let mut scratch = [0; 512];
    while io.read(&mut scratch).await? > 0 {}
    Ok(())
}
