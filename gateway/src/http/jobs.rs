//! Jobs: look at them, wait for them, cancel them, try dead ones again. Their results are read by `result`.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::{ErrorCode, JobId, Refusal};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{self, Asked};
use super::body::{self, JsonBytes};
use super::params::{Params, next_page};
use super::path::OfJob;
use super::prefer::asked_wait;
use super::problem::Problem;
use crate::app::App;
use crate::jobs::{DeadLetters, Filter, JobRecord, LIST_MAX, RedriveFilter};

/// Dead jobs made ready by one request, unless asked otherwise.
const REDRIVE_DEFAULT: usize = 1000;
/// The most of them: it is one commit, which others wait for.
const REDRIVE_MAX: usize = 10_000;

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// Newest first.
    jobs: Vec<JobRecord>,
    /// `after` of the next page; `null` at the end.
    next: Option<String>,
}

/// Why jobs are dead.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reasons {
    /// One for each consumer, code and class.
    reasons: Vec<DeadLetters>,
}

/// Which dead jobs are made ready.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Redrive {
    /// Only those of this consumer.
    consumer: Option<String>,
    /// Only those whose error has this code or class.
    reason: Option<String>,
    /// Only this one.
    job: Option<String>,
    /// At most so many, 1 to 10,000; default 1000.
    limit: Option<usize>,
    /// Counts them, and changes nothing.
    dry_run: bool,
}

/// How many were made ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Redriven {
    /// With `dry_run`: how many would be.
    redriven: u64,
}

/// Lists jobs, newest first
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    operation_id = "jobs",
    params(
        ("state" = Option<String>, Query, description = "Only `scheduled`, `ready`, `running`, `succeeded`, `dead` or `cancelled` ones"),
        ("consumer" = Option<String>, Query, description = "Only those of this consumer"),
        ("reason" = Option<String>, Query, description = "Only those whose error has this code or class"),
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1000; default 100"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = JobList),
        (status = 400, description = "`bad_request`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Result<Json<JobList>, Problem> {
    let params = Params::parse(&uri, &["state", "consumer", "reason", "limit", "after"])?;
    // One more is read to know whether there is a next page.
    let limit = params.limit()?;
    debug_assert!(limit < LIST_MAX);
    let text = |name| params.text(name).map(str::to_owned);
    let filter = Filter { state: params.parsed("state")?, consumer: text("consumer"), reason: text("reason") };
    let mut jobs = app.jobs.list(filter, params.parsed("after")?, limit + 1).await.map_err(Refusal::from)?;
    let next = next_page(&mut jobs, limit, |job| job.id.to_string());
    Ok(Json(JobList { jobs, next }))
}

/// Shows one job
///
/// With `wait` the answer waits up to so many seconds for the end of the job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    operation_id = "job",
    params(
        ("id" = String, Path, description = "The job", example = "01JD8ZJ4M5E8RAX0V4C9QW2N7K"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for its end; cut to `[limits] wait_timeout`"),
    ),
    responses(
        (status = 200, description = "The job", body = JobRecord),
        (status = 400, description = "`bad_request`"),
        (status = 404, description = "`not_found`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn one(
    State(app): State<App>,
    Asked(by): Asked,
    OfJob(id): OfJob,
    uri: Uri,
) -> Result<Json<JobRecord>, Problem> {
    let params = Params::parse(&uri, &["wait"])?;
    access::check_job(&app, &by, id).await?;
    let wait = asked_wait(&params, app.config.limits.wait_timeout.0)?;
    let record = app.wait(id, wait).await.map_err(Refusal::from)?;
    record.map(Json).ok_or_else(|| no_such_job(id))
}

/// Cancels a job
///
/// At once if it waits, soon if it runs; `job.cancelled` follows.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    operation_id = "cancel",
    params(("id" = String, Path, description = "The job", example = "01JD8ZJ4M5E8RAX0V4C9QW2N7K")),
    responses(
        (status = 202, description = "It is being cancelled", body = JobRecord),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`finished`: it has ended already"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    Asked(by): Asked,
    OfJob(id): OfJob,
) -> Result<(StatusCode, Json<JobRecord>), Problem> {
    app.dispatch.cancel(&by, id).await?;
    let record = app.jobs.get(id).await.map_err(Refusal::from)?;
    record.map(|record| (StatusCode::ACCEPTED, Json(record))).ok_or_else(|| no_such_job(id))
}

/// Says why jobs are dead
///
/// At most 1000 reasons, those of most jobs first. `GET /v1/jobs?state=dead&reason=` lists the jobs of one.
#[utoipa::path(
    get,
    path = "/v1/jobs/dead",
    tag = "jobs",
    operation_id = "dead",
    responses(
        (status = 200, description = "The reasons", body = Reasons),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn dead(State(app): State<App>) -> Result<Json<Reasons>, Problem> {
    let reasons = app.jobs.dead_letters().await.map_err(Refusal::from)?;
    Ok(Json(Reasons { reasons }))
}

/// Makes dead jobs ready again
#[utoipa::path(
    post,
    path = "/v1/jobs/redrive",
    tag = "jobs",
    operation_id = "redrive",
    request_body(content = Redrive, description = "Which; `{}` is all", content_type = "application/json"),
    responses(
        (status = 200, description = "They are ready", body = Redriven),
        (status = 400, description = "`bad_request`"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn redrive(State(app): State<App>, JsonBytes(body): JsonBytes) -> Result<Json<Redriven>, Problem> {
    let asked: Redrive = if body.is_empty() { Redrive::default() } else { body::parse(&body)? };
    let limit = asked.limit.unwrap_or(REDRIVE_DEFAULT);
    if !(1..=REDRIVE_MAX).contains(&limit) {
        let detail = format!("`limit` is {limit}; it has to be from 1 to {REDRIVE_MAX}");
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    let told = |error: groupcast_protocol::id::IdError| Problem::new(ErrorCode::BadRequest, format!("`job`: {error}"));
    let job = asked.job.as_deref().map(|id| id.parse().map_err(told)).transpose()?;
    let Redrive { consumer, reason, dry_run, .. } = asked;
    let filter = RedriveFilter { consumer, reason, job, limit, dry_run };
    let redriven = app.jobs.redrive(filter).await.map_err(Refusal::from)?;
    Ok(Json(Redriven { redriven }))
}

pub(super) fn no_such_job(id: JobId) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is no job {id}; it may have ended longer ago than it is kept"))
}
