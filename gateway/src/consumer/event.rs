//! The events of jobs, as messages. They belong to the trace that the job belongs to.
//!
//! ```text
//! {"type":"job.started","job":"01J…","consumer":"queries","attempt":1}
//! {"type":"job.progress",…,"done":10,"total":100,"unit":"rows"}
//! {"type":"job.result",…,"result":{"columns":[…],"rows":[[…]],"row_count":1,"truncated":false},"elapsed_ms":12}
//! {"type":"job.result",…,"url":"/v1/jobs/01J…/result","elapsed_ms":12}
//! {"type":"job.result",…,"elapsed_ms":0,"age_ms":1830}        from the cache
//! {"type":"job.retry",…,"error":{"code","message","class"},"retry_at":"2026-…Z"}
//! {"type":"job.failed",…,"error":{"code","message","class"}}
//! {"type":"job.cancelled",…}
//! ```

use bytes::Bytes;
use groupcast_protocol::{JobId, Message, MessageError};
use serde::Serialize;

use crate::clock::rfc3339;
use crate::jobs::queue::{Claimed, Settled};
use crate::jobs::results::{Content, StoredResult};
use crate::jobs::{JobState, Progress};

/// `job.started`
pub(crate) fn started(claimed: &Claimed) -> Result<Message, MessageError> {
    of(claimed, "job.started").message().map(|event| event.with_trace(claimed.message.trace().clone()))
}

/// `job.progress`
pub(crate) fn progress(claimed: &Claimed, progress: &Progress) -> Result<Message, MessageError> {
    let event = of(claimed, "job.progress");
    let event = event.field("done", &progress.done).field("total", &progress.total).field("unit", &progress.unit);
    event.message().map(|event| event.with_trace(claimed.message.trace().clone()))
}

/// The event of a job after a commit; `None` in a state that has none.
///
/// `inline` is the result as JSON, if it is known and may travel.
pub(crate) fn settled(settled: &Settled, inline: Option<&str>) -> Result<Option<Message>, MessageError> {
    let record = &settled.record;
    let event = |kind| Event::new(kind, record.id, &record.consumer, record.attempt, settled.hops);
    let message = match record.state {
        JobState::Scheduled => {
            let at = settled.retry_at.map(rfc3339);
            event("job.retry").field("error", &record.error).field("retry_at", &at).message()?
        }
        JobState::Succeeded => {
            let with_result = |event: Event| match inline {
                Some(json) => event.raw("result", json),
                None => event.field("url", &record.result.as_ref().map(|result| &result.url)),
            };
            let elapsed_ms = record.elapsed_ms();
            let aged = |event: Event| match record.result.as_ref().and_then(|result| result.age_ms) {
                Some(age_ms) => event.field("age_ms", &age_ms),
                None => event,
            };
            let inlined = aged(with_result(event("job.result")).field("elapsed_ms", &elapsed_ms)).message();
            match inlined {
                Ok(message) => message,
                // A result that nests too deeply for a message is read by its address.
                Err(_) if inline.is_some() => return self::settled(settled, None),
                Err(error) => return Err(error),
            }
        }
        JobState::Dead => event("job.failed").field("error", &record.error).message()?,
        JobState::Cancelled => event("job.cancelled").message()?,
        JobState::Ready | JobState::Running => return Ok(None),
    };
    Ok(Some(message.with_trace(record.trace.clone())))
}

/// A result as it travels in an event, if it has at most `max` bytes.
pub(crate) fn inline_content(content: &Content, max: usize) -> Option<String> {
    let json = match content {
        Content::Rows(set) if set.bytes() <= max as u64 => {
            let lines = set.chunks.iter().flat_map(|chunk| chunk.ndjson.split(|byte| *byte == b'\n'));
            rows_json(&set.columns, lines, set.row_count(), set.truncated)
        }
        Content::Json(text) if text.len() <= max => String::from_utf8(text.to_vec()).ok()?,
        Content::Rows(_) | Content::Json(_) | Content::Files(_) => return None,
    };
    Some(json).filter(|json| json.len() <= max)
}

/// A stored result as it travels in an event, if it has at most `max` bytes.
pub(crate) fn inline_stored(stored: &StoredResult, max: usize) -> Option<String> {
    let json = match stored {
        StoredResult::Rows(rows) => {
            rows_json(&rows.columns, rows.ndjson.split(|byte| *byte == b'\n'), rows.row_count, rows.truncated)
        }
        StoredResult::Json(text) => String::from_utf8(text.to_vec()).ok()?,
        StoredResult::Files(_) => return None,
    };
    Some(json).filter(|json| json.len() <= max)
}

fn rows_json<'a>(columns: &[String], lines: impl Iterator<Item = &'a [u8]>, row_count: u64, truncated: bool) -> String {
    let columns = serde_json::to_string(columns).expect("a list of texts is JSON");
    let mut rows = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        rows.push_str(if rows.is_empty() { "" } else { "," });
        rows.push_str(&String::from_utf8_lossy(line));
    }
    format!(r#"{{"columns":{columns},"rows":[{rows}],"row_count":{row_count},"truncated":{truncated}}}"#)
}

fn of(claimed: &Claimed, kind: &str) -> Event {
    Event::new(kind, claimed.lease.id, &claimed.consumer, claimed.attempt, claimed.hops)
}

/// An object under construction.
struct Event(String);

impl Event {
    fn new(kind: &str, id: JobId, consumer: &str, attempt: u32, hops: u8) -> Self {
        let event = Self(format!(r#"{{"type":"{kind}""#));
        let event = event.field("job", &id).field("consumer", &consumer).field("attempt", &attempt);
        // Only in a chain: what a client asked for has none.
        if hops > 0 { event.field("hops", &hops) } else { event }
    }

    fn field<T: Serialize>(self, name: &str, value: &T) -> Self {
        let json = serde_json::to_string(value).expect("fields have string keys and finite numbers");
        self.raw(name, &json)
    }

    fn raw(mut self, name: &str, json: &str) -> Self {
        self.0.push_str(&format!(r#","{name}":"#));
        self.0.push_str(json);
        self
    }

    fn message(mut self) -> Result<Message, MessageError> {
        self.0.push('}');
        Message::parse(Bytes::from(self.0))
    }
}
