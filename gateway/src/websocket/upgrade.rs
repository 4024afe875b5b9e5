//! The handshake: what a request must be to become a WebSocket, and the socket taken out of hyper.

use std::rc::Rc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use groupcast_protocol::envelope::Position;
use groupcast_protocol::websocket::{self, Offer};
use groupcast_protocol::{ErrorCode, GroupName, Refusal};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::driver::drive;
use crate::app::App;
use crate::http::problem::Problem;
use crate::server::shard::{Arrival, Local};
use crate::server::{Peer, Place};
use crate::stream::Stream;

/// From the answer to the handshake to the socket in our hands.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that has become a WebSocket, on its way to the thread that owns its socket.
pub(crate) struct Upgrade {
    pub(crate) on_upgrade: OnUpgrade,
    pub(crate) opening: Opening,
}

/// What a client asked for in its request line.
pub(crate) struct Opening {
    /// Groups to subscribe to at once, and where to go on.
    pub(crate) groups: Vec<(GroupName, Option<Position>)>,
    /// The other end's address.
    pub(crate) peer: String,
    /// Its place among the connections that there may be.
    pub(crate) place: Place,
    /// The answer to the handshake, written in one with `welcome`; empty when hyper has written it.
    pub(crate) head: Bytes,
    /// Whether messages may be compressed.
    #[allow(dead_code, reason = "what the handshake has agreed to")]
    pub(crate) deflate: bool,
    /// Whether messages go back as they came, without a session.
    #[allow(dead_code, reason = "what the handshake has agreed to")]
    pub(crate) echo: bool,
}

/// Drives a connection as soon as hyper gives it away.
pub(crate) async fn take_over(local: Rc<Local>, upgrade: Upgrade) {
    let Ok(Ok(upgraded)) = timeout(UPGRADE_TIMEOUT, upgrade.on_upgrade).await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is no TCP stream");
        return;
    };
    let stream = Stream::Tcp(parts.io.into_inner());
    // A task of its own: what the handshake needed is freed.
    local.spawn(drive(local.clone(), stream, parts.read_buf, upgrade.opening));
}

/// `GET /ws`.
///
/// # Errors
/// 400 for a malformed handshake, 403 for a foreign origin, 422 for a bad `?group=`, 426 without an upgrade, 503 when
/// the gateway drains or has no room.
pub(crate) async fn upgrade(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    mut request: Request<Body>,
) -> Result<Response, Problem> {
    let accept = handshake(&request)?;
    let limit = app.config.limits.subscriptions_per_connection;
    let groups = groups(request.uri(), limit)?;
    if app.health.is_draining() {
        return Err(Problem::new(ErrorCode::Unavailable, "the gateway is about to restart; connect again in a moment"));
    }
    let on_upgrade = hyper::upgrade::on(&mut request);
    let opening = Opening {
        groups,
        peer: peer.address.ip().to_string(),
        place: peer.place.clone(),
        head: Bytes::new(),
        deflate: false,
        echo: false,
    };
    if peer.shard.try_send(Arrival::WebSocket(Upgrade { on_upgrade, opening })).is_err() {
        return Err(Problem::new(
            ErrorCode::Overloaded,
            "too many handshakes are under way; connect again in a moment",
        ));
    }
    Ok(accept)
}

/// Checks the handshake (RFC 6455, section 4.2.1) and makes the answer. Where the page comes from has been checked as
/// for every request.
fn handshake(request: &Request<Body>) -> Result<Response, Problem> {
    let headers = request.headers();
    let bad = |detail: &str| Problem::new(ErrorCode::BadRequest, detail);
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || !asks_for_upgrade(headers) {
        let detail =
            "this is a WebSocket endpoint; open it with a WebSocket client (GET, HTTP/1.1, `Upgrade: websocket`)";
        let problem = Problem::new(ErrorCode::UpgradeRequired, detail);
        return Err(problem.with_header(UPGRADE, HeaderValue::from_static("websocket")));
    }
    if single(headers, SEC_WEBSOCKET_VERSION)? != Some("13") {
        let problem =
            Problem::new(ErrorCode::UpgradeRequired, "only version 13 of the WebSocket protocol is spoken here");
        return Err(problem.with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = single(headers, SEC_WEBSOCKET_KEY)?.filter(|key| websocket::is_key(key));
    let key = key.ok_or_else(|| bad("`Sec-WebSocket-Key` has to be 16 bytes in base64"))?;
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    match websocket::offer(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok())) {
        Offer::Nothing if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) => {}
        Offer::Nothing | Offer::Others => {
            return Err(bad("of the subprotocols that the client offers none is spoken here; offer `groupcast.v1`"));
        }
        Offer::Ours { token: _ } => response = response.header(SEC_WEBSOCKET_PROTOCOL, websocket::SUBPROTOCOL),
    }
    Ok(response.body(Body::empty()).map_err(|_| bad("the handshake has a malformed header"))?.into_response())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// The value of a header that may be there once.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).into_iter();
    let bad = |why: &str| Problem::new(ErrorCode::BadRequest, format!("the header `{name}` {why}"));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("is there twice; send it once"));
    }
    value.to_str().map(Some).map_err(|_| bad("has characters outside of ASCII"))
}

/// `?group=a&group=b&after=EPOCH:OFFSET`: an `after` belongs to the group before it.
fn groups(uri: &Uri, limit: usize) -> Result<Vec<(GroupName, Option<Position>)>, Problem> {
    let mut groups: Vec<(GroupName, Option<Position>)> = Vec::new();
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Problem::new(ErrorCode::BadRequest, format!("the query string cannot be read: {error}")))?;
    for (key, value) in pairs {
        match (key.as_str(), groups.last_mut()) {
            ("group", _) => {
                let name = GroupName::parse(&value).map_err(Refusal::from)?;
                if groups.iter().all(|(group, _)| *group != name) {
                    groups.push((name, None));
                }
            }
            ("after", Some((_, after))) => {
                let position = value.parse::<Position>();
                *after = Some(position.map_err(|error| Problem::new(ErrorCode::BadRequest, error.to_string()))?);
            }
            ("after", None) => {
                return Err(Problem::new(ErrorCode::BadRequest, "`after` has to follow the `group` it is for"));
            }
            _ => {}
        }
    }
    if groups.len() > limit {
        let detail = format!("{} groups are asked for, a connection may be in {limit}", groups.len());
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    Ok(groups)
}
