//! Server frames to JSON text.

use bytes::{BufMut, Bytes};

use super::{HistoryPage, PROTOCOL, Recovery, ServerFrame};
use crate::envelope::Position;
use crate::error::Refusal;
use crate::frame::object::Object;
use crate::frame::request_id::RequestId;
use crate::message::Message;
use crate::names::{ChannelName, GroupName};
use crate::websocket;

/// The push of a group's message: the one frame that is encoded for every message, once for all its recipients.
/// Names need no escapes and the payload is JSON already, so this only copies.
pub fn encode_group_message(group: &GroupName, offset: Option<u64>, message: &Message) -> Bytes {
    with_group_message(group, offset, message, joined)
}

/// The same as a WebSocket's text message, copied once.
pub fn frame_group_message(group: &GroupName, offset: Option<u64>, message: &Message) -> Bytes {
    with_group_message(group, offset, message, websocket::text_of)
}

/// The push of a message that was sent to a channel.
pub fn encode_channel_message(channel: &ChannelName, message: &Message) -> Bytes {
    joined(&[br#"{"type":"message","channel":""#, channel.as_str().as_bytes(), br#"","message":"#, message.raw(), b"}"])
}

fn with_group_message<T>(
    group: &GroupName,
    offset: Option<u64>,
    message: &Message,
    join: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let (start, name) = (br#"{"type":"message","group":""#, group.as_str().as_bytes());
    match offset {
        None => join(&[start, name, br#"","message":"#, message.raw(), b"}"]),
        Some(offset) => join(&[
            start,
            name,
            br#"","offset":"#,
            Digits::new(offset).as_str().as_bytes(),
            br#","message":"#,
            message.raw(),
            b"}",
        ]),
    }
}

impl ServerFrame {
    /// The frame as JSON text.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Welcome { channel, user } => welcome(channel, user.as_deref()),
            Self::Subscribed { id, group, position, recovery } => {
                subscribed(id.as_ref(), group, position.as_ref(), *recovery)
            }
            Self::SubscribedQuery { id, query, group } => {
                answer("subscribed", id).field("query", query).field("group", group).finish()
            }
            Self::Unsubscribed { id, group } => answer("unsubscribed", id).field("group", group).finish(),
            Self::Accepted { id, accepted } => answer("accepted", id).fields_of(accepted).finish(),
            Self::Cancelled { id, job } => answer("cancelled", id).field("job", job).finish(),
            Self::Members { id, group, members, next } => {
                answer("members", id).field("group", group).field("members", members).field("next", next).finish()
            }
            Self::History { id, group, page } => history(answer("history", id).field("group", group), page),
            Self::Authenticated { id, user } => answer("authenticated", id).field("user", user).finish(),
            Self::Pong { id } => answer("pong", id).finish(),
            Self::GroupMessage { group, offset, message } => encode_group_message(group, *offset, message),
            Self::ChannelMessage { channel, message } => encode_channel_message(channel, message),
            Self::Joined { group, member } => push("joined").field("group", group).field("member", member).finish(),
            Self::Left { group, member } => push("left").field("group", group).field("member", member).finish(),
            Self::Gap { group, missed, reason, position } => {
                let gap = push("gap").field("group", group).field("missed", missed).field("reason", &reason.as_str());
                with_position(gap, position.as_ref()).finish()
            }
            Self::Closing { retry_after_ms } => push("closing").field("retry_after_ms", retry_after_ms).finish(),
            Self::Error { id, refusal } => error(id, refusal),
        }
    }
}

fn push(kind: &'static str) -> Object {
    Object::new(kind, None)
}

fn answer(kind: &'static str, id: &Option<RequestId>) -> Object {
    Object::new(kind, id.as_ref())
}

fn welcome(channel: &ChannelName, user: Option<&str>) -> Bytes {
    push("welcome").field("protocol", &PROTOCOL).field("channel", channel).field("user", &user).finish()
}

fn subscribed(
    id: Option<&RequestId>,
    group: &GroupName,
    position: Option<&Position>,
    recovery: Option<Recovery>,
) -> Bytes {
    let object = with_position(Object::new("subscribed", id).field("group", group), position);
    match recovery {
        None => object,
        Some(Recovery::Recovered) => object.field("recovered", &true),
        Some(Recovery::Unrecovered(reason)) => object.field("recovered", &false).field("reason", &reason.as_str()),
    }
    .finish()
}

fn with_position(object: Object, position: Option<&Position>) -> Object {
    match position {
        Some(position) => object.field("epoch", &position.epoch).field("offset", &position.offset),
        None => object,
    }
}

fn history(object: Object, page: &HistoryPage) -> Bytes {
    let mut messages = Vec::with_capacity(page.messages.iter().map(|entry| entry.message.raw().len() + 48).sum());
    for entry in &page.messages {
        messages.put_slice(if messages.is_empty() { b"[{\"offset\":" } else { b",{\"offset\":" });
        messages.put_slice(Digits::new(entry.offset).as_str().as_bytes());
        messages.put_slice(b",\"message\":");
        messages.put_slice(entry.message.raw());
        messages.put_u8(b'}');
    }
    messages.put_slice(if messages.is_empty() { b"[]" } else { b"]" });
    object.field("epoch", &page.epoch).json("messages", &messages).field("next", &page.next).finish()
}

fn error(id: &Option<RequestId>, refusal: &Refusal) -> Bytes {
    let object = answer("error", id)
        .field("code", &refusal.code)
        .field("message", &refusal.message)
        .field("retriable", &refusal.code.is_retriable());
    match refusal.retry_after_ms() {
        Some(ms) => object.field("retry_after_ms", &ms).finish(),
        None => object.finish(),
    }
}

fn joined(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

/// A number as decimal text, on the stack.
struct Digits {
    text: [u8; 20],
    start: usize,
}

impl Digits {
    fn new(mut number: u64) -> Self {
        let mut digits = Self { text: [b'0'; 20], start: 20 };
        loop {
            digits.start -= 1;
            digits.text[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.start..]).expect("digits are ASCII")
    }
}
