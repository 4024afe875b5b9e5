//! When messages are due, for publishers that send at a rate.

/// Lateness that comes from the grain of timers and not from the gateway.
const GRAIN_NS: u64 = 2_000_000;

/// The times at which one publisher's messages are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    begin: u64,
    /// Between two messages, in nanoseconds.
    gap: f64,
    sent: u64,
}

impl Schedule {
    /// One of `publishers` that send `rate` messages a second together, taking turns.
    pub(super) fn new(begin: u64, rate: f64, publisher: u32, publishers: u32) -> Self {
        let between_turns = 1e9 / rate;
        let begin = begin + (between_turns * f64::from(publisher)) as u64;
        Self { begin, gap: between_turns * f64::from(publishers), sent: 0 }
    }

    /// When the next message is due.
    pub(super) fn due(&self) -> u64 {
        self.begin + (self.sent as f64 * self.gap) as u64
    }

    /// Takes the next message if it is due: the moment its delays count from. That is now, unless it waited for more
    /// than a timer: then it is the moment it should have been sent, so that what piles up behind a slow answer counts.
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due();
        if now < due {
            return None;
        }
        self.sent += 1;
        Some(if now - due <= GRAIN_NS { now } else { due })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn publishers_take_turns() {
        let [mut first, mut second] = [0, 1].map(|n| Schedule::new(5 * MS, 100.0, n, 2));
        assert_eq!((first.due(), second.due()), (5 * MS, 15 * MS));
        assert_eq!((first.take(4 * MS), first.take(5 * MS), first.due()), (None, Some(5 * MS), 25 * MS));
        assert_eq!((second.take(16 * MS), second.due()), (Some(16 * MS), 35 * MS));
    }

    #[test]
    fn what_piled_up_counts_from_when_it_was_due() {
        let mut schedule = Schedule::new(0, 1000.0, 0, 1);
        let taken: Vec<u64> = std::iter::from_fn(|| schedule.take(5 * MS)).collect();
        assert_eq!(taken, [0, MS, 2 * MS, 5 * MS, 5 * MS, 5 * MS]);
        assert_eq!(schedule.due(), 6 * MS);
    }
}
