//! Consumers: which there are and how much they have to do; pause and resume.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::{ErrorCode, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

use super::path::OfConsumer;
use super::problem::Problem;
use crate::app::App;
use crate::config::{ConsumerConfig, Rate, Run};
use crate::jobs::{DeadLetters, Depth, JobState};

/// Every consumer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConsumerList {
    /// In the order of the configuration.
    consumers: Vec<ConsumerBody>,
}

/// A consumer, and how much it has to do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Consumer)]
pub(super) struct ConsumerBody {
    /// Its name.
    name: String,
    /// The group it listens to: a name, or a prefix ending in `*`.
    group: String,
    /// The `type` of the messages it claims.
    #[serde(rename = "type")]
    kind: String,
    /// What it does: `query`, `report`, `http` or `embedded`.
    #[schema(value_type = String)]
    run: Run,
    /// How many of its jobs one process runs at once.
    concurrency: usize,
    /// How many of them one process begins in a time, as in `10/s`; `null`: as many as it can.
    #[schema(value_type = Option<String>)]
    rate: Option<Rate>,
    /// Whether it claims nothing until it is resumed.
    paused: bool,
    /// Jobs that wait for a free slot.
    ready: u64,
    /// Jobs that run.
    running: u64,
    /// Jobs that wait for their time.
    scheduled: u64,
    /// Jobs that failed for good and were not redriven; `GET /v1/jobs/dead` says why.
    dead: u64,
}

/// Lists the consumers with what they have to do
#[utoipa::path(
    get,
    path = "/v1/consumers",
    tag = "jobs",
    operation_id = "consumers",
    responses(
        (status = 200, description = "All of them", body = ConsumerList),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn list(State(app): State<App>) -> Result<Json<ConsumerList>, Problem> {
    let now = Now::read(&app).await?;
    Ok(Json(ConsumerList { consumers: app.config.consumer.iter().map(|config| now.of(config)).collect() }))
}

/// Pauses a consumer
///
/// It claims nothing until it is resumed: in every process that shares the store of jobs, and after a restart. What
/// runs, ends; messages are taken and stored as before. A consumer that is paused already stays so.
#[utoipa::path(
    post,
    path = "/v1/consumers/{name}/pause",
    tag = "jobs",
    operation_id = "pause",
    params(("name" = String, Path, description = "Name of the consumer", example = "queries")),
    responses(
        (status = 200, description = "It is paused", body = ConsumerBody),
        (status = 404, description = "`not_found`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
        (status = 507, description = "`storage_full`"),
    )
)]
pub(super) async fn pause(State(app): State<App>, OfConsumer(name): OfConsumer) -> Result<Json<ConsumerBody>, Problem> {
    let config = configured(&app, &name)?;
    app.jobs.pause(&config.name).await.map_err(Refusal::from)?;
    Ok(Json(Now::read(&app).await?.of(config)))
}

/// Resumes a consumer
///
/// One that is not paused goes on.
#[utoipa::path(
    post,
    path = "/v1/consumers/{name}/resume",
    tag = "jobs",
    operation_id = "resume",
    params(("name" = String, Path, description = "Name of the consumer", example = "queries")),
    responses(
        (status = 200, description = "It claims again", body = ConsumerBody),
        (status = 404, description = "`not_found`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
        (status = 507, description = "`storage_full`"),
    )
)]
pub(super) async fn resume(
    State(app): State<App>,
    OfConsumer(name): OfConsumer,
) -> Result<Json<ConsumerBody>, Problem> {
    let config = configured(&app, &name)?;
    app.jobs.resume(&config.name).await.map_err(Refusal::from)?;
    Ok(Json(Now::read(&app).await?.of(config)))
}

fn configured<'a>(app: &'a App, name: &str) -> Result<&'a ConsumerConfig, Problem> {
    app.config.consumer.iter().find(|config| config.name == name).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        Problem::new(ErrorCode::NotFound, format!("there is no consumer `{name}`; `GET /v1/consumers` lists them"))
    })
}

/// What the stores say about all consumers.
struct Now {
    depths: Vec<Depth>,
    dead: Vec<DeadLetters>,
    paused: Vec<String>,
}

impl Now {
    async fn read(app: &App) -> Result<Self, Problem> {
        let (depths, dead, paused) = tokio::join!(app.jobs.depths(), app.jobs.dead_letters(), app.jobs.paused());
        let refused = |error| Problem::from(Refusal::from(error));
        Ok(Self { depths: depths.map_err(refused)?, dead: dead.map_err(refused)?, paused: paused.map_err(refused)? })
    }

    fn of(&self, config: &ConsumerConfig) -> ConsumerBody {
        let depths = self.depths.iter().filter(|depth| depth.consumer == config.name);
        let in_state = |state| depths.clone().filter(|depth| depth.state == state).map(|depth| depth.jobs).sum();
        ConsumerBody {
            name: config.name.clone(),
            group: config.group.clone(),
            kind: config.kind.clone(),
            run: config.run,
            concurrency: config.concurrency,
            rate: config.rate,
            paused: self.paused.contains(&config.name),
            ready: in_state(JobState::Ready),
            running: in_state(JobState::Running),
            scheduled: in_state(JobState::Scheduled),
            dead: self.dead.iter().filter(|dead| dead.consumer == config.name).map(|dead| dead.jobs).sum(),
        }
    }
}
