//! The layout of `jobs.db`.

use super::open::Migrations;

/// `state`: 0 scheduled, 1 ready, 2 running, 3 succeeded, 4 dead, 5 cancelled. `durability`: 1 os, 2 disk. Times are
/// milliseconds since 1970, except `lease_until`, which only means something to the process that wrote it.
///
/// The indexes that claims use cover live states only, so that history does not slow them down. Each ends in the rowid,
/// which is the order of arrival: ids of one millisecond have none.
pub(super) const MIGRATIONS: Migrations = &[
    "
create table job (
    id blob not null primary key,
    consumer text not null,
    kind text not null,
    message blob not null,
    reply_kind integer not null,
    reply_to text not null,
    durability integer not null,
    priority integer not null,
    run_at integer not null,
    deadline_at integer,
    tries integer not null,
    max_attempts integer not null,
    unique_key text,
    hops integer not null,
    state integer not null,
    attempt integer not null,
    crashes integer not null,
    timeouts integer not null,
    token integer not null,
    lease_until integer not null,
    cancel_requested integer not null,
    enqueued_at integer not null,
    started_at integer,
    finished_at integer,
    progress text,
    error_code text,
    error_message text,
    error_class text,
    result text,
    event_pending integer not null
) strict;
create index job_ready on job (consumer, priority desc) where state = 1;
create index job_scheduled on job (consumer, run_at) where state = 0;
create index job_running on job (lease_until) where state = 2;
create index job_deadline on job (deadline_at) where state < 2 and deadline_at is not null;
create unique index job_unique on job (consumer, unique_key) where state < 3 and unique_key is not null;
create index job_event on job (event_pending) where event_pending = 1;
create index job_ended on job (finished_at) where state > 2;
create index job_ended_state on job (state, id) where state > 2;
create index job_consumer on job (consumer, id);
",
    "create index job_live_state on job (state, id) where state < 3;",
    "
alter table job add column coalesce_key text;
alter table job add column shared_result blob;
create index job_coalesce on job (consumer, coalesce_key) where state = 1 and coalesce_key is not null;
create index job_shared_result on job (shared_result) where shared_result is not null;
",
    "
create table paused (consumer text not null primary key, paused_at integer not null) strict, without rowid;
create index job_dead on job (consumer, error_code, error_class, finished_at) where state = 4;
",
    "
create table once (
    name blob not null primary key,
    body blob not null,
    answer blob not null,
    jobs text not null,
    expires_at integer not null
) strict, without rowid;
create index once_expires on once (expires_at);
",
    // The last tick of each schedule.
    "create table tick (schedule text not null primary key, due_ms integer not null) strict;",
    // Whose job it is, as JSON; none of a job that no user asked for.
    "alter table job add column asker text;",
    // The trace of whoever asked: `traceparent`, and behind a space `tracestate`, if there was one.
    "alter table job add column traceparent text;",
];
