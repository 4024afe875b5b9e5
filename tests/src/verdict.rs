//! `Records`: what all writers were told and what all readers got, over any number of nodes, and the verdict on it.
//!
//! [`crate::ledger`] and [`crate::book`] follow one reader and panic at once; here everything is counted in the end.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Where a message stands: epoch and offset.
pub type Place = (String, u64);

/// What writers and readers have recorded.
#[derive(Debug, Default)]
pub struct Records {
    acked: Vec<Acked>,
    found: HashSet<(String, String)>,
    readers: HashMap<(String, String), Reader>,
    counts: Verdict,
}

#[derive(Debug)]
struct Acked {
    group: String,
    id: String,
    level: String,
    place: Option<Place>,
}

/// One reader of one group.
#[derive(Debug, Default)]
struct Reader {
    last: Option<Place>,
    /// A gap was told since the last message; how many are missing, if that was told.
    gap: Option<Option<u64>>,
    ids: HashSet<String>,
    places: HashSet<Place>,
    /// Whether a gap was told whose place nobody knows.
    told_unplaced: bool,
    /// Epoch, the last one that came before and the first one that came after.
    told: Vec<(String, u64, u64)>,
}

/// What came of it all. Everything but the first three ought to be zero; `told_lost` is honest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that a writer was told are taken.
    pub acked: u64,
    /// Of these, those that a reader of the group has got.
    pub found: u64,
    /// Of these, those that no reader has got, but whose loss was told.
    pub told_lost: u64,
    /// Of these, those that are missing without a word, by the level at which they were acknowledged.
    pub lost: BTreeMap<String, u64>,
    /// Messages that a reader got twice.
    pub duplicated: u64,
    /// Messages that came after a later one.
    pub reordered: u64,
    /// Numbers that were passed over, or epochs that changed, without a word.
    pub undetected_gap: u64,
    /// Gaps that were told where nothing, or less, is missing.
    pub false_gap: u64,
}

impl Records {
    /// A writer was told that a message is taken, at a level, and where it stands if that was told.
    pub fn acked(&mut self, group: &str, id: &str, level: &str, place: Option<Place>) {
        self.acked.push(Acked { group: group.to_owned(), id: id.to_owned(), level: level.to_owned(), place });
    }

    /// A reader begins, or goes on, behind a place.
    pub fn subscribed(&mut self, reader: &str, group: &str, place: Place) {
        self.reader(reader, group).last = Some(place);
    }

    /// A reader got a message; without a place in a group that shows none.
    pub fn received(&mut self, reader: &str, group: &str, id: &str, place: Option<Place>) {
        self.found.insert((group.to_owned(), id.to_owned()));
        let mut counts = std::mem::take(&mut self.counts);
        self.reader(reader, group).receive(id, place, &mut counts);
        self.counts = counts;
    }

    /// A reader was told that messages are missing, and how many if that was told.
    pub fn gap(&mut self, reader: &str, group: &str, missed: Option<u64>) {
        let reader = self.reader(reader, group);
        reader.told_unplaced |= reader.last.is_none();
        reader.gap = Some(match reader.gap {
            None => missed,
            Some(before) => before.zip(missed).map(|(before, missed)| before + missed),
        });
    }

    /// All that a reader will ever get has come; the group's last message stands at `head`.
    pub fn ended(&mut self, reader: &str, group: &str, head: &Place) {
        let mut counts = std::mem::take(&mut self.counts);
        self.reader(reader, group).arrive_at((head.0.clone(), head.1 + 1), &mut counts);
        self.counts = counts;
    }

    /// The verdict on all that is recorded.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { acked: self.acked.len() as u64, ..self.counts.clone() };
        for acked in &self.acked {
            if self.found.contains(&(acked.group.clone(), acked.id.clone())) {
                verdict.found += 1;
            } else if self.is_told(acked) {
                verdict.told_lost += 1;
            } else {
                *verdict.lost.entry(acked.level.clone()).or_default() += 1;
            }
        }
        verdict
    }

    fn is_told(&self, acked: &Acked) -> bool {
        let mut readers = self.readers.iter().filter(|((_, group), _)| *group == acked.group);
        readers.any(|(_, reader)| match &acked.place {
            None => reader.told_unplaced || reader.gap.is_some() || !reader.told.is_empty(),
            Some(place) => reader.told_unplaced || reader.is_told(place),
        })
    }

    fn reader(&mut self, reader: &str, group: &str) -> &mut Reader {
        self.readers.entry((reader.to_owned(), group.to_owned())).or_default()
    }
}

impl Reader {
    fn receive(&mut self, id: &str, place: Option<Place>, counts: &mut Verdict) {
        let is_known = place.as_ref().is_some_and(|place| !self.places.insert(place.clone()));
        if !self.ids.insert(id.to_owned()) || is_known {
            counts.duplicated += 1;
            return;
        }
        match place {
            Some(place) => self.arrive_at(place, counts),
            None => self.told_unplaced |= self.gap.take().is_some(),
        }
    }

    /// Judges what lies between the last place and the next one.
    fn arrive_at(&mut self, next: Place, counts: &mut Verdict) {
        let gap = self.gap.take();
        match &self.last {
            None => self.told_unplaced |= gap.is_some(),
            Some((epoch, _)) if *epoch != next.0 => {
                counts.undetected_gap += u64::from(gap.is_none());
                self.told_unplaced |= gap.is_some();
            }
            Some((_, last)) if next.1 <= *last => {
                counts.reordered += 1;
                self.gap = gap;
                return;
            }
            Some((epoch, last)) => {
                let missing = next.1 - last - 1;
                let told = gap.map_or(0, |told| told.unwrap_or(missing));
                counts.undetected_gap += missing.saturating_sub(told);
                counts.false_gap += u64::from(told > missing || (gap.is_some() && missing == 0));
                if gap.is_some() {
                    self.told.push((epoch.clone(), *last, next.1));
                }
            }
        }
        self.last = Some(next);
    }

    fn is_told(&self, (epoch, offset): &Place) -> bool {
        self.told.iter().any(|(told, last, next)| told == epoch && last < offset && offset < next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Option<Place> {
        Some(("e".to_owned(), offset))
    }

    /// Three messages were acknowledged; one reader follows from the beginning and gets these.
    fn reader_of(received: &[u64]) -> Records {
        let mut records = Records::default();
        (1..=3).for_each(|n| records.acked("g", &n.to_string(), "fsync", at(n)));
        records.subscribed("r", "g", ("e".to_owned(), 0));
        received.iter().for_each(|n| records.received("r", "g", &n.to_string(), at(*n)));
        records
    }

    fn sound() -> Verdict {
        Verdict { acked: 3, found: 3, ..Verdict::default() }
    }

    #[test]
    fn all_that_came_in_order_is_sound() {
        let mut records = reader_of(&[1, 2, 3]);
        records.ended("r", "g", &("e".to_owned(), 3));
        assert_eq!(records.verdict(), sound());
    }

    #[test]
    fn a_hole_without_a_word_is_a_loss_and_an_undetected_gap() {
        let lost = BTreeMap::from([("fsync".to_owned(), 1)]);
        assert_eq!(reader_of(&[1, 3]).verdict(), Verdict { found: 2, lost, undetected_gap: 1, ..sound() });
    }

    #[test]
    fn a_hole_at_the_end_is_found_by_the_head() {
        let mut records = reader_of(&[1, 2]);
        records.ended("r", "g", &("e".to_owned(), 3));
        assert_eq!((records.verdict().undetected_gap, records.verdict().lost.len()), (1, 1));
    }

    #[test]
    fn a_loss_that_is_told_is_told() {
        let mut records = reader_of(&[1]);
        records.gap("r", "g", Some(1));
        records.received("r", "g", "3", at(3));
        assert_eq!(records.verdict(), Verdict { found: 2, told_lost: 1, ..sound() });
    }

    #[test]
    fn a_repeat_is_duplicated_and_one_too_late_is_reordered() {
        assert_eq!(reader_of(&[1, 2, 2, 3]).verdict(), Verdict { duplicated: 1, ..sound() });
        let late = reader_of(&[1, 3, 2]).verdict();
        assert_eq!((late.reordered, late.found, late.lost.len()), (1, 3, 0));
    }

    #[test]
    fn a_gap_of_nothing_and_one_too_large_are_false() {
        for told in [Some(1), None] {
            let mut records = reader_of(&[1, 2]);
            records.gap("r", "g", told);
            records.received("r", "g", "3", at(3));
            assert_eq!(records.verdict(), Verdict { false_gap: 1, ..sound() });
        }
        let mut records = reader_of(&[1]);
        records.gap("r", "g", Some(2));
        records.received("r", "g", "3", at(3));
        assert_eq!(records.verdict().false_gap, 1);
    }

    #[test]
    fn a_new_epoch_has_to_be_told() {
        let mut records = reader_of(&[1, 2, 3]);
        records.received("r", "g", "4", Some(("f".to_owned(), 1)));
        assert_eq!(records.verdict().undetected_gap, 1);
        records.gap("r", "g", None);
        records.received("r", "g", "5", Some(("h".to_owned(), 1)));
        assert_eq!(records.verdict().undetected_gap, 1);
    }

    #[test]
    fn another_group_and_another_reader_are_others() {
        let mut records = reader_of(&[1, 2, 3]);
        records.received("r", "other", "1", at(1));
        records.received("s", "g", "1", at(1));
        assert_eq!(records.verdict(), sound());
    }
}
