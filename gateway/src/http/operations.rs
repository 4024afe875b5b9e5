//! For those who run the gateway: does it live, is it ready, what does it count.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use groupcast_protocol::ErrorCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::app::App;
use crate::metrics;

/// The parts, each `ok`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// `ok`.
    status: &'static str,
    /// Part by part.
    parts: BTreeMap<String, &'static str>,
}

/// Says that the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    operation_id = "healthz",
    responses((status = 200, description = "It lives", body = Status))
)]
pub(super) async fn live() -> Json<Status> {
    Json(Status { status: "ok", parts: BTreeMap::new() })
}

/// Says whether the gateway can do its work
///
/// Every part is asked; what is not ready is named in `detail`.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    operation_id = "readyz",
    responses(
        (status = 200, description = "It can", body = Status),
        (status = 503, description = "`unavailable`: names what is not ready"),
    )
)]
pub(super) async fn ready(State(app): State<App>) -> Result<Json<Status>, Problem> {
    let (mut parts, mut wrong) = (BTreeMap::new(), Vec::new());
    for (part, answer) in app.health.check().await {
        match answer {
            Ok(()) => drop(parts.insert(part, "ok")),
            Err(why) => wrong.push(format!("{part}: {why}")),
        }
    }
    if wrong.is_empty() {
        return Ok(Json(Status { status: "ok", parts }));
    }
    Err(Problem::new(ErrorCode::Unavailable, format!("not ready: {}", wrong.join("; "))))
}

/// What is counted, as OpenMetrics text
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    operation_id = "metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.metrics.encode().await;
    let text = text.map_err(|_| Problem::new(ErrorCode::Internal, "the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}
