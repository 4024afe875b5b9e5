//! Live connections: which there are, what one does, end one.

use axum::Json;
use axum::extract::State;
use groupcast_channel_layer::ConnectionInfo;
use groupcast_protocol::{ChannelName, ErrorCode};
use http::{StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::{Params, next_page};
use super::path::OnChannel;
use super::problem::Problem;
use crate::app::App;
use crate::{clock, dispatch};

/// A connection in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectionEntry {
    /// Its own channel.
    channel: String,
}

/// A page of connections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// By channel.
    connections: Vec<ConnectionEntry>,
    /// `after` of the next page; `null` at the end.
    next: Option<String>,
}

/// One connection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectionBody {
    /// Its own channel.
    channel: String,
    /// The user that its token names.
    user: Option<String>,
    /// The other end's address.
    peer: String,
    /// When it connected, RFC 3339.
    connected_at: String,
    /// Its groups.
    groups: Vec<String>,
    /// Bytes that wait for its socket, beside the logs of its groups.
    outbox_bytes: usize,
    /// Whether its socket takes no bytes at the moment.
    blocked: bool,
}

impl ConnectionBody {
    /// Whether a text, in lower case, is a part of the user, the address or the channel.
    pub(super) fn is_found_by(&self, text: &str) -> bool {
        let texts = [Some(&self.channel), Some(&self.peer), self.user.as_ref()];
        texts.into_iter().flatten().any(|known| known.to_lowercase().contains(text))
    }
}

impl From<ConnectionInfo> for ConnectionBody {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            channel: info.channel.to_string(),
            user: info.origin.user,
            peer: info.origin.peer,
            connected_at: clock::rfc3339(info.origin.connected_at),
            groups: info.groups.iter().map(ToString::to_string).collect(),
            outbox_bytes: info.outbox_bytes,
            blocked: info.blocked,
        }
    }
}

/// Lists live connections
#[utoipa::path(
    get,
    path = "/v1/connections",
    tag = "connections",
    operation_id = "connections",
    params(
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1000; default 100"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "A page", body = Connections), (status = 400, description = "`bad_request`"))
)]
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Result<Json<Connections>, Problem> {
    let params = Params::parse(&uri, &["limit", "after"])?;
    let limit = params.limit()?;
    let mut channels = app.layer.connections(params.text("after"), limit + 1);
    let next = next_page(&mut channels, limit, ToString::to_string);
    let entry = |channel: &ChannelName| ConnectionEntry { channel: channel.to_string() };
    Ok(Json(Connections { connections: channels.iter().map(entry).collect(), next }))
}

/// Shows one connection
#[utoipa::path(
    get,
    path = "/v1/connections/{channel}",
    tag = "connections",
    operation_id = "connection",
    params(("channel" = String, Path, description = "Its channel", example = "specific.gw1!c12")),
    responses(
        (status = 200, description = "The connection", body = ConnectionBody),
        (status = 404, description = "`not_found`"),
        (status = 422, description = "`invalid_name`"),
    )
)]
pub(super) async fn one(
    State(app): State<App>,
    OnChannel(channel): OnChannel,
    uri: Uri,
) -> Result<Json<ConnectionBody>, Problem> {
    Params::parse(&uri, &[])?;
    let info = app.layer.connection(&channel).await.ok_or_else(|| gone(&channel))?;
    Ok(Json(info.into()))
}

/// Ends a connection
///
/// It is closed with 1008, and its client does not come back by itself.
#[utoipa::path(
    delete,
    path = "/v1/connections/{channel}",
    tag = "connections",
    operation_id = "disconnect",
    params(("channel" = String, Path, description = "Its channel", example = "specific.gw1!c12")),
    responses(
        (status = 204, description = "It is being closed"),
        (status = 404, description = "`not_found`"),
        (status = 422, description = "`invalid_name`"),
        (status = 503, description = "`overloaded`, with `Retry-After`"),
    )
)]
pub(super) async fn disconnect(State(app): State<App>, OnChannel(channel): OnChannel) -> Result<StatusCode, Problem> {
    match app.layer.disconnect(&channel).await.map_err(dispatch::refusal)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(gone(&channel)),
    }
}

fn gone(channel: &ChannelName) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is no connection `{channel}`; it may have ended"))
}
