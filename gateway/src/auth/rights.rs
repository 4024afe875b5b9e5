//! `Rights`: what is granted, as lists of patterns. Nothing is granted that no pattern matches.

use std::sync::Arc;

use groupcast_protocol::message::same_kind;
use groupcast_protocol::{NameError, Pattern};

use crate::config::GroupConfig;

/// Patterns in one list: each is compared with each name, on every message.
const PATTERNS_MAX: usize = 100;

/// What somebody may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Groups that may be subscribed to; who may listen may also see members and history.
    pub subscribe: Patterns,
    /// Groups that may be sent to.
    pub send: Patterns,
    /// Named queries that may be run and followed.
    pub query: Patterns,
    /// Types of messages that may be sent; `None`: all.
    pub types: Option<Types>,
    /// Types that clients may send, group by group.
    pub types_of_groups: Arc<GroupTypes>,
    /// Only groups whose names begin with this, whatever the patterns say: those of the user's tenant.
    pub within: Option<Box<str>>,
    /// Only what these rights grant too: what may be given at all.
    pub bound: Option<Arc<Self>>,
}

/// `[[group]] types`: of several patterns the first that matches counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupTypes(Box<[(Pattern, Option<Types>)]>);

/// Types of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types(Box<[String]>);

/// Exact names and prefixes that end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Box<[Pattern]>);

/// A list that grants nothing because it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// Something else than an exact name or a prefix.
    #[error("`{list}` has a pattern that is none: {source}; write a name, or a prefix that ends in `*`")]
    Pattern {
        /// The list.
        list: &'static str,
        /// What is wrong with it.
        source: NameError,
    },
    /// More than are compared with each name.
    #[error("`{list}` has {found} patterns, at most {PATTERNS_MAX} are allowed; use prefixes that end in `*`")]
    TooMany {
        /// The list.
        list: &'static str,
        /// How many it has.
        found: usize,
    },
}

impl Rights {
    /// Reads the lists as they are in the configuration and in tokens.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn parse(subscribe: &[String], send: &[String], query: &[String]) -> Result<Self, RightsError> {
        Ok(Self {
            subscribe: Patterns::parse("subscribe", subscribe)?,
            send: Patterns::parse("send", send)?,
            query: Patterns::parse("query", query)?,
            ..Self::default()
        })
    }

    /// Whether a group may be subscribed to.
    pub fn allow_subscribe(&self, group: &str) -> bool {
        self.is_within(group) && self.subscribe.allow(group) && self.is_bound(|bound| bound.allow_subscribe(group))
    }

    /// Whether every group may be subscribed to whose name begins with this.
    pub fn allow_list(&self, prefix: &str) -> bool {
        self.is_within(prefix) && self.subscribe.allow_all_of(prefix) && self.is_bound(|bound| bound.allow_list(prefix))
    }

    /// Whether a group or channel may be sent to, whatever the message is.
    pub fn allow_reply(&self, name: &str) -> bool {
        self.is_within(name) && self.send.allow(name) && self.is_bound(|bound| bound.allow_reply(name))
    }

    /// Whether a query may be run.
    pub fn allow_query(&self, name: &str) -> bool {
        self.query.allow(name) && self.is_bound(|bound| bound.allow_query(name))
    }

    /// Whether a message of this type may be sent to this group or channel.
    pub fn allow_send(&self, name: &str, kind: &str) -> bool {
        let granted = self.types.as_ref().is_none_or(|types| types.allow(kind));
        granted && self.types_of_groups.allow(name, kind) && self.allow_reply(name)
    }

    fn is_bound(&self, granted: impl Fn(&Self) -> bool) -> bool {
        self.bound.as_deref().is_none_or(granted)
    }

    /// Whether a name is one of the user's tenant's, if he has one.
    pub(crate) fn is_within(&self, name: &str) -> bool {
        self.within.as_ref().is_none_or(|within| name.starts_with(&**within))
    }

    /// Whether nothing is granted at all.
    pub fn are_none(&self) -> bool {
        [&self.subscribe, &self.send, &self.query].iter().all(|patterns| patterns.0.is_empty())
    }
}

impl Types {
    /// These types and no others; dots and underscores are the same.
    pub fn new(types: &[String]) -> Self {
        Self(types.into())
    }

    fn allow(&self, kind: &str) -> bool {
        self.0.iter().any(|known| same_kind(known, kind))
    }
}

impl GroupTypes {
    /// Reads the sections of groups.
    ///
    /// # Errors
    /// When a pattern is none.
    pub fn new(groups: &[GroupConfig]) -> Result<Self, RightsError> {
        let read = |group: &GroupConfig| {
            let pattern = Pattern::parse(&group.name);
            let pattern = pattern.map_err(|source| RightsError::Pattern { list: "group", source })?;
            Ok((pattern, group.types.as_deref().map(Types::new)))
        };
        groups.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn allow(&self, name: &str, kind: &str) -> bool {
        let rule = self.0.iter().find(|(pattern, _)| pattern.matches(name));
        rule.and_then(|(_, types)| types.as_ref()).is_none_or(|types| types.allow(kind))
    }
}

impl Patterns {
    /// Reads a list; `list` is its name.
    ///
    /// # Errors
    /// When an entry is no pattern, or there are too many.
    pub fn parse(list: &'static str, texts: &[String]) -> Result<Self, RightsError> {
        if texts.len() > PATTERNS_MAX {
            return Err(RightsError::TooMany { list, found: texts.len() });
        }
        let patterns = texts.iter().map(|text| Pattern::parse(text));
        patterns.collect::<Result<_, _>>().map(Self).map_err(|source| RightsError::Pattern { list, source })
    }

    /// Whether a name is granted.
    pub fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether every name is granted that begins with this.
    pub fn allow_all_of(&self, prefix: &str) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Prefix(granted) if prefix.starts_with(&**granted)))
    }
}
