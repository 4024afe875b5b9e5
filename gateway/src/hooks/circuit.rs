//! `Circuit`: leaves a service alone that does not answer, and tries it again with one call.

use std::time::Duration;

use tokio::time::Instant;

/// What has become of the last calls, as far as it decides about the next one.
#[derive(Debug)]
pub(super) struct Circuit {
    failures_max: u32,
    open_for: Duration,
    state: State,
}

/// `Closed => Open => Probing => (Closed | Open)`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls pass; so many in a row have failed.
    Closed(u32),
    /// None passes before this time.
    Open(Instant),
    /// One has passed to find out; the others wait for what it tells.
    Probing,
}

/// A call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Ordinary,
    /// The one that finds out.
    Probe,
}

impl Circuit {
    pub(super) fn new(failures_max: u32, open_for: Duration) -> Self {
        Self { failures_max, open_for, state: State::Closed(0) }
    }

    /// Whether a call could be made.
    pub(super) fn would_pass(&self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open(until) => now >= until,
            State::Probing => false,
        }
    }

    /// Lets a call pass, or not.
    pub(super) fn enter(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed(_) => Some(Pass::Ordinary),
            State::Open(until) if now >= until => {
                self.state = State::Probing;
                Some(Pass::Probe)
            }
            State::Open(_) | State::Probing => None,
        }
    }

    /// A call was answered. One that was made before the circuit opened says nothing about now.
    pub(super) fn succeeded(&mut self, pass: Pass) {
        match (self.state, pass) {
            (State::Closed(_), Pass::Ordinary) | (State::Probing, Pass::Probe) => self.state = State::Closed(0),
            (State::Closed(_) | State::Open(_), Pass::Probe) | (State::Open(_) | State::Probing, Pass::Ordinary) => {}
        }
    }

    /// A call was not answered. Says whether the circuit has opened by it.
    pub(super) fn failed(&mut self, pass: Pass, now: Instant) -> bool {
        match (self.state, pass) {
            (State::Closed(failures), Pass::Ordinary) if failures + 1 < self.failures_max => {
                self.state = State::Closed(failures + 1);
                false
            }
            (State::Closed(_), Pass::Ordinary) | (State::Probing, Pass::Probe) => {
                self.state = State::Open(now + self.open_for);
                true
            }
            (State::Closed(_) | State::Open(_), Pass::Probe) | (State::Open(_) | State::Probing, Pass::Ordinary) => {
                false
            }
        }
    }

    /// Nobody waits for a call any more, and what would have come of it is not known: the next one finds out.
    pub(super) fn given_up(&mut self, pass: Pass, now: Instant) {
        if (self.state, pass) == (State::Probing, Pass::Probe) {
            self.state = State::Open(now);
        }
    }

    /// 0: closed, 1: trying, 2: open.
    pub(super) fn level(&self) -> i64 {
        match self.state {
            State::Closed(_) => 0,
            State::Probing => 1,
            State::Open(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(3, OPEN_FOR);
        for opens in [false, false, true] {
            let pass = circuit.enter(now).expect("it is closed");
            assert_eq!(circuit.failed(pass, now), opens);
        }
        circuit
    }

    #[test]
    fn it_opens_after_failures_in_a_row() {
        let now = Instant::now();
        let mut circuit = Circuit::new(3, OPEN_FOR);
        for _ in 0..10 {
            assert!(!circuit.failed(Pass::Ordinary, now) && !circuit.failed(Pass::Ordinary, now));
            circuit.succeeded(Pass::Ordinary);
        }
        let mut circuit = opened(now);
        assert!(!circuit.would_pass(now) && circuit.enter(now).is_none());
        assert_eq!(circuit.level(), 2);
    }

    #[test]
    fn one_call_finds_out_and_decides() {
        let now = Instant::now();
        let later = now + OPEN_FOR;
        let mut circuit = opened(now);
        assert!(circuit.would_pass(later));
        assert_eq!(circuit.enter(later), Some(Pass::Probe));
        assert!(!circuit.would_pass(later) && circuit.enter(later).is_none());
        assert!(circuit.failed(Pass::Probe, later), "it opens again");
        assert_eq!(circuit.enter(later), None);
        assert_eq!(circuit.enter(later + OPEN_FOR), Some(Pass::Probe));
        circuit.succeeded(Pass::Probe);
        assert_eq!((circuit.level(), circuit.enter(later)), (0, Some(Pass::Ordinary)));
    }

    #[test]
    fn old_calls_do_not_decide_and_a_lost_probe_is_made_again() {
        let now = Instant::now();
        let mut circuit = opened(now);
        circuit.succeeded(Pass::Ordinary);
        assert!(!circuit.failed(Pass::Ordinary, now));
        assert_eq!(circuit.enter(now), None);
        let later = now + OPEN_FOR;
        assert_eq!(circuit.enter(later), Some(Pass::Probe));
        circuit.succeeded(Pass::Ordinary);
        assert_eq!(circuit.level(), 1);
        circuit.given_up(Pass::Ordinary, later);
        assert_eq!(circuit.enter(later), None);
        circuit.given_up(Pass::Probe, later);
        assert_eq!(circuit.enter(later), Some(Pass::Probe));
    }
}
