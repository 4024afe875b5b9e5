//! A socket as the layer's sink: it takes bytes when it can, and hears what the shard has to say.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::IoSlice;
use std::task::Waker;

use groupcast_channel_layer::{Signal, Sink};

use crate::stream::Stream;

/// A socket that the shard writes and the connection's driver reads. Lives on one thread.
pub(super) struct Socket {
    pub(super) stream: Stream,
    signals: RefCell<Vec<Signal>>,
    /// The driver's, once it has slept.
    driver: RefCell<Option<Waker>>,
    /// Something is new for the driver.
    rung: Cell<bool>,
    /// Whether the socket has taken bytes since the driver last asked.
    progress: Cell<bool>,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            signals: RefCell::default(),
            driver: RefCell::default(),
            rung: Cell::new(false),
            progress: Cell::new(false),
        }
    }

    /// What the shard has said since the last call.
    pub(super) fn take_signals(&self) -> Vec<Signal> {
        self.signals.take()
    }

    /// Whether bytes were written since the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.progress.take()
    }

    /// Whether the driver was rung for since the last call; from here on this waker is woken.
    pub(super) fn listen(&self, waker: &Waker) -> bool {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(known) => known.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
        self.rung.take()
    }

    fn ring(&self) {
        self.rung.set(true);
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl Sink for Socket {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.try_write_vectored(slices)?;
        self.progress.set(true);
        if self.stream.is_flushing() {
            // Only the driver waits.
            self.ring();
        }
        Ok(written)
    }

    fn signal(&self, signal: Signal) {
        self.signals.borrow_mut().push(signal);
        self.ring();
    }
}
