//! `GET /admin/api/connections`: a page of connections with what is known of each, by a text that they are searched for.

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use http::Uri;
use serde::Serialize;

use crate::app::App;
use crate::http::connections::ConnectionBody;
use crate::http::params::{Params, next_page};
use crate::http::problem::Problem;

/// Connections that are asked about themselves at once: each is a question to its thread.
const ASKED_AT_ONCE: usize = 100;
/// Connections that one request looks at; `next` says where to go on.
const LOOKED_AT_MAX: usize = 1000;

/// A page of connections.
#[derive(Debug, Serialize)]
pub(super) struct Connections {
    /// By channel.
    connections: Vec<ConnectionBody>,
    /// How many were looked at to find these.
    looked_at: usize,
    /// `after` of the next page; `null` at the end.
    next: Option<String>,
}

/// Lists connections: `?text=` finds a part of the user, the address or the channel; `limit` and `after` as in `/v1`.
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Result<Json<Connections>, Problem> {
    let params = Params::parse(&uri, &["text", "limit", "after"])?;
    let limit = params.limit()?;
    let text = params.text("text").unwrap_or_default().to_lowercase();
    let mut page = Connections { connections: Vec::new(), looked_at: 0, next: params.text("after").map(str::to_owned) };
    loop {
        let mut channels = app.layer.connections(page.next.as_deref(), ASKED_AT_ONCE.min(limit) + 1);
        page.next = next_page(&mut channels, ASKED_AT_ONCE.min(limit), ToString::to_string);
        page.looked_at += channels.len();
        let found = join_all(channels.iter().map(|channel| app.layer.connection(channel))).await;
        // Who has gone meanwhile is not there.
        let found = found.into_iter().flatten().map(ConnectionBody::from);
        page.connections.extend(found.filter(|connection| connection.is_found_by(&text)));
        if page.next.is_none() || page.connections.len() >= limit || page.looked_at >= LOOKED_AT_MAX {
            return Ok(Json(page));
        }
    }
}
