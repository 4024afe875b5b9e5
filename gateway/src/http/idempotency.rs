//! `Idempotency-Key`: a repeat of a request does nothing again and gets the first answer.

use axum::extract::FromRequestParts;
use groupcast_protocol::frame::{Accepted, IDEMPOTENCY_KEY_BYTES_MAX};
use groupcast_protocol::raw_object::RawObject;
use groupcast_protocol::{ChannelName, ErrorCode, GroupName, Message, Refusal};
use http::HeaderMap;
use http::request::Parts;

use super::problem::Problem;
use crate::app::App;
use crate::auth::By;
use crate::dispatch::Dispatch;
use crate::jobs::ReplyTo;

const HEADER: &str = "idempotency-key";

/// A checked key: 1 to 255 bytes.
#[derive(Debug)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        match text.len() {
            1..=IDEMPOTENCY_KEY_BYTES_MAX => Ok(Self(text.to_owned())),
            len => Err(Refusal::new(
                ErrorCode::BadRequest,
                format!("the idempotency key has {len} bytes, 1 to {IDEMPOTENCY_KEY_BYTES_MAX} are allowed"),
            )),
        }
    }
}

/// The key of a request, if it has one.
#[derive(Debug)]
pub(super) struct RequestKey(pub(super) Option<Key>);

impl<S: Send + Sync> FromRequestParts<S> for RequestKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

impl RequestKey {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(HEADER).into_iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let bad = |why: &str| Problem::new(ErrorCode::BadRequest, format!("the header `Idempotency-Key` {why}"));
        if values.next().is_some() {
            return Err(bad("is there twice; send it once"));
        }
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| bad("is not UTF-8"))?;
        Ok(Self(Some(Key::parse(text)?)))
    }
}

/// `group_send`, once for each key.
pub(super) async fn group_send(
    app: &App,
    by: &By,
    group: GroupName,
    message: Message,
    key: Option<Key>,
) -> Result<Accepted, Refusal> {
    app.group_send(by, &group, message, key.as_ref().map(|Key(key)| key.as_str())).await
}

/// `send`, once for each key.
pub(super) async fn send(
    app: &App,
    by: &By,
    channel: ChannelName,
    message: Message,
    key: Option<Key>,
) -> Result<Accepted, Refusal> {
    Dispatch::check_channel(by, &channel, &message)?;
    let (share, scope) = (by.share(), format!("{}channel {channel}", by.caller.scope()));
    let (dispatch, by, body) = (app.dispatch.clone(), by.clone(), message.raw().clone());
    let run = async move {
        let message_id = dispatch.send(&by, &channel, message).await?;
        let (jobs, existing) = (Vec::new(), false);
        Ok(Accepted { message_id, group: None, members: None, existing, jobs, offset: None, epoch: None })
    };
    match key {
        Some(Key(key)) => app.idempotency.once(&share, &scope, &key, &body, |_| run).await,
        None => run.await,
    }
}

/// A named query as a job that nobody is told of, once for each key.
pub(super) async fn query(
    app: &App,
    by: &By,
    name: String,
    params: RawObject,
    key: Option<Key>,
) -> Result<Accepted, Refusal> {
    let Some(Key(key)) = key else { return app.dispatch.query(by, &name, &params, ReplyTo::Nobody, None).await };
    by.caller.check_query(&name)?;
    let (dispatch, by, body) = (app.dispatch.clone(), by.clone(), params.raw().clone());
    let (share, scope) = (by.share(), format!("{}query {name}", by.caller.scope()));
    app.idempotency
        .once(&share, &scope, &key, &body, |key| async move {
            dispatch.query(&by, &name, &params, ReplyTo::Nobody, Some(key)).await
        })
        .await
}
