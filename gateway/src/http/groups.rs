//! Groups: send to one, who is in it, which there are.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::{ErrorCode, GroupName, Message, Refusal};
use http::{StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Asked;
use super::answers::AcceptedBody;
use super::body::JsonBytes;
use super::idempotency::{self, Key, RequestKey};
use super::params::{Params, next_page};
use super::path::{InGroup, OnChannel};
use super::problem::Problem;
use crate::app::App;
use crate::auth::By;
use crate::dispatch;

/// The route of [`send`].
pub(super) const SEND: &str = "/v1/groups/{group}/send";

/// A group and how many are in it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupEntry {
    /// Its name.
    group: String,
    /// Channels in it.
    members: u64,
}

/// A page of groups.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Groups {
    /// By name.
    groups: Vec<GroupEntry>,
    /// `after` of the next page; `null` at the end.
    next: Option<String>,
}

/// One group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupBody {
    /// Its name.
    group: String,
    /// Channels in it.
    members: u64,
    /// The epoch of its history; `null` without history.
    epoch: Option<String>,
    /// The offset of its last message; `null` without history.
    offset: Option<u64>,
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Members {
    /// Channels, by name.
    members: Vec<String>,
    /// `after` of the next page; `null` at the end.
    next: Option<String>,
}

/// Sends a message to a group
///
/// The body is the message: a JSON object with a non-empty string `type`. Answered when the layer has taken it and
/// every job that consumers make of it is stored.
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/send",
    tag = "groups",
    operation_id = "group_send",
    params(
        ("group" = String, Path, description = "Name of the group", example = "my_group"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key does nothing again; at most 255 bytes"),
        ("traceparent" = Option<String>, Header, description = "The trace that this is part of (W3C Trace Context); one that is not valid is ignored"),
        ("tracestate" = Option<String>, Header, description = "What tracing systems keep beside it"),
    ),
    request_body(
        content = Object,
        description = "The message",
        example = json!({"type": "execute_query", "queryset_id": 7})
    ),
    responses(
        (status = 202, description = "Taken", body = AcceptedBody),
        (status = 403, description = "`forbidden`: types that begin with `job.` are for consumers"),
        (status = 409, description = "`idempotency_conflict`"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 422, description = "`invalid_name`, `invalid_message`, `unknown_query` or `bad_params`"),
        (status = 503, description = "`overloaded` or `unavailable`, with `Retry-After`"),
        (status = 507, description = "`storage_full`"),
    )
)]
pub(super) async fn send(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    RequestKey(key): RequestKey,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<AcceptedBody>), Problem> {
    take(&app, &by, group, key, JsonBytes(body)).await
}

/// What [`send`] does, however it was found.
pub(super) async fn take(
    app: &App,
    by: &By,
    group: GroupName,
    key: Option<Key>,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<AcceptedBody>), Problem> {
    let message = Message::parse(body).map_err(Refusal::from)?;
    let accepted = idempotency::group_send(app, by, group, message, key).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted.into())))
}

/// Lists groups that have members
#[utoipa::path(
    get,
    path = "/v1/groups",
    tag = "groups",
    operation_id = "groups",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that begin with this"),
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1000; default 100"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Groups),
        (status = 400, description = "`bad_request`"),
    )
)]
pub(super) async fn list(State(app): State<App>, Asked(by): Asked, uri: Uri) -> Result<Json<Groups>, Problem> {
    let params = Params::parse(&uri, &["prefix", "limit", "after"])?;
    by.caller.check_list(params.text("prefix").unwrap_or_default())?;
    let limit = params.limit()?;
    let mut groups = app.layer.groups(params.text("prefix").unwrap_or_default(), params.text("after"), limit + 1);
    let next = next_page(&mut groups, limit, |(group, _)| group.to_string());
    let entry =
        |(group, members): (groupcast_protocol::GroupName, u64)| GroupEntry { group: group.to_string(), members };
    Ok(Json(Groups { groups: groups.into_iter().map(entry).collect(), next }))
}

/// Shows one group
///
/// Every valid name is a group; one that nobody is in has 0 members.
#[utoipa::path(
    get,
    path = "/v1/groups/{group}",
    tag = "groups",
    operation_id = "group",
    params(("group" = String, Path, description = "Name of the group", example = "my_group")),
    responses(
        (status = 200, description = "The group", body = GroupBody),
        (status = 422, description = "`invalid_name`"),
    )
)]
pub(super) async fn one(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    uri: Uri,
) -> Result<Json<GroupBody>, Problem> {
    by.caller.check_subscribe(&group)?;
    app.hooks.check_read(&by.caller, &group)?;
    Params::parse(&uri, &[])?;
    let keeps_history = app.layer.config().rule_of(group.as_str()).is_some_and(|rule| rule.history.is_some());
    let _open = if keeps_history { Some(app.layer.open(&group).await.map_err(dispatch::refusal)?) } else { None };
    let members = app.layer.group_len(&group).unwrap_or(0);
    let (epoch, offset) = app.layer.position(&group).map(|at| (at.epoch.into(), at.offset)).unzip();
    Ok(Json(GroupBody { group: group.to_string(), members, epoch, offset }))
}

/// Lists the channels in a group
///
/// With several gateways: those of all where the group has presence, otherwise those of the gateway that is asked.
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/members",
    tag = "groups",
    operation_id = "members",
    params(
        ("group" = String, Path, description = "Name of the group", example = "my_group"),
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1000; default 100"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Members),
        (status = 400, description = "`bad_request`"),
        (status = 422, description = "`invalid_name`"),
    )
)]
pub(super) async fn members(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    uri: Uri,
) -> Result<Json<Members>, Problem> {
    by.caller.check_subscribe(&group)?;
    app.hooks.check_read(&by.caller, &group)?;
    let params = Params::parse(&uri, &["limit", "after"])?;
    let limit = params.limit()?;
    let mut members = app.layer.members(&group, params.text("after"), limit + 1).unwrap_or_default();
    let next = next_page(&mut members, limit, ToString::to_string);
    Ok(Json(Members { members: members.iter().map(ToString::to_string).collect(), next }))
}

/// Adds a channel to a group (`group_add`)
///
/// Again renews it. The channel's deliveries of that group carry `group`.
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/members/{channel}",
    tag = "groups",
    operation_id = "group_add",
    params(
        ("group" = String, Path, description = "Name of the group", example = "my_group"),
        ("channel" = String, Path, description = "Name of the channel", example = "specific.gw1!c12"),
    ),
    responses(
        (status = 204, description = "It is a member"),
        (status = 403, description = "`forbidden`: the group of a live query"),
        (status = 404, description = "`not_found`: a connection's channel that is gone"),
        (status = 422, description = "`invalid_name`"),
        (status = 503, description = "`overloaded`, with `Retry-After`"),
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    OnChannel(channel): OnChannel,
) -> Result<StatusCode, Problem> {
    by.caller.check_membership(&group)?;
    if group.is_of_live_query() {
        return Err(Refusal::group_of_live_query(&group).into());
    }
    app.layer.group_add(&group, &channel).await.map_err(dispatch::refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a channel out of a group (`group_discard`)
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/members/{channel}",
    tag = "groups",
    operation_id = "group_discard",
    params(
        ("group" = String, Path, description = "Name of the group", example = "my_group"),
        ("channel" = String, Path, description = "Name of the channel", example = "specific.gw1!c12"),
    ),
    responses(
        (status = 204, description = "It is no member any more"),
        (status = 404, description = "`not_found`: it was no member"),
        (status = 422, description = "`invalid_name`"),
        (status = 503, description = "`overloaded`, with `Retry-After`"),
    )
)]
pub(super) async fn discard(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    OnChannel(channel): OnChannel,
) -> Result<StatusCode, Problem> {
    by.caller.check_membership(&group)?;
    if !app.layer.is_member(&group, &channel) {
        let detail = format!("channel `{channel}` is not a member of group `{group}`");
        return Err(Problem::new(ErrorCode::NotFound, detail));
    }
    app.layer.group_discard(&group, &channel).await.map_err(dispatch::refusal)?;
    Ok(StatusCode::NO_CONTENT)
}
