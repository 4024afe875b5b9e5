//! What gateways tell each other by the broker, beside messages.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::consumer::QueryCache;
use crate::live::Live;

/// Something that all gateways have to know.
///
/// ```text
/// {"note":"invalidate","from":"gw1","tags":["flights"]}
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub(crate) enum Note {
    /// Data with one of these tags have changed.
    Invalidate {
        /// Who says so, and has acted on it.
        from: String,
        /// The tags.
        tags: Vec<String>,
    },
}

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts are JSON").into()
    }
}

/// Acts on what other gateways tell, until none can come any more.
pub(crate) async fn heed(mut notes: mpsc::Receiver<Bytes>, me: String, cache: std::sync::Arc<QueryCache>, live: Live) {
    while let Some(note) = notes.recv().await {
        match serde_json::from_slice(&note) {
            Ok(Note::Invalidate { from, .. }) if from == me => {}
            Ok(Note::Invalidate { tags, .. }) => {
                cache.invalidate(&tags);
                live.invalidate(&tags);
            }
            // A newer gateway may say more than this one understands.
            Err(error) => tracing::debug!(%error, "a note of another gateway was not understood"),
        }
    }
}
