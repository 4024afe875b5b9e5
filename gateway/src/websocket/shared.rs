//! What the connections of one thread share, so that each of them is small.

use std::cell::RefCell;
use std::sync::Arc;

use groupcast_channel_layer::deflate::Inflater;
use groupcast_protocol::CloseCode;
use groupcast_protocol::session::{Limits, Rate};

use super::wheel::Wheel;
use crate::config::LimitsConfig;

/// The buffer that sockets are read into. What it holds is taken out before the next connection's turn.
const SCRATCH_BYTES: usize = 64 << 10;
/// Control frames that may come at once: a client that was asleep may have many to send.
const CONTROL_FRAMES_BURST: u32 = 100;

/// See the [module](self).
pub(crate) struct Shared {
    /// Empty while a connection reads.
    scratch: RefCell<Vec<u8>>,
    /// Boxed and made when first needed: it is large, and mostly nobody compresses.
    inflater: RefCell<Option<Box<Inflater>>>,
    pub(crate) wheel: Wheel,
    pub(super) session_limits: Arc<Limits>,
}

impl Shared {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let session_limits = Limits {
            subscriptions_max: limits.subscriptions_per_connection,
            in_flight_max: limits.commands_in_flight,
            message_bytes_max: limits.message_bytes.0,
            commands: Rate {
                per_second: limits.commands_per_second,
                burst: limits.commands_per_second.saturating_mul(2),
            },
            control_frames: Rate { per_second: limits.control_frames_per_second, burst: CONTROL_FRAMES_BURST },
            ping_interval: limits.ping_interval.0,
            pong_timeout: limits.pong_timeout.0,
        };
        Self {
            scratch: RefCell::default(),
            inflater: RefCell::default(),
            wheel: Wheel::default(),
            session_limits: Arc::new(session_limits),
        }
    }

    /// The buffer to read into; give it back.
    pub(super) fn take_scratch(&self) -> Vec<u8> {
        let mut scratch = self.scratch.take();
        // Made when first needed, and again if a connection has panicked with it.
        scratch.resize(SCRATCH_BYTES, 0);
        scratch
    }

    pub(super) fn give_back(&self, scratch: Vec<u8>) {
        self.scratch.replace(scratch);
    }

    /// Inflates a message; see [`Inflater::inflate`].
    pub(super) fn inflate(&self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, (CloseCode, String)> {
        self.inflater.borrow_mut().get_or_insert_default().inflate(payload, bytes_max)
    }
}
