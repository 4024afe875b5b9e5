//! The witness: a subscriber of each gateway that notes every terminal event it is told, and whether two of them contradict each other.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::config::GROUP;
use super::fleet::Living;

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(5);

/// Contradictions that are kept word by word; the others only count.
const CONTRADICTIONS_MAX: usize = 10;

/// What the subscriber was told.
#[derive(Debug, Default)]
pub(super) struct Testimony {
    /// The terminal event of each job.
    pub(super) told: HashMap<String, Told>,
    /// Terminal events that came once more: they may, if they say the same.
    pub(super) repeated: u64,
    /// How often two terminal events of a job said different things.
    pub(super) contradicted: u64,
    /// Some of these, in words.
    pub(super) examples: Vec<String>,
    /// Events that it was told to have missed.
    pub(super) missed: u64,
}

/// A terminal event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Its type, such as `job.result`.
    pub(super) kind: String,
    pub(super) attempt: u64,
    /// Of the result or the error.
    pub(super) digest: u64,
}

/// A number that two different results hardly share.
pub(super) fn digest(content: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Objects of serde_json are sorted, so the order of the keys on the wire does not matter.
    content.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Listens to one gateway after the other at a place of the fleet, until it is told to stop.
pub(super) async fn listen(
    mut living: watch::Receiver<Living>,
    place: usize,
    testimony: Arc<Mutex<Testimony>>,
    stop: CancellationToken,
) {
    let listening = async {
        loop {
            // Ends with the run only.
            let Ok(address) = living.wait_for(|living| living[place].is_some()).await.map(|living| living[place])
            else {
                return;
            };
            follow(address.expect("it was waited for"), &testimony).await;
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = listening => {}
        () = stop.cancelled() => {}
    }
}

/// Takes what one gateway says until its end.
async fn follow(gateway: SocketAddr, testimony: &Mutex<Testimony>) {
    let Ok((mut socket, _)) = connect_async(format!("ws://{gateway}/ws?group={GROUP}")).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            testimony.lock().take(&serde_json::from_str(&text).unwrap_or_default());
        }
    }
}

impl Testimony {
    fn take(&mut self, frame: &Value) {
        if frame["type"] == "gap" {
            self.missed += frame["missed"].as_u64().unwrap_or(1);
            return;
        }
        let event = &frame["message"];
        let content = match event["type"].as_str() {
            Some("job.result") => &event["result"],
            Some("job.failed") => &event["error"],
            Some("job.cancelled") => &Value::Null,
            _ => return,
        };
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let told = Told {
            kind: text("type"),
            attempt: event["attempt"].as_u64().unwrap_or_default(),
            digest: digest(content),
        };
        let job = text("job");
        match self.told.get(&job) {
            None => drop(self.told.insert(job, told)),
            Some(before) if *before == told => self.repeated += 1,
            Some(before) => {
                self.contradicted += 1;
                if self.examples.len() < CONTRADICTIONS_MAX {
                    self.examples.push(format!("job {job} was told twice: {before:?}, then {told:?}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, attempt: u64, result: Value) -> Value {
        let message = json!({"type": kind, "job": "j", "attempt": attempt, "result": result, "elapsed_ms": 3});
        json!({"type": "message", "group": "torture", "message": message})
    }

    #[test]
    fn an_event_may_be_repeated_but_not_contradicted() {
        let mut testimony = Testimony::default();
        testimony.take(&event("job.started", 1, Value::Null));
        testimony.take(&event("job.result", 2, json!({"rows": [1]})));
        testimony.take(&event("job.result", 2, json!({"rows": [1]})));
        assert_eq!((testimony.told.len(), testimony.repeated, testimony.contradicted), (1, 1, 0));
        testimony.take(&event("job.result", 3, json!({"rows": [1]})));
        testimony.take(&event("job.result", 2, json!({"rows": [2]})));
        testimony.take(&event("job.failed", 2, json!({"rows": [1]})));
        assert_eq!((testimony.told.len(), testimony.repeated, testimony.contradicted), (1, 1, 3));
    }
}
