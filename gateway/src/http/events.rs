//! `GET /v1/events`: groups as Server-Sent Events, by the same logs and with the same guarantees as over WebSocket.
//!
//! `ask` reads what is wanted and where to go on; `admit` finds out who may have it; `driver` is the connection, on its shard's thread; `pipe` lies between
//! the shard, which writes, and the body of the answer, which hyper reads. Whether that is HTTP/1.1 or HTTP/2 is
//! hyper's.

mod admit;
mod ask;
mod driver;
mod pipe;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use groupcast_protocol::asgi::Door;
use groupcast_protocol::{ErrorCode, sse};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::accept;
use super::access::Asked;
use super::problem::Problem;
use crate::app::App;
use crate::clock;
use crate::dispatch;
use crate::jobs::Asker;
use crate::live::Question;
use crate::server::Peer;
use crate::server::shard::Arrival;
use admit::Admitted;
#[cfg(feature = "fuzzing")]
pub(crate) use ask::asked;
use ask::{InWords, Wanted};
use driver::Opened;
pub(crate) use driver::{Opening, drive};

/// Tells proxies of nginx's kind to pass events on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The stream's own channel, for programs; a browser's `EventSource` does not see headers.
const CHANNEL: HeaderName = HeaderName::from_static("groupcast-channel");

/// Streams groups as Server-Sent Events
///
/// First `event: subscribed` for each group, with `recovered` when a position was given; then the same JSON as the
/// WebSocket pushes. `id` is opaque: a client that comes back gives it as `Last-Event-ID`, and in groups that keep
/// history goes on where it was. A `query` is followed live: its rows as they are, then what changes.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    operation_id = "events",
    params(
        ("group" = Option<String>, Query, description = "A group; once or more, unless there is a `query`", example = "my_group"),
        ("after" = Option<String>, Query, description = "Where to go on in the `group` before it: `EPOCH:OFFSET`"),
        ("query" = Option<String>, Query, description = "A live query; once or more. Its parameters follow it, each as `param.NAME=VALUE`"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` that the stream told last; wins over `after`"),
    ),
    responses(
        (status = 200, description = "The stream; `Groupcast-Channel` names its channel", body = String, content_type = "text/event-stream"),
        (status = 400, description = "`bad_request`; also a query that is not live"),
        (status = 403, description = "`forbidden`: the page's origin, or the group of a live query"),
        (status = 406, description = "`not_acceptable`: `Accept` without `text/event-stream`"),
        (status = 413, description = "`too_large`: the parameters of a query"),
        (status = 422, description = "`invalid_name`: no group, or not the name of one; `unknown_query`, `bad_params`"),
        (status = 429, description = "`rate_limited`: too many connections from one address or of one user, or too many requests"),
        (status = 503, description = "`overloaded` or `unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn stream(
    State(app): State<App>,
    Asked(by): Asked,
    peer: Option<Extension<Peer>>,
    version: Version,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    if accept::best(&headers, &[sse::MEDIA_TYPE]).is_none() {
        let detail = format!("events are only sent as `{}`; accept that", sse::MEDIA_TYPE);
        return Err(Problem::new(ErrorCode::NotAcceptable, detail));
    }
    let Wanted { groups, queries } = ask::read(&uri, &headers, app.config.limits.subscriptions_per_connection)?;
    by.caller.check_lasts(clock::now_ms())?;
    if app.health.is_draining() {
        return Err(unavailable("the gateway is about to restart; connect again in a moment"));
    }
    let Some(Extension(peer)) = peer else {
        return Err(unavailable("this router serves no connections of its own; start the gateway as a whole"));
    };
    app.limits.memory().check()?;
    let (address, client) = peer.whom(&headers);
    let place = peer.place.of_stream(version, client)?;
    let scope = app.hooks.scope(Door::Events, version, &uri, &headers, peer.origin(&headers));
    let deadline = app.config.limits.handshake_timeout.0;
    let trace = by.trace.clone();
    let admitting = admit::admit(&app, by, scope, groups);
    let late = |_| unavailable("who may open this stream was not known in time; connect again in a moment");
    let Admitted { caller, reserved, groups } = timeout(deadline, admitting).await.map_err(late)??;
    let seat = app.limits.seat(&caller)?;
    queries.iter().try_for_each(|query| caller.check_query(&query.name))?;
    let questions = questions(&app, queries, caller.asker().as_ref())?;
    let open = open(&app, &groups).await?;
    let (answer, opened) = oneshot::channel();
    let peer_name = address.to_string();
    let opening = Opening { groups, open, questions, caller, reserved, peer: peer_name, place, seat, trace, answer };
    if peer.shard.try_send(Arrival::Events(opening)).is_err() {
        let detail = "too many connections are being opened; connect again in a moment";
        return Err(Problem::new(ErrorCode::Overloaded, detail));
    }
    let opened = timeout(deadline, opened).await;
    let Ok(Ok(opened)) = opened else {
        return Err(unavailable("the stream could not be opened in time; connect again in a moment"));
    };
    Ok(answer_with(opened?))
}

/// Waits until all groups reach this node.
async fn open(app: &App, groups: &ask::Groups) -> Result<Vec<groupcast_channel_layer::Opened>, Problem> {
    let open = groups.iter().map(|(group, _)| app.layer.open(group));
    try_join_all(open).await.map_err(|error| dispatch::refusal(error).into())
}

/// Each question once, however often and in whatever words it is asked.
fn questions(app: &App, queries: Vec<InWords>, asker: Option<&Asker>) -> Result<Vec<Arc<Question>>, Problem> {
    let mut questions: Vec<Arc<Question>> = Vec::new();
    for InWords { name, params } in queries {
        let question = app.live.ask_in_words(&name, &params, asker)?;
        if questions.iter().all(|other| other.group() != question.group()) {
            questions.push(question);
        }
    }
    Ok(questions)
}

fn answer_with(opened: Opened) -> Response {
    let mut response = Body::new(opened.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sse::MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    let channel = HeaderValue::from_str(opened.channel.as_str()).expect("the name of a channel is ASCII");
    headers.insert(CHANNEL, channel);
    response
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(ErrorCode::Unavailable, detail)
}
