//! What an HTTP connection is waiting for, and until when: one deadline for each connection, whatever its state.
//!
//! ```text
//! first byte or head => answering => idle => head => answering => …     and beside that: a write that does not go on
//! ```

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::config::LimitsConfig;

/// The state of one connection. Its socket says what comes and goes, its service what is asked and answered. Never
/// leaves its thread; hyper wants it `Send` nevertheless.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
}

#[derive(Debug)]
struct State {
    waits: Waits,
    /// Requests that are not fully answered, and what became of such.
    active: usize,
    stalled_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Waits {
    /// For the rest of a head.
    Head(Instant),
    /// For the next request.
    Idle(Instant),
    /// For us, not for the client.
    Nothing,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing is under way: it may be closed in good order.
    Idle,
    /// The client does not go on with what it began.
    Stalled,
}

/// What bytes are that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The beginning of a head.
    NewHead,
    /// More of it.
    Head,
    /// A body, or a request before its turn.
    Other,
}

/// Keeps a connection from being idle.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Watch>);

impl Watch {
    /// Of a connection whose first request is awaited.
    pub(super) fn new(limits: &LimitsConfig) -> Arc<Self> {
        let header_timeout = limits.header_timeout.0;
        let waits = Waits::Head(Instant::now() + header_timeout);
        Arc::new(Self {
            state: Mutex::new(State { waits, active: 0, stalled_since: None }),
            header_timeout,
            idle_timeout: limits.idle_timeout.0,
            write_timeout: limits.write_timeout.0,
        })
    }

    /// A request has come, or something else keeps the connection in use.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.active += 1;
        state.waits = Waits::Nothing;
        drop(state);
        Busy(self.clone())
    }

    /// Bytes have come. Which ones, as far as it is known.
    pub(super) fn heard(&self) -> Heard {
        let mut state = self.state.lock();
        match state.waits {
            Waits::Idle(_) => {
                state.waits = Waits::Head(Instant::now() + self.header_timeout);
                Heard::NewHead
            }
            Waits::Head(_) => Heard::Head,
            Waits::Nothing => Heard::Other,
        }
    }

    /// A write made no progress.
    pub(super) fn stalled(&self) {
        self.state.lock().stalled_since.get_or_insert_with(Instant::now);
    }

    /// A write made progress.
    pub(super) fn progressed(&self) {
        self.state.lock().stalled_since = None;
    }

    /// Resolves when a deadline has passed. Wakes now and then instead of following each change.
    pub(super) async fn expired(&self) -> Expired {
        let nap = self.header_timeout.min(self.idle_timeout).min(self.write_timeout);
        loop {
            let now = Instant::now();
            let next = match self.deadline() {
                Some((deadline, why)) if deadline <= now => return why,
                Some((deadline, _)) => deadline.min(now + nap),
                None => now + nap,
            };
            sleep_until(next).await;
        }
    }

    fn deadline(&self) -> Option<(Instant, Expired)> {
        let state = self.state.lock();
        let waits = match state.waits {
            Waits::Head(at) => Some((at, Expired::Stalled)),
            Waits::Idle(at) => Some((at, Expired::Idle)),
            Waits::Nothing => None,
        };
        let write = state.stalled_since.map(|since| (since + self.write_timeout, Expired::Stalled));
        [waits, write].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.active -= 1;
        if state.active == 0 {
            state.waits = Waits::Idle(Instant::now() + self.0.idle_timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Arc<Watch> {
        Watch::new(&LimitsConfig::default())
    }

    async fn ends_after(watch: &Watch) -> (u64, Expired) {
        let start = Instant::now();
        let why = watch.expired().await;
        (start.elapsed().as_secs(), why)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_head_is_ended_soon_and_who_is_idle_later() {
        assert_eq!(ends_after(&watch()).await, (5, Expired::Stalled));
        let served = watch();
        drop(served.busy());
        assert_eq!(ends_after(&served).await, (30, Expired::Idle));
        let trickles = watch();
        drop(trickles.busy());
        assert_eq!(trickles.heard(), Heard::NewHead);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(trickles.heard(), Heard::Head, "more of the same head does not put the end off");
        assert_eq!(ends_after(&trickles).await, (2, Expired::Stalled));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_the_time_it_takes_as_long_as_the_client_reads() {
        let watch = watch();
        let _answering = watch.busy();
        assert_eq!(watch.heard(), Heard::Other, "what comes meanwhile is no head");
        assert!(tokio::time::timeout(Duration::from_secs(600), watch.expired()).await.is_err());
        watch.stalled();
        tokio::time::advance(Duration::from_secs(5)).await;
        watch.progressed();
        watch.stalled();
        assert_eq!(ends_after(&watch).await, (watch.write_timeout.as_secs(), Expired::Stalled));
    }
}
