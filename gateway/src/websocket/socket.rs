//! A socket as the layer's sink: it takes bytes when it can, and hears what the shard has to say.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::IoSlice;

use groupcast_channel_layer::{Signal, Sink};
use tokio::sync::Notify;

use crate::stream::Stream;

/// A socket that the shard writes and the connection's driver reads. Lives on one thread.
pub(super) struct Socket {
    pub(super) stream: Stream,
    /// Rung for each signal; the driver sleeps on it.
    pub(super) bell: Notify,
    signals: RefCell<Vec<Signal>>,
    /// Whether the socket has taken bytes since the driver last asked.
    progress: Cell<bool>,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, bell: Notify::new(), signals: RefCell::default(), progress: Cell::new(false) }
    }

    /// What the shard has said since the last call.
    pub(super) fn take_signals(&self) -> Vec<Signal> {
        self.signals.take()
    }

    /// Whether bytes were written since the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.progress.take()
    }
}

impl Sink for Socket {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.try_write_vectored(slices)?;
        self.progress.set(true);
        Ok(written)
    }

    fn signal(&self, signal: Signal) {
        self.signals.borrow_mut().push(signal);
        self.bell.notify_one();
    }
}
