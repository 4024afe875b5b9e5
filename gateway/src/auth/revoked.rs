//! `Revoked`: tokens that are worth nothing any more before their time, as a file lists them.
//!
//! ```text
//! # lost on a train
//! token 7f3a9c
//! user mallory
//! user alice 2026-11-27T09:00:00Z
//! ```
//!
//! `token` is a claim `jti`; `user` a `sub`, all of whose tokens are meant, or those that were issued (`iat`) before a time.
//! One that does not say when it was issued counts as issued before.

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
        match line.split_once(' ').map(|(kind, rest)| (kind, rest.trim())) {
            Some(("token", id)) => drop(self.tokens.insert(id.into())),
            Some(("user", rest)) => {
                let (name, until) = name_and_time(rest)?;
                let known = self.users.entry(name.into()).or_insert(until);
                *known = until.max(*known);
            }
            _ => return Err(unknown),
        }
        Ok(())
    }

    pub(super) fn names_token(&self, id: &str) -> bool {
        self.tokens.contains(id)
    }

    pub(super) fn names_user(&self, name: &str, issued_ms: Option<u64>) -> bool {
        self.users.get(name).is_some_and(|until| issued_ms.is_none_or(|issued| issued < *until))
    }
}

/// A name may have spaces in it; a time has none, and stands last.
fn name_and_time(rest: &str) -> Result<(&str, u64), &'static str> {
    let Some((name, last)) = rest.rsplit_once(' ') else { return Ok((rest, u64::MAX)) };
    let looks_like_time = last.starts_with(|c: char| c.is_ascii_digit()) && last.contains('T');
    if !looks_like_time {
        return Ok((rest, u64::MAX));
    }
    let time: jiff::Timestamp =
        last.parse().map_err(|_| "has a time that cannot be read; write it as in 2026-11-27T09:00:00Z")?;
    Ok((name.trim_end(), u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tokens_and_users() {
        let list = "# a comment\n\ntoken 7f3a\nuser mallory\nuser Alice Smith 2027-01-15T08:00:00Z\n  user bob\r\n";
        let revoked = Revoked::parse(list).expect("a good list");
        assert!(revoked.names_token("7f3a") && !revoked.names_token("7f3"));
        assert!(revoked.names_user("mallory", Some(u64::MAX - 1)) && revoked.names_user("bob", None));
        let at = 1_800_000_000_000;
        assert!(revoked.names_user("Alice Smith", Some(at - 1)) && revoked.names_user("Alice Smith", None));
        assert!(!revoked.names_user("Alice Smith", Some(at)) && !revoked.names_user("Alice", None));
    }

    #[test]
    fn the_widest_of_several_lines_counts() {
        let list = "user a 2027-01-15T08:00:00Z\nuser a\nuser a 2020-01-01T00:00:00Z";
        assert!(Revoked::parse(list).expect("a good list").names_user("a", Some(1_900_000_000_000)));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_by_its_number() {
        for (list, told) in [
            ("token a\nmallory", "line 2: is neither"),
            ("user alice 2027-13-15T08:00:00Z", "line 1: has a time"),
            ("session x", "line 1: is neither"),
        ] {
            let why = Revoked::parse(list).expect_err(list);
            assert!(why.starts_with(told), "{why}");
        }
    }
}
