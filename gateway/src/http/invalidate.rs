//! Invalidation: whoever changed data says so, and what reads them is asked again.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::ErrorCode;
use groupcast_protocol::names::NAME_LEN_MAX;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, JsonBytes};
use super::problem::Problem;
use crate::app::App;
use crate::dispatch;
use crate::notes::Note;

/// Tags of one request.
const TAGS_MAX: usize = 100;

/// What has changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Changed {
    /// Tags of queries, 1 to 100 of them, each of 1 to 99 characters.
    #[schema(example = json!(["flights"]))]
    tags: Vec<String>,
}

/// What the invalidation has reached.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    invalidated: Counts,
}

/// How much there is of each.
#[derive(Debug, Serialize, ToSchema)]
struct Counts {
    /// Named queries with one of the tags.
    queries: u64,
    /// Live ones among them that are followed, each with its parameters counted once: they are asked again.
    live: u64,
}

/// Says that data have changed
///
/// What the cache has of queries with one of the tags is forgotten. Every live one is asked again at once, and tells its
/// subscribers if its rows are others; calls while it is being asked lead to one more time.
#[utoipa::path(
    post,
    path = "/v1/invalidate",
    tag = "queries",
    operation_id = "invalidate",
    request_body(content = Changed, content_type = "application/json"),
    responses(
        (status = 202, description = "It is taken", body = Answer),
        (status = 400, description = "`bad_request`: no tags, too many, or not texts"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 503, description = "`unavailable`: it is done here, but other gateways could not be told"),
    )
)]
pub(super) async fn invalidate(
    State(app): State<App>,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<Answer>), Problem> {
    let Changed { tags } = body::parse(&body)?;
    if !(1..=TAGS_MAX).contains(&tags.len()) {
        return Err(bad(format!("`tags` has {} entries; send 1 to {TAGS_MAX}", tags.len())));
    }
    if let Some(at) = tags.iter().position(|tag| !(1..=NAME_LEN_MAX).contains(&tag.chars().count())) {
        return Err(bad(format!("`tags[{at}]` has to have 1 to {NAME_LEN_MAX} characters")));
    }
    // The cache first: who asks anew because he hears of the change must not get what was before it.
    let queries = app.cache.invalidate(&tags) as u64;
    let invalidated = Counts { queries, live: app.live.invalidate(&tags) };
    if app.layer.is_shared() {
        let note = Note::Invalidate { from: app.config.server.node.clone(), tags };
        app.layer.tell(note.encode()).await.map_err(dispatch::refusal)?;
    }
    Ok((StatusCode::ACCEPTED, Json(Answer { invalidated })))
}

fn bad(detail: String) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}
