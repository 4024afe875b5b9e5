//! What came from a broker and was dropped: counted by the reason, and told in the log once in a while.
//!
//! Whoever can write to a broker can write any number of such things. So each costs a counter, and all together a line a
//! minute.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groupcast_protocol::{EnvelopeError, MessageError};

use super::seldom::Seldom;
use crate::stats::Counter;

/// How often the log says that something was dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why something was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is nothing that a node writes.
    Unreadable,
    /// It is larger than messages may be.
    TooLarge,
    /// It lies where only nodes write, and no node has written it.
    Stray,
    /// It is not the next message of its group, and the broker does not know its number, or too many such wait.
    Misplaced,
}

/// Counts what one node has dropped since its start.
#[derive(Debug)]
pub struct Dropped {
    counters: [Counter; Reason::ALL.len()],
    /// How many the log knows of.
    told: AtomicU64,
    seldom: Seldom,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::TooLarge, Self::Stray, Self::Misplaced];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Stray => "stray",
            Self::Misplaced => "misplaced",
        }
    }
}

impl Dropped {
    /// Takes note of one; never waits.
    pub fn note(&self, reason: Reason) {
        self.note_many(reason, 1);
    }

    /// As [`Dropped::note`], of several.
    pub fn note_many(&self, reason: Reason, count: u64) {
        self.counters[reason as usize].add(count);
    }

    /// What was read, or nothing where that failed, which is noted.
    pub(crate) fn sift<T>(&self, read: Result<T, Reason>) -> Option<T> {
        read.inspect_err(|reason| self.note(*reason)).ok()
    }

    /// How many there were, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|reason| (reason, self.counters[reason as usize].value()))
    }

    /// Tells the log how many there are that it does not know of; to be called again and again.
    pub(crate) fn tell(&self) {
        let all: u64 = self.counts().map(|(_, count)| count).sum();
        let told = self.told.load(Ordering::Relaxed);
        if all == told || !self.seldom.is_due() {
            return;
        }
        self.told.store(all, Ordering::Relaxed);
        let reasons: Vec<String> =
            self.counts().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
        tracing::warn!(
            dropped = all - told,
            since_start = reasons.join(", "),
            "something came from the broker that no gateway writes; who else may write under our prefix?"
        );
    }
}

impl Default for Dropped {
    fn default() -> Self {
        let (counters, told) = (Default::default(), AtomicU64::new(0));
        Self { counters, told, seldom: Seldom::new(TELL_EVERY) }
    }
}

impl From<MessageError> for Reason {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::TooLarge { .. } => Self::TooLarge,
            MessageError::NotUtf8
            | MessageError::NotAnObject
            | MessageError::Json(_)
            | MessageError::EmptyType
            | MessageError::TooDeep => Self::Unreadable,
        }
    }
}

impl From<EnvelopeError> for Reason {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Message(error) => error.into(),
            EnvelopeError::Form | EnvelopeError::Position(_) => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let dropped = Dropped::default();
        for (reason, count) in Reason::ALL.into_iter().zip(1..) {
            dropped.note_many(reason, count);
        }
        assert_eq!(dropped.counts().map(|(_, count)| count).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(dropped.sift::<()>(Err(Reason::Unreadable)), None);
        assert_eq!(dropped.sift(Ok(7)), Some(7));
        assert_eq!(dropped.counts().map(|(_, count)| count).collect::<Vec<_>>(), [2, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_knows_of_all_in_the_end() {
        let dropped = Dropped::default();
        dropped.note(Reason::Stray);
        dropped.tell();
        dropped.note_many(Reason::Stray, 5);
        dropped.tell();
        assert_eq!(dropped.told.load(Ordering::Relaxed), 1, "not yet");
        tokio::time::advance(TELL_EVERY).await;
        dropped.tell();
        assert_eq!(dropped.told.load(Ordering::Relaxed), 6);
    }
}
