//! Who asks: found in the head of every request, before its handler. What a known caller may do with a name is the
//! handler's question to [`Caller`]; what only services may do is refused here.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use groupcast_protocol::{ErrorCode, JobId, Refusal};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::changes::Change;
use super::problem::Problem;
use crate::app::App;
use crate::auth::{By, Caller};
use crate::clock;
use crate::limits::Client;
use crate::server::Peer;
use crate::trace;

/// For everybody: whether the gateway lives, and how it is used.
pub(super) const OPEN: &[&str] = &["/healthz", "/readyz", "/openapi.json", "/docs"];

/// For everybody who reaches `[server] ops_listen`: whoever chose that address chose who that is. No metric has the name of
/// a group, a channel or a user.
const OPEN_TO_OPERATORS: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// Routes whose handlers ask whether a name is granted. Every other one is for services that may do everything: one that
/// is added and not named here is closed to others.
const BY_NAME: &[&str] = &[
    "/v1/channels/{channel}/send",
    "/v1/groups",
    "/v1/groups/{group}",
    "/v1/groups/{group}/history",
    "/v1/groups/{group}/members",
    "/v1/groups/{group}/members/{channel}",
    "/v1/groups/{group}/send",
    "/v1/send",
    "/v1/queries/{name}",
    "/v1/jobs/{id}",
    "/v1/jobs/{id}/result",
    EVENTS,
];

/// Where hooks are asked about who comes.
const EVENTS: &str = "/v1/events";

/// Lets pass who may ask, tells the handler who it is, and notes what operators have changed.
pub(super) async fn admit(State(app): State<App>, route: MatchedPath, mut request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Peer>().map_or(Client::NOWHERE, |peer| peer.whom(request.headers()).1);
    match admitted(&app, route.as_str(), request.headers(), client) {
        Ok(caller) => {
            let by_name = BY_NAME.contains(&route.as_str());
            let change = Change::beside(&caller, by_name, route.as_str(), request.method(), request.uri().path());
            let trace = trace::of_request(request.headers());
            request.extensions_mut().insert(By { caller, channel: None, client, trace });
            let response = next.run(request).await;
            if let Some(change) = change {
                change.note(response.status());
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// The same on `[server] ops_listen`, where every other route is for services that may do everything.
pub(super) async fn admit_operator(
    State(app): State<App>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    if OPEN_TO_OPERATORS.contains(&route.as_str()) {
        return next.run(request).await;
    }
    admit(State(app), route, request, next).await
}

fn admitted(app: &App, route: &str, headers: &HeaderMap, client: Client) -> Result<Caller, Problem> {
    if OPEN.contains(&route) {
        return Ok(Caller::Anonymous(std::sync::Arc::default()));
    }
    let caller = charged(app, identify(app, headers), client)?;
    // Hooks may yet find out who it is; the handler asks then.
    if route != EVENTS || !app.hooks.asks_connect() {
        caller.check_known()?;
    }
    if !BY_NAME.contains(&route) {
        caller.check_operate()?;
    }
    Ok(caller)
}

/// Counts what somebody asks, whoever he is found to be: guesses of credentials count for their address.
///
/// # Errors
/// `rate_limited`; otherwise why it is not known who asks.
pub(crate) fn charged(app: &App, caller: Result<Caller, Problem>, client: Client) -> Result<Caller, Problem> {
    match &caller {
        Ok(caller) => app.limits.charge(caller, client)?,
        Err(_) => app.limits.charge_unknown(client)?,
    }
    caller
}

/// Who asks by these headers.
///
/// # Errors
/// `unauthenticated` for a credential that is not valid here.
pub(crate) fn identify(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    if !app.auth.is_on() {
        return Ok(Caller::Everybody);
    }
    Ok(app.auth.identify(bearer(headers)?, clock::now_ms())?)
}

/// The credential of `Authorization: Bearer …`.
///
/// # Errors
/// 400 for two, `unauthenticated` for another scheme.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(ErrorCode::BadRequest, "the header `Authorization` is there twice; send it once"));
    }
    let credential = value.to_str().ok().and_then(|text| {
        let (scheme, credential) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
    });
    let refused =
        || Problem::new(ErrorCode::Unauthenticated, "`Authorization` has to be `Bearer` and a token or API key");
    credential.filter(|credential| !credential.is_empty()).map(Some).ok_or_else(refused)
}

/// Who asks, for a handler.
pub(super) struct Asked(pub(super) By);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Closed rather than open, should a route ever be put together without [`admit`].
        let lost = || Problem::new(ErrorCode::Internal, "nobody has asked who the caller is; report this");
        parts.extensions.get::<By>().cloned().map(Self).ok_or_else(lost)
    }
}

/// Whether a job may be seen by the caller. One that may not is not there for him.
///
/// # Errors
/// `not_found`, and when the store cannot be read.
pub(super) async fn check_job(app: &App, by: &By, id: JobId) -> Result<(), Problem> {
    if by.caller.owns(None) {
        return Ok(());
    }
    let record = app.jobs.get(id).await.map_err(Refusal::from)?;
    let owned = record.is_some_and(|record| by.caller.owns(record.asker.as_ref()));
    if owned { Ok(()) } else { Err(super::jobs::no_such_job(id)) }
}
