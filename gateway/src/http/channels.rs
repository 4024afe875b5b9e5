//! Channels: send to one.

use axum::Json;
use axum::extract::State;
use groupcast_protocol::{Message, Refusal};
use http::StatusCode;

use super::access::Asked;
use super::answers::AcceptedBody;
use super::body::JsonBytes;
use super::idempotency::{self, RequestKey};
use super::path::OnChannel;
use super::problem::Problem;
use crate::app::App;

/// Sends a message to one channel
///
/// A channel that nobody reads yet keeps messages up to its capacity.
#[utoipa::path(
    post,
    path = "/v1/channels/{channel}/send",
    tag = "channels",
    operation_id = "send",
    params(
        ("channel" = String, Path, description = "Name of the channel", example = "specific.gw1!c12"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key does nothing again; at most 255 bytes"),
        ("traceparent" = Option<String>, Header, description = "The trace that this is part of (W3C Trace Context); one that is not valid is ignored"),
        ("tracestate" = Option<String>, Header, description = "What tracing systems keep beside it"),
    ),
    request_body(content = Object, description = "The message", example = json!({"type": "chat", "text": "hello"})),
    responses(
        (status = 202, description = "Taken", body = AcceptedBody),
        (status = 403, description = "`forbidden`: types that begin with `job.` are for consumers"),
        (status = 404, description = "`not_found`: a connection's channel that is gone"),
        (status = 409, description = "`idempotency_conflict`"),
        (status = 413, description = "`too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 422, description = "`invalid_name` or `invalid_message`"),
        (status = 503, description = "`channel_full` or `overloaded`, with `Retry-After`"),
    )
)]
pub(super) async fn send(
    State(app): State<App>,
    Asked(by): Asked,
    OnChannel(channel): OnChannel,
    RequestKey(key): RequestKey,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<AcceptedBody>), Problem> {
    let message = Message::parse(body).map_err(Refusal::from)?;
    let accepted = idempotency::send(&app, &by, channel, message, key).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted.into())))
}
