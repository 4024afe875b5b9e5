//! HTTP: one file a noun, and here how they are put together.
//!
//! Handlers turn a request into a call of [`App`]'s parts and the outcome into an answer; they know no database and no
//! socket. Every error leaves as a [`problem::Problem`].

mod accept;
pub(crate) mod access;
mod admin;
mod answers;
mod api;
mod batch;
mod body;
mod changes;
mod channels;
mod connections;
mod consumers;
mod cors;
pub(crate) mod events;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod groups;
pub(crate) mod head;
mod history;
mod idempotency;
mod invalidate;
mod jobs;
mod openapi;
mod operations;
mod params;
mod path;
mod prefer;
pub mod problem;
mod queries;
mod result;
mod rows;
mod schedules;
mod traced;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use groupcast_protocol::ErrorCode;
use http::{Method, Uri};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::api::Api;
use crate::app::App;
use openapi::{About, Description};
use problem::Problem;

/// Every route of the gateway but `/ws`, beside those of the caller.
///
/// Theirs get the same treatment: errors for what is not there, panics caught, requests counted.
///
/// # Panics
/// When the caller's router has a route of ours, or a fallback.
pub fn router(app: App, more: Router) -> Router {
    let described = match app.config.server.ops_listen {
        Some(_) => described(),
        None => described().merge(for_operators()),
    };
    let (router, api) = described.split_for_parts();
    let router = router
        .route_layer(from_fn_with_state(app.clone(), access::admit))
        .layer(Extension(Description::new(&api)))
        .with_state(app.clone());
    finish(router.merge(admin_beside(&app)).merge(more), app)
}

/// The routes of a process that has no clients: how it is, and what operators look at where `ops_listen` does not serve it.
fn consumer_router(app: App) -> Router {
    let described = match app.config.server.ops_listen {
        Some(_) => of_process(),
        None => of_process().merge(for_operators()),
    };
    let router = Router::from(described).route_layer(from_fn_with_state(app.clone(), access::admit));
    finish(router.with_state(app.clone()).merge(admin_beside(&app)), app)
}

/// The admin page where clients are served, unless operators have an address of their own.
fn admin_beside(app: &App) -> Router {
    match app.config.server.ops_listen {
        Some(_) => Router::new(),
        None => admin::routes(app, app.config.server.listen),
    }
}

/// The routes of `[server] ops_listen`.
fn operators_router(app: App) -> Router {
    let router = Router::from(of_process().merge(for_operators()));
    let router = router.route_layer(from_fn_with_state(app.clone(), access::admit_operator));
    let address = app.config.server.ops_listen.unwrap_or(app.config.server.listen);
    finish(router.with_state(app.clone()).merge(admin::routes(&app, address)), app)
}

/// What says how this process is: to everybody, on every address.
fn of_process() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(operations::live)).routes(routes!(operations::ready))
}

/// What operators look at: on `[server] ops_listen` if that is set, else beside everything else.
fn for_operators() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(operations::metrics))
}

fn finish(router: Router, app: App) -> Router {
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(PanicToProblem(app.clone())))
        .layer(cors::layer(&app))
        .layer(from_fn_with_state(app.clone(), head::check))
        .layer(from_fn_with_state(app, count))
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(About::openapi())
        .routes(routes!(groups::send))
        .routes(routes!(groups::list))
        .routes(routes!(groups::one))
        .routes(routes!(groups::members))
        .routes(routes!(groups::add, groups::discard))
        .routes(routes!(history::read))
        .routes(routes!(batch::send))
        .routes(routes!(channels::send))
        .routes(routes!(queries::run))
        .routes(routes!(invalidate::invalidate))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::one, jobs::cancel))
        .routes(routes!(jobs::redrive))
        .routes(routes!(jobs::dead))
        .routes(routes!(consumers::list))
        .routes(routes!(consumers::pause))
        .routes(routes!(consumers::resume))
        .routes(routes!(result::read))
        .routes(routes!(schedules::list))
        .routes(routes!(connections::list))
        .routes(routes!(connections::one, connections::disconnect))
        .routes(routes!(events::stream))
        .routes(routes!(openapi::json))
        .routes(routes!(openapi::docs))
        .merge(of_process())
}

async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(ErrorCode::NotFound, format!("there is no route `{path}`; /docs lists them"))
}

/// axum adds `Allow`.
async fn no_method(method: Method) -> Problem {
    let method: String = method.as_str().chars().take(20).collect();
    Problem::new(ErrorCode::MethodNotAllowed, format!("`{method}` is not possible here; `Allow` lists what is"))
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route.as_ref().filter(|_| app.dispatch.tracer().is_on()) {
        response.extensions_mut().insert(traced::Route(route.clone()));
    }
    // A path that leads nowhere is the client's invention, and may not become a label.
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.http_request(&method, route, response.status().as_u16(), started.elapsed());
    response
}

#[derive(Clone)]
struct PanicToProblem(App);

impl tower_http::catch_panic::ResponseForPanic for PanicToProblem {
    type ResponseBody = axum::body::Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Response {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown kind");
        tracing::error!(panic = text, "a handler panicked; its request was answered with 500");
        self.0.metrics.panics.inc();
        Problem::new(ErrorCode::Internal, "the gateway has a defect; its log knows more").into_response()
    }
}
