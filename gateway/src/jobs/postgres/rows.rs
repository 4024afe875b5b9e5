//! Rows of the table `job`: read, inserted, saved. The only place that knows the columns.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use groupcast_protocol::{ChannelName, GroupName, JobId, Message, Trace, TraceContext};
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::db::{Failed, Tx, int, uint};
use crate::config::consumer::Durability;
use crate::jobs::error::JobsError;
use crate::jobs::new_job::ReplyTo;
use crate::jobs::record::{ErrorClass, JobError, JobState};
use crate::jobs::results::ResultKey;
use crate::jobs::row::Row;

/// What [`read`] reads.
macro_rules! columns {
    () => {
        "job.id, job.consumer, job.message, job.reply_kind, job.reply_to, job.durability, job.priority, job.run_at,
         job.deadline_at, job.tries, job.max_attempts, job.unique_key, job.hops, job.state, job.attempt, job.crashes,
         job.timeouts, job.token, job.lease_until, job.cancel_requested, job.enqueued_at, job.started_at,
         job.finished_at, job.progress, job.error_code, job.error_message, job.error_class, job.result,
         job.event_pending, job.origin, job.coalesce_key, job.shared_result, job.asker, job.traceparent"
    };
}
pub(super) use columns;

/// A job, and the process that took it in.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) row: Row,
    pub(super) origin: String,
}

/// An id as PostgreSQL keeps it: a `uuid`, which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) JobId);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(JobId::from_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

/// Adds jobs in their order, but not where a live job of the same consumer has the same unique key; the ids of those that
/// were added.
pub(super) async fn insert(tx: &Tx<'_>, rows: &[Row], origin: &str) -> Result<HashSet<JobId>, Failed> {
    let sql = "insert into job (id, consumer, message, reply_kind, reply_to, durability, priority, run_at, deadline_at,
            tries, max_attempts, unique_key, hops, state, enqueued_at, origin, coalesce_key, asker,
            traceparent)
        select id, consumer, message, reply_kind, reply_to, durability, priority, run_at, deadline_at, tries,
            max_attempts, unique_key, hops, state, enqueued_at, $16, coalesce_key, asker, traceparent
        from unnest($1::uuid[], $2::text[], $3::bytea[], $4::smallint[], $5::text[], $6::smallint[], $7::integer[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[], $13::smallint[], $14::smallint[],
            $15::bigint[], $17::text[], $18::text[], $19::text[]) with ordinality as fresh (id, consumer, message, reply_kind, reply_to,
            durability, priority, run_at, deadline_at, tries, max_attempts, unique_key, hops, state, enqueued_at,
            coalesce_key, asker, traceparent, place)
        order by place
        on conflict (consumer, unique_key) where state < 3 and unique_key is not null do nothing returning id";
    let replies: Vec<_> = rows.iter().map(|row| reply_parts(&row.reply_to)).collect();
    let added = tx
        .query(
            sql,
            &[
                &list(rows, |row| Uuid(row.id)),
                &list(rows, |row| row.consumer.as_str()),
                &list(rows, |row| &row.message.raw()[..]),
                &list(&replies, |reply| reply.0),
                &list(&replies, |reply| reply.1),
                &list(rows, |row| durability_code(row.durability)),
                &list(rows, |row| row.priority),
                &list(rows, |row| int(row.run_at)),
                &list(rows, |row| row.deadline_at.map(int)),
                &list(rows, |row| i64::from(row.tries)),
                &list(rows, |row| i64::from(row.max_attempts)),
                &list(rows, |row| row.unique_key.as_deref().map(str::as_bytes)),
                &list(rows, |row| i16::from(row.hops)),
                &list(rows, |row| state_code(row.state)),
                &list(rows, |row| int(row.enqueued_at)),
                &origin,
                &list(rows, |row| row.coalesce_key.as_deref()),
                &list(rows, |row| row.asker.as_ref().map(json)),
                &list(rows, |row| row.message.trace().as_ref().map(ToString::to_string)),
            ],
        )
        .await?;
    Ok(added.iter().map(|row| row.get::<_, Uuid>(0).0).collect())
}

/// Writes what can change about jobs.
pub(super) async fn save(tx: &Tx<'_>, rows: &[&Row]) -> Result<(), Failed> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "update job set run_at = s.run_at, deadline_at = s.deadline_at, max_attempts = s.max_attempts,
            state = s.state, attempt = s.attempt, crashes = s.crashes, timeouts = s.timeouts, token = s.token,
            lease_until = s.lease_until, cancel_requested = s.cancel_requested, started_at = s.started_at,
            finished_at = s.finished_at, progress = s.progress, error_code = s.error_code,
            error_message = s.error_message, error_class = s.error_class, result = s.result,
            event_pending = s.event_pending, shared_result = s.shared_result
        from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[], $12::bigint[], $13::bigint[], $14::text[],
            $15::text[], $16::text[], $17::text[], $18::text[], $19::boolean[], $20::bytea[]) as s (id, run_at, deadline_at,
            max_attempts, state, attempt, crashes, timeouts, token, lease_until, cancel_requested, started_at,
            finished_at, progress, error_code, error_message, error_class, result, event_pending, shared_result)
        where job.id = s.id";
    let error = |read: fn(&JobError) -> String| list(rows, |row| row.error.as_ref().map(read));
    tx.execute(
        sql,
        &[
            &list(rows, |row| Uuid(row.id)),
            &list(rows, |row| int(row.run_at)),
            &list(rows, |row| row.deadline_at.map(int)),
            &list(rows, |row| i64::from(row.max_attempts)),
            &list(rows, |row| state_code(row.state)),
            &list(rows, |row| i64::from(row.attempt)),
            &list(rows, |row| i64::from(row.crashes)),
            &list(rows, |row| i64::from(row.timeouts)),
            &list(rows, |row| int(row.token)),
            &list(rows, |row| int(row.lease_until)),
            &list(rows, |row| row.cancel_requested),
            &list(rows, |row| row.started_at.map(int)),
            &list(rows, |row| row.finished_at.map(int)),
            &list(rows, |row| row.progress.as_ref().map(json)),
            &error(|error| without_zero(&error.code)),
            &error(|error| without_zero(&error.message)),
            &error(|error| error.class.as_str().to_owned()),
            &list(rows, |row| row.result.as_ref().map(json)),
            &list(rows, |row| row.event_pending),
            &list(rows, |row| row.shared_result.map(|key| key.to_bytes().to_vec())),
        ],
    )
    .await?;
    Ok(())
}

/// Reads the columns of [`columns`].
pub(super) fn read(row: &SqlRow) -> Result<Kept, Failed> {
    let number = |at: usize| u32::try_from(row.get::<_, i64>(at)).map_err(|_| strange("a count"));
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(uint);
    let kept = Row {
        id: row.get::<_, Uuid>(0).0,
        consumer: row.get(1),
        message: message(row.get(2))?.with_trace(trace(row.get(33))),
        reply_to: reply_to(row.get(3), row.get(4))?,
        durability: durability(row.get(5))?,
        priority: row.get(6),
        run_at: uint(row.get(7)),
        deadline_at: time(8),
        tries: number(9)?,
        max_attempts: number(10)?,
        unique_key: row.get::<_, Option<Vec<u8>>>(11).map(text).transpose()?,
        hops: u8::try_from(row.get::<_, i16>(12)).map_err(|_| strange("hops"))?,
        state: state(row.get(13))?,
        attempt: number(14)?,
        crashes: number(15)?,
        timeouts: number(16)?,
        token: uint(row.get(17)),
        lease_until: uint(row.get(18)),
        cancel_requested: row.get(19),
        enqueued_at: uint(row.get(20)),
        started_at: time(21),
        finished_at: time(22),
        progress: from_json(row.get(23))?,
        error: error(row.get(24), row.get(25), row.get(26))?,
        result: from_json(row.get(27))?,
        event_pending: row.get(28),
        coalesce_key: row.get(30),
        shared_result: row.get::<_, Option<&[u8]>>(31).map(shared_result).transpose()?,
        asker: from_json(row.get(32))?,
    };
    Ok(Kept { row: kept, origin: row.get(29) })
}

/// Reads many.
pub(super) fn read_all(rows: &[SqlRow]) -> Result<Vec<Kept>, Failed> {
    rows.iter().map(read).collect()
}

/// A column's values, as `unnest` takes them.
pub(super) fn list<'a, I, T>(items: &'a [I], value: impl FnMut(&'a I) -> T) -> Vec<T> {
    items.iter().map(value).collect()
}

/// A state as PostgreSQL keeps it.
pub(super) fn state_code(state: JobState) -> i16 {
    match state {
        JobState::Scheduled => 0,
        JobState::Ready => 1,
        JobState::Running => 2,
        JobState::Succeeded => 3,
        JobState::Dead => 4,
        JobState::Cancelled => 5,
    }
}

/// A state that PostgreSQL kept.
pub(super) fn state(code: i16) -> Result<JobState, Failed> {
    JobState::ALL.into_iter().find(|state| state_code(*state) == code).ok_or_else(|| strange("a state"))
}

/// A level as PostgreSQL keeps it.
pub(super) fn durability_code(durability: Durability) -> i16 {
    match durability {
        Durability::Memory => 0,
        Durability::Os => 1,
        Durability::Disk => 2,
    }
}

/// A level that PostgreSQL kept.
pub(super) fn durability(code: i16) -> Result<Durability, Failed> {
    match code {
        0 => Ok(Durability::Memory),
        1 => Ok(Durability::Os),
        2 => Ok(Durability::Disk),
        _ => Err(strange("a durability")),
    }
}

/// Bytes that were a text.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, Failed> {
    String::from_utf8(bytes).map_err(|_| strange("a key"))
}

/// A class that PostgreSQL kept.
pub(super) fn class(text: &str) -> Result<ErrorClass, Failed> {
    ErrorClass::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| strange("a class of errors"))
}

fn reply_parts(reply: &ReplyTo) -> (i16, &str) {
    match reply {
        ReplyTo::Nobody => (0, ""),
        ReplyTo::Group(name) => (1, name.as_str()),
        ReplyTo::Channel(name) => (2, name.as_str()),
    }
}

fn reply_to(kind: i16, name: &str) -> Result<ReplyTo, Failed> {
    match kind {
        0 => Ok(ReplyTo::Nobody),
        1 => GroupName::parse(name).map(ReplyTo::Group).map_err(|_| strange("a group")),
        2 => ChannelName::parse(name).map(ReplyTo::Channel).map_err(|_| strange("a channel")),
        _ => Err(strange("a kind of reply")),
    }
}

fn shared_result(bytes: &[u8]) -> Result<ResultKey, Failed> {
    ResultKey::from_bytes(bytes).ok_or_else(|| strange("a shared result"))
}

/// What is no trace is none: work is not lost for it.
fn trace(text: Option<&str>) -> Trace {
    text.and_then(TraceContext::from_text).map(Arc::new)
}

fn message(raw: Vec<u8>) -> Result<Message, Failed> {
    Message::parse(Bytes::from(raw)).map_err(|_| strange("a message"))
}

fn error(code: Option<String>, message: Option<String>, class: Option<&str>) -> Result<Option<JobError>, Failed> {
    let (Some(code), Some(message), Some(class)) = (code, message, class) else { return Ok(None) };
    Ok(Some(JobError { code, message, class: self::class(class)? }))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have string keys and finite numbers")
}

fn from_json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, Failed> {
    text.map(serde_json::from_str).transpose().map_err(|_| strange("a record"))
}

/// A `text` takes no zero; JSON has none that is not escaped.
fn without_zero(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn strange(what: &str) -> Failed {
    Failed::Refused(JobsError::Unavailable { what: format!("{what} in the table `job` is not one of this program's") })
}
