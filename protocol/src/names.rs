//! Names of groups, channels and nodes, parsed once at the edge.
//!
//! A name that has been checked is a type: no other part of Groupcast looks at the characters again.
//! What a name permits is not decided here.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::id::Id;

/// The most characters a group or channel name may have (Django Channels: "length < 100").
pub const NAME_LEN_MAX: usize = 99;

/// How the names of groups begin that carry live queries. Only the gateway sends to those, and nobody is in them but who
/// subscribed to the query.
const LIVE_PREFIX: &str = "query.";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the {what} is empty; give it 1 to {NAME_LEN_MAX} characters")]
    Empty {
        /// `group name`, `channel name` …
        what: &'static str,
    },
    /// The text is longer than [`NAME_LEN_MAX`].
    #[error("the {what} has {len} characters, at most {NAME_LEN_MAX} are allowed; shorten it")]
    TooLong {
        /// `group name`, `channel name` …
        what: &'static str,
        /// How many characters it has.
        len: usize,
    },
    /// A character outside of the allowed set.
    #[error(
        "the {what} has {found:?} at position {at}; use only ASCII letters, digits, hyphens, underscores and periods{extra}"
    )]
    BadCharacter {
        /// `group name`, `channel name` …
        what: &'static str,
        /// The character that is not allowed there.
        found: char,
        /// Its position, in characters from 0.
        at: usize,
        /// What else is allowed in this kind of name.
        extra: &'static str,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a group: 1 to 99 of ASCII letters, digits, `-`, `_` and `.`.
    ///
    /// Cheap to clone. Source: Django Channels, `BaseChannelLayer.valid_group_name`.
    GroupName
}

name_type! {
    /// The name of a channel: like a group's, with at most one `!` after its first character.
    ///
    /// What stands before the `!` names the process that reads it. Cheap to clone.
    /// Source: Django Channels, `BaseChannelLayer.valid_channel_name`.
    ChannelName
}

name_type! {
    /// The name of a gateway process within a deployment: letters, digits, `-`, `_`, `.`; at most 32 of them.
    NodeId
}

impl GroupName {
    /// Checks a group's name.
    ///
    /// # Errors
    /// When it is empty, too long or has a character outside of the allowed set.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("group name", text, Bang::Never).map(Self)
    }

    /// The group of the live query that has this id.
    pub fn of_live_query(id: Id) -> Self {
        Self(format!("{LIVE_PREFIX}{id}").into())
    }

    /// Whether groups of this name carry live queries, and so are nobody's to name in a request.
    pub fn is_of_live_query(&self) -> bool {
        self.0.starts_with(LIVE_PREFIX)
    }
}

impl ChannelName {
    /// Checks a channel's name.
    ///
    /// # Errors
    /// When it is empty, too long, begins with `!`, has two of them, or has a character outside of the allowed set.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("channel name", text, Bang::Once).map(Self)
    }

    /// The name up to and including its `!`, or the whole name: what capacity is counted for in Channels.
    pub fn non_local(&self) -> &str {
        match self.0.find('!') {
            Some(at) => &self.0[..=at],
            None => &self.0,
        }
    }

    /// The node that made the name, as in `specific.NODE!c12`; none for a name that any node may read, or that is made
    /// otherwise.
    pub fn node(&self) -> Option<NodeId> {
        let (non_local, _) = self.0.split_once('!')?;
        let (_, node) = non_local.split_once('.')?;
        NodeId::parse(node).ok()
    }

    /// Whether only the process that made the name may read it.
    pub fn is_process_local(&self) -> bool {
        self.0.contains('!')
    }
}

impl NodeId {
    /// Checks a node's name.
    ///
    /// # Errors
    /// When it is empty, longer than 32 or has a character outside of the allowed set.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > 32 {
            return Err(NameError::TooLong { what: "node name", len: text.len() });
        }
        check("node name", text, Bang::Never).map(Self)
    }
}

/// An exact name, or a prefix that ends in `*`. `room.*` matches `room.1` and not `room`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Matches this name alone.
    Exact(Box<str>),
    /// Matches every name that begins with this text; the empty prefix matches all.
    Prefix(Box<str>),
}

impl Pattern {
    /// Checks a pattern: a name, or a name's beginning followed by one `*`.
    ///
    /// # Errors
    /// When a `*` stands elsewhere than at the end, or what is before it cannot begin a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self::Prefix("".into())),
            Some(prefix) => check("pattern", prefix, Bang::Once).map(|p| Self::Prefix((*p).into())),
            None => check("pattern", text, Bang::Once).map(|p| Self::Exact((*p).into())),
        }
    }

    /// Whether a name is one that the pattern means.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Whether a kind of name may have a `!`.
#[derive(Clone, Copy, PartialEq)]
enum Bang {
    Never,
    Once,
}

fn check(what: &'static str, text: &str, bang: Bang) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    let mut bangs = 0;
    for (at, found) in text.chars().enumerate() {
        let fine = match found {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => true,
            '!' if bang == Bang::Once && at > 0 => {
                bangs += 1;
                bangs == 1
            }
            _ => false,
        };
        if !fine {
            let extra = if bang == Bang::Once { ", and one `!` after the first character" } else { "" };
            return Err(NameError::BadCharacter { what, found, at, extra });
        }
    }
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong { what, len: text.len() });
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_what_channels_takes() {
        for name in ["a", "my_group", "room.1", "A-b_c.9", &"x".repeat(99)] {
            assert_eq!(GroupName::parse(name).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn the_group_of_a_live_query_is_known_by_its_name() {
        let group = GroupName::of_live_query(Id::from_bytes([255; 16]));
        assert_eq!(group.as_str(), "query.7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(GroupName::parse(group.as_str()), Ok(group.clone()));
        let is_one = |name: &str| GroupName::parse(name).expect("a valid name").is_of_live_query();
        assert!(group.is_of_live_query() && is_one("query.x"));
        assert!(!is_one("query") && !is_one("queries.x") && !is_one("my.query.x"));
    }

    #[test]
    fn a_group_refuses_what_channels_refuses() {
        for name in ["", "a/b", "room:1", "a!b", "a b", "a\n", "é", "\u{661}", &"x".repeat(100)] {
            assert!(GroupName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_channel_has_one_bang_after_its_first_character() {
        for name in ["specific.gw1!c12", "a!", "plain"] {
            assert!(ChannelName::parse(name).is_ok(), "{name:?}");
        }
        for name in ["!a", "a!b!c", "a!é"] {
            assert!(ChannelName::parse(name).is_err(), "{name:?}");
        }
        let name = ChannelName::parse("specific.gw1!c12").expect("a valid name");
        assert_eq!((name.non_local(), name.is_process_local()), ("specific.gw1!", true));
    }

    #[test]
    fn a_prefix_does_not_match_its_own_stem() {
        let rooms = Pattern::parse("room.*").expect("a valid pattern");
        assert!(rooms.matches("room.1") && rooms.matches("room."));
        assert!(!rooms.matches("room") && !rooms.matches("rooms"));
        assert!(Pattern::parse("*").expect("a valid pattern").matches("anything"));
        assert!(Pattern::parse("a*b").is_err() && Pattern::parse("").is_err());
    }
}
