//! A group with history. While something may be missing nothing that arrives is taken: the broker is asked for all of it.

use groupcast_protocol::{Envelope, Position};

use super::{Arrival, Parking};
use crate::config::HistoryRule;

/// Messages that are remembered while the broker is asked. Of more, the newest stands for those before it.
const SEEN_MAX: usize = 1024;

#[derive(Debug)]
pub(in crate::bus) struct Kept {
    /// How much history the group keeps.
    pub(super) rule: HistoryRule,
    /// Whether everything from `at` on arrives.
    pub(super) is_open: bool,
    /// The newest message that was taken; none while nothing is known of the group.
    pub(super) at: Option<Position>,
    /// Messages that have arrived and were not taken, since the broker was last asked.
    seen: Vec<Position>,
    /// Those of before: the broker must have them.
    asked: Vec<Position>,
}

impl Kept {
    pub(super) fn new(rule: HistoryRule) -> Self {
        Self { rule, is_open: false, at: None, seen: Vec::new(), asked: Vec::new() }
    }

    pub(super) fn arrive(&mut self, Envelope { position: to, message }: Envelope) -> Arrival {
        let at = self.at.as_ref().filter(|at| at.epoch == to.epoch);
        if at.is_some_and(|at| to.offset <= at.offset) {
            return Arrival::Old;
        }
        let is_next = at.is_some_and(|at| to.offset - at.offset == 1);
        if self.is_open && is_next {
            self.at = Some(to);
            return Arrival::Next(message);
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop();
        }
        self.seen.push(to);
        if std::mem::replace(&mut self.is_open, false) { Arrival::Ask } else { Arrival::Later }
    }

    pub(super) fn asking(&mut self) {
        self.asked = std::mem::take(&mut self.seen);
    }

    pub(super) fn caught_up(&mut self, head: Position, parking: &Parking<'_>) -> bool {
        let is_behind = |seen: &Position| seen.epoch != head.epoch || seen.offset > head.offset;
        let more = self.seen.iter().any(is_behind);
        let asked = std::mem::take(&mut self.asked);
        parking.note_misplaced(asked.into_iter().filter(is_behind).count() as u64);
        self.at = Some(head);
        self.is_open = !more;
        self.is_open
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plain::tests::{at, envelope, misplaced};
    use super::*;
    use crate::broker::dropped::Dropped;
    use crate::contract::message;

    fn kept() -> Kept {
        Kept::new(HistoryRule { messages: 10, age: Duration::from_secs(60) })
    }

    #[test]
    fn a_hole_is_asked_for_once() {
        let (mut place, dropped) = (kept(), Dropped::default());
        let parking = Parking::new(&dropped);
        assert_eq!(place.arrive(envelope("a:1", 1)), Arrival::Later, "it is not open");
        place.asking();
        assert!(place.caught_up(at("a:2"), &parking));
        assert_eq!(place.arrive(envelope("a:3", 3)), Arrival::Next(message(3)));
        assert_eq!(place.arrive(envelope("a:5", 5)), Arrival::Ask);
        assert_eq!(place.arrive(envelope("a:6", 6)), Arrival::Later);
        place.asking();
        assert_eq!(place.arrive(envelope("a:7", 7)), Arrival::Later);
        assert!(!place.caught_up(at("a:6"), &parking), "one came after the question");
        place.asking();
        assert!(place.caught_up(at("a:7"), &parking));
        assert_eq!(place.arrive(envelope("b:1", 8)), Arrival::Ask);
        assert_eq!(misplaced(&dropped), 0);
    }

    #[test]
    fn what_the_broker_does_not_know_is_nothing() {
        let (mut place, dropped) = (kept(), Dropped::default());
        let parking = Parking::new(&dropped);
        place.asking();
        assert!(place.caught_up(at("a:2"), &parking));
        assert_eq!(place.arrive(envelope("a:1099511627776", 0)), Arrival::Ask);
        place.asking();
        assert!(place.caught_up(at("a:2"), &parking));
        assert_eq!(place.arrive(envelope("a:3", 3)), Arrival::Next(message(3)));
        assert_eq!(misplaced(&dropped), 1);
    }
}
