//! The streams that have to be there, and their bounds.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, ApiError, STREAM_NOT_FOUND};
use super::config::NatsConfig;
use super::names::{Names, Stream};
use super::time::{ServerClock, ServerTime};
use crate::broker::LIFE;

/// Records of a group without history. One is of use; those before it are there for when somebody else writes behind it,
/// whose writing would push it out otherwise.
const PLAIN_MAX: i64 = 8;
/// The most unread messages of one channel, whatever its capacity says.
const UNREAD_MAX: i64 = 1_000_000;
/// The most messages of Django that wait for a gateway. Of more the newest are not stored: their senders are not told.
pub(super) const FOREIGN_MAX: i64 = 1_000_000;
/// How long work that Django sends waits for a gateway.
const FOREIGN_AGE: Duration = Duration::from_secs(86_400);

/// Creates or widens the streams. Nodes with other settings share them, so no bound is made smaller.
pub(super) async fn set_up(api: &Api, names: &Names, config: &NatsConfig) -> Result<ServerClock, ApiError> {
    let ours = Stream::ALL.into_iter().map(|stream| wanted(names, stream, config));
    for wanted in ours.chain(foreign(names, config)) {
        let name = wanted["name"].as_str().unwrap_or_default();
        match api.ask(&format!("STREAM.INFO.{name}"), &Value::Null).await {
            Ok(info) => {
                let widened = widened(&info["config"], &wanted);
                if let Some(widened) = widened {
                    api.ask(&format!("STREAM.UPDATE.{name}"), &widened).await?;
                }
            }
            Err(ApiError::Said(STREAM_NOT_FOUND, _)) => drop(api.ask(&format!("STREAM.CREATE.{name}"), &wanted).await?),
            Err(error) => return Err(error),
        }
    }
    look(api, names).await
}

/// Looks whether the streams are there; gives the server's clock.
pub(super) async fn look(api: &Api, names: &Names) -> Result<ServerClock, ApiError> {
    let mut clock = None;
    for stream in names.streams() {
        let info = api.ask(&format!("STREAM.INFO.{stream}"), &Value::Null).await?;
        clock = info["ts"].as_str().and_then(ServerTime::parse).map(ServerClock::told);
    }
    clock.ok_or_else(|| ApiError::Said(0, "the server does not tell its time; NATS 2.11 or later is needed".to_owned()))
}

/// What a stream is to be.
fn wanted(names: &Names, stream: Stream, config: &NatsConfig) -> Value {
    let on_disk = stream != Stream::Plain || config.all_on_disk;
    let (per_subject, age) = match stream {
        Stream::Plain => (PLAIN_MAX, LIFE * 2),
        // Twice the longest age: a record that only says where the group is pushes out none that somebody may read.
        Stream::Kept => (count(config.history.messages), LIFE.max(config.history.age) * 2),
        Stream::Channels => (UNREAD_MAX, LIFE.max(config.history.age) * 2),
    };
    json!({
        "name": names.stream(stream),
        "subjects": [names.subjects(stream)],
        "storage": if on_disk { "file" } else { "memory" },
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": per_subject,
        "max_age": nanos(age),
        "num_replicas": config.replicas,
        "allow_direct": true,
        // What was stored is sent on with its place, and nothing else is.
        "republish": {
            "src": names.subjects(stream),
            "dest": names.sent_on(stream),
            "headers_only": stream == Stream::Channels,
        },
    })
}

/// What the stream of what Django sends is to be; none without the dialect.
fn foreign(names: &Names, config: &NatsConfig) -> Option<Value> {
    let (subjects, expiry) = (names.foreign_subjects()?, config.django.as_ref()?.expiry);
    Some(json!({
        "name": names.foreign(),
        "subjects": [subjects],
        "storage": "file",
        "retention": "limits",
        // As Channels does it at a bound: what comes then is dropped, not what waits.
        "discard": "new",
        "max_msgs": FOREIGN_MAX,
        "max_msgs_per_subject": -1,
        "max_age": nanos(FOREIGN_AGE.max(expiry)),
        "num_replicas": config.replicas,
        "allow_direct": true,
        // Only that something has come: one node reads it.
        "republish": { "src": subjects, "dest": names.all_came(), "headers_only": true },
    }))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// What a stream has to be changed to; `None` when it is as it has to be.
fn widened(found: &Value, wanted: &Value) -> Option<Value> {
    let mut widened = found.clone();
    for key in ["max_msgs_per_subject", "max_age", "num_replicas"] {
        if found[key].as_i64() < wanted[key].as_i64() {
            widened[key] = wanted[key].clone();
        }
    }
    for key in ["subjects", "republish", "allow_direct"] {
        let same = match &wanted[key] {
            // The server leaves out what is not set.
            Value::Object(fields) => fields.iter().all(|(k, v)| found[key][k] == *v || *v == false),
            other => found[key] == *other,
        };
        if !same {
            widened[key] = wanted[key].clone();
        }
    }
    (widened != *found).then_some(widened)
}

fn count(messages: usize) -> i64 {
    i64::try_from(messages).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_only_widened() {
        let wanted = json!({ "max_msgs_per_subject": 10, "max_age": 5, "num_replicas": 1, "subjects": ["a"],
            "republish": { "src": "a", "dest": "b", "headers_only": false }, "allow_direct": true });
        let mut found = json!({ "max_msgs_per_subject": 20, "max_age": 5, "num_replicas": 3, "subjects": ["a"],
            "republish": { "src": "a", "dest": "b" }, "allow_direct": true, "storage": "file" });
        assert_eq!(widened(&found, &wanted), None);
        found["max_msgs_per_subject"] = json!(9);
        let changed = widened(&found, &wanted).expect("it is too small");
        assert_eq!((&changed["max_msgs_per_subject"], &changed["storage"]), (&json!(10), &json!("file")));
    }
}
