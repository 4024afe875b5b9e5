//! `Revoked`: tokens that are worth nothing any more before their time, as a file lists them.
//!
//! ```text
//! # lost on a train
//! token 7f3a9c
//! user mallory
//! user alice 2026-11-27T09:00:00Z
//! user "Alice Smith"
//! ```
//!
//! `token` is a claim `jti`; `user` a `sub`, all of whose tokens are meant, or those that were issued (`iat`) before a time.
//! One that does not say when it was issued counts as issued before. Who has a space in his name is named in quotes, as JSON
//! has them: what stands behind a name is a time, or the line makes no sense.

use std::collections::{HashMap, HashSet};

/// Lines of the file that name something. Each is some hundred bytes of memory.
const ENTRIES_MAX: usize = 1_000_000;

/// What is revoked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked {
    tokens: HashSet<Box<str>>,
    /// Until when tokens of a user were issued that are meant, in milliseconds since 1970.
    users: HashMap<Box<str>, u64>,
}

impl Revoked {
    /// Reads a list.
    ///
    /// # Errors
    /// With the line that makes no sense; a name in it is not repeated.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut revoked = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            revoked.add(line).map_err(|why| format!("line {}: {why}", at + 1))?;
            if revoked.tokens.len() + revoked.users.len() > ENTRIES_MAX {
                return Err(format!("names more than {ENTRIES_MAX} tokens and users; take out what has expired"));
            }
        }
        Ok(revoked)
    }

    fn add(&mut self, line: &str) -> Result<(), &'static str> {
        let unknown = "is neither `token ID` nor `user NAME` nor `user NAME TIME`";
        match line.split_once(char::is_whitespace).map(|(kind, rest)| (kind, rest.trim())) {
            Some(("token", rest)) => match name_and_rest(rest)? {
                (id, "") => drop(self.tokens.insert(id)),
                _ => return Err("has more than an id behind `token`; an id with a space is written in quotes"),
            },
            Some(("user", rest)) => {
                let (name, rest) = name_and_rest(rest)?;
                let until = if rest.is_empty() { u64::MAX } else { time(rest)? };
                let known = self.users.entry(name).or_insert(until);
                *known = until.max(*known);
            }
            _ => return Err(unknown),
        }
        Ok(())
    }

    /// How many tokens and users it names.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.tokens.len(), self.users.len())
    }

    pub(super) fn names_token(&self, id: &str) -> bool {
        self.tokens.contains(id)
    }

    pub(super) fn names_user(&self, name: &str, issued_ms: Option<u64>) -> bool {
        self.users.get(name).is_some_and(|until| issued_ms.is_none_or(|issued| issued < *until))
    }
}

/// A name up to a space, or in quotes; and what is behind it.
fn name_and_rest(text: &str) -> Result<(Box<str>, &str), &'static str> {
    if !text.starts_with('"') {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Ok((name.into(), rest.trim()));
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(name)) => Ok((name.into(), text[values.byte_offset()..].trim())),
        _ => Err("has a name in quotes that do not end, or that are not those of JSON"),
    }
}

fn time(text: &str) -> Result<u64, &'static str> {
    let why = "has something behind the name that is no time: write one as in 2026-11-27T09:00:00Z, and a name with a space in quotes";
    let time: jiff::Timestamp = text.parse().map_err(|_| why)?;
    Ok(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tokens_and_users() {
        let list =
            "# a comment\n\ntoken 7f3a\nuser mallory\nuser \"Alice Smith\" 2027-01-15T08:00:00Z\n  user\tbob\r\n";
        let revoked = Revoked::parse(list).expect("a good list");
        assert!(revoked.names_token("7f3a") && !revoked.names_token("7f3"));
        assert!(revoked.names_user("mallory", Some(u64::MAX - 1)) && revoked.names_user("bob", None));
        let at = 1_800_000_000_000;
        assert!(revoked.names_user("Alice Smith", Some(at - 1)) && revoked.names_user("Alice Smith", None));
        assert!(!revoked.names_user("Alice Smith", Some(at)) && !revoked.names_user("Alice", None));
    }

    #[test]
    fn the_widest_of_several_lines_counts() {
        let list = "user a 2027-01-15T08:00:00Z\nuser a\nuser a 2020-01-01 00:00:00Z";
        assert!(Revoked::parse(list).expect("a good list").names_user("a", Some(1_900_000_000_000)));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_by_its_number() {
        for (list, told) in [
            ("token a\nmallory", "line 2: is neither"),
            ("user alice 2027-13-15T08:00:00Z", "line 1: has something behind the name"),
            ("user alice 2027-01-01", "line 1: has something behind the name"),
            ("user alice now", "line 1: has something behind the name"),
            ("user Alice Smith", "line 1: has something behind the name"),
            ("user \"Alice Smith", "line 1: has a name in quotes"),
            ("user \"Alice\" Smith", "line 1: has something behind the name"),
            ("token 7f3a lost", "line 1: has more than an id"),
            ("session x", "line 1: is neither"),
            ("user", "line 1: is neither"),
        ] {
            let why = Revoked::parse(list).expect_err(list);
            assert!(why.starts_with(told), "{why}");
        }
    }
}
