//! A bounded pipe of bytes in memory: the shard writes at one end, hyper reads the body of the answer at the other.
//!
//! Both ends are on one thread, but a body has to be [`Send`]. The mutex is never contended, and held for a copy.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::body::HttpBody;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may wait to be read. At the bound the writer waits, and so stays where it is in its groups' logs. As much
/// as one write takes from a busy log; a quiet stream keeps nothing.
pub(super) const CAPACITY: usize = 64 << 10;

/// Makes a pipe; the bell rings when the writer should look again: there is room after it was full, or nobody reads any
/// more.
pub(super) fn pipe(bell: Arc<Notify>) -> (Writer, Reader) {
    let shared = Arc::new(Shared { state: Mutex::default(), bell });
    (Writer(shared.clone()), Reader(shared))
}

/// The end that is written. Dropped, it ends the body after what is in the pipe.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

/// The end that is read: the body of an answer. Dropped, it tells the writer.
#[derive(Debug)]
pub(super) struct Reader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// A write found no room, and the writer waits for the bell.
    refused: bool,
    /// Bytes were read since the writer last asked.
    progress: bool,
    /// Nothing more will be written.
    finished: bool,
    /// What was not read is lost, and the body ends with an error.
    aborted: bool,
    /// Nobody will read any more.
    gone: bool,
    reader: Option<Waker>,
}

impl Writer {
    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none, [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for slice in slices {
            let room = CAPACITY - state.bytes.len();
            let part = &slice[..slice.len().min(room)];
            state.bytes.put_slice(part);
            written += part.len();
        }
        if written == 0 {
            state.refused = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(written)
    }

    /// Drops what waits, and ends the body with an error instead of an end: its reader has not kept up.
    pub(super) fn abort(&self) {
        let mut state = self.0.state.lock();
        state.bytes = BytesMut::new();
        state.aborted = true;
    }

    /// Whether bytes were read since the last call, or none are left to be read.
    pub(super) fn take_progress(&self) -> bool {
        let mut state = self.0.state.lock();
        std::mem::take(&mut state.progress) || state.bytes.is_empty()
    }

    /// Whether there is room.
    pub(super) fn has_room(&self) -> bool {
        self.0.state.lock().bytes.len() < CAPACITY
    }

    /// Whether nobody reads any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.state.lock().gone
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.finished = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut state = self.0.state.lock();
        if state.bytes.is_empty() {
            if state.aborted {
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            if state.finished {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // All of it, with its allocation: a stream that is quiet keeps none.
        let bytes = std::mem::take(&mut state.bytes).freeze();
        state.progress = true;
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        if refused {
            self.0.bell.notify_one();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.state.lock().gone = true;
        self.0.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    fn write(writer: &Writer, parts: &[&[u8]]) -> Result<usize, io::ErrorKind> {
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        writer.write(&slices).map_err(|error| error.kind())
    }

    fn read(reader: &mut Reader) -> Option<Bytes> {
        let frame = reader.frame().now_or_never().expect("something is there")?;
        Some(frame.expect("it was not aborted").into_data().expect("only data are written"))
    }

    #[test]
    fn bytes_come_out_in_order_and_then_the_end() {
        let (writer, mut reader) = pipe(Arc::default());
        assert_eq!(write(&writer, &[b"ab", b"", b"c"]), Ok(3));
        assert_eq!(write(&writer, &[b"d"]), Ok(1));
        assert_eq!(read(&mut reader).expect("bytes"), "abcd");
        assert!(reader.frame().now_or_never().is_none(), "nothing is there");
        assert_eq!(write(&writer, &[b"e"]), Ok(1));
        drop(writer);
        assert_eq!(read(&mut reader).expect("bytes"), "e");
        assert_eq!(read(&mut reader), None);
    }

    #[test]
    fn a_full_pipe_takes_nothing_and_rings_when_it_is_read() {
        let bell = Arc::new(Notify::new());
        let (writer, mut reader) = pipe(bell.clone());
        let large = vec![b'x'; CAPACITY - 1];
        assert_eq!(write(&writer, &[&large, b"abc"]), Ok(CAPACITY));
        assert!(!writer.has_room() && !writer.take_progress());
        assert_eq!(write(&writer, &[b"d"]), Err(io::ErrorKind::WouldBlock));
        assert!(bell.notified().now_or_never().is_none(), "it has not been read");
        assert_eq!(read(&mut reader).map(|bytes| bytes.len()), Some(CAPACITY));
        assert!(bell.notified().now_or_never().is_some(), "there is room");
        assert!(writer.has_room() && writer.take_progress());
        assert_eq!(write(&writer, &[b"d"]), Ok(1));
        assert!(!writer.take_progress(), "that has not been read");
        assert_eq!(read(&mut reader).expect("bytes"), "d");
        assert!(bell.notified().now_or_never().is_none(), "nobody waits for room");
    }

    #[test]
    fn an_aborted_body_has_no_end() {
        let (writer, mut reader) = pipe(Arc::default());
        assert_eq!(write(&writer, &[b"a"]), Ok(1));
        writer.abort();
        drop(writer);
        let frame = reader.frame().now_or_never().flatten().expect("something is there");
        assert_eq!(frame.expect_err("it was aborted").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_writer_learns_that_nobody_reads() {
        let bell = Arc::new(Notify::new());
        let (writer, reader) = pipe(bell.clone());
        assert!(!writer.is_gone());
        drop(reader);
        assert!(writer.is_gone() && bell.notified().now_or_never().is_some());
        assert_eq!(write(&writer, &[b"a"]), Err(io::ErrorKind::BrokenPipe));
    }
}
