//! Schedules: when they tick next, and when they did last.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::app::App;
use crate::clock::{now_ms, rfc3339};
use crate::schedule::Timetable;

/// The schedules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScheduleList {
    /// In the order of the configuration.
    schedules: Vec<ScheduleRecord>,
}

/// One `[[schedule]]`.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleRecord {
    /// Its name.
    name: String,
    /// When it ticks.
    cron: String,
    /// By whose clock.
    timezone: String,
    /// The group that gets its message.
    group: String,
    /// When it ticks next, RFC 3339.
    next: Option<String>,
    /// Its last tick for which the message was sent, RFC 3339; `null` before the first.
    last: Option<String>,
}

/// Lists the schedules
#[utoipa::path(
    get,
    path = "/v1/schedules",
    tag = "jobs",
    operation_id = "schedules",
    responses(
        (status = 200, description = "All of them", body = ScheduleList),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn list(State(app): State<App>) -> Result<Json<ScheduleList>, Problem> {
    let ticks = app.jobs.ticks().await.map_err(Refusal::from)?;
    let now = now_ms();
    let record = |config: &crate::config::ScheduleConfig| ScheduleRecord {
        name: config.name.clone(),
        cron: config.cron.clone(),
        timezone: config.timezone.clone(),
        group: config.group.clone(),
        next: Timetable::parse(&config.cron, &config.timezone, now).ok().and_then(|times| times.next(now)).map(rfc3339),
        last: ticks.iter().find(|tick| tick.schedule == config.name).map(|tick| rfc3339(tick.due_ms)),
    };
    Ok(Json(ScheduleList { schedules: app.config.schedule.iter().map(record).collect() }))
}
