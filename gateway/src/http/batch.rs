//! Many messages in one request.

use std::borrow::Cow;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use groupcast_protocol::{ChannelName, ErrorCode, GroupName, Message, Refusal};
use http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::Asked;
use super::answers::AcceptedBody;
use super::body::{self, JsonBytes};
use super::idempotency::{self, Key};
use super::problem::Problem;
use crate::app::App;
use crate::auth::By;

/// Messages in one request.
pub(super) const ITEMS_MAX: usize = 1000;
/// Work of one request that is being stored at once: enough to share a commit.
const STORING_MAX: usize = 64;

/// One message of a batch, with either a group or a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchItem<'a> {
    /// Sends to this group …
    #[serde(borrow, default)]
    group: Option<Cow<'a, str>>,
    /// … or to this channel.
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    /// The message.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    message: &'a RawValue,
    /// A repeat with the same key does nothing again; at most 255 bytes.
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
}

/// An entry as it has to be written: an object. What serde derives takes the bare values of the fields, too, in a list.
pub(super) struct Entry<'a>(pub(super) BatchItem<'a>);

impl<'a> Deserialize<'a> for Entry<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'a> Visitor<'a> for Fields {
            type Value = Entry<'a>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a `message` and a `group` or `channel`")
            }
            fn visit_map<A: MapAccess<'a>>(self, fields: A) -> Result<Entry<'a>, A::Error> {
                BatchItem::deserialize(MapAccessDeserializer::new(fields)).map(Entry)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// What became of each message, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    /// As many as there were messages.
    results: Vec<BatchResult>,
}

/// What became of one message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum BatchResult {
    /// As if it had been sent alone.
    Accepted {
        /// 202.
        status: u16,
        /// The answer.
        #[serde(flatten)]
        accepted: AcceptedBody,
    },
    /// Refused; the others are not concerned.
    Refused {
        /// The status it would have had alone.
        status: u16,
        /// The stable code.
        code: &'static str,
        /// What, why, and what to do.
        detail: String,
    },
}

/// Where a message goes.
pub(super) enum Target {
    Group(GroupName),
    Channel(ChannelName),
}

/// A checked entry.
pub(super) struct Sending {
    pub(super) target: Target,
    pub(super) message: Message,
    pub(super) key: Option<Key>,
}

/// Sends many messages
///
/// 1 to 1000 of them, in order; each is taken or refused by itself. Work that consumers claim is stored together.
#[utoipa::path(
    post,
    path = "/v1/send",
    tag = "groups",
    operation_id = "batch",
    params(
        ("traceparent" = Option<String>, Header, description = "The trace that this is part of (W3C Trace Context); one that is not valid is ignored"),
        ("tracestate" = Option<String>, Header, description = "What tracing systems keep beside it"),
    ),
    request_body(content = Vec<BatchItem<'_>>, description = "The messages", content_type = "application/json"),
    responses(
        (status = 202, description = "Each with its `status`", body = BatchAnswer),
        (status = 400, description = "`bad_request`: not 1 to 1000 entries of this form"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
    )
)]
pub(super) async fn send(
    State(app): State<App>,
    Asked(by): Asked,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<BatchAnswer>), Problem> {
    let items: Vec<Entry<'_>> = body::parse(&body)?;
    if !(1..=ITEMS_MAX).contains(&items.len()) {
        let detail = format!("the batch has {} entries; send 1 to {ITEMS_MAX}", items.len());
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    let mut results: Vec<Option<BatchResult>> = Vec::with_capacity(items.len());
    let mut work = Vec::new();
    for (at, Entry(item)) in items.into_iter().enumerate() {
        let done = match check(item).and_then(|sending| charged(&app, &by, at, sending)) {
            Err(refusal) => Some(refused(refusal)),
            Ok(sending) if is_work(&app, &sending) => {
                let (app, by) = (app.clone(), by.clone());
                work.push(async move { (at, carry_out(&app, &by, sending).await) });
                None
            }
            // One by one: the order of a sender's messages is kept.
            Ok(sending) => Some(carry_out(&app, &by, sending).await),
        };
        results.push(done);
    }
    let mut stored = stream::iter(work).buffer_unordered(STORING_MAX);
    while let Some((at, result)) = stored.next().await {
        results[at] = Some(result);
    }
    Ok((StatusCode::ACCEPTED, Json(BatchAnswer { results: results.into_iter().flatten().collect() })))
}

pub(super) fn check(item: BatchItem<'_>) -> Result<Sending, Refusal> {
    let target = match (item.group, item.channel) {
        (Some(group), None) => Target::Group(GroupName::parse(&group)?),
        (None, Some(channel)) => Target::Channel(ChannelName::parse(&channel)?),
        (None, None) | (Some(_), Some(_)) => {
            return Err(Refusal::new(ErrorCode::BadRequest, "name either a `group` or a `channel` to send to"));
        }
    };
    let message = Message::parse(Bytes::copy_from_slice(item.message.get().as_bytes()))?;
    let key = item.idempotency_key.map(|key| Key::parse(&key)).transpose()?;
    Ok(Sending { target, message, key })
}

/// Each message counts like a request; the first is the request.
fn charged(app: &App, by: &By, at: usize, sending: Sending) -> Result<Sending, Refusal> {
    if at > 0 {
        app.limits.charge(&by.caller, by.client)?;
    }
    Ok(sending)
}

fn is_work(app: &App, sending: &Sending) -> bool {
    match &sending.target {
        Target::Group(group) => !app.dispatch.is_shown(group, &sending.message),
        Target::Channel(_) => false,
    }
}

async fn carry_out(app: &App, by: &By, sending: Sending) -> BatchResult {
    let answer = match sending.target {
        Target::Group(group) => idempotency::group_send(app, by, group, sending.message, sending.key).await,
        Target::Channel(channel) => idempotency::send(app, by, channel, sending.message, sending.key).await,
    };
    match answer {
        Ok(accepted) => BatchResult::Accepted { status: StatusCode::ACCEPTED.as_u16(), accepted: accepted.into() },
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> BatchResult {
    let problem = Problem::from(refusal);
    let (status, code) = (problem.status().as_u16(), problem.code().as_str());
    BatchResult::Refused { status, code, detail: problem.into_detail() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_object() {
        let read = |text: &str| body::parse::<Vec<Entry<'_>>>(text.as_bytes()).map(|entries| entries.len());
        assert_eq!(read(r#"[{"gr\u006fup":"g","message":{"type":"a"}}]"#).expect("an object"), 1);
        for (text, path) in
            [(r#"[["g",null,{"type":"a"},null]]"#, "`[0]`"), (r#"[{"group":1,"message":{}}]"#, "`[0].group`")]
        {
            let problem = read(text).expect_err(text).into_detail();
            assert!(problem.contains(path), "{problem}");
        }
    }
}
