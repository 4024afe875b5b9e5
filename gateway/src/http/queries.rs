//! Named queries: run one as a job.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use groupcast_protocol::raw_object::RawObject;
use groupcast_protocol::{ErrorCode, Refusal};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::access::Asked;
use super::body::JsonBytes;
use super::idempotency::{self, RequestKey};
use super::path::OfQuery;
use super::prefer::preferred_wait;
use super::problem::Problem;
use crate::app::App;
use crate::jobs::JobRecord;

/// Runs a named query as a job
///
/// The body is the query's parameters, an object; none is like `{}`. With `Prefer: wait=N` the answer waits up to N
/// seconds for the end of the job; its rows are then at `result.url`.
#[utoipa::path(
    post,
    path = "/v1/queries/{name}",
    tag = "queries",
    operation_id = "query",
    params(
        ("name" = String, Path, description = "Name of the query", example = "worst_routes"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: seconds to wait for the end of the job"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key does nothing again; at most 255 bytes"),
        ("traceparent" = Option<String>, Header, description = "The trace that this is part of (W3C Trace Context); one that is not valid is ignored"),
        ("tracestate" = Option<String>, Header, description = "What tracing systems keep beside it"),
    ),
    request_body(content = Object, description = "The parameters", content_type = "application/json", example = json!({"origin": "JFK"})),
    responses(
        (status = 200, description = "The job has ended within the wait", body = JobRecord),
        (status = 202, description = "The job is stored", body = JobRecord, headers(("Location" = String, description = "Where the job is"))),
        (status = 404, description = "`not_found`: there is no such query"),
        (status = 409, description = "`idempotency_conflict`"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 422, description = "`bad_params`"),
        (status = 503, description = "`overloaded` or `unavailable`, with `Retry-After`"),
        (status = 507, description = "`storage_full`"),
    )
)]
pub(super) async fn run(
    State(app): State<App>,
    Asked(by): Asked,
    OfQuery(name): OfQuery,
    RequestKey(key): RequestKey,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let accepted = idempotency::query(&app, &by, name, params(body)?, key).await.map_err(absent)?;
    let lost = || Problem::new(ErrorCode::Unavailable, "the query's job cannot be found again; run the query again");
    let id = accepted.jobs.first().ok_or_else(lost)?.id;
    let wait = preferred_wait(&headers, app.config.limits.wait_timeout.0);
    let record = match wait {
        Some(wait) => app.wait(id, wait).await,
        None => app.jobs.get(id).await,
    };
    let record = record.map_err(Refusal::from)?.ok_or_else(lost)?;
    let status = if record.state.is_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(record)).into_response();
    let header = |text: String| HeaderValue::try_from(text).expect("ids and numbers are ASCII");
    response.headers_mut().insert(LOCATION, header(format!("/v1/jobs/{id}")));
    if let Some(wait) = wait {
        response.headers_mut().insert("preference-applied", header(format!("wait={}", wait.as_secs())));
    }
    Ok(response)
}

fn params(body: Bytes) -> Result<RawObject, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(RawObject::EMPTY);
    }
    RawObject::parse(body).map_err(|e| Problem::new(ErrorCode::BadParams, format!("the parameters: {e}")))
}

/// The name of the query is part of the path, so an unknown one is a path that leads nowhere.
fn absent(refusal: Refusal) -> Problem {
    match refusal.code {
        ErrorCode::UnknownQuery => Problem::new(ErrorCode::NotFound, refusal.message),
        _ => Problem::from(refusal),
    }
}
