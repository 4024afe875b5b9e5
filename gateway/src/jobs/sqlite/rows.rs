//! Rows of `jobs.db`: read, inserted, saved. The only place that knows the columns.

use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, JobId, Message, TraceContext};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, named_params};

use crate::config::consumer::Durability;
use crate::jobs::new_job::ReplyTo;
use crate::jobs::record::{ErrorClass, JobError, JobState};
use crate::jobs::results::ResultKey;
use crate::jobs::row::Row;

/// Reads one job.
pub(super) fn load(conn: &Connection, id: JobId) -> rusqlite::Result<Option<Row>> {
    conn.prepare_cached("select * from job where id = ?1")?.query_row([id.to_bytes()], read).optional()
}

/// Adds a job.
pub(super) fn insert(conn: &Connection, row: &Row) -> rusqlite::Result<()> {
    let (reply_kind, reply_to) = match &row.reply_to {
        ReplyTo::Nobody => (0, ""),
        ReplyTo::Group(name) => (1, name.as_str()),
        ReplyTo::Channel(name) => (2, name.as_str()),
    };
    conn.prepare_cached(
        "insert into job values (:id, :consumer, :kind, :message, :reply_kind, :reply_to, :durability, :priority,
            :run_at, :deadline_at, :tries, :max_attempts, :unique_key, :hops, :state, 0, 0, 0, 0, 0, 0, :enqueued_at,
            null, null, null, null, null, null, null, 0, :coalesce_key, null, :asker, :traceparent)",
    )?
    .execute(named_params! {
        ":id": row.id.to_bytes(),
        ":consumer": row.consumer,
        ":kind": row.message.kind(),
        ":message": &row.message.raw()[..],
        ":reply_kind": reply_kind,
        ":reply_to": reply_to,
        ":durability": durability_code(row.durability),
        ":priority": row.priority,
        ":run_at": int(row.run_at),
        ":deadline_at": row.deadline_at.map(int),
        ":tries": row.tries,
        ":max_attempts": row.max_attempts,
        ":unique_key": row.unique_key,
        ":coalesce_key": row.coalesce_key,
        ":hops": row.hops,
        ":state": state_code(row.state),
        ":enqueued_at": int(row.enqueued_at),
        ":asker": row.asker.as_ref().map(json),
        ":traceparent": row.message.trace().as_ref().map(ToString::to_string),
    })?;
    Ok(())
}

/// Writes what can change about a job.
pub(super) fn save(conn: &Connection, row: &Row) -> rusqlite::Result<()> {
    let error = row.error.as_ref();
    conn.prepare_cached(
        "update job set run_at = :run_at, deadline_at = :deadline_at, max_attempts = :max_attempts, state = :state,
            attempt = :attempt, crashes = :crashes, timeouts = :timeouts, token = :token, lease_until = :lease_until,
            cancel_requested = :cancel_requested, started_at = :started_at, finished_at = :finished_at,
            progress = :progress, error_code = :error_code, error_message = :error_message, error_class = :error_class,
            result = :result, event_pending = :event_pending, shared_result = :shared_result where id = :id",
    )?
    .execute(named_params! {
        ":id": row.id.to_bytes(),
        ":run_at": int(row.run_at),
        ":deadline_at": row.deadline_at.map(int),
        ":max_attempts": row.max_attempts,
        ":state": state_code(row.state),
        ":attempt": row.attempt,
        ":crashes": row.crashes,
        ":timeouts": row.timeouts,
        ":token": int(row.token),
        ":lease_until": int(row.lease_until),
        ":cancel_requested": row.cancel_requested,
        ":started_at": row.started_at.map(int),
        ":finished_at": row.finished_at.map(int),
        ":progress": row.progress.as_ref().map(json),
        ":error_code": error.map(|error| &error.code),
        ":error_message": error.map(|error| &error.message),
        ":error_class": error.map(|error| error.class.as_str()),
        ":result": row.result.as_ref().map(json),
        ":event_pending": row.event_pending,
        ":shared_result": row.shared_result.map(ResultKey::to_bytes),
    })?;
    Ok(())
}

/// Reads the columns of `select * from job`.
pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: id(row, "id")?,
        consumer: row.get("consumer")?,
        message: message(row)?,
        reply_to: reply_to(row)?,
        durability: durability(row.get("durability")?)?,
        priority: row.get("priority")?,
        run_at: uint(row.get("run_at")?),
        deadline_at: row.get::<_, Option<i64>>("deadline_at")?.map(uint),
        tries: row.get("tries")?,
        max_attempts: row.get("max_attempts")?,
        unique_key: row.get("unique_key")?,
        coalesce_key: row.get("coalesce_key")?,
        hops: row.get("hops")?,
        state: state(row.get("state")?)?,
        attempt: row.get("attempt")?,
        crashes: row.get("crashes")?,
        timeouts: row.get("timeouts")?,
        token: uint(row.get("token")?),
        lease_until: uint(row.get("lease_until")?),
        cancel_requested: row.get("cancel_requested")?,
        enqueued_at: uint(row.get("enqueued_at")?),
        started_at: row.get::<_, Option<i64>>("started_at")?.map(uint),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(uint),
        progress: from_json(row, "progress")?,
        error: error(row)?,
        result: from_json(row, "result")?,
        shared_result: shared_result(row)?,
        event_pending: row.get("event_pending")?,
        asker: from_json(row, "asker")?,
    })
}

/// Reads a column of ids.
pub(super) fn id(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<JobId> {
    row.get(column).map(JobId::from_bytes)
}

/// A number as SQLite keeps it.
pub(crate) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number that SQLite kept.
pub(crate) fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// A state as SQLite keeps it.
pub(super) fn state_code(state: JobState) -> i64 {
    match state {
        JobState::Scheduled => 0,
        JobState::Ready => 1,
        JobState::Running => 2,
        JobState::Succeeded => 3,
        JobState::Dead => 4,
        JobState::Cancelled => 5,
    }
}

/// A state that SQLite kept.
pub(super) fn state(code: i64) -> rusqlite::Result<JobState> {
    JobState::ALL.into_iter().find(|state| state_code(*state) == code).ok_or_else(|| strange("state", Type::Integer))
}

/// A class of errors that SQLite kept.
pub(super) fn class(text: &str) -> rusqlite::Result<ErrorClass> {
    let class = ErrorClass::ALL.into_iter().find(|known| known.as_str() == text);
    class.ok_or_else(|| strange("error_class", Type::Text))
}

fn durability_code(durability: Durability) -> i64 {
    match durability {
        Durability::Memory => 0,
        Durability::Os => 1,
        Durability::Disk => 2,
    }
}

fn durability(code: i64) -> rusqlite::Result<Durability> {
    match code {
        0 => Ok(Durability::Memory),
        1 => Ok(Durability::Os),
        2 => Ok(Durability::Disk),
        _ => Err(strange("durability", Type::Integer)),
    }
}

fn message(row: &SqlRow<'_>) -> rusqlite::Result<Message> {
    let raw: Vec<u8> = row.get("message")?;
    let message = Message::parse(Bytes::from(raw)).map_err(|_| strange("message", Type::Blob))?;
    // What is no trace is none: work is not lost for it.
    let trace: Option<String> = row.get("traceparent")?;
    Ok(message.with_trace(trace.and_then(|text| TraceContext::from_text(&text)).map(Arc::new)))
}

fn reply_to(row: &SqlRow<'_>) -> rusqlite::Result<ReplyTo> {
    let name: String = row.get("reply_to")?;
    let refused = |_| strange("reply_to", Type::Text);
    match row.get("reply_kind")? {
        0 => Ok(ReplyTo::Nobody),
        1 => GroupName::parse(&name).map(ReplyTo::Group).map_err(refused),
        2 => ChannelName::parse(&name).map(ReplyTo::Channel).map_err(refused),
        _ => Err(strange("reply_kind", Type::Integer)),
    }
}

fn error(row: &SqlRow<'_>) -> rusqlite::Result<Option<JobError>> {
    let Some(code) = row.get("error_code")? else { return Ok(None) };
    let class = class(&row.get::<_, String>("error_class")?)?;
    Ok(Some(JobError { code, message: row.get("error_message")?, class }))
}

fn shared_result(row: &SqlRow<'_>) -> rusqlite::Result<Option<ResultKey>> {
    let Some(bytes) = row.get::<_, Option<Vec<u8>>>("shared_result")? else { return Ok(None) };
    ResultKey::from_bytes(&bytes).map(Some).ok_or_else(|| strange("shared_result", Type::Blob))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have string keys and finite numbers")
}

fn from_json<T: serde::de::DeserializeOwned>(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|_| strange(column, Type::Text))
}

fn strange(column: &str, kind: Type) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(0, column.to_owned(), kind)
}
