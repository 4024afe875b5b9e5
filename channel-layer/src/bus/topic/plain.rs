//! A group without history. What comes is taken while nothing is missing, and a hole is told.
//!
//! What is not the next one waits until it is certain. After the link has come, or the epoch has changed, holes are what one
//! expects: up to where the broker says that the group is, and right behind it, everything is taken as it comes. While the
//! link holds, nothing should be missing: then what waits is the broker's own only if the broker has counted so far, and if
//! what stands before it does not come after all. So a forged number keeps nobody from what comes next.

use groupcast_protocol::{Envelope, Message, Position};

use super::parked::{Parked, Parking};
use super::{Arrival, Checked, Hole, Step};

#[derive(Debug, Default)]
pub(in crate::bus) struct Plain {
    /// Whether the broker has said where the group is since the link has come.
    pub(super) is_open: bool,
    /// The newest message that was taken; none while nothing is known of the group.
    pub(super) at: Option<Position>,
    /// The last messages without a hole that came while nothing was known of the group.
    early: Option<Run>,
    /// Where the broker said that the group is, while the node is not there yet and expects holes.
    known: Option<Position>,
    parked: Parked,
    /// Whether it is known that the broker has to be asked about what waits.
    is_doubted: bool,
}

/// Messages without a hole: the offset of the first, and the place of the last.
#[derive(Debug)]
struct Run {
    first: u64,
    last: Position,
}

/// How a place stands to where the group is.
enum Fit {
    Old,
    Next,
    Behind(Hole),
    Unknown,
}

impl Plain {
    pub(super) fn close(&mut self) {
        (self.is_open, self.is_doubted, self.early, self.known) = (false, false, None, None);
    }

    pub(super) fn arrive(&mut self, envelope: Envelope, parking: &Parking<'_>) -> Arrival {
        if self.at.is_none() {
            self.note_early(envelope.position);
            return Arrival::Early;
        }
        match self.fit(&envelope.position) {
            Fit::Old => Arrival::Old,
            Fit::Next => Arrival::Next(self.take(envelope, parking)),
            Fit::Behind(hole) => Arrival::Behind(hole, self.take(envelope, parking)),
            Fit::Unknown => {
                self.parked.push(envelope, parking);
                // While it is not open the broker is asked anyway.
                let is_news = self.is_open && !std::mem::replace(&mut self.is_doubted, true);
                if is_news { Arrival::Doubt } else { Arrival::Later }
            }
        }
    }

    pub(super) fn asking(&mut self) {
        self.is_doubted = false;
        self.parked.asking();
    }

    pub(super) fn check(&mut self, head: &Position, parking: &Parking<'_>) -> Checked {
        let was_open = std::mem::replace(&mut self.is_open, true);
        let Some(at) = &self.at else {
            self.begin(head);
            return Checked::default();
        };
        self.parked.deny(head, parking);
        let mut steps = Vec::new();
        if !was_open || at.epoch != head.epoch {
            self.known = Some(head.clone());
            self.release(&mut steps);
        }
        let is_doubted = self.parked.has_news() && !self.is_doubted;
        self.is_doubted |= is_doubted;
        Checked { steps, is_short: self.is_short_of(head), is_doubted }
    }

    pub(super) fn give_up(&mut self, before: Option<&Position>, head: &Position) -> Vec<Step> {
        // Whatever has come meanwhile has told the change of the epoch by itself.
        let is_over = self.at.as_ref().is_none_or(|at| at.epoch != head.epoch && Some(at) != before);
        if is_over || !self.is_short_of(head) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        self.known = Some(head.clone());
        self.release(&mut steps);
        if let (Some(at), true) = (&self.at, self.is_short_of(head)) {
            let missed = (at.epoch == head.epoch).then(|| head.offset - at.offset);
            steps.push(Step::Hole(Hole(missed)));
            self.at = Some(head.clone());
            self.release(&mut steps);
        }
        self.known = None;
        steps
    }

    /// The first that is known of the group. What came before the answer is nobody's, and not missing.
    fn begin(&mut self, head: &Position) {
        let run = self.early.take().filter(|run| {
            run.last.epoch == head.epoch && (run.first..=run.last.offset + 1).contains(&(head.offset + 1))
        });
        self.at = Some(run.map_or_else(|| head.clone(), |run| run.last));
    }

    fn note_early(&mut self, to: Position) {
        match &mut self.early {
            Some(run) if run.last.epoch == to.epoch && to.offset == run.last.offset + 1 => run.last = to,
            early => *early = Some(Run { first: to.offset, last: to }),
        }
    }

    fn is_short_of(&self, head: &Position) -> bool {
        self.at.as_ref().is_some_and(|at| at.epoch != head.epoch || at.offset < head.offset)
    }

    fn fit(&self, to: &Position) -> Fit {
        let Some(at) = &self.at else { return Fit::Unknown };
        let is_expected =
            || self.known.as_ref().is_some_and(|known| known.epoch == to.epoch && to.offset <= known.offset + 1);
        match to.offset.checked_sub(at.offset) {
            _ if at.epoch != to.epoch => {
                if is_expected() {
                    Fit::Behind(Hole(None))
                } else {
                    Fit::Unknown
                }
            }
            None | Some(0) => Fit::Old,
            Some(1) => Fit::Next,
            Some(steps) if is_expected() => Fit::Behind(Hole(Some(steps - 1))),
            Some(_) => Fit::Unknown,
        }
    }

    fn take(&mut self, Envelope { position, message }: Envelope, parking: &Parking<'_>) -> Message {
        self.parked.contradict(&position.epoch, parking);
        self.at = Some(position);
        self.forget_known();
        message
    }

    /// Holes are expected until the node is where the broker was.
    fn forget_known(&mut self) {
        if self.known.as_ref().is_some_and(|known| !self.is_short_of(known)) {
            self.known = None;
        }
    }

    /// Takes what waits, as far as it is certain.
    fn release(&mut self, steps: &mut Vec<Step>) {
        let mut parked = std::mem::take(&mut self.parked);
        parked.sift(|envelope| {
            match self.fit(&envelope.position) {
                Fit::Unknown => return Some(envelope),
                Fit::Old => return None,
                Fit::Next => {}
                Fit::Behind(hole) => steps.push(Step::Hole(hole)),
            }
            steps.push(Step::Message(envelope.message));
            self.at = Some(envelope.position);
            None
        });
        self.parked = parked;
        self.forget_known();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::broker::dropped::{Dropped, Reason};
    use crate::contract::message;

    #[test]
    fn what_comes_in_order_is_taken_at_once() {
        let mut case = Case::at("a:5");
        case.arrive(&[("a:5", Arrival::Old), ("a:6", next(6)), ("a:7", next(7)), ("a:6", Arrival::Old)]);
    }

    #[test]
    fn a_hole_is_told_when_the_broker_has_counted_so_far_and_nothing_comes() {
        let mut case = Case::at("a:5");
        case.arrive(&[("a:9", Arrival::Doubt), ("a:10", Arrival::Later)]);
        assert_eq!(case.check("a:10"), Checked { is_short: true, ..Checked::default() }, "it may still come");
        assert_eq!(case.give_up("a:5", "a:10"), [hole(3), told(9), told(10)]);
        case.arrive(&[("a:11", next(11))]);
        assert_eq!(case.misplaced(), 0);
    }

    #[test]
    fn a_number_that_the_broker_has_not_given_is_nothing() {
        let mut case = Case::at("a:5");
        case.arrive(&[("a:1099511627776", Arrival::Doubt), ("x:1", Arrival::Later)]);
        assert_eq!(case.check("a:5"), Checked::default());
        case.arrive(&[("a:6", next(6)), ("a:7", next(7))]);
        assert_eq!(case.misplaced(), 2);
    }

    #[test]
    fn what_comes_before_what_stands_before_it_is_nothing() {
        let mut case = Case::at("a:5");
        case.arrive(&[("a:8", Arrival::Doubt), ("a:6", next(6)), ("a:7", next(7)), ("a:8", next(8))]);
        assert_eq!(case.misplaced(), 1);
        case.check("a:8");
        assert_eq!(case.give_up("a:5", "a:8"), []);
    }

    #[test]
    fn a_new_epoch_is_one_when_the_broker_says_so() {
        let mut case = Case::at("a:5");
        case.arrive(&[("x:3", Arrival::Doubt), ("b:1", Arrival::Later), ("b:2", Arrival::Later)]);
        case.asking();
        case.arrive(&[("b:3", Arrival::Doubt)]);
        let steps = vec![Step::Hole(Hole(None)), told(1), told(2), told(3)];
        assert_eq!(case.answer("b:2"), Checked { steps, ..Checked::default() });
        case.arrive(&[("b:4", next(4)), ("a:6", Arrival::Later)]);
        assert_eq!(case.misplaced(), 1);
    }

    #[test]
    fn what_came_before_anybody_was_a_member_is_not_missing() {
        for (early, head, then) in [
            (&["a:7"][..], "a:7", 8),
            (&["a:7", "a:8", "a:9"], "a:7", 10),
            (&["a:7", "a:8"], "a:6", 9),
            (&["a:7"], "a:9", 10),
            (&["a:7", "a:1099511627776", "a:8", "a:9"], "a:8", 10),
            (&["b:7"], "a:7", 8),
            (&["a:9"], "a:7", 8),
        ] {
            let mut case = Case::unknown();
            early.iter().for_each(|to| case.arrive(&[(to, Arrival::Early)]));
            assert_eq!(case.check(head), Checked::default());
            case.arrive(&[(&format!("a:{then}"), next(then))]);
        }
    }

    #[test]
    fn what_was_missed_while_the_link_was_gone_is_told_with_the_first_that_comes() {
        let mut case = Case::closed("a:5");
        case.arrive(&[("a:8", Arrival::Later)]);
        case.asking();
        case.arrive(&[("a:9", Arrival::Later)]);
        let steps = vec![hole(2), told(8), told(9)];
        assert_eq!(case.answer("a:8"), Checked { steps, ..Checked::default() });
        let mut case = Case::closed("a:5");
        assert_eq!(case.check("a:7"), Checked { is_short: true, ..Checked::default() });
        case.arrive(&[("a:8", Arrival::Behind(Hole(Some(2)), message(8))), ("a:9", next(9))]);
        assert_eq!(case.give_up("a:5", "a:7"), []);
    }

    #[test]
    fn what_is_on_its_way_when_the_link_has_come_is_no_hole() {
        let mut case = Case::closed("a:5");
        assert!(case.check("a:7").is_short);
        case.arrive(&[("a:6", next(6)), ("a:7", next(7))]);
        assert_eq!(case.give_up("a:5", "a:7"), []);
    }

    #[test]
    fn what_does_not_come_is_a_hole() {
        let mut case = Case::closed("a:5");
        assert!(case.check("a:7").is_short);
        assert_eq!(case.give_up("a:5", "a:7"), [hole(2)]);
        case.arrive(&[("a:8", next(8))]);
        case.place.close();
        assert!(case.check("b:3").is_short);
        assert_eq!(case.give_up("a:8", "b:3"), [Step::Hole(Hole(None))]);
        case.arrive(&[("b:4", next(4))]);
    }

    #[test]
    fn a_forged_number_is_not_believed_while_the_link_comes_either() {
        let mut case = Case::closed("a:5");
        case.arrive(&[("a:1099511627776", Arrival::Later), ("x:1", Arrival::Later), ("a:6", next(6))]);
        assert_eq!(case.check("a:6"), Checked::default());
        case.arrive(&[("a:7", next(7))]);
        let mut case = Case::closed("a:5");
        case.asking();
        case.arrive(&[("a:99", Arrival::Later)]);
        assert_eq!(
            case.answer("a:5"),
            Checked { is_doubted: true, ..Checked::default() },
            "it came after the question"
        );
        assert_eq!(case.check("a:5"), Checked::default());
        assert_eq!(case.misplaced(), 1);
    }

    /// A group, what it is told of it, and what it makes of that.
    struct Case {
        place: Plain,
        dropped: &'static Dropped,
        parking: Parking<'static>,
    }

    impl Case {
        fn unknown() -> Self {
            let dropped: &'static Dropped = Box::leak(Box::default());
            Self { place: Plain::default(), dropped, parking: Parking::new(dropped) }
        }

        /// The broker has said where the group is, and nothing has come yet.
        fn at(head: &str) -> Self {
            let mut case = Self::unknown();
            assert_eq!(case.check(head), Checked::default(), "nothing is missing at first");
            case
        }

        /// As [`Case::at`]; then the link was lost.
        fn closed(head: &str) -> Self {
            let mut case = Self::at(head);
            case.place.close();
            case
        }

        #[track_caller]
        fn arrive(&mut self, all: &[(&str, Arrival)]) {
            for (to, expected) in all {
                let n = at(to).offset as usize;
                assert_eq!(self.place.arrive(envelope(to, n), &self.parking), *expected, "{to}");
            }
        }

        fn asking(&mut self) {
            self.place.asking();
        }

        fn answer(&mut self, head: &str) -> Checked {
            self.place.check(&at(head), &self.parking)
        }

        /// Asks and answers.
        fn check(&mut self, head: &str) -> Checked {
            self.asking();
            self.answer(head)
        }

        fn give_up(&mut self, before: &str, head: &str) -> Vec<Step> {
            self.place.give_up(Some(&at(before)), &at(head))
        }

        fn misplaced(&self) -> u64 {
            misplaced(self.dropped)
        }
    }

    fn next(n: usize) -> Arrival {
        Arrival::Next(message(n))
    }

    fn told(n: usize) -> Step {
        Step::Message(message(n))
    }

    fn hole(missed: u64) -> Step {
        Step::Hole(Hole(Some(missed)))
    }

    pub(in super::super) fn at(text: &str) -> Position {
        text.parse().expect("a valid position")
    }

    pub(in super::super) fn envelope(to: &str, n: usize) -> Envelope {
        Envelope { position: at(to), message: message(n) }
    }

    pub(in super::super) fn misplaced(dropped: &Dropped) -> u64 {
        dropped.counts().find(|(reason, _)| *reason == Reason::Misplaced).map_or(0, |(_, count)| count)
    }
}
