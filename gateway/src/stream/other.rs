//! A stream that knows only `poll_read` and `poll_write`, made to look like a socket: tried at any time, waited for by
//! one task.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is copied together for a stream that takes one slice at a time: one record of TLS.
const COPY_MAX: usize = 16 << 10;
/// What is read when it is not known how much there is.
const READ_BYTES: usize = 2 << 10;

/// Bytes in both directions.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// See the [module](self).
pub(crate) struct Other {
    io: Box<dyn Io>,
    /// What came while the task waited. Given back when it has been read.
    arrived: Vec<u8>,
    read: ReadState,
    write: WriteState,
    ready: Arc<WriteReady>,
}

/// `Open => Ended | Failed => Ended`
enum ReadState {
    Open,
    Failed(io::Error),
    Ended,
}

/// `Free => Full => Free`, `Free => Flushing => Free`
#[derive(Clone, Copy, PartialEq)]
enum WriteState {
    Free,
    /// A write was refused.
    Full,
    /// A write was taken and has not left.
    Flushing,
}

/// Wakes the stream's task when writing may go on, and remembers it: the task is woken for other reasons, too, and a
/// writer that is tried again at each of them would be tried in vain for ever.
#[derive(Default)]
struct WriteReady {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WriteReady {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Other {
    pub(super) fn new(io: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        Self {
            io: Box::new(io),
            arrived: Vec::new(),
            read: ReadState::Open,
            write: WriteState::Free,
            ready: Arc::default(),
        }
    }

    pub(super) fn into_io(self) -> impl AsyncRead + AsyncWrite + Unpin {
        self.io
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.write == WriteState::Flushing
    }

    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.arrived.is_empty() || !matches!(self.read, ReadState::Open) {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.read = ReadState::Ended,
            Poll::Ready(Ok(())) => self.arrived.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(error)) => self.read = ReadState::Failed(error),
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.arrived.is_empty() {
            let taken = self.arrived.len().min(buffer.len());
            buffer[..taken].copy_from_slice(&self.arrived[..taken]);
            self.arrived.drain(..taken);
            if self.arrived.is_empty() {
                self.arrived = Vec::new();
            }
            return Ok(taken);
        }
        match std::mem::replace(&mut self.read, ReadState::Ended) {
            ReadState::Ended => return Ok(0),
            ReadState::Failed(error) => return Err(error),
            ReadState::Open => self.read = ReadState::Open,
        }
        let mut buffer = ReadBuf::new(buffer);
        // Nobody is woken by this: who finds nothing waits by `poll_readable` next, and leaves his own waker there.
        match Pin::new(&mut self.io).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
        }
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ready.task.register(cx.waker());
        match self.write {
            WriteState::Free => Poll::Ready(Ok(())),
            WriteState::Full if self.ready.woken.load(Ordering::Acquire) => Poll::Ready(Ok(())),
            WriteState::Full => Poll::Pending,
            WriteState::Flushing => self.poll_flush(),
        }
    }

    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.write == WriteState::Flushing {
            match self.poll_flush() {
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
                Poll::Ready(flushed) => flushed?,
            }
        }
        match self.poll_write(slices) {
            Poll::Pending => {
                self.write = WriteState::Full;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Poll::Ready(written) => {
                let written = written?;
                // Pending is noted in the state: the bytes are taken all the same.
                if let Poll::Ready(flushed) = self.poll_flush() {
                    flushed?;
                }
                Ok(written)
            }
        }
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let waker = self.fresh_waker();
        let cx = &mut Context::from_waker(&waker);
        let io = Pin::new(&mut self.io);
        if io.is_write_vectored() {
            return io.poll_write_vectored(cx, slices);
        }
        match slices {
            [only] => io.poll_write(cx, &only[..only.len().min(COPY_MAX)]),
            slices => io.poll_write(cx, &together(slices)),
        }
    }

    fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        let waker = self.fresh_waker();
        let flushed = Pin::new(&mut self.io).poll_flush(&mut Context::from_waker(&waker));
        self.write = if flushed.is_pending() { WriteState::Flushing } else { WriteState::Free };
        flushed
    }

    fn fresh_waker(&self) -> Waker {
        self.ready.woken.store(false, Ordering::Release);
        self.ready.clone().into()
    }
}

fn together(slices: &[IoSlice<'_>]) -> Vec<u8> {
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut bytes = Vec::with_capacity(all.min(COPY_MAX));
    for slice in slices {
        let room = COPY_MAX - bytes.len();
        bytes.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    bytes
}
