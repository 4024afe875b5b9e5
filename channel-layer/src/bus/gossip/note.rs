//! What nodes tell each other of who is in groups with presence.
//!
//! ```text
//! presence gw1/5f0c beat 17 3              it lives; its changes so far; its members
//! presence gw1/5f0c changes 18             its 18th change, a line for each group:
//! room +specific.gw1!c4 -specific.gw1!c2
//! presence gw1/5f0c ask gw2/91aa           it wants to know all members of gw2
//! presence gw1/5f0c state 18 0 more        all its members after change 18, in parts from 0:
//! room +specific.gw1!c4
//! presence gw1/5f0c state 18 1 last
//! presence gw1/5f0c end                    it has no members any more
//! ```
//!
//! Names have no spaces, so nothing is quoted. What cannot be understood may be of a newer node, and is passed over.

use std::fmt;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, NodeId};

use crate::presence::Change;

/// What no note of a layer's owner begins with.
const HEAD: &str = "presence ";
/// The largest note that is taken; own ones have at most [`PART_BYTES`] and a head.
const BYTES_MAX: usize = 256 << 10;
/// Lines of one note: what every broker carries without a thought.
pub(super) const PART_BYTES: usize = 48 << 10;
/// The longest name of a speaker that is taken.
const SPEAKER_MAX: usize = 160;

/// One run of one node: `NODE/RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Speaker(Box<str>);

/// A note that has been understood. The lines of changes and states are not read yet: mostly nobody needs a state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note<'a> {
    pub(super) from: Speaker,
    pub(super) said: Said<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Beat { seq: u64, members: u64 },
    Changes { seq: u64, lines: Lines<'a> },
    Ask { of: Speaker },
    State { seq: u64, part: u64, is_last: bool, lines: Lines<'a> },
    End,
}

/// Reads a note and writes it again; how many groups its lines name, and how many changes.
#[cfg(feature = "fuzzing")]
pub fn reread(note: &Bytes) -> Option<(Bytes, usize, usize)> {
    let note = Note::parse(note)?;
    let lines: Vec<_> = match &note.said {
        Said::Changes { lines, .. } | Said::State { lines, .. } => lines.read().collect(),
        Said::Beat { .. } | Said::Ask { .. } | Said::End => Vec::new(),
    };
    let mut writer = Writer::default();
    lines.iter().for_each(|(group, changes)| {
        changes.iter().for_each(|(member, change)| writer.push(group, member, *change));
    });
    let text = writer.take();
    let again: usize = Lines(&text).read().map(|(_, changes)| changes.len()).sum();
    let changes: usize = lines.iter().map(|(_, changes)| changes.len()).sum();
    assert_eq!(again, changes, "what is written of the lines is read as the same");
    Some((note.encode(), lines.len(), changes))
}

/// Changes by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines<'a>(pub(super) &'a str);

impl Speaker {
    pub(super) fn new(node: &NodeId, run: u64) -> Self {
        Self(format!("{node}/{run:x}").into())
    }

    fn parse(text: &str) -> Option<Self> {
        (text.len() <= SPEAKER_MAX).then(|| Self(text.into()))
    }
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a note is of this kind.
pub(crate) fn is_ours(note: &Bytes) -> bool {
    note.starts_with(HEAD.as_bytes())
}

impl<'a> Note<'a> {
    pub(super) fn parse(note: &'a Bytes) -> Option<Self> {
        if note.len() > BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(note).ok()?.strip_prefix(HEAD)?;
        let (head, lines) = text.split_once('\n').unwrap_or((text, ""));
        let lines = Lines(lines);
        let words: Vec<&str> = head.split(' ').collect();
        let said = match words[1..] {
            ["beat", seq, members] => Said::Beat { seq: seq.parse().ok()?, members: members.parse().ok()? },
            ["changes", seq] => Said::Changes { seq: seq.parse().ok()?, lines },
            ["ask", of] => Said::Ask { of: Speaker::parse(of)? },
            ["state", seq, part, end @ ("more" | "last")] => {
                Said::State { seq: seq.parse().ok()?, part: part.parse().ok()?, is_last: end == "last", lines }
            }
            ["end"] => Said::End,
            _ => return None,
        };
        Some(Self { from: Speaker::parse(words[0])?, said })
    }

    pub(super) fn encode(&self) -> Bytes {
        let from = &self.from;
        let text = match &self.said {
            Said::Beat { seq, members } => format!("{HEAD}{from} beat {seq} {members}"),
            Said::Changes { seq, lines } => format!("{HEAD}{from} changes {seq}\n{}", lines.0),
            Said::Ask { of } => format!("{HEAD}{from} ask {of}"),
            Said::State { seq, part, is_last, lines } => {
                let end = if *is_last { "last" } else { "more" };
                format!("{HEAD}{from} state {seq} {part} {end}\n{}", lines.0)
            }
            Said::End => format!("{HEAD}{from} end"),
        };
        text.into()
    }
}

impl Lines<'_> {
    /// The changes by group; names that are none are passed over.
    pub(super) fn read(&self) -> impl Iterator<Item = (GroupName, Vec<(ChannelName, Change)>)> {
        self.0.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let group = GroupName::parse(words.next()?).ok()?;
            Some((group, words.filter_map(change).collect()))
        })
    }
}

fn change(word: &str) -> Option<(ChannelName, Change)> {
    let (change, name) = match word.split_at_checked(1)? {
        ("+", name) => (Change::Joined, name),
        ("-", name) => (Change::Left, name),
        _ => return None,
    };
    Some((ChannelName::parse(name).ok()?, change))
}

/// Writes lines.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
    group: Option<GroupName>,
}

impl Writer {
    pub(super) fn push(&mut self, group: &GroupName, member: &ChannelName, change: Change) {
        if self.group.as_ref() != Some(group) {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(group.as_str());
            self.group = Some(group.clone());
        }
        self.text.push_str(match change {
            Change::Joined => " +",
            Change::Left => " -",
        });
        self.text.push_str(member.as_str());
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= PART_BYTES
    }

    /// Takes the lines; the next ones begin anew.
    pub(super) fn take(&mut self) -> String {
        self.group = None;
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{channel, group};

    fn parsed(text: &str) -> Option<Bytes> {
        let note = Bytes::from(text.to_owned());
        Note::parse(&note).map(|note| note.encode())
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        for text in [
            "presence gw1/5f beat 17 3",
            "presence gw1/5f changes 18\nroom +specific.gw1!c4 -a",
            "presence gw1/5f ask gw2/91",
            "presence gw1/5f state 18 0 more\nroom +a",
            "presence gw1/5f state 18 1 last\n",
            "presence gw1/5f end",
        ] {
            assert_eq!(parsed(text), Some(text.to_owned().into()), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_passed_over() {
        let long = format!("presence {} end", "x".repeat(SPEAKER_MAX + 1));
        for text in
            ["", "presence ", "presence a", "presence a beat", "presence a beat x 1", "presence a b c", "{}", &long]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
        let large = Bytes::from(format!("presence a changes 1\n{}", "x".repeat(BYTES_MAX)));
        assert_eq!(Note::parse(&large), None);
        assert_eq!(Note::parse(&Bytes::from_static(b"presence a changes 1\n\xff")), None);
        let read: Vec<_> = Lines("room +a *b + -c d!e! é\nbad/name +a\n\nlobby").read().collect();
        let changes = vec![(channel("a"), Change::Joined), (channel("c"), Change::Left)];
        assert_eq!(read, [(group("room"), changes), (group("lobby"), vec![])]);
    }

    #[test]
    fn lines_are_grouped() {
        let mut writer = Writer::default();
        writer.push(&group("a"), &channel("x"), Change::Joined);
        writer.push(&group("a"), &channel("y"), Change::Left);
        writer.push(&group("b"), &channel("x"), Change::Joined);
        assert_eq!(writer.take(), "a +x -y\nb +x");
        writer.push(&group("b"), &channel("z"), Change::Joined);
        assert_eq!(writer.take(), "b +z");
    }
}
