//! `Ledger`: what one reader of a group got, held against what was sent.

/// Follows one reader of messages that are numbered from 0 without holes.
#[derive(Debug, Default)]
pub struct Ledger {
    next: u64,
    received: u64,
    missed: u64,
    gaps: u64,
}

impl Ledger {
    /// Takes a frame as it came. Panics when a message is twice there, out of order, or missing without a `gap`.
    #[track_caller]
    pub fn take(&mut self, frame: &str) {
        if frame.contains(r#""type":"gap""#) {
            let missed = number(frame, r#""missed":"#).expect("a gap of one gateway has a count");
            assert!(missed > 0, "a gap of nothing: {frame}");
            self.missed += missed;
            self.next += missed;
            self.gaps += 1;
            return;
        }
        let n = number(frame, r#""n":"#).unwrap_or_else(|| panic!("neither a message nor a gap: {frame}"));
        assert_eq!(n, self.next, "after {} messages and {} missed", self.received, self.missed);
        self.next += 1;
        self.received += 1;
    }

    /// How many messages are accounted for.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// How many messages came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many messages were told to be missed, in how many gaps.
    pub fn missed(&self) -> (u64, u64) {
        (self.missed, self.gaps)
    }
}

/// The whole number behind a key; a million frames are not parsed for it.
pub(crate) fn number(frame: &str, key: &str) -> Option<u64> {
    let (_, rest) = frame.split_once(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u64) -> String {
        format!(r#"{{"type":"message","group":"g","message":{{"type":"tick","n":{n}}}}}"#)
    }

    fn follow(frames: &[String]) -> Ledger {
        let mut ledger = Ledger::default();
        frames.iter().for_each(|frame| ledger.take(frame));
        ledger
    }

    #[test]
    fn gaps_count_as_missed() {
        let gap = r#"{"type":"gap","group":"g","missed":3,"reason":"slow_consumer"}"#.to_owned();
        let ledger = follow(&[message(0), message(1), gap, message(5)]);
        assert_eq!((ledger.position(), ledger.received(), ledger.missed()), (6, 3, (3, 1)));
    }

    #[test]
    #[should_panic(expected = "after 1 messages")]
    fn a_silent_loss_is_found() {
        follow(&[message(0), message(2)]);
    }

    #[test]
    #[should_panic(expected = "after 2 messages")]
    fn a_repeat_is_found() {
        follow(&[message(0), message(1), message(1)]);
    }
}
