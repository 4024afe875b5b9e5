//! What gateways tell each other by the broker, beside messages.
//!
//! All gateways have to claim the same messages: whichever takes a message in decides whether it is work. So each tells a digest
//! of its consumers, and one that hears of another digest is not ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_channel_layer::ChannelLayer;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::consumer::QueryCache;
use crate::live::Live;

/// How often a gateway says what it claims.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long what one has said is believed.
const BELIEVED: Duration = Duration::from_secs(20);
/// Gateways that are remembered; of more, nobody knows that they differ.
const PEERS_MAX: usize = 1024;

/// Something that all gateways have to know.
///
/// ```text
/// {"note":"invalidate","from":"gw1","tags":["flights"]}
/// {"note":"claims","from":"gw1","digest":"5f0c…"}
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
    /// Which messages a gateway takes for work.
    Claims {
        /// Who says so.
        from: String,
        /// The same for all who claim the same.
        digest: String,
    },
}

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts are JSON").into()
    }
}

/// What the other gateways claim, as far as it differs. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    me: Arc<str>,
    digest: Arc<str>,
    others: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Peers {
    pub(crate) fn new(me: &str, digest: &str) -> Self {
        Self { me: me.into(), digest: digest.into(), others: Arc::default() }
    }

    /// Whether all gateways that are heard of claim what this one claims; for `/readyz`.
    pub(crate) fn agree(&self) -> Result<(), String> {
        let mut others = self.others.lock();
        others.retain(|_, heard| heard.elapsed() < BELIEVED);
        let Some(other) = others.keys().min() else { return Ok(()) };
        Err(format!(
            "gateway `{other}` has other consumers than this one, `{}`: work would be done or shown by chance; \
             give all gateways the same [[consumer]] sections",
            self.me
        ))
    }

    fn hear(&self, from: String, digest: &str) {
        let mut others = self.others.lock();
        if *digest == *self.digest {
            others.remove(&from);
        } else if others.len() < PEERS_MAX {
            others.insert(from, Instant::now());
        }
    }

    /// Tells the others, until it is to stop.
    pub(crate) async fn tell(self, layer: ChannelLayer, stop: CancellationToken) {
        let note = Note::Claims { from: self.me.to_string(), digest: self.digest.to_string() }.encode();
        let mut every = interval(TELL_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if let Err(error) = layer.tell(note.clone()).await {
                tracing::debug!(%error, "the other gateways could not be told what this one claims");
            }
        }
    }
}

/// Acts on what other gateways tell, until none can come any more.
pub(crate) async fn heed(
    mut notes: mpsc::Receiver<Bytes>,
    layer: ChannelLayer,
    peers: Peers,
    cache: Arc<QueryCache>,
    live: Live,
) {
    while let Some(note) = notes.recv().await {
        match serde_json::from_slice(&note) {
            Ok(Note::Invalidate { from, .. }) if from == *peers.me => {}
            Ok(Note::Invalidate { tags, .. }) => {
                cache.invalidate(&tags);
                live.invalidate(&tags);
            }
            Ok(Note::Claims { from, digest }) => peers.hear(from, &digest),
            // A newer gateway may say more than this one understands.
            Err(error) => {
                layer.drop_note();
                tracing::debug!(%error, "a note of another gateway was not understood");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_claims_something_else_is_named_until_he_is_not_heard_of() {
        let peers = Peers::new("gw1", "a");
        peers.hear("gw1".to_owned(), "a");
        peers.hear("gw2".to_owned(), "a");
        assert_eq!(peers.agree(), Ok(()));
        peers.hear("gw3".to_owned(), "b");
        assert!(peers.agree().expect_err("they differ").contains("`gw3`"));
        peers.hear("gw3".to_owned(), "a");
        assert_eq!(peers.agree(), Ok(()), "it was started anew");
        peers.hear("gw4".to_owned(), "c");
        tokio::time::advance(BELIEVED).await;
        assert_eq!(peers.agree(), Ok(()));
    }
}
