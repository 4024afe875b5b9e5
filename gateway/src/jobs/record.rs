//! The job record: what anybody may read about a job, in the form of the contract.

use std::fmt;
use std::str::FromStr;

use groupcast_protocol::{JobId, Trace};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::new_job::Asker;
use crate::clock;
use crate::config::consumer::Durability;

/// Where a job is in its life.
///
/// ```text
/// scheduled -> ready -> running -> succeeded | dead | cancelled
///     ^                    |
///     '---- retry ---------'
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its time: delayed, or between two attempts.
    Scheduled,
    /// Waits for a free slot of its consumer.
    Ready,
    /// In the hands of a consumer.
    Running,
    /// Ended well; its result can be read.
    Succeeded,
    /// Ended for good without a result. It can be redriven.
    Dead,
    /// Ended because somebody asked for it.
    Cancelled,
}

/// A text that is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a state; use scheduled, ready, running, succeeded, dead or cancelled")]
pub struct StateError(String);

impl JobState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Ready, Self::Running, Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The state as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job waits to be claimed.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Ready)
    }

    /// Whether nothing will happen to the job by itself any more.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| StateError(text.chars().take(40).collect()))
    }
}

/// What kind of failure it was, which decides whether the job is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May go away by itself: tried again, until `max_attempts`.
    Transient,
    /// Will fail the same way every time: dead at once.
    Permanent,
    /// Took too long: tried once more. Also a deadline that passed.
    Timeout,
    /// The consumer panicked, or its process died: dead at the third.
    Crash,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Transient, Self::Permanent, Self::Timeout, Self::Crash];

    /// The class as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
        }
    }
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// A stable word, such as `timeout` or `source_unavailable`.
    pub code: String,
    /// What, why and what to do, for a person.
    pub message: String,
    /// What kind of failure it was.
    pub class: ErrorClass,
}

/// How far a running job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is, when that is known.
    pub total: Option<u64>,
    /// What is counted, such as `rows`.
    pub unit: String,
}

/// What came out of a job, without the content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResultInfo {
    /// Rows, when the result has rows.
    pub rows: Option<u64>,
    /// Bytes of the stored result.
    pub bytes: u64,
    /// Whether a budget cut it.
    pub truncated: bool,
    /// SHA-256 of the stored result, in hexadecimal. Of several files: of the first.
    pub digest: String,
    /// Where it can be read.
    pub url: String,
    /// How old it was when it answered the job, in milliseconds, if it was made for an earlier one (`[[query]] cache`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// A job as callers see it; serialises to exactly the contract's job record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobRecord {
    /// Its id, 26 characters.
    #[schema(value_type = String)]
    pub id: JobId,
    /// The consumer it was claimed for.
    pub consumer: String,
    /// The `type` of its message.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is.
    pub state: JobState,
    /// How often it was started. Never goes down.
    pub attempt: u32,
    /// How often it may be started.
    pub max_attempts: u32,
    /// When it was stored.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String)]
    pub enqueued_at: u64,
    /// When its last attempt began.
    #[serde(serialize_with = "time_or_null")]
    #[schema(value_type = Option<String>)]
    pub started_at: Option<u64>,
    /// When it ended.
    #[serde(serialize_with = "time_or_null")]
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<u64>,
    /// How far its last attempt came.
    pub progress: Option<Progress>,
    /// Why its last attempt failed.
    pub error: Option<JobError>,
    /// What came out.
    pub result: Option<ResultInfo>,
    /// What its acceptance survives.
    #[schema(value_type = String)]
    pub durability: Durability,
    /// The trace of whoever asked for it: W3C's `traceparent`. Not there where none was named.
    #[serde(rename = "traceparent", serialize_with = "traceparent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub trace: Trace,
    /// Whose it is; nobody is told.
    #[serde(skip)]
    pub asker: Option<Asker>,
}

impl JobRecord {
    /// How long the last attempt took, in milliseconds; 0 while it runs.
    pub fn elapsed_ms(&self) -> u64 {
        match (self.started_at, self.finished_at) {
            (Some(started), Some(finished)) => finished.saturating_sub(started),
            (Some(_) | None, None) | (None, Some(_)) => 0,
        }
    }
}

/// A time in milliseconds since 1970, as the contract writes it.
pub(super) fn time<S: Serializer>(unix_ms: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&clock::rfc3339(*unix_ms))
}

fn traceparent<S: Serializer>(trace: &Trace, s: S) -> Result<S::Ok, S::Error> {
    trace.as_ref().map(|trace| trace.traceparent()).serialize(s)
}

fn time_or_null<S: Serializer>(unix_ms: &Option<u64>, s: S) -> Result<S::Ok, S::Error> {
    match unix_ms {
        Some(ms) => time(ms, s),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use groupcast_protocol::TraceContext;

    use super::*;

    #[test]
    fn the_record_has_the_keys_of_the_contract() {
        let record = JobRecord {
            id: JobId::new(1_732_000_000_000, 7),
            consumer: "queries".into(),
            kind: "execute_query".into(),
            state: JobState::Succeeded,
            attempt: 1,
            max_attempts: 5,
            enqueued_at: 1_763_830_834_120,
            started_at: Some(1_763_830_834_121),
            finished_at: None,
            progress: Some(Progress { done: 1, total: Some(2), unit: "rows".into() }),
            error: Some(JobError { code: "x".into(), message: "y".into(), class: ErrorClass::Transient }),
            result: Some(ResultInfo {
                rows: Some(3),
                bytes: 9,
                truncated: false,
                digest: "ab".into(),
                url: "/u".into(),
                age_ms: None,
            }),
            durability: Durability::Disk,
            trace: None,
            asker: None,
        };
        let text = serde_json::to_string(&record).expect("a record is JSON");
        assert_eq!(
            text,
            format!(
                r#"{{"id":"{}","consumer":"queries","type":"execute_query","state":"succeeded","attempt":1,"max_attempts":5,"enqueued_at":"2025-11-22T17:00:34.120Z","started_at":"2025-11-22T17:00:34.121Z","finished_at":null,"progress":{{"done":1,"total":2,"unit":"rows"}},"error":{{"code":"x","message":"y","class":"transient"}},"result":{{"rows":3,"bytes":9,"truncated":false,"digest":"ab","url":"/u"}},"durability":"disk"}}"#,
                record.id
            )
        );
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceContext::parse(parent, Some(b"a=b")).map(std::sync::Arc::new);
        let traced = serde_json::to_string(&JobRecord { trace, ..record }).expect("a record is JSON");
        assert_eq!(traced, text.replace("\"disk\"}", &format!("\"disk\",\"traceparent\":\"{parent}\"}}")));
    }

    #[test]
    fn a_result_is_as_old_as_it_was() {
        let old = r#"{"rows":null,"bytes":9,"truncated":false,"digest":"ab","url":"/u"}"#;
        let info: ResultInfo = serde_json::from_str(old).expect("as it was written before there was an age");
        assert_eq!(info.age_ms, None);
        let text = serde_json::to_string(&ResultInfo { age_ms: Some(7), ..info }).expect("a result is JSON");
        assert_eq!(text, r#"{"rows":null,"bytes":9,"truncated":false,"digest":"ab","url":"/u","age_ms":7}"#);
    }

    #[test]
    fn states_read_back() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("retrying".parse::<JobState>().is_err());
    }
}
