//! When a silent client is pinged, and when it is given up.

use std::time::{Duration, Instant};

/// `Quiet => Pinged => Quiet`: anything heard ends a wait for a pong.
#[derive(Debug)]
pub(super) struct Timer {
    ping_interval: Duration,
    pong_timeout: Duration,
    last_heard: Instant,
    pinged: Option<Instant>,
}

/// What the time asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Close,
}

impl Timer {
    pub(super) fn new(ping_interval: Duration, pong_timeout: Duration, now: Instant) -> Self {
        Self { ping_interval, pong_timeout, last_heard: now, pinged: None }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.pinged = None;
    }

    /// `None` when it lies beyond the end of time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.pinged {
            Some(at) => at.checked_add(self.pong_timeout),
            None => self.last_heard.checked_add(self.ping_interval),
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        match self.deadline() {
            Some(deadline) if deadline <= now => {}
            _ => return Due::Nothing,
        }
        if self.pinged.is_some() {
            return Due::Close;
        }
        self.pinged = Some(now);
        Due::Ping
    }
}
