//! What a connection does when time passes. All its deadlines are one alarm on the thread's wheel.

use std::task::Context;
use std::time::Duration;

use groupcast_protocol::close::CloseCode;
use tokio::time::Instant;

use super::{Connection, State};
use crate::clock;

/// How often a drain looks again for commands that are still under way.
const DRAIN_RETRY: Duration = Duration::from_millis(50);
/// A client that is told to come back does so within this time, spread by chance.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// From the first byte of a message to its last: what has come of it is kept meanwhile.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Where larger messages are allowed, who sends so many bytes a second has the time that he needs.
const MESSAGE_BYTES_PER_SECOND: usize = 8 << 10;

impl Connection {
    /// Whether a deadline has come; otherwise the task is woken when it does.
    pub(super) fn poll_time(&mut self, cx: &Context<'_>) -> bool {
        let deadline = self.deadline();
        let now = Instant::now();
        let due = deadline.is_some_and(|deadline| deadline <= now);
        if due {
            self.on_time(now);
        } else {
            self.alarm.set(deadline, cx.waker());
        }
        due
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match self.state {
            State::Draining(at) | State::Closing(at) | State::PeerClosed(at) => Some(at),
            State::Open | State::Over | State::Cut => None,
        };
        let session = self.session.poll_timeout().map(Instant::from_std);
        [own, self.access_deadline(), self.stall_deadline(), self.message_deadline(), session]
            .into_iter()
            .flatten()
            .min()
    }

    /// As long as there is a session to be ended.
    fn access_deadline(&self) -> Option<Instant> {
        self.access.until().filter(|_| !self.session.is_closed())
    }

    fn stall_deadline(&self) -> Option<Instant> {
        self.stalled_since?.checked_add(self.local.app.config.limits.write_timeout.0)
    }

    fn message_deadline(&self) -> Option<Instant> {
        let since = self.unfinished_since?;
        let seconds = self.read_limits().message_bytes_max / MESSAGE_BYTES_PER_SECOND;
        since.checked_add(MESSAGE_TIMEOUT.max(Duration::from_secs(seconds as u64)))
    }

    fn on_time(&mut self, now: Instant) {
        if self.stall_deadline().is_some_and(|deadline| now >= deadline) {
            // 3008, but a socket that takes nothing takes no close frame either.
            self.close_code = CloseCode::Timeout.as_u16();
            self.state = State::Cut;
            return;
        }
        if self.message_deadline().is_some_and(|deadline| now >= deadline) {
            return self.session.close(CloseCode::Policy, "a message did not end in time");
        }
        self.end_access(now);
        match self.state {
            State::Closing(at) | State::PeerClosed(at) if now >= at => self.state = State::Cut,
            State::Draining(at) if now >= at && self.session.is_idle() => {
                self.session.close(CloseCode::Restart, "the gateway restarts; connect again");
            }
            State::Draining(at) if now >= at => self.state = State::Draining(now + DRAIN_RETRY),
            State::Open | State::Draining(_) | State::Closing(_) | State::PeerClosed(_) | State::Over | State::Cut => {
                self.session.handle_timeout(now.into_std());
            }
        }
    }

    pub(super) fn tell_closing(&mut self) {
        let retry_after = RETRY_AFTER_MAX.mul_f64(clock::random_fraction());
        self.session.drain(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
    }

    /// Closes at a moment within `spread`: a thousand clients shall not come back at once.
    pub(super) fn drain(&mut self, spread: Duration) {
        if self.state == State::Open {
            self.tell_closing();
            self.state = State::Draining(Instant::now() + spread.mul_f64(clock::random_fraction()));
        }
    }
}
