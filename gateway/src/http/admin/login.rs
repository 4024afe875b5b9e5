//! Signing in: a key for everything is traded for a cookie, once, so that the page need not keep the key.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::{Extension, Json};
use groupcast_protocol::{ErrorCode, Refusal};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::access::{COOKIE_NAME, session};
use super::attempts::WINDOW;
use super::sessions::LIFETIME;
use crate::app::App;
use crate::auth::caller::Service;
use crate::http::body::{self, JsonBytes};
use crate::http::problem::Problem;
use crate::server::Peer;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is shown to sign in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    key: String,
}

/// Whether the page can be used, and by whom.
#[derive(Debug, Serialize)]
pub(super) struct SessionBody {
    /// Whether nobody has to sign in here.
    open: bool,
    /// Whether there are keys to sign in with.
    keys: bool,
    /// What the key is called of whoever is signed in; `null`: nobody is.
    operator: Option<String>,
    /// When the session ends at the latest, in seconds.
    seconds_left: Option<u64>,
}

impl SessionBody {
    fn of(app: &App, admin: &Admin, who: Option<(&Service, Duration)>) -> Json<Self> {
        let (operator, left) = who.unzip();
        Json(Self {
            open: admin.is_open,
            keys: app.auth.has_operators(),
            operator: operator.map(|operator| operator.name.clone()),
            seconds_left: left.map(|left| left.as_secs()),
        })
    }
}

/// Says who is signed in. That nobody is, is no error.
pub(super) async fn session_of(
    State(app): State<App>,
    Extension(admin): Extension<Admin>,
    headers: HeaderMap,
) -> Json<SessionBody> {
    let session = session(&app, &admin, &headers);
    let who = session.as_ref().map(|session| (&*session.operator, session.left(Instant::now())));
    SessionBody::of(&app, &admin, who)
}

/// Signs in.
pub(super) async fn sign_in(
    State(app): State<App>,
    Extension(admin): Extension<Admin>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SessionBody>), Problem> {
    let now = Instant::now();
    let address = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Extension(peer)| peer.whom(&headers).0);
    if !admin.attempts.may_try(address, now) {
        let why = format!("too many wrong keys from this address; wait up to {} s", WINDOW.as_secs());
        return Err(Refusal::new(ErrorCode::RateLimited, why).again_in(WINDOW).into());
    }
    let SignIn { key } = body::parse(&body)?;
    let operator = app.auth.operator(key.trim()).inspect_err(|refusal| {
        admin.attempts.failed(address, now);
        tracing::warn!(%address, code = refusal.code.as_str(), "a sign-in at the admin page was refused");
    })?;
    tracing::info!(%address, operator = operator.name, "an operator has signed in at the admin page");
    let token = admin.sessions.begin(operator.clone(), now);
    let cookie = cookie(&token, LIFETIME, is_encrypted(&app, &headers));
    Ok(([(SET_COOKIE, cookie)], SessionBody::of(&app, &admin, Some((&*operator, LIFETIME)))))
}

/// Signs out.
pub(super) async fn sign_out(
    State(app): State<App>,
    Extension(admin): Extension<Admin>,
    headers: HeaderMap,
) -> (StatusCode, [(HeaderName, HeaderValue); 1]) {
    if let Some(session) = session(&app, &admin, &headers) {
        admin.sessions.end(&session.digest);
        tracing::info!(operator = session.operator.name, "an operator has signed out of the admin page");
    }
    let cookie = cookie("", Duration::ZERO, is_encrypted(&app, &headers));
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)])
}

/// No script reads it, no other site sends it, and no other path gets it.
fn cookie(token: &str, lifetime: Duration, is_encrypted: bool) -> HeaderValue {
    let secure = if is_encrypted { "; Secure" } else { "" };
    let age = lifetime.as_secs();
    let text = format!("{COOKIE_NAME}={token}; Path=/admin/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}");
    HeaderValue::from_str(&text).expect("base64 and numbers can stand in a header")
}

/// Whether the browser's end of the line is TLS: ours, or by what a proxy says. A client that lies gets a cookie that its
/// own browser keeps back.
fn is_encrypted(app: &App, headers: &HeaderMap) -> bool {
    let said = headers.get(FORWARDED_PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
    app.config.server.tls.is_some() || said
}
