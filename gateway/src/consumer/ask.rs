//! `Ask`: the fields of a message that a consumer decides on. Everything else passes through.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{ChannelName, ErrorCode, GroupName, Message, Refusal};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::claim_params::with_claims;
use super::once::Once;
use super::params::Given;
use super::queries::{Queries, Query};
use crate::jobs::{Asker, ReplyTo};

/// The longest `delay_ms` and `deadline_ms`: 30 days.
const MS_MAX: u64 = 30 * 86_400_000;

/// The largest `max_attempts` that a message may ask for.
const ATTEMPTS_MAX: u32 = 100;

/// The longest `unique_key`, as of an `Idempotency-Key`.
const UNIQUE_KEY_MAX: usize = 255;

/// The field that says how old what is answered may be; no parameter of a query has this name.
pub(crate) const MAX_STALE: &str = "max_stale_ms";

/// The top level of a message, unread.
pub(crate) struct Ask<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// Whose ask it is; `None`: no user's.
    asker: Option<&'a Asker>,
}

const REPLY_TO: &str = "the name of a group or channel, or one of both as in {\"channel\":\"name\"}";

/// Who is to get the events: by a name alone, or with its kind.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Target {
    Name(String),
    Kind(Kind),
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Channel(String),
    Group(String),
}

/// What every job may ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) reply_to: Option<ReplyTo>,
    pub(crate) unique_key: Option<String>,
    pub(crate) priority: i32,
    pub(crate) delay_ms: Option<u64>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) max_attempts: Option<u32>,
}

/// What a query is asked.
pub(crate) struct Question {
    pub(crate) query: Arc<Query>,
    pub(crate) params: Given,
    pub(crate) limit: Option<u64>,
    /// How old what is answered may be; `None`: as old as the query's `cache` allows.
    pub(crate) max_stale: Option<Duration>,
}

/// What a report is read as by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// To look at.
    #[default]
    Html,
    /// To compute with.
    Csv,
}

impl<'a> Ask<'a> {
    /// Reads the top level.
    pub(crate) fn parse(message: &'a Message) -> Result<Self, Refusal> {
        let fields = serde_json::from_str(message.as_str());
        fields
            .map(|Once(fields)| Self { fields, asker: None })
            .map_err(|error| Refusal::new(ErrorCode::BadParams, error.to_string()))
    }

    /// The ask of somebody, whose token fills in what queries bind of it.
    pub(crate) fn of(self, asker: Option<&'a Asker>) -> Self {
        Self { asker, ..self }
    }

    /// What every job may ask for.
    pub(crate) fn wishes(&self) -> Result<Wishes, Refusal> {
        Ok(Wishes {
            reply_to: self.field("reply_to", REPLY_TO)?.map(reply_to).transpose()?,
            unique_key: self.field("unique_key", "a text")?.map(unique_key).transpose()?,
            priority: self.field("priority", "a whole number within 32 bits")?.unwrap_or(0),
            delay_ms: self.within("delay_ms", 0, MS_MAX)?,
            deadline_ms: self.within("deadline_ms", 1, MS_MAX)?,
            max_attempts: self.within("max_attempts", 1, ATTEMPTS_MAX.into())?.map(|n| n as u32),
        })
    }

    /// Which query is meant, and with what.
    pub(crate) fn question(&self, queries: &Queries) -> Result<Question, Refusal> {
        let name: Option<String> = self.field("query", "the name of a query")?;
        let id: Option<u64> = self.field("queryset_id", "the id of a query, a whole number")?;
        let query = match (name, id) {
            (Some(name), None) => queries.named(&name)?,
            (None, Some(id)) => queries.numbered(id)?,
            (Some(name), Some(id)) => {
                let query = queries.named(&name)?;
                if query.config.id != id {
                    let why = format!("is {id}, but query `{name}` has id {}; give one of the two", query.config.id);
                    return Err(bad("queryset_id", &why));
                }
                query
            }
            (None, None) => return Err(bad("query", "is missing, and so is `queryset_id`; name a query with one")),
        };
        let params: Option<Once<_, _>> = self.field("params", "an object of parameters by name, each of them once")?;
        let mut params: Given = params.map(|Once(params)| params).unwrap_or_default();
        let limit = self.within("limit", 1, u64::MAX)?;
        // Where the parameters are all that can be sent, it is among them.
        let given = params.remove(MAX_STALE);
        let max_stale = match given.as_deref().or(self.fields.get(MAX_STALE).copied()) {
            Some(raw) => within(MAX_STALE, raw, 0, MS_MAX)?,
            None => None,
        };
        let params = with_claims(query, params, self.asker)?;
        Ok(Question { query: Arc::clone(query), params, limit, max_stale: max_stale.map(Duration::from_millis) })
    }

    /// What a report is read as.
    pub(crate) fn format(&self) -> Result<Format, Refusal> {
        Ok(self.field("format", "`html` or `csv`")?.unwrap_or_default())
    }

    /// How many jobs the message is away from a client's; only consumers write this.
    pub(crate) fn hops(&self) -> u8 {
        self.field("hops", "a number").ok().flatten().unwrap_or(0)
    }

    /// A field that may be missing; `null` is missing.
    fn field<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<Option<T>, Refusal> {
        self.fields.get(name).map_or(Ok(None), |raw| read(name, raw, expected))
    }

    fn within(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        self.fields.get(name).map_or(Ok(None), |raw| within(name, raw, min, max))
    }
}

fn read<T: DeserializeOwned>(name: &str, raw: &RawValue, expected: &str) -> Result<Option<T>, Refusal> {
    match raw.get() {
        "null" => Ok(None),
        json => serde_json::from_str(json).map(Some).map_err(|_| bad(name, &format!("must be {expected}"))),
    }
}

fn within(name: &str, raw: &RawValue, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
    let value = read::<u64>(name, raw, "a whole number, not negative")?;
    match value {
        Some(n) if n < min => Err(bad(name, &format!("is {n}, but must be at least {min}"))),
        Some(n) if n > max => Err(bad(name, &format!("is {n}, but must be at most {max}"))),
        _ => Ok(value),
    }
}

/// A name with a `!` is a channel's; every other one is taken for a group's.
fn reply_to(target: Target) -> Result<ReplyTo, Refusal> {
    let kind = match target {
        Target::Name(name) if name.contains('!') => Kind::Channel(name),
        Target::Name(name) => Kind::Group(name),
        Target::Kind(kind) => kind,
    };
    let parsed = match kind {
        Kind::Channel(name) => ChannelName::parse(&name).map(ReplyTo::Channel),
        Kind::Group(name) => GroupName::parse(&name).map(ReplyTo::Group),
    };
    let target = parsed.map_err(|error| bad("reply_to", &format!("is not a name: {error}")))?;
    match &target {
        ReplyTo::Group(group) if group.is_of_live_query() => Err(Refusal::group_of_live_query(group)),
        ReplyTo::Group(_) | ReplyTo::Channel(_) | ReplyTo::Nobody => Ok(target),
    }
}

fn unique_key(key: String) -> Result<String, Refusal> {
    if key.is_empty() || key.len() > UNIQUE_KEY_MAX {
        return Err(bad("unique_key", &format!("has {} bytes, but must have 1 to {UNIQUE_KEY_MAX}", key.len())));
    }
    Ok(key)
}

fn bad(field: &str, why: &str) -> Refusal {
    Refusal::new(ErrorCode::BadParams, format!("`{field}` {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::testing::message;

    #[test]
    fn a_reply_goes_to_a_group_unless_it_is_said_otherwise() {
        let told = |json: &str| {
            let message = message(&format!(r#"{{"type":"x","reply_to":{json}}}"#));
            Ask::parse(&message).expect("an object").wishes().map(|wishes| wishes.reply_to)
        };
        let channel = |name| Some(ReplyTo::Channel(ChannelName::parse(name).expect("a name")));
        let group = |name| Some(ReplyTo::Group(GroupName::parse(name).expect("a name")));
        assert_eq!(told(r#""chan""#).expect("valid"), group("chan"));
        assert_eq!(told(r#""specific.a!b""#).expect("valid"), channel("specific.a!b"));
        assert_eq!(told(r#"{"channel":"chan"}"#).expect("valid"), channel("chan"));
        assert_eq!(told(r#"{"group":"chan"}"#).expect("valid"), group("chan"));
        assert_eq!(told(r#""query.x""#).expect_err("a live query's").code, ErrorCode::Forbidden);
        for bad in ["7", "{}", r#"{"user":"x"}"#, r#"{"group":"a","channel":"b"}"#, r#"{"group":"a!b"}"#] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
