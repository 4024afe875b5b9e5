//! One group as this node follows it: where it is, and whether the node can be sure of that.
//!
//! Decides only; nothing here waits or sends. A topic of a group with history that may have missed something is not open:
//! what arrives then is not taken, because the broker is asked for all of it. One without history takes what comes and
//! tells the hole.

use groupcast_protocol::Position;

use crate::config::HistoryRule;

/// What a node knows of a group that it follows.
#[derive(Debug)]
pub(super) struct Place {
    /// How much history the group keeps.
    keep: Option<HistoryRule>,
    /// Whether everything from `at` on arrives.
    is_open: bool,
    /// The newest message that was taken; none while nothing is known of the group.
    at: Option<Position>,
    /// The newest message that has arrived and was not taken, since the broker was last asked.
    seen: Option<Position>,
}

/// What is to be done with a message that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one.
    Next,
    /// It is for the members, who have to be told of the hole before it.
    Behind(Hole),
    /// It was taken before.
    Old,
    /// The broker has it, and will be asked.
    Later,
    /// As `Later`; that it has to be asked is news.
    Ask,
}

/// How many messages are missing; `None` when that cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole(pub(super) Option<u64>);

impl Place {
    pub(super) fn new(keep: Option<HistoryRule>) -> Self {
        Self { keep, is_open: false, at: None, seen: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn keep(&self) -> Option<HistoryRule> {
        self.keep
    }

    pub(super) fn at(&self) -> Option<&Position> {
        self.at.as_ref()
    }

    /// The link was lost: whatever comes may have holes.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// Takes note of a message.
    pub(super) fn arrive(&mut self, to: &Position) -> Arrival {
        let Some(hole) = self.hole_before(to) else { return Arrival::Old };
        if self.keep.is_some() {
            let is_next = hole == Hole(Some(0));
            if !self.is_open || !is_next {
                let is_news = std::mem::replace(&mut self.is_open, false);
                self.seen = Some(to.clone());
                return if is_news { Arrival::Ask } else { Arrival::Later };
            }
        }
        let first = !self.is_open && self.at.is_none();
        self.at = Some(to.clone());
        match hole {
            Hole(Some(0)) => Arrival::Next,
            // Nobody has been told yet that he is a member.
            _ if first => Arrival::Next,
            hole => Arrival::Behind(hole),
        }
    }

    /// The broker is asked for a group's history: what has arrived until now will be in the answer.
    pub(super) fn asking(&mut self) {
        self.seen = None;
    }

    /// What the broker has has been taken, up to `head`. Says whether the group is open, or more arrived meanwhile.
    pub(super) fn caught_up(&mut self, head: Position) -> bool {
        let more = self.seen.as_ref().is_some_and(|seen| seen.epoch != head.epoch || seen.offset > head.offset);
        self.at = Some(head);
        self.is_open = !more;
        self.is_open
    }

    /// Moves on to what was taken from the broker's history.
    pub(super) fn took(&mut self, to: Position) {
        self.at = Some(to);
    }

    /// The broker said where a group without history is, after it was followed. Says whether something is missing, unless
    /// it is still on its way.
    pub(super) fn check(&mut self, head: &Position) -> bool {
        self.is_open = true;
        match &self.at {
            None => {
                self.at = Some(head.clone());
                false
            }
            Some(at) => at.epoch != head.epoch || at.offset < head.offset,
        }
    }

    /// Whether what was missing at a check is still missing; `before` is where the group was then. Goes on behind it.
    pub(super) fn give_up(&mut self, before: Option<&Position>, head: Position) -> Option<Hole> {
        let hole = match &self.at {
            Some(at) if at.epoch == head.epoch => Hole(Some(head.offset.checked_sub(at.offset)?)),
            // Whatever has come meanwhile has told the change by itself.
            at if at.as_ref() != before => return None,
            _ => Hole(None),
        };
        self.at = Some(head);
        (hole != Hole(Some(0))).then_some(hole)
    }

    /// What is missing before a message; `None` for one that is no news.
    fn hole_before(&self, to: &Position) -> Option<Hole> {
        match &self.at {
            Some(at) if at.epoch == to.epoch => Some(Hole(Some(to.offset.checked_sub(at.offset)?.checked_sub(1)?))),
            Some(_) => Some(Hole(None)),
            None => Some(Hole(Some(to.offset - 1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Position {
        text.parse().expect("a valid position")
    }

    fn kept() -> Place {
        Place::new(Some(HistoryRule { messages: 10, age: Duration::from_secs(60) }))
    }

    fn plain(head: &str) -> Place {
        let mut place = Place::new(None);
        assert!(!place.check(&at(head)), "nothing is missing at first");
        place
    }

    #[test]
    fn without_history_what_comes_is_taken_and_holes_are_told() {
        let mut place = plain("a:5");
        assert_eq!(place.arrive(&at("a:5")), Arrival::Old);
        assert_eq!(place.arrive(&at("a:6")), Arrival::Next);
        assert_eq!(place.arrive(&at("a:9")), Arrival::Behind(Hole(Some(2))));
        assert_eq!(place.arrive(&at("a:8")), Arrival::Old);
        assert_eq!(place.arrive(&at("b:1")), Arrival::Behind(Hole(None)));
        assert_eq!(place.arrive(&at("b:2")), Arrival::Next);
    }

    #[test]
    fn what_comes_before_the_first_member_was_told_is_no_hole() {
        let mut place = Place::new(None);
        assert_eq!(place.arrive(&at("a:7")), Arrival::Next);
        assert!(!place.check(&at("a:7")));
        assert_eq!(place.arrive(&at("a:8")), Arrival::Next);
    }

    #[test]
    fn what_is_on_its_way_at_a_check_is_no_hole() {
        let mut place = plain("a:5");
        place.close();
        let before = place.at().cloned();
        assert!(place.check(&at("a:7")), "two may be missing");
        assert_eq!((place.arrive(&at("a:6")), place.arrive(&at("a:7"))), (Arrival::Next, Arrival::Next));
        assert_eq!(place.give_up(before.as_ref(), at("a:7")), None);
    }

    #[test]
    fn what_does_not_come_is_a_hole() {
        let mut place = plain("a:5");
        place.close();
        assert!(place.check(&at("a:7")));
        let before = place.at().cloned();
        assert_eq!(place.give_up(before.as_ref(), at("a:7")), Some(Hole(Some(2))));
        assert_eq!(place.arrive(&at("a:8")), Arrival::Next);
        place.close();
        assert!(place.check(&at("b:3")));
        let before = place.at().cloned();
        assert_eq!(place.give_up(before.as_ref(), at("b:3")), Some(Hole(None)));
        assert_eq!(place.arrive(&at("b:4")), Arrival::Next);
    }

    #[test]
    fn with_history_a_hole_is_asked_for_once() {
        let mut place = kept();
        assert_eq!(place.arrive(&at("a:1")), Arrival::Later, "it is not open");
        place.asking();
        assert!(place.caught_up(at("a:2")));
        assert_eq!(place.arrive(&at("a:3")), Arrival::Next);
        assert_eq!(place.arrive(&at("a:5")), Arrival::Ask);
        assert_eq!(place.arrive(&at("a:6")), Arrival::Later);
        place.asking();
        assert_eq!(place.arrive(&at("a:7")), Arrival::Later);
        assert!(!place.caught_up(at("a:6")), "one came after the question");
        place.asking();
        assert!(place.caught_up(at("a:7")));
        assert_eq!(place.arrive(&at("b:1")), Arrival::Ask);
    }
}
