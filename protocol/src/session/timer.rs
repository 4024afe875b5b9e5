//! When a silent client is pinged, and when it is given up.

use std::time::Instant;

use super::Limits;

/// `Quiet => Pinged => Quiet`: anything heard ends a wait for a pong.
#[derive(Debug)]
pub(super) enum Timer {
    /// Something was heard at this time.
    Quiet(Instant),
    /// A ping was sent at this time.
    Pinged(Instant),
}

/// What the time asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Close,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self::Quiet(now)
    }

    pub(super) fn heard(&mut self, now: Instant) {
        *self = Self::Quiet(now);
    }

    /// `None` when it lies beyond the end of time.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match self {
            Self::Quiet(since) => since.checked_add(limits.ping_interval),
            Self::Pinged(at) => at.checked_add(limits.pong_timeout),
        }
    }

    pub(super) fn due(&mut self, limits: &Limits, now: Instant) -> Due {
        match self.deadline(limits) {
            Some(deadline) if deadline <= now => {}
            _ => return Due::Nothing,
        }
        match self {
            Self::Pinged(_) => Due::Close,
            Self::Quiet(_) => {
                *self = Self::Pinged(now);
                Due::Ping
            }
        }
    }
}
