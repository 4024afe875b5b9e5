//! The layout of the schema, brought up to date by whichever process comes first.

use std::sync::Arc;

use futures_util::FutureExt;

use super::db::{Db, Failed, Sync};
use crate::jobs::error::{JobsError, OpenError};

/// Changes of the layout, oldest first; the table `layout` says how many a schema has had. Entries are only ever added.
///
/// `state`: 0 scheduled, 1 ready, 2 running, 3 succeeded, 4 dead, 5 cancelled. `durability`: 1 os, 2 disk. Times are
/// milliseconds since 1970 by the server's clock. `seq` is the order of arrival: ids of one millisecond have none.
/// `origin` is the process that took the job in and tells those who asked; `node` has the processes that do so. Texts that clients choose freely are bytes: a
/// `text` takes no zero.
///
/// The indexes that claims use cover live states only, so that history does not slow them down.
pub(super) const MIGRATIONS: &[&str] = &[
    "
create table job (
    id uuid primary key,
    seq bigint generated always as identity,
    consumer text not null,
    message bytea not null,
    reply_kind smallint not null,
    reply_to text not null,
    durability smallint not null,
    priority integer not null,
    run_at bigint not null,
    deadline_at bigint,
    tries bigint not null,
    max_attempts bigint not null,
    unique_key bytea,
    hops smallint not null,
    state smallint not null,
    attempt bigint not null default 0,
    crashes bigint not null default 0,
    timeouts bigint not null default 0,
    token bigint not null default 0,
    lease_until bigint not null default 0,
    cancel_requested boolean not null default false,
    enqueued_at bigint not null,
    started_at bigint,
    finished_at bigint,
    progress text,
    error_code text,
    error_message text,
    error_class text,
    result text,
    event_pending boolean not null default false,
    origin text not null,
    coalesce_key text,
    shared_result bytea
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index job_ready on job (consumer, priority desc, seq) where state = 1;
create index job_scheduled on job (consumer, run_at) where state = 0;
create index job_running on job (lease_until) where state = 2;
create index job_deadline on job (deadline_at) where state < 2 and deadline_at is not null;
create unique index job_unique on job (consumer, unique_key) where state < 3 and unique_key is not null;
create index job_event on job (origin, seq) where event_pending;
create index job_ended on job (finished_at) where state > 2;
create index job_ended_state on job (state, id) where state > 2;
create index job_live_state on job (state, id) where state < 3;
create index job_consumer on job (consumer, id);
create index job_dead on job (consumer, error_code, error_class, finished_at) where state = 4;
create index job_coalesce on job (consumer, coalesce_key, seq) where state = 1 and coalesce_key is not null;
create index job_shared_result on job (shared_result) where shared_result is not null;

create table paused (
    consumer text primary key,
    paused_at bigint not null
);

create table once (
    name bytea primary key,
    body bytea not null,
    answer bytea not null,
    jobs text not null,
    expires_at bigint not null
);
create index once_expires on once (expires_at);

create table node (
    name text primary key,
    boot uuid not null,
    seen_at bigint not null
);

create table result (
    job uuid not null,
    attempt bigint not null,
    token bigint not null,
    written_at bigint not null,
    kind smallint not null,
    columns text not null,
    row_count bigint not null,
    truncated boolean not null,
    primary key (job, attempt, token)
);
create table chunk (
    job uuid not null,
    attempt bigint not null,
    token bigint not null,
    first_row bigint not null,
    rows bigint not null,
    digest bytea not null,
    body bytea not null,
    primary key (job, attempt, token, first_row)
);
create table file (
    job uuid not null,
    attempt bigint not null,
    token bigint not null,
    position bigint not null,
    format text not null,
    media_type text not null,
    digest bytea not null,
    body bytea not null,
    primary key (job, attempt, token, position)
);
",
    "
-- The last tick of each schedule.
create table tick (
    schedule text primary key,
    due_ms bigint not null
);
",
    "
-- Whose job it is, as JSON; none of a job that no user asked for.
alter table job add column asker text;
",
    "
-- The trace of whoever asked: `traceparent`, and behind a space `tracestate`, if there was one.
alter table job add column traceparent text;
",
];

/// Held while a layout is changed: several processes may start at once. The second half is the schema's.
const LOCK: i32 = 0x67_72_63_61;

/// Makes the schema if it is not there, and brings it up to date.
pub(super) async fn migrate(db: &Db, address: &str, schema: &str) -> Result<(), OpenError> {
    migrate_to(db, address, schema, MIGRATIONS).await
}

pub(super) async fn migrate_to(
    db: &Db,
    address: &str,
    schema: &str,
    migrations: &'static [&'static str],
) -> Result<(), OpenError> {
    let name = schema.to_owned();
    let moved = db.transact(Sync::Disk, move |tx| {
        let name = name.clone();
        async move { step(tx, &name, migrations).await }.boxed()
    });
    let refused = |source: JobsError| OpenError::Postgres { address: address.to_owned(), source: Arc::new(source) };
    match moved.await.map_err(refused)? {
        State::UpToDate => Ok(()),
        State::Newer(found) => {
            let (address, known) = (address.to_owned(), migrations.len() as i64);
            Err(OpenError::NewerSchema { address, schema: schema.to_owned(), found, known })
        }
        State::Encoding(encoding) => Err(OpenError::Encoding { address: address.to_owned(), encoding }),
    }
}

enum State {
    UpToDate,
    /// A newer program's.
    Newer(i64),
    /// The database cannot keep every text.
    Encoding(String),
}

async fn step(tx: &super::db::Tx<'_>, schema: &str, migrations: &[&str]) -> Result<State, Failed> {
    // A change of a large table takes its time; a second process waits for the first.
    tx.batch("set local statement_timeout = 0; set local lock_timeout = 0").await?;
    let encoding: String = tx.query("show server_encoding", &[]).await?[0].get(0);
    if encoding != "UTF8" {
        return Ok(State::Encoding(encoding));
    }
    tx.query("select pg_advisory_xact_lock($1, hashtext($2))", &[&LOCK, &schema]).await?;
    // Not `if not exists`: that asks for the right to make one even where there is one.
    if tx.query("select 1 from pg_namespace where nspname = $1", &[&schema]).await?.is_empty() {
        tx.batch(&format!("create schema \"{schema}\"")).await?;
    }
    let found = if tx.query("select 1 where to_regclass('layout') is not null", &[]).await?.is_empty() {
        tx.batch("create table layout (version bigint not null); insert into layout values (0)").await?;
        0
    } else {
        tx.query("select version from layout", &[]).await?[0].get(0)
    };
    if found > migrations.len() as i64 {
        return Ok(State::Newer(found));
    }
    for migration in migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.batch(migration).await?;
    }
    tx.execute("update layout set version = $1", &[&(migrations.len() as i64)]).await?;
    Ok(State::UpToDate)
}
