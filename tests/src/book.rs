//! `Book`: what one client of a group with history got, over many connections, held against what was acknowledged.

use std::collections::HashMap;

use serde_json::Value;

use crate::ledger::number;

/// What publishers were told: the number that each of their messages has, by its offset.
pub type Acknowledged = HashMap<u64, u64>;

/// Follows one client of one group. Panics as soon as something is missing, there twice or out of order.
#[derive(Debug, Default)]
pub struct Book {
    epoch: String,
    first: u64,
    last: u64,
    entries: Vec<(u64, u64)>,
    /// Messages that are still to be replayed: up to this offset.
    replay_to: u64,
    /// What happened so far.
    pub counts: Counts,
}

/// What happened to a client, or to several.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that came.
    pub received: u64,
    /// Of these, after the fact.
    pub replayed: u64,
    /// Messages that the gateway said are lost.
    pub told_lost: u64,
    /// Connections that went on where the one before had ended.
    pub recovered: u64,
    /// Connections that were told that they cannot.
    pub refused: u64,
    /// Gaps while connected.
    pub gaps: u64,
}

impl Book {
    /// A book of a client that has just subscribed for the first time.
    #[track_caller]
    pub fn open(subscribed: &Value) -> Self {
        let (epoch, offset) = position(subscribed);
        assert!(subscribed["recovered"].is_null(), "nothing was asked for: {subscribed}");
        Self { epoch, first: offset, last: offset, ..Self::default() }
    }

    /// The position to come back with, as in a URL.
    pub fn after(&self) -> String {
        format!("{}:{}", self.epoch, self.last)
    }

    /// The position to come back with: epoch and offset.
    pub fn position(&self) -> (&str, u64) {
        (&self.epoch, self.last)
    }

    /// Takes the answer to a subscription that came back with the position; whether it was recovered.
    #[track_caller]
    pub fn came_back(&mut self, subscribed: &Value) -> bool {
        let (epoch, offset) = position(subscribed);
        match (&subscribed["recovered"], subscribed["reason"].as_str()) {
            (Value::Bool(true), None) => {
                assert!(epoch == self.epoch && offset >= self.last, "recovered, from {}: {subscribed}", self.after());
                self.replay_to = offset;
                self.counts.recovered += 1;
                true
            }
            (Value::Bool(false), Some("trimmed")) => {
                assert!(
                    epoch == self.epoch && offset > self.last,
                    "nothing was lost since {}: {subscribed}",
                    self.after()
                );
                self.lost_to(offset);
                self.counts.refused += 1;
                false
            }
            _ => panic!("neither recovered nor trimmed, from {}: {subscribed}", self.after()),
        }
    }

    /// Takes a frame of the group as it came.
    #[track_caller]
    pub fn take(&mut self, frame: &str) {
        let offset = number(frame, r#""offset":"#).unwrap_or_else(|| panic!("no offset: {frame}"));
        if frame.contains(r#""type":"gap""#) {
            let missed = number(frame, r#""missed":"#).expect("a gap of one gateway has a count");
            assert!(missed > 0 && self.last + missed == offset, "after {}: {frame}", self.last);
            self.lost_to(offset);
            self.counts.gaps += 1;
            return;
        }
        let n = number(frame, r#""n":"#).unwrap_or_else(|| panic!("neither a message nor a gap: {frame}"));
        assert_eq!(offset, self.last + 1, "after {} comes {frame}", self.after());
        self.entries.push((offset, n));
        self.last = offset;
        self.counts.received += 1;
        self.counts.replayed += u64::from(offset <= self.replay_to);
    }

    /// Asserts that all up to a position is accounted for, and that each message is the one that got this offset.
    #[track_caller]
    pub fn check(&self, epoch: &str, head: u64, acknowledged: &Acknowledged) {
        assert_eq!((self.epoch.as_str(), self.last), (epoch, head), "the end is not reached");
        assert_eq!(self.counts.received + self.counts.told_lost, head - self.first, "{:?}", self.counts);
        for (offset, n) in &self.entries {
            assert_eq!(acknowledged.get(offset), Some(n), "another message has the offset {offset}");
        }
    }

    fn lost_to(&mut self, offset: u64) {
        self.counts.told_lost += offset - self.last;
        self.last = offset;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            received: sum.received + one.received,
            replayed: sum.replayed + one.replayed,
            told_lost: sum.told_lost + one.told_lost,
            recovered: sum.recovered + one.recovered,
            refused: sum.refused + one.refused,
            gaps: sum.gaps + one.gaps,
        })
    }
}

/// Epoch and offset of an answer.
#[track_caller]
pub fn position(frame: &Value) -> (String, u64) {
    match (frame["epoch"].as_str(), frame["offset"].as_u64()) {
        (Some(epoch), Some(offset)) => (epoch.to_owned(), offset),
        _ => panic!("no position: {frame}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn book() -> Book {
        Book::open(&json!({"type": "subscribed", "group": "g", "epoch": "e", "offset": 10}))
    }

    fn message(offset: u64) -> String {
        format!(r#"{{"type":"message","group":"g","offset":{offset},"message":{{"type":"tick","n":{}}}}}"#, offset - 11)
    }

    fn back(offset: u64, recovered: bool) -> Value {
        let reason = if recovered { Value::Null } else { json!("trimmed") };
        json!({"type": "subscribed", "epoch": "e", "offset": offset, "recovered": recovered, "reason": reason})
    }

    fn acknowledged() -> Acknowledged {
        (11..100).map(|offset| (offset, offset - 11)).collect()
    }

    #[test]
    fn a_client_that_comes_back_has_everything() {
        let mut book = book();
        book.take(&message(11));
        assert_eq!(book.after(), "e:11");
        assert!(book.came_back(&back(13, true)));
        [12, 13, 14].iter().for_each(|offset| book.take(&message(*offset)));
        book.check("e", 14, &acknowledged());
        assert_eq!(book.counts, Counts { received: 4, replayed: 2, recovered: 1, ..Counts::default() });
    }

    #[test]
    fn what_is_told_to_be_lost_is_accounted_for() {
        let mut book = book();
        assert!(!book.came_back(&back(30, false)));
        book.take(&message(31));
        book.take(r#"{"type":"gap","group":"g","missed":4,"reason":"slow_consumer","epoch":"e","offset":35}"#);
        book.check("e", 35, &acknowledged());
        assert_eq!((book.counts.told_lost, book.counts.refused, book.counts.gaps), (24, 1, 1));
    }

    #[test]
    #[should_panic(expected = "after e:10 comes")]
    fn a_silent_loss_is_found() {
        book().take(&message(12));
    }

    #[test]
    #[should_panic(expected = "after e:11 comes")]
    fn a_repeat_is_found() {
        let mut book = book();
        book.take(&message(11));
        book.take(&message(11));
    }

    #[test]
    #[should_panic(expected = "the end is not reached")]
    fn a_loss_at_the_end_is_found() {
        book().check("e", 11, &acknowledged());
    }

    #[test]
    #[should_panic(expected = "another message has the offset 11")]
    fn a_message_in_the_place_of_another_is_found() {
        let mut book = book();
        book.take(&message(11).replace(r#""n":0"#, r#""n":5"#));
        book.check("e", 11, &acknowledged());
    }

    #[test]
    #[should_panic(expected = "neither recovered nor trimmed")]
    fn a_new_epoch_is_no_recovery() {
        let changed = json!({"epoch": "f", "offset": 1, "recovered": false, "reason": "epoch_changed"});
        book().came_back(&changed);
    }
}
