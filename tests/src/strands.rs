//! `Strands`: what readers got of senders that number their own messages, where the group shows no numbers: without history.
//!
//! [`crate::verdict`] judges by the places that a group gives its messages. Here each sender's messages are a strand: it
//! sends one after the other, so whoever gets a later one has got all acknowledged ones before it, or was told of a gap
//! between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A sender and its number for a message.
pub type Knot = (u64, u64);

/// What senders and readers have recorded.
#[derive(Debug, Default)]
pub struct Strands {
    acked: BTreeSet<Knot>,
    readers: BTreeMap<String, Vec<Heard>>,
}

#[derive(Debug, Clone, Copy)]
enum Heard {
    Message(Knot),
    Gap,
}

/// What came of it all. Everything but the first three ought to be zero.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that a sender was told are taken.
    pub acked: u64,
    /// Messages that readers got, all of them together.
    pub received: u64,
    /// Acknowledged messages that a reader did not get and was told of, each reader counted.
    pub told: u64,
    /// Acknowledged messages that a reader did not get, without a word, each reader counted.
    pub untold: u64,
    /// Messages that a reader got twice.
    pub duplicated: u64,
    /// Messages that came after a later one of their sender.
    pub reordered: u64,
}

impl Strands {
    /// A sender was told that a message is taken.
    pub fn acked(&mut self, knot: Knot) {
        self.acked.insert(knot);
    }

    /// A reader begins: before the first message is sent.
    pub fn begins(&mut self, reader: &str) {
        self.readers.entry(reader.to_owned()).or_default();
    }

    /// A reader got a message.
    pub fn received(&mut self, reader: &str, knot: Knot) {
        self.hear(reader, Heard::Message(knot));
    }

    /// A reader was told that messages are missing.
    pub fn gap(&mut self, reader: &str) {
        self.hear(reader, Heard::Gap);
    }

    /// The verdict, when all that will ever come has come.
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome { acked: self.acked.len() as u64, ..Outcome::default() };
        self.readers.values().for_each(|heard| self.judge(heard, &mut outcome));
        outcome
    }

    fn hear(&mut self, reader: &str, heard: Heard) {
        self.readers.entry(reader.to_owned()).or_default().push(heard);
    }

    fn judge(&self, heard: &[Heard], outcome: &mut Outcome) {
        let mut strands: HashMap<u64, Strand> = HashMap::new();
        let senders: BTreeSet<u64> = self.acked.iter().map(|(sender, _)| *sender).collect();
        for sender in &senders {
            strands.insert(*sender, Strand::default());
        }
        for heard in heard {
            match heard {
                Heard::Gap => strands.values_mut().for_each(|strand| strand.is_told = true),
                Heard::Message((sender, number)) => {
                    outcome.received += 1;
                    let strand = strands.entry(*sender).or_default();
                    if !strand.seen.insert(*number) {
                        outcome.duplicated += 1;
                    } else if *number < strand.next {
                        outcome.reordered += 1;
                    } else {
                        self.pass(*sender, strand, *number, outcome);
                    }
                }
            }
        }
        for (sender, mut strand) in strands {
            self.pass(sender, &mut strand, u64::MAX - 1, outcome);
        }
    }

    /// Counts what is missing of a strand before a number.
    fn pass(&self, sender: u64, strand: &mut Strand, number: u64, outcome: &mut Outcome) {
        let missing = self.acked.range((sender, strand.next)..(sender, number)).count() as u64;
        match strand.is_told {
            true => outcome.told += missing,
            false => outcome.untold += missing,
        }
        strand.is_told = false;
        strand.next = number + 1;
    }
}

/// Of one sender, as one reader follows it.
#[derive(Debug, Default)]
struct Strand {
    next: u64,
    /// A gap was told since the last message.
    is_told: bool,
    seen: BTreeSet<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sender 0 had 1 to 4 acknowledged, sender 1 had 1; a reader hears this, 0 for a gap.
    fn outcome(heard: &[u64]) -> Outcome {
        let mut strands = Strands::default();
        strands.begins("r");
        for number in 1..=4 {
            strands.acked((0, number));
        }
        strands.acked((1, 1));
        strands.received("r", (1, 1));
        for number in heard {
            match number {
                0 => strands.gap("r"),
                number => strands.received("r", (0, *number)),
            }
        }
        strands.outcome()
    }

    fn sound(received: u64) -> Outcome {
        Outcome { acked: 5, received: received + 1, ..Outcome::default() }
    }

    #[test]
    fn all_in_order_is_sound_and_what_nobody_acknowledged_may_be_missing() {
        assert_eq!(outcome(&[1, 2, 3, 4]), sound(4));
        assert_eq!(outcome(&[1, 2, 3, 4, 9]), sound(5));
    }

    #[test]
    fn a_hole_is_told_between_its_neighbours_or_not_at_all() {
        assert_eq!(outcome(&[1, 0, 4]), Outcome { told: 2, ..sound(2) });
        assert_eq!(outcome(&[1, 4]), Outcome { untold: 2, ..sound(2) });
        assert_eq!(outcome(&[0, 1, 4]), Outcome { untold: 2, ..sound(2) });
        assert_eq!(outcome(&[1, 4, 0]), Outcome { untold: 2, ..sound(2) });
    }

    #[test]
    fn a_hole_at_the_end_is_a_hole_also_of_who_got_nothing() {
        assert_eq!(outcome(&[1, 2]), Outcome { untold: 2, ..sound(2) });
        assert_eq!(outcome(&[1, 2, 0]), Outcome { told: 2, ..sound(2) });
        assert_eq!(outcome(&[]), Outcome { untold: 4, ..sound(0) });
    }

    #[test]
    fn a_repeat_is_duplicated_and_one_too_late_is_reordered() {
        assert_eq!(outcome(&[1, 2, 2, 3, 4]), Outcome { duplicated: 1, ..sound(5) });
        assert_eq!(outcome(&[1, 3, 2, 4]), Outcome { reordered: 1, untold: 1, ..sound(4) });
    }
}
