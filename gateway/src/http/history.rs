//! A group's history: messages that were sent, read page by page.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::ErrorCode;
use groupcast_protocol::envelope::Position;
use groupcast_protocol::frame::HistoryPage;
use http::Uri;
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::Asked;
use super::params::Params;
use super::path::InGroup;
use super::problem::Problem;
use crate::app::App;
use crate::history::{self, Ask};

/// Bytes of messages in one answer; `next` says where to go on.
const PAGE_BYTES: usize = 4 << 20;

/// A page of a group's history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// The epoch of all offsets here; `null` while nothing is known of the group. Offsets of different epochs cannot
    /// be compared.
    #[schema(value_type = Option<String>, example = "x7")]
    epoch: Option<Box<str>>,
    /// Messages, oldest first.
    #[schema(value_type = Vec<HistoryMessage>)]
    messages: Messages,
    /// `after` of the next page; `null` at the end.
    next: Option<u64>,
}

/// One message of a group's history.
#[derive(Debug, Serialize, ToSchema)]
struct HistoryMessage<'a> {
    /// Its place: one more than that of the message before.
    offset: u64,
    /// The message as it was sent.
    #[schema(value_type = Object)]
    message: &'a RawValue,
}

/// The messages of a page, which pass through as the JSON they are.
#[derive(Debug)]
struct Messages(Vec<groupcast_protocol::frame::HistoryEntry>);

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for entry in &self.0 {
            let message: &RawValue = serde_json::from_str(entry.message.as_str()).map_err(S::Error::custom)?;
            list.serialize_element(&HistoryMessage { offset: entry.offset, message })?;
        }
        list.end()
    }
}

/// Reads a group's history
///
/// Messages behind `after`, oldest first, in groups whose `[[group]]` has `history`. With `epoch` it is told when
/// messages between `after` and the first one are no longer kept.
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/history",
    tag = "groups",
    operation_id = "history",
    params(
        ("group" = String, Path, description = "Name of the group", example = "my_group"),
        ("after" = Option<u64>, Query, description = "Only messages behind this offset; the `next` of the page before"),
        ("epoch" = Option<String>, Query, description = "The epoch that `after` belongs to; another one is 410"),
        ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1000; default 100"),
    ),
    responses(
        (status = 200, description = "A page", body = History),
        (status = 400, description = "`bad_request`"),
        (status = 404, description = "`not_found`: the group keeps no history"),
        (status = 410, description = "`expired`: the epoch is over, or messages behind `after` are no longer kept"),
        (status = 422, description = "`invalid_name`"),
        (status = 503, description = "`unavailable`: the broker cannot be reached; `overloaded`: memory is short"),
    )
)]
pub(super) async fn read(
    State(app): State<App>,
    Asked(by): Asked,
    InGroup(group): InGroup,
    uri: Uri,
) -> Result<Json<History>, Problem> {
    by.caller.check_subscribe(&group)?;
    app.hooks.check_read(&by.caller, &group)?;
    let params = Params::parse(&uri, &["after", "epoch", "limit"])?;
    let after = params.whole("after", 0..=u64::MAX)?.unwrap_or(0);
    let epoch = params.text("epoch");
    if let Some(epoch) = epoch {
        let told =
            |error: groupcast_protocol::envelope::PositionError| Problem::new(ErrorCode::BadRequest, error.to_string());
        Position::new(epoch, after).map_err(told)?;
    }
    app.limits.memory().check()?;
    let ask = Ask { after, epoch, limit: params.limit()?, bytes: PAGE_BYTES };
    let HistoryPage { epoch, messages, next } = history::read(&app.layer, &group, ask).await?;
    Ok(Json(History { epoch, messages: Messages(messages), next }))
}
