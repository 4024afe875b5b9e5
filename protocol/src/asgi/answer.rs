//! What a service answers: one event, or a list of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::message::{Message, MessageError};
use crate::names::{GroupName, NameError};

/// Events of one answer: who has more to say calls the API.
const ACTIONS_MAX: usize = 32;
/// Bytes of a reason: as many as a close frame takes (RFC 6455, section 5.5).
const REASON_BYTES_MAX: usize = 123;
/// Bytes of a user's name, as of the `sub` of a token.
const USER_BYTES_MAX: usize = 255;

/// What a service wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `websocket.accept`: the connection may be.
    Accept(Accept),
    /// `websocket.close`: it may not, or not any longer.
    Close {
        /// The close code; `None`: none was said.
        code: Option<u16>,
        /// Why, for the client; empty: nothing was said.
        reason: String,
    },
    /// `allow`: what was asked about may go on as it is.
    Allow,
    /// `deny`: it may not.
    Deny {
        /// Why, for the client; empty: nothing was said.
        reason: String,
    },
    /// `group_send`: a message to a group.
    GroupSend {
        /// The group.
        group: GroupName,
        /// The message.
        message: Message,
    },
    /// `group_add`: the connection that asks gets into a group.
    GroupAdd(GroupName),
    /// `group_discard`: it leaves one.
    GroupDiscard(GroupName),
    /// `websocket.send`: a message to it alone.
    Send(Message),
}

/// How a connection may be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accept {
    /// Who its client is; `None`: who it was before.
    pub user: Option<String>,
    /// Groups that it is in from the beginning.
    pub groups: Vec<GroupName>,
    /// What the user may do; `None`: all that the configuration lets the service give.
    pub rights: Option<RightsSaid>,
    /// Claims, for queries that bind them and for the tenant.
    pub claims: BTreeMap<String, Value>,
    /// When the connection ends, in milliseconds since 1970; `None`: not by itself.
    pub expires_ms: Option<u64>,
}

/// Lists of patterns, as in a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RightsSaid {
    /// Groups that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Groups that may be sent to.
    pub send: Vec<String>,
    /// Queries that may be run.
    pub query: Vec<String>,
}

/// An answer that makes no sense. It is a defect of the service, and nothing of it is done.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON, or of another form.
    #[error("the answer is not an event, or a list of events: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no event.
    #[error("the answer is not an event, or a list of events: one of them is no object")]
    NotAnObject,
    /// A type that is none of an answer.
    #[error("the answer has an event of type {0:?}, which is not one that can be answered")]
    UnknownType(String),
    /// More events than are taken.
    #[error("the answer has {0} events, at most {ACTIONS_MAX} are taken")]
    TooMany(usize),
    /// A group that cannot be one.
    #[error("the answer names a group that is none: {0}")]
    Group(#[from] NameError),
    /// A group that only the gateway sends to.
    #[error("the answer names group `{0}`, which carries a live query")]
    LiveQuery(GroupName),
    /// A message that is none.
    #[error("the answer has a message that is none: {0}")]
    Message(#[from] MessageError),
    /// A name that no user can have.
    #[error("the answer names a user by more than {USER_BYTES_MAX} bytes, by none, or with control characters")]
    User,
    /// A subprotocol that is not spoken.
    #[error("the answer accepts the subprotocol {0:?}, and only `groupcast.v1` is spoken")]
    Subprotocol(String),
    /// Rights or claims of nobody.
    #[error("the answer has `rights`, `claims` or `expires_at` and no `user` that they could be of")]
    OfNobody,
}

/// Reads an answer. Nothing at all is an empty list.
///
/// # Errors
/// When any part of it makes no sense.
pub fn decode(body: &[u8]) -> Result<Vec<Action>, AnswerError> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let events: Vec<&RawValue> = match serde_json::from_slice::<&RawValue>(body)? {
        list if list.get().starts_with('[') => serde_json::from_str(list.get())?,
        one => vec![one],
    };
    if events.len() > ACTIONS_MAX {
        return Err(AnswerError::TooMany(events.len()));
    }
    events.into_iter().map(action).collect()
}

/// Every key has to be known: one that is misspelled would be a right that was not taken away.
fn action(event: &RawValue) -> Result<Action, AnswerError> {
    let text = event.get();
    // The parser would take `["allow"]` for a struct of one field.
    if !text.starts_with('{') {
        return Err(AnswerError::NotAnObject);
    }
    let Head { kind } = serde_json::from_str(text)?;
    Ok(match kind.as_str() {
        "websocket.accept" => Action::Accept(accept(serde_json::from_str(text)?)?),
        "websocket.close" => {
            let CloseSaid { code, reason, .. } = serde_json::from_str(text)?;
            Action::Close { code, reason: plain(&reason) }
        }
        "allow" => {
            let AllowSaid { .. } = serde_json::from_str(text)?;
            Action::Allow
        }
        "deny" => {
            let DenySaid { reason, .. } = serde_json::from_str(text)?;
            Action::Deny { reason: plain(&reason) }
        }
        "group_send" => {
            let SendSaid { group: name, message: raw, .. } = serde_json::from_str(text)?;
            Action::GroupSend { group: group(&name)?, message: message(raw)? }
        }
        "group_add" => Action::GroupAdd(group_of(text)?),
        "group_discard" => Action::GroupDiscard(group_of(text)?),
        "websocket.send" => {
            let DirectSaid { message: raw, .. } = serde_json::from_str(text)?;
            Action::Send(message(raw)?)
        }
        other => return Err(AnswerError::UnknownType(other.chars().take(40).collect())),
    })
}

fn accept(said: AcceptSaid) -> Result<Accept, AnswerError> {
    let AcceptSaid { user, groups, subprotocol, rights, claims, expires_at, .. } = said;
    if let Some(other) = subprotocol.filter(|name| name != crate::websocket::SUBPROTOCOL) {
        return Err(AnswerError::Subprotocol(other.chars().take(40).collect()));
    }
    let is_name = |name: &String| (1..=USER_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if user.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(AnswerError::User);
    }
    if user.is_none() && (rights.is_some() || !claims.is_empty() || expires_at.is_some()) {
        return Err(AnswerError::OfNobody);
    }
    // A cast saturates, and what is before 1970 is 1970.
    let expires_ms = expires_at.map(|seconds| (seconds * 1000.0) as u64);
    let groups = groups.iter().map(|name| group(name)).collect::<Result<_, _>>()?;
    Ok(Accept { user, groups, rights, claims, expires_ms })
}

fn group(name: &str) -> Result<GroupName, AnswerError> {
    let group = GroupName::parse(name)?;
    if group.is_of_live_query() { Err(AnswerError::LiveQuery(group)) } else { Ok(group) }
}

fn group_of(text: &str) -> Result<GroupName, AnswerError> {
    let GroupSaid { group: name, .. } = serde_json::from_str(text)?;
    group(&name)
}

fn message(raw: &RawValue) -> Result<Message, AnswerError> {
    Ok(Message::parse(Bytes::copy_from_slice(raw.get().as_bytes()))?)
}

/// A reason as a close frame can have it: short, and no control characters.
fn plain(reason: &str) -> String {
    let mut plain = String::new();
    for c in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        plain.push(c);
    }
    plain
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptSaid {
    #[serde(rename = "type")]
    _kind: String,
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    subprotocol: Option<String>,
    rights: Option<RightsSaid>,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    /// Seconds since 1970, as the `exp` of a token.
    expires_at: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseSaid {
    #[serde(rename = "type")]
    _kind: String,
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowSaid {
    #[serde(rename = "type")]
    _kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DenySaid {
    #[serde(rename = "type")]
    _kind: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendSaid<'a> {
    #[serde(rename = "type")]
    _kind: String,
    group: String,
    #[serde(borrow)]
    message: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupSaid {
    #[serde(rename = "type")]
    _kind: String,
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectSaid<'a> {
    #[serde(rename = "type")]
    _kind: String,
    #[serde(borrow)]
    message: &'a RawValue,
}
