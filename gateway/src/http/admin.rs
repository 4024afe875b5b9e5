//! The admin page at `/admin/`: its files, who may use it, and what it asks for below `/admin/api/`.
//!
//! What it asks for is what `/v1` gives, by the same handlers: the two cannot differ. They stand here a second time because
//! the page signs in with a cookie, and a cookie is sent by browsers whether their user wants it or not: it counts below
//! `/admin/` alone, for requests of the page's own origin. Reading order: `access` (who is let in), `login`, `sessions`,
//! `attempts`; `overview` and `connections` (what `/v1` has not got); `assets`.

mod access;
mod assets;
mod attempts;
mod connections;
mod login;
mod overview;
mod samples;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Extension, Router};

use self::attempts::Attempts;
use self::sessions::Sessions;
use super::{consumers, events, groups, history, jobs, result, schedules};
use crate::app::App;
use crate::clock;

/// What the requests of the admin page share.
#[derive(Debug, Clone)]
struct Admin(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// Everybody who gets this far may do everything.
    is_open: bool,
    sessions: Sessions,
    attempts: Attempts,
    began: Instant,
    began_ms: u64,
}

impl std::ops::Deref for Admin {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Every route below `/admin`, to be served at this address. Without `[auth]` it is open where only this machine can reach
/// it, and closed elsewhere; with `[auth]` it wants a key for everything, wherever it is.
pub(super) fn routes(app: &App, address: SocketAddr) -> Router {
    let parts = Parts {
        is_open: address.ip().is_loopback() && !app.auth.is_on(),
        sessions: Sessions::default(),
        attempts: Attempts::default(),
        began: Instant::now(),
        began_ms: clock::now_ms(),
    };
    let admin = Admin(Arc::new(parts));
    let guarded = guarded().route_layer(from_fn_with_state(app.clone(), access::admit));
    let session = get(login::session_of).post(login::sign_in).delete(login::sign_out);
    let session = Router::new().route("/admin/api/session", session);
    let pages = Router::new().route("/admin", get(|| async { Redirect::permanent("/admin/") })).merge(assets::routes());
    guarded
        .merge(session)
        .route_layer(from_fn(access::own_page_only))
        .merge(pages)
        .layer(Extension(admin))
        .layer(from_fn(assets::protect))
        .with_state(app.clone())
}

/// What is for operators alone.
fn guarded() -> Router<App> {
    Router::new()
        .route("/admin/api/overview", get(overview::read))
        .route("/admin/api/groups", get(groups::list))
        .route("/admin/api/groups/{group}", get(groups::one))
        .route("/admin/api/groups/{group}/members", get(groups::members))
        .route("/admin/api/groups/{group}/history", get(history::read))
        .route("/admin/api/events", get(events::stream))
        .route("/admin/api/connections", get(connections::list))
        .route("/admin/api/connections/{channel}", get(super::connections::one).delete(super::connections::disconnect))
        .route("/admin/api/jobs", get(jobs::list))
        .route("/admin/api/jobs/dead", get(jobs::dead))
        .route("/admin/api/jobs/redrive", post(jobs::redrive))
        .route("/admin/api/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/admin/api/jobs/{id}/result", get(result::read))
        .route("/admin/api/consumers", get(consumers::list))
        .route("/admin/api/consumers/{name}/pause", post(consumers::pause))
        .route("/admin/api/consumers/{name}/resume", post(consumers::resume))
        .route("/admin/api/schedules", get(schedules::list))
}
