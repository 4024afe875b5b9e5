//! The description of the API, made from the handlers, as JSON and as a page.

mod bounds;
mod page;

use std::sync::Arc;

use axum::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::problem::ProblemBody;

/// What is said about the whole API; paths come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Groupcast",
        description = "Groups, channels, named queries and jobs. Errors are RFC 9457 `application/problem+json` with a stable `code`. \
                       The WebSocket at `/ws` speaks `groupcast.v1`."
    ),
    tags(
        (name = "groups", description = "Send to groups; who is in them"),
        (name = "channels", description = "Send to one channel"),
        (name = "queries", description = "Run named queries"),
        (name = "jobs", description = "Deferred work and its results"),
        (name = "events", description = "Groups as Server-Sent Events"),
        (name = "connections", description = "Live connections"),
        (name = "operations", description = "Health and metrics"),
    ),
    components(schemas(ProblemBody<'_>)),
    modifiers(&Credential)
)]
pub(super) struct About;

/// The credential that operations take.
struct Credential;

/// What it is called in the description.
pub(super) const CREDENTIAL: &str = "bearer";

impl Modify for Credential {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "With `[auth]`: an API key, or a token (JWT). `anonymous` says what needs neither; without `[auth]` nothing does.",
        ));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme(CREDENTIAL, SecurityScheme::Http(scheme.build()));
    }
}

/// The finished texts, made once.
#[derive(Debug, Clone)]
pub(super) struct Description(Arc<Texts>);

#[derive(Debug)]
struct Texts {
    json: Bytes,
    page: Bytes,
}

impl Description {
    pub(super) fn new(api: &utoipa::openapi::OpenApi) -> Self {
        let mut api = serde_json::to_value(api).expect("the description is JSON");
        complete(&mut api);
        let json = serde_json::to_vec(&api).expect("a JSON value is JSON").into();
        Self(Arc::new(Texts { json, page: page::render(&api).into() }))
    }
}

/// Gives every error the body that every error has, and parameters their bounds; handlers say only what is special.
fn complete(api: &mut Value) {
    let body = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let paths = api.get_mut("paths").and_then(Value::as_object_mut);
    for (path, methods) in paths.into_iter().flatten() {
        for operation in methods.as_object_mut().into_iter().flat_map(|methods| methods.values_mut()) {
            bounds::tell(path, operation);
            let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
            for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
                response["content"] = body.clone();
            }
        }
    }
}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"))
)]
pub(super) async fn json(Extension(description): Extension<Description>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], description.0.json.clone())
        .into_response()
}

/// This description as a page
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operations",
    operation_id = "docs",
    responses((status = 200, description = "A page that loads nothing else", body = String, content_type = "text/html"))
)]
pub(super) async fn docs(Extension(description): Extension<Description>) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, description.0.page.clone()).into_response()
}
