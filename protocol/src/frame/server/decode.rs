//! JSON text to server frames, for clients of ours.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{GapReason, HistoryEntry, HistoryPage, PROTOCOL, Recovery, ServerFrame, Unrecovered};
use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
use crate::frame::accepted::Accepted;
use crate::frame::fields::{FieldError, Fields};
use crate::frame::request_id::RequestId;
use crate::message::{Message, MessageError};
use crate::names::{ChannelName, GroupName, NameError};

/// Why a text is not a frame of this version of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A `type` that is not known here: a newer server. A client passes over it.
    #[error("the server sent a frame of type {0:?}, which is not known here; update this client")]
    UnknownType(String),
    /// A field is missing or wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A name is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A message is not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl ServerFrame {
    /// Reads a text message of a server.
    ///
    /// # Errors
    /// [`FrameError::UnknownType`] for a frame of a newer server, otherwise what is wrong with it.
    pub fn decode(text: &str) -> Result<Self, FrameError> {
        let fields = &Fields::parse(text)?;
        let id = fields.raw("id")?.map(RequestId::read).transpose()?;
        let frame = match &*fields.string("type")? {
            "welcome" => welcome(fields)?,
            "subscribed" => subscribed(fields, id)?,
            "unsubscribed" => Self::Unsubscribed { id, group: group(fields)? },
            "accepted" => Self::Accepted { id, accepted: accepted(text)? },
            "cancelled" => Self::Cancelled { id, job: parsed(fields, "job")? },
            "members" => {
                let next = fields.optional_string("next")?.map(Cow::into_owned);
                Self::Members { id, group: group(fields)?, members: members(fields)?, next }
            }
            "history" => Self::History { id, group: group(fields)?, page: page(fields)? },
            "authenticated" => Self::Authenticated { id, user: user(fields)? },
            "pong" => Self::Pong { id },
            "message" => message(fields)?,
            "joined" => Self::Joined { group: group(fields)?, member: channel(fields, "member")? },
            "left" => Self::Left { group: group(fields)?, member: channel(fields, "member")? },
            "gap" => gap(fields)?,
            "closing" => Self::Closing { retry_after_ms: fields.whole("retry_after_ms")? },
            "error" => Self::Error { id, refusal: refusal(fields)? },
            unknown => return Err(FrameError::UnknownType(unknown.chars().take(40).collect())),
        };
        Ok(frame)
    }
}

fn welcome(fields: &Fields<'_>) -> Result<ServerFrame, FrameError> {
    let protocol = fields.string("protocol")?;
    if protocol != PROTOCOL {
        let why = format!("the server speaks {protocol:?}, this client {PROTOCOL:?}; update one of them");
        return Err(FieldError::Invalid { field: "protocol", why }.into());
    }
    Ok(ServerFrame::Welcome { channel: channel(fields, "channel")?, user: user(fields)? })
}

fn subscribed(fields: &Fields<'_>, id: Option<RequestId>) -> Result<ServerFrame, FrameError> {
    let group = group(fields)?;
    if let Some(query) = fields.optional_string("query")? {
        return Ok(ServerFrame::SubscribedQuery { id, query: query.into(), group });
    }
    Ok(ServerFrame::Subscribed { id, group, position: position(fields)?, recovery: recovery(fields)? })
}

fn message(fields: &Fields<'_>) -> Result<ServerFrame, FrameError> {
    let raw = fields.raw("message")?.ok_or(FieldError::Missing { field: "message", needed: "an object" })?;
    let message = payload(raw)?;
    if fields.raw("channel")?.is_some() {
        return Ok(ServerFrame::ChannelMessage { channel: channel(fields, "channel")?, message });
    }
    Ok(ServerFrame::GroupMessage { group: group(fields)?, offset: fields.optional_whole("offset")?, message })
}

fn gap(fields: &Fields<'_>) -> Result<ServerFrame, FrameError> {
    let reason = one_of(fields, "reason", GapReason::ALL, GapReason::as_str)?;
    let missed = fields.optional_whole("missed")?;
    Ok(ServerFrame::Gap { group: group(fields)?, missed, reason, position: position(fields)? })
}

fn recovery(fields: &Fields<'_>) -> Result<Option<Recovery>, FrameError> {
    Ok(match fields.optional_boolean("recovered")? {
        None => None,
        Some(true) => Some(Recovery::Recovered),
        Some(false) => Some(Recovery::Unrecovered(one_of(fields, "reason", Unrecovered::ALL, Unrecovered::as_str)?)),
    })
}

fn position(fields: &Fields<'_>) -> Result<Option<Position>, FrameError> {
    let Some(epoch) = fields.optional_string("epoch")? else { return Ok(None) };
    let offset = fields.whole("offset")?;
    let position = Position::new(&epoch, offset);
    Ok(Some(position.map_err(|error| FieldError::Invalid { field: "epoch", why: error.to_string() })?))
}

fn page(fields: &Fields<'_>) -> Result<HistoryPage, FrameError> {
    let entry = |raw: &RawValue| -> Result<HistoryEntry, FrameError> {
        let fields = Fields::parse(raw.get())?;
        let message = fields.raw("message")?.ok_or(FieldError::Missing { field: "message", needed: "an object" })?;
        Ok(HistoryEntry { offset: fields.whole("offset")?, message: payload(message)? })
    };
    Ok(HistoryPage {
        epoch: fields.optional_string("epoch")?.map(Into::into),
        messages: fields.array("messages")?.into_iter().map(entry).collect::<Result<_, _>>()?,
        next: fields.optional_whole("next")?,
    })
}

fn members(fields: &Fields<'_>) -> Result<Vec<ChannelName>, FrameError> {
    let member = |raw: &RawValue| {
        serde_json::from_str(raw.get())
            .map_err(|error| FieldError::Invalid { field: "members", why: error.to_string() })
    };
    Ok(fields.array("members")?.into_iter().map(member).collect::<Result<_, _>>()?)
}

fn refusal(fields: &Fields<'_>) -> Result<Refusal, FrameError> {
    let code = one_of(fields, "code", ErrorCode::ALL, ErrorCode::as_str)?;
    let refusal = Refusal::new(code, fields.string("message")?);
    Ok(match fields.optional_whole("retry_after_ms")? {
        Some(ms) => refusal.again_in(Duration::from_millis(ms)),
        None => refusal,
    })
}

/// The fields of `accepted` lie beside `type` and `id`, which serde passes over.
fn accepted(text: &str) -> Result<Accepted, FieldError> {
    serde_json::from_str(text).map_err(FieldError::Json)
}

fn payload(raw: &RawValue) -> Result<Message, MessageError> {
    Message::parse(Bytes::copy_from_slice(raw.get().as_bytes()))
}

fn user(fields: &Fields<'_>) -> Result<Option<String>, FieldError> {
    Ok(fields.optional_string("user")?.map(Cow::into_owned))
}

fn group(fields: &Fields<'_>) -> Result<GroupName, FrameError> {
    Ok(GroupName::parse(&fields.string("group")?)?)
}

fn channel(fields: &Fields<'_>, field: &'static str) -> Result<ChannelName, FrameError> {
    Ok(ChannelName::parse(&fields.string(field)?)?)
}

fn parsed<T: std::str::FromStr<Err: ToString>>(fields: &Fields<'_>, field: &'static str) -> Result<T, FieldError> {
    fields.string(field)?.parse().map_err(|error: T::Err| FieldError::Invalid { field, why: error.to_string() })
}

fn one_of<T: Copy>(
    fields: &Fields<'_>,
    field: &'static str,
    all: &[T],
    as_str: fn(T) -> &'static str,
) -> Result<T, FieldError> {
    let text = fields.string(field)?;
    all.iter().copied().find(|value| as_str(*value) == text).ok_or_else(|| {
        let why = format!("{:?} is not known here; update this client", text.chars().take(40).collect::<String>());
        FieldError::Invalid { field, why }
    })
}
