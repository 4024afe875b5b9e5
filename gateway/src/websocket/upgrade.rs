//! The handshake: what a request must be to become a WebSocket, over HTTP/1.1 and HTTP/2, and the socket taken out of
//! hyper.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use groupcast_channel_layer::Reserved;
use groupcast_protocol::asgi::{Door, Scope};
use groupcast_protocol::envelope::Position;
use groupcast_protocol::websocket::{self, Offer};
use groupcast_protocol::{ErrorCode, GroupName, Refusal, Trace};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::driver::drive;
use crate::app::App;
use crate::auth::Caller;
use crate::clock;
use crate::config::Role;
use crate::hooks::Applicant;
use crate::http::access;
use crate::http::problem::Problem;
use crate::limits::Seat;
use crate::server::shard::{Arrival, Local};
use crate::server::{Busy, Guarded, Peer, Place};
use crate::stream::Stream;
use crate::trace;

/// Where WebSockets are opened.
pub(crate) const PATH: &str = "/ws";

/// From the answer to the handshake to the socket in our hands.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that has become a WebSocket, on its way to the thread that owns its socket.
pub(crate) struct Upgrade {
    on_upgrade: OnUpgrade,
    opening: Opening,
    /// The HTTP/2 connection that carries it is not idle.
    busy: Busy,
}

/// What a client asked for in its request line.
pub(crate) struct Opening {
    /// Who opens it.
    pub(crate) caller: Caller,
    /// The name of its channel.
    pub(crate) reserved: Reserved,
    /// Groups to subscribe to at once, and where to go on.
    pub(crate) groups: Vec<(GroupName, Option<Position>)>,
    /// Groups that hooks put it into, whatever it may do by itself.
    pub(crate) given: Vec<GroupName>,
    /// The other end's address.
    pub(crate) peer: String,
    /// Its place among the connections that there may be.
    pub(crate) place: Place,
    /// Its place among those of its user.
    pub(crate) seat: Option<Seat>,
    /// The trace that the handshake belongs to, and with it what is asked by this connection.
    pub(crate) trace: Trace,
    /// The answer to the handshake, written in one with `welcome`; empty when hyper has written it.
    pub(crate) head: Bytes,
    /// Whether messages may be compressed.
    pub(crate) deflate: bool,
    /// Whether messages go back as they came, without a session.
    pub(crate) echo: bool,
}

/// A handshake that is in order, with its answer.
pub(crate) struct Accepted {
    /// The answer to the client's key, which HTTP/2 has not.
    key: Option<String>,
    /// Whether the client has asked for our subprotocol by name.
    named: bool,
    /// The answer to the extensions that it offers.
    extensions: Option<String>,
    opening: Opening,
}

/// How a WebSocket is asked for.
enum Way {
    /// RFC 6455: `Upgrade`.
    Http1,
    /// RFC 8441: an extended `CONNECT`, on a stream of its own.
    Http2,
}

/// Drives a connection as soon as hyper gives it away.
pub(crate) async fn take_over(local: Rc<Local>, upgrade: Upgrade) {
    let Upgrade { on_upgrade, opening, busy } = upgrade;
    let Ok(Ok(upgraded)) = timeout(UPGRADE_TIMEOUT, on_upgrade).await else { return };
    let (stream, already_read) = match upgraded.downcast::<TokioIo<Guarded>>() {
        Ok(parts) => (parts.io.into_inner().into_stream(), parts.read_buf),
        Err(stream_of_http2) => (Stream::other(TokioIo::new(stream_of_http2)), Bytes::new()),
    };
    // A task of its own: what the handshake needed is freed.
    let driver = drive(local.clone(), stream, already_read, opening);
    local.spawn(async move {
        driver.await;
        drop(busy);
    });
}

/// `GET /ws`, and `CONNECT` over HTTP/2.
///
/// # Errors
/// 400 for a malformed handshake, 401 for a token that is not valid, 403 for a foreign origin or a group that is not
/// granted, 422 for a bad `?group=`, 426 without an upgrade, 429 beyond what the client may do, 503 when the gateway drains or has
/// no room; and what hooks say: 401, 403, or 503 without an answer of theirs.
pub(crate) async fn upgrade(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let accepted = accept(&app, &request, peer.address, &peer.place)?;
    // Made before it is waited for: a body can be looked at by one thread alone.
    let origin = peer.origin(request.headers());
    let scope = app.hooks.scope(Door::WebSocket, request.version(), request.uri(), request.headers(), origin);
    let accepted = match scope {
        Some(scope) => accepted.ask(&app, &scope).await?,
        None => accepted,
    };
    hand_over(&peer, request, accepted)
}

/// The same, but messages go back as they came: for test suites of the WebSocket protocol.
///
/// # Errors
/// As [`upgrade`].
pub(crate) async fn upgrade_to_echo(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let mut accepted = accept(&app, &request, peer.address, &peer.place)?;
    accepted.opening.echo = true;
    hand_over(&peer, request, accepted)
}

/// Gives a connection to its thread.
fn hand_over(peer: &Peer, mut request: Request<Body>, accepted: Accepted) -> Result<Response, Problem> {
    let response = accepted.response()?;
    let upgrade =
        Upgrade { on_upgrade: hyper::upgrade::on(&mut request), opening: accepted.opening, busy: peer.busy() };
    if peer.shard.try_send(Arrival::WebSocket(upgrade)).is_err() {
        return Err(Problem::new(
            ErrorCode::Overloaded,
            "too many handshakes are under way; connect again in a moment",
        ));
    }
    Ok(response)
}

/// Decides about a handshake. Where the page comes from and what every head must be has been checked before.
///
/// # Errors
/// As [`upgrade`].
pub(crate) fn accept<B>(
    app: &App,
    request: &Request<B>,
    address: SocketAddr,
    place: &Place,
) -> Result<Accepted, Problem> {
    if app.config.server.role == Role::Consumer {
        return Err(Problem::new(ErrorCode::NotFound, "this process runs jobs and has no sockets; ask a gateway"));
    }
    let way = way(request)?;
    let headers = request.headers();
    if single(headers, SEC_WEBSOCKET_VERSION)? != Some("13") {
        let problem =
            Problem::new(ErrorCode::UpgradeRequired, "only version 13 of the WebSocket protocol is spoken here");
        return Err(problem.with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = match way {
        Way::Http1 => Some(answer_to_key(headers)?),
        Way::Http2 => None,
    };
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let (named, token) = match websocket::offer(offered) {
        Offer::Nothing if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) => (false, None),
        Offer::Nothing | Offer::Others => {
            return Err(bad("of the subprotocols that the client offers none is spoken here; offer `groupcast.v1`"));
        }
        Offer::SeveralTokens => return Err(bad("two tokens are offered as subprotocols; offer one")),
        Offer::Ours { token } => (true, token),
    };
    let (address, client) = place.whom(address.ip(), headers);
    let caller = access::charged(app, identify(app, headers, token), client)?;
    caller.check_lasts(clock::now_ms())?;
    let groups = groups(request.uri(), app.config.limits.subscriptions_per_connection)?;
    // Otherwise when it is known who he is.
    if !app.hooks.asks_connect() {
        groups.iter().try_for_each(|(group, _)| caller.check_subscribe(group))?;
    }
    if app.health.is_draining() {
        return Err(Problem::new(ErrorCode::Unavailable, "the gateway is about to restart; connect again in a moment"));
    }
    app.limits.memory().check()?;
    let extensions = if app.config.server.compression { extensions(headers) } else { None };
    let opening = Opening {
        groups,
        peer: address.to_string(),
        seat: app.limits.seat(&caller)?,
        place: place.of_stream(request.version(), client)?,
        caller,
        reserved: app.layer.reserve_name(),
        given: Vec::new(),
        // Each of its messages would be recorded.
        trace: app.dispatch.tracer().unrecorded(trace::of_headers(headers)),
        head: Bytes::new(),
        deflate: extensions.is_some(),
        echo: false,
    };
    Ok(Accepted { key, named, extensions, opening })
}

impl Accepted {
    /// Has hooks asked who it is, and whether it may be.
    async fn ask(mut self, app: &App, scope: &Scope) -> Result<Self, Problem> {
        let Opening { caller, reserved, groups, given, seat, trace, .. } = &mut self.opening;
        let applicant = Applicant { door: Door::WebSocket, scope, caller, channel: reserved.channel(), trace };
        let connected = app.hooks.connect(app, applicant).await?;
        (*caller, *given) = (connected.caller, connected.groups);
        if seat.is_none() {
            *seat = app.limits.seat(caller)?;
        }
        let mut asked = groups.iter().map(|(group, _)| group).filter(|group| !given.contains(group));
        asked.try_for_each(|group| caller.check_subscribe(group))?;
        Ok(self)
    }

    /// The connection to be, for who writes the answer himself.
    pub(crate) fn into_opening(self) -> Opening {
        let mut head = String::with_capacity(192);
        head += "HTTP/1.1 101 Switching Protocols\r\n";
        for (name, value) in self.headers() {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                head += part;
            }
        }
        head += "\r\n";
        Opening { head: head.into(), ..self.opening }
    }

    fn response(&self) -> Result<Response, Problem> {
        let status = if self.key.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        let response = Response::builder().status(status);
        let response = self.headers().fold(response, |response, (name, value)| response.header(name, value));
        Ok(response.body(Body::empty()).map_err(|_| bad("the handshake has a malformed header"))?.into_response())
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let key = self.key.as_deref();
        let upgrade = key.map(|key| [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_ACCEPT, key)]);
        let subprotocol = self.named.then_some((SEC_WEBSOCKET_PROTOCOL, websocket::SUBPROTOCOL));
        let extensions = self.extensions.as_deref().map(|answer| (SEC_WEBSOCKET_EXTENSIONS, answer));
        upgrade.into_iter().flatten().chain(subprotocol).chain(extensions)
    }
}

/// How the client asks for a WebSocket (RFC 6455, section 4.2.1; RFC 8441, section 5).
fn way<B>(request: &Request<B>) -> Result<Way, Problem> {
    let headers = request.headers();
    let http1 = request.method() == Method::GET && request.version() == Version::HTTP_11 && asks_for_upgrade(headers);
    let protocol = request.extensions().get::<Protocol>();
    let http2 =
        request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    match (http1, http2) {
        (true, _) if headers.contains_key(TRANSFER_ENCODING) || announces_body(headers) => {
            Err(bad("a handshake has no body; send none"))
        }
        (true, _) => Ok(Way::Http1),
        (false, true) => Ok(Way::Http2),
        (false, false) => {
            let detail = "this is a WebSocket endpoint; open it with a WebSocket client (GET, HTTP/1.1, `Upgrade: websocket`; or CONNECT over HTTP/2)";
            let problem = Problem::new(ErrorCode::UpgradeRequired, detail);
            // HTTP/2 knows no `Upgrade`.
            Err(match request.version() {
                Version::HTTP_2 => problem,
                _ => problem.with_header(UPGRADE, HeaderValue::from_static("websocket")),
            })
        }
    }
}

/// Who opens a socket: by the header, or where a page cannot send one by the subprotocol beside ours. Who shows nothing may
/// do so later.
fn identify(app: &App, headers: &HeaderMap, token: Option<&str>) -> Result<Caller, Problem> {
    let Some(token) = token.filter(|_| app.auth.is_on()) else { return access::identify(app, headers) };
    if access::bearer(headers)?.is_some() {
        return Err(bad("a token is shown by `Authorization` and by subprotocol; show one"));
    }
    Ok(app.auth.identify(Some(token), clock::now_ms())?)
}

fn extensions(headers: &HeaderMap) -> Option<String> {
    let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    websocket::deflate::negotiate(offers)
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
}

fn answer_to_key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = single(headers, SEC_WEBSOCKET_KEY)?.filter(|key| websocket::is_key(key));
    let key = key.ok_or_else(|| bad("`Sec-WebSocket-Key` has to be 16 bytes in base64"))?;
    Ok(derive_accept_key(key.as_bytes()))
}

fn bad(detail: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
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
                if name.is_of_live_query() {
                    return Err(Refusal::group_of_live_query(&name).into());
                }
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
