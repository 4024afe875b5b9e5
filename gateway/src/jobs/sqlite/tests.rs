//! What only the SQLite store can show: crashes, group commit, full disks, damage.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{GroupName, JobId, Message};

use super::lock::DirLock;
use super::open::open_writer;
use super::schema::MIGRATIONS;
use super::writer::{Failed, Sync, Writer};
use super::{SqliteQueue, WorkQueue};
use crate::config::consumer::{Durability, JobsConfig};
use crate::jobs::queue::{ClaimAsk, Filter, Finish, Finished, How, LeaseState};
use crate::jobs::results::Content;
use crate::jobs::time::{Clock, ManualClock};
use crate::jobs::{Counters, ErrorClass, JobState, Jobs, JobsError, NewJob, OpenError, ReplyTo};

#[tokio::test]
async fn what_was_acknowledged_is_in_the_image_of_a_crash() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let ids = enqueue(&queue, 3, Durability::Disk).await;
    let running = queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    // What a kill would leave: the files as they are, mid-flight, with their write-ahead log.
    let image = crash_image(home.path());
    let after = open(image.path());
    let records = after.get(ids.clone()).await.expect("read");
    let states: Vec<_> = records.iter().flatten().map(|record| (record.state, record.attempt)).collect();
    assert_eq!(states, [(JobState::Ready, 1), (JobState::Ready, 0), (JobState::Ready, 0)]);
    assert_eq!(after.counters.recovered.get(), 1);
    let again = after.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    assert_eq!((again.lease.id, again.attempt, again.crashes), (ids[0], 2, 1));
    let late = Finish { lease: running.lease, how: How::Cancelled };
    assert!(matches!(after.finish(vec![late]).await.expect("told")[0], Finished::Fenced));
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_takes_no_lease_and_gives_none() {
    const HOUR_MS: i64 = 3_600_000;
    let home = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new());
    let queue = open_at(home.path(), clock.clone());
    enqueue(&queue, 1, Durability::Os).await;
    let claimed = queue.claim(ask(9)).await.expect("a batch").jobs.remove(0);
    for jump in [HOUR_MS, -2 * HOUR_MS] {
        clock.jump(jump);
        assert!(queue.claim(ask(9)).await.expect("a batch").jobs.is_empty(), "nobody else gets it");
        let held = queue.extend(vec![claimed.lease], Duration::from_secs(15)).await.expect("told");
        assert_eq!(held, [LeaseState::Held]);
    }
    clock.advance(Duration::from_secs(15));
    let again = queue.claim(ask(9)).await.expect("a batch").jobs.remove(0);
    assert_eq!((again.attempt, again.crashes), (2, 1), "a lease that ran out is lost, whatever the wall clock says");
}

#[tokio::test]
async fn a_job_that_kills_its_process_is_dead_at_the_third_time() {
    let mut home = tempfile::tempdir().expect("a directory");
    let mut queue = open(home.path());
    let id = enqueue(&queue, 1, Durability::Os).await[0];
    for attempt in 1..=3 {
        assert_eq!(queue.claim(ask(1)).await.expect("a batch").jobs[0].attempt, attempt);
        home = crash_image(home.path());
        queue = open(home.path());
    }
    let record = queue.get(vec![id]).await.expect("read").remove(0).expect("there");
    let error = record.error.expect("it failed");
    assert_eq!((record.state, error.class, error.code.as_str()), (JobState::Dead, ErrorClass::Crash, "worker_lost"));
    assert_eq!(queue.events_pending(9).await.expect("read").len(), 1);
}

#[tokio::test]
async fn work_of_before_traces_is_done_without_one() {
    let home = tempfile::tempdir().expect("a directory");
    let before = open_writer(&home.path().join("jobs.db"), &MIGRATIONS[..7]).expect("made");
    let old = "insert into job values (x'0193a0b0c0d07000800000000000000a', 'workers', 'work', cast('{\"type\":\"work\"}' as blob), 1,
        'g', 1, 0, 0, null, 5, 5, null, 0, 1, 0, 0, 0, 0, 0, 0, 7, null, null, null, null, null, null, null, 0, null, null,
        '{\"user\":\"alice\"}')";
    assert_eq!(before.execute(old, []).expect("as it was written then"), 1);
    drop(before);
    let queue = open(home.path());
    let claimed = queue.claim(ask(9)).await.expect("a batch").jobs.remove(0);
    assert_eq!((claimed.message.as_str(), claimed.message.trace()), (r#"{"type":"work"}"#, &None));
    assert_eq!(claimed.asker.and_then(|asker| asker.user).as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_trace_that_somebody_else_has_written_holds_up_no_work() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let id = enqueue(&queue, 1, Durability::Os).await[0];
    let conn = open_writer(&home.path().join("jobs.db"), MIGRATIONS).expect("open");
    assert_eq!(conn.execute("update job set traceparent = 'x\u{e9} y'", []).expect("written"), 1);
    let claimed = queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    assert_eq!((claimed.lease.id, claimed.message.trace()), (id, &None));
}

#[tokio::test]
async fn pending_events_are_in_the_image_of_a_crash() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let id = enqueue(&queue, 1, Durability::Disk).await[0];
    let claimed = queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    let error = crate::jobs::JobError { code: "x".into(), message: "y".into(), class: ErrorClass::Permanent };
    queue.finish(vec![Finish { lease: claimed.lease, how: How::Dead(error) }]).await.expect("told");
    let image = crash_image(home.path());
    let after = open(image.path());
    let pending = after.events_pending(9).await.expect("read");
    assert_eq!(pending.iter().map(|settled| settled.record.id).collect::<Vec<_>>(), [id]);
}

#[tokio::test]
async fn calls_that_wait_together_are_committed_together() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    // The first call keeps the writer busy until the others are in its queue.
    let first = queue.writer.call(Sync::Os, move |_, _| Ok(gate.lock().expect("alone").recv().is_ok()));
    let many = futures_util::future::join_all((0..50).map(|_| enqueue(&queue, 1, Durability::Disk)));
    let release = async { go.send(()).expect("the first call waits") };
    let (first, ids, ()) = tokio::join!(first, many, release);
    assert!(first.expect("done"));
    assert_eq!(ids.iter().flatten().collect::<std::collections::HashSet<_>>().len(), 50);
    assert_eq!(queue.counters.committed_calls.get(), 51);
    assert!(queue.counters.commits.get() <= 3, "{} commits", queue.counters.commits.get());
    assert!(queue.counters.syncs.get() <= 2);
}

#[tokio::test]
async fn only_disk_jobs_are_synced() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    enqueue(&queue, 1, Durability::Os).await;
    assert_eq!((queue.counters.commits.get(), queue.counters.syncs.get()), (1, 0));
    assert_eq!(synchronous(&queue).await, 1);
    enqueue(&queue, 1, Durability::Disk).await;
    assert_eq!(queue.counters.syncs.get(), 1);
    let level = queue
        .writer
        .call(Sync::Disk, |conn, _| Ok(conn.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?));
    assert_eq!(level.await.expect("read"), 2, "FULL");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let before = enqueue(&queue, 1, Durability::Disk).await;
    set_page_limit(&queue, 30).await;
    let large = format!(r#"{{"type":"work","text":"{}"}}"#, "x".repeat(500_000));
    let job = NewJob { message: Message::parse(large.into()).expect("a message"), ..job(Durability::Disk) };
    let refused = queue.enqueue(vec![job.clone()]).await;
    assert!(matches!(refused, Err(JobsError::StorageFull)), "{refused:?}");
    let left = queue.get(vec![before[0], job.id]).await.expect("read");
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    let again = queue.enqueue(vec![job.clone()]).await;
    assert!(matches!(again, Err(JobsError::StorageFull)), "{again:?}");
    set_page_limit(&queue, 1 << 30).await;
    queue.enqueue(vec![job]).await.expect("stored, as somebody made space");
    assert_eq!(queue.writer.call(Sync::Os, |_, waiting| Ok(waiting.jobs)).await.expect("told"), 2);
}

#[tokio::test]
async fn a_full_disk_that_lets_nobody_open_is_told_as_such_until_there_is_space() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("x.db");
    let has_space = Arc::new(AtomicBool::new(true));
    let (space, file) = (Arc::clone(&has_space), path.clone());
    let open = move || match space.load(Ordering::SeqCst) {
        true => Ok((open_writer(&file, &["create table a (x blob) strict"])?, ())),
        false => Err(OpenError::Sqlite { path: file.clone(), source: of_code(rusqlite::ffi::SQLITE_CANTOPEN) }),
    };
    let writer = Writer::start("test", Box::new(open), Arc::default()).expect("a file");
    has_space.store(false, Ordering::SeqCst);
    let fail = async |code| writer.call(Sync::Os, move |_, ()| Err::<(), _>(Failed::Sqlite(of_code(code)))).await;
    let write = || writer.call(Sync::Os, |conn, ()| Ok(conn.execute("insert into a values (x'00')", [])?));
    for harmless in [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_BUSY] {
        fail(harmless).await.expect_err("it failed");
        assert_eq!(write().await.expect("a rollback is enough"), 1);
    }
    let refused = fail(rusqlite::ffi::SQLITE_FULL).await;
    assert!(matches!(refused, Err(JobsError::StorageFull)), "{refused:?}");
    let broken = fail(rusqlite::ffi::SQLITE_IOERR).await;
    assert!(matches!(broken, Err(JobsError::Unavailable { .. })), "{broken:?}");
    let refused = write().await;
    assert!(matches!(refused, Err(JobsError::StorageFull)), "{refused:?}");
    has_space.store(true, Ordering::SeqCst);
    assert_eq!(write().await.expect("open again"), 1);
}

#[tokio::test]
async fn one_bad_call_fails_alone() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    let first = queue.writer.call(Sync::Os, move |_, _| Ok(gate.lock().expect("alone").recv().is_ok()));
    let bad = queue.writer.call(Sync::Os, |conn, _| Ok(conn.execute("insert into nothing values (1)", [])?));
    let good = enqueue(&queue, 1, Durability::Disk);
    // Dropped then: the first call is run again, and must not wait again.
    let release = async move { go.send(()).expect("the first call waits") };
    let (_, bad, good, ()) = tokio::join!(first, bad, good, release);
    assert!(matches!(bad, Err(JobsError::Sqlite(_))), "{bad:?}");
    assert!(queue.get(good).await.expect("read")[0].is_some());
    let panicked = queue.writer.call(Sync::Os, |_, _| -> Result<(), super::writer::Failed> { panic!("on purpose") });
    assert!(matches!(panicked.await, Err(JobsError::Unavailable { .. })));
    enqueue(&queue, 1, Durability::Disk).await;
}

#[tokio::test]
async fn a_reader_does_not_wait_for_the_writer() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    let id = enqueue(&queue, 1, Durability::Disk).await[0];
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    let mut stuck = Box::pin(queue.writer.call(Sync::Os, move |_, _| Ok(gate.lock().expect("alone").recv().is_ok())));
    assert!(futures_util::poll!(&mut stuck).is_pending());
    assert!(queue.get(vec![id]).await.expect("read")[0].is_some());
    go.send(()).expect("the call waits");
    assert!(stuck.await.expect("done"));
}

#[tokio::test]
async fn claims_are_not_slowed_by_history() {
    let home = tempfile::tempdir().expect("a directory");
    let queue = open(home.path());
    enqueue(&queue, 1, Durability::Os).await;
    let conn = rusqlite::Connection::open(home.path().join("jobs.db")).expect("open");
    for sql in super::ops::CLAIM_QUERIES {
        let plan = plan(&conn, sql);
        assert!(plan.contains("USING") && plan.contains("INDEX job_"), "{sql}: {plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn reasons_are_counted_from_their_index_alone() {
    let home = tempfile::tempdir().expect("a directory");
    drop(open(home.path()));
    let conn = rusqlite::Connection::open(home.path().join("jobs.db")).expect("open");
    let plan = plan(&conn, super::letters::DEAD_LETTERS);
    assert!(plan.contains("USING COVERING INDEX job_dead"), "{plan}");
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let home = tempfile::tempdir().expect("a directory");
    let jobs = Jobs::open(&JobsConfig::default(), home.path()).expect("free");
    jobs.enqueue(vec![job(Durability::Disk), job(Durability::Memory)]).await.expect("stored");
    jobs.pause("workers").await.expect("kept");
    jobs.close().await;
    drop(jobs);
    let jobs = Jobs::open(&JobsConfig::default(), home.path()).expect("free again");
    jobs.enqueue(vec![job(Durability::Memory)]).await.expect("stored");
    let claim = async || jobs.claim(ask(9)).await.expect("told");
    jobs.learn_pauses().await.expect("told");
    let batch = claim().await;
    assert_eq!((batch.jobs.len(), batch.paused), (0, true), "jobs in memory stand still, too");
    assert_eq!(jobs.paused().await.expect("told"), ["workers".to_owned()]);
    jobs.resume("workers").await.expect("kept");
    assert_eq!(claim().await.jobs.len(), 2);
}

#[tokio::test]
async fn lists_of_live_jobs_are_not_slowed_by_history() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("jobs.db");
    // A file as the first version made it.
    drop(open_writer(&path, &super::schema::MIGRATIONS[..1]).expect("made"));
    let queue = open(home.path());
    let ids = enqueue(&queue, 1, Durability::Os).await;
    let conn = rusqlite::Connection::open(path).expect("open");
    for state in [JobState::Scheduled, JobState::Ready, JobState::Running] {
        for consumer in [None, Some("workers".to_owned())] {
            let filter = Filter { state: Some(state), consumer, reason: None };
            let plan = plan(&conn, &super::ops::list_sql(&filter));
            assert!(plan.contains("SEARCH job USING INDEX job_live_state (state=? AND id<?)"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
            let listed = queue.list(filter, None, 9).await.expect("read");
            assert_eq!(listed.iter().any(|record| record.id == ids[0]), state == JobState::Ready);
        }
    }
}

#[tokio::test]
async fn jobs_of_the_first_version_are_run() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("jobs.db");
    let conn = open_writer(&path, &super::schema::MIGRATIONS[..1]).expect("made");
    // As that version wrote them: one that waits, and one that ran when the process ended.
    let insert = "insert into job values (?1, 'workers', 'work', cast('{\"type\":\"work\"}' as blob), 1, 'g', 2, 0, 5, null, 5, 5,
        null, 0, ?2, ?3, 0, 0, ?3, 0, 0, 5, null, null, null, null, null, null, null, 0)";
    let (waiting, running) = (JobId::new(1, 1), JobId::new(2, 2));
    for (id, state, attempt) in [(waiting, 1, 0), (running, 2, 1)] {
        conn.execute(insert, rusqlite::params![id.to_bytes(), state, attempt]).expect("written");
    }
    drop(conn);
    let queue = open(home.path());
    let claimed = queue.claim(ask(9)).await.expect("a batch").jobs;
    let seen: Vec<_> = claimed.iter().map(|claimed| (claimed.lease.id, claimed.attempt)).collect();
    assert_eq!(seen, [(waiting, 1), (running, 2)]);
    let ends = claimed.iter().map(|claimed| Finish { lease: claimed.lease, how: How::Cancelled }).collect();
    let told = queue.finish(ends).await.expect("told");
    assert!(told.iter().all(|one| matches!(one, Finished::Accepted(_))), "{told:?}");
    assert_eq!(queue.events_pending(9).await.expect("read").len(), 2);
}

fn plan(conn: &rusqlite::Connection, sql: &str) -> String {
    let plan: rusqlite::Result<Vec<String>> =
        conn.prepare(&format!("explain query plan {sql}")).and_then(|mut statement| {
            let parameters = statement.parameter_count();
            let values = rusqlite::params_from_iter((0..parameters).map(|_| 1));
            statement.query_map(values, |row| row.get("detail"))?.collect()
        });
    plan.expect("a plan").join("; ")
}

#[tokio::test]
async fn a_directory_has_one_gateway_at_a_time() {
    let home = tempfile::tempdir().expect("a directory");
    let config = JobsConfig::default();
    let first = Jobs::open(&config, home.path()).expect("free");
    assert!(matches!(Jobs::open(&config, home.path()), Err(OpenError::InUse(_))));
    first.enqueue(vec![job(Durability::Disk)]).await.expect("stored");
    first.close().await;
    assert!(matches!(first.get(JobId::new(1, 1)).await, Err(JobsError::Unavailable { .. })));
    drop(first);
    let second = Jobs::open(&config, home.path()).expect("free again");
    assert_eq!(second.list(Default::default(), None, 9).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_mixed_batch_for_which_memory_has_no_room_stores_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let config = JobsConfig { max_queued: 1, ..JobsConfig::default() };
    let jobs = Jobs::open(&config, home.path()).expect("free");
    let first = jobs.enqueue(vec![job(Durability::Memory)]).await.expect("stored")[0].id;
    let mixed = jobs.enqueue(vec![job(Durability::Disk), job(Durability::Memory)]).await;
    assert!(matches!(mixed, Err(JobsError::QueueFull { limit: 1 })), "{mixed:?}");
    let listed = jobs.list(Filter::default(), None, 9).await.expect("read");
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [first]);
}

#[tokio::test]
async fn damaged_results_are_not_served() {
    let home = tempfile::tempdir().expect("a directory");
    let jobs = Jobs::open(&JobsConfig::default(), home.path()).expect("free");
    let id = jobs.enqueue(vec![job(Durability::Os)]).await.expect("stored")[0].id;
    let claimed = jobs.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    let content = Arc::new(Content::Json(Bytes::from_static(b"[1,2,3]")));
    let info = content.info(id);
    jobs.store_result(&claimed, content).await.expect("stored");
    jobs.finish(claimed.lease, How::Succeeded(info)).await.expect("told");
    jobs.read_result(id, 0, 9).await.expect("whole");
    let conn = rusqlite::Connection::open(home.path().join("results.db")).expect("open");
    conn.execute("update chunk set body = cast('[1,2,4]' as blob)", []).expect("damaged");
    assert!(matches!(jobs.read_result(id, 0, 9).await, Err(JobsError::Damaged(_))));
    conn.execute("delete from result", []).expect("gone");
    assert!(matches!(jobs.read_result(id, 0, 9).await, Err(JobsError::Expired(_))));
}

#[tokio::test]
async fn results_that_nobody_refers_to_are_swept() {
    let home = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new());
    let jobs = Jobs::open_with(&JobsConfig::default(), home.path(), clock.clone()).expect("free");
    jobs.enqueue(vec![job(Durability::Os), job(Durability::Os)]).await.expect("stored");
    let claimed = jobs.claim(ask(2)).await.expect("a batch").jobs;
    let content = Arc::new(Content::Json(Bytes::from_static(b"1")));
    let info = content.info(claimed[0].lease.id);
    jobs.store_result(&claimed[0], Arc::clone(&content)).await.expect("stored");
    jobs.finish(claimed[0].lease, How::Succeeded(info)).await.expect("told");
    jobs.store_result(&claimed[1], content).await.expect("stored");
    let written = clock.wall_ms();
    clock.advance(Duration::from_secs(60));
    assert_eq!(jobs.sweep(written).await.expect("swept"), (0, 0), "it was written after the start");
    assert_eq!(jobs.sweep(0).await.expect("swept"), (0, 0), "its job may be about to refer to it");
    assert_eq!(jobs.sweep(written + 1).await.expect("swept"), (0, 1));
    clock.advance(Duration::from_secs(8 * 86_400));
    jobs.event_sent(&jobs.events_pending(1).await.expect("read")[0]).await.expect("told");
    assert_eq!(jobs.sweep(0).await.expect("swept"), (1, 1), "retention ends both");
    assert!(matches!(jobs.read_result(claimed[0].lease.id, 0, 1).await, Err(JobsError::NotFound(_))));
}

#[tokio::test]
async fn answers_about_results_say_what_is_the_matter() {
    let home = tempfile::tempdir().expect("a directory");
    let jobs = Jobs::open(&JobsConfig::default(), home.path()).expect("free");
    let id = jobs.enqueue(vec![job(Durability::Os)]).await.expect("stored")[0].id;
    assert!(matches!(jobs.read_result(id, 0, 1).await, Err(JobsError::NotReady { .. })));
    assert!(matches!(jobs.file(JobId::new(1, 1), "html").await, Err(JobsError::NotFound(_))));
    jobs.cancel(id).await.expect("told");
    assert!(matches!(jobs.read_result(id, 0, 1).await, Err(JobsError::NoResult { .. })));
}

fn open(dir: &Path) -> SqliteQueue {
    open_at(dir, Arc::new(ManualClock::new()))
}

fn open_at(dir: &Path, clock: Arc<dyn Clock>) -> SqliteQueue {
    let lock = Arc::new(DirLock::take(dir).expect("free"));
    SqliteQueue::open(dir, lock, clock, Arc::new(Counters::default()), 1000).expect("a store")
}

fn of_code(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

/// A copy of the files of a store that is in use.
fn crash_image(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    for name in ["jobs.db", "jobs.db-wal"] {
        std::fs::copy(from.join(name), to.path().join(name)).expect("copied");
    }
    to
}

fn job(durability: Durability) -> NewJob {
    let message = Message::parse(Bytes::from_static(br#"{"type":"work"}"#)).expect("a message");
    let group = GroupName::parse("g").expect("a name");
    NewJob { durability, ..NewJob::new("workers", message, ReplyTo::Group(group)) }
}

async fn enqueue(queue: &SqliteQueue, n: usize, durability: Durability) -> Vec<JobId> {
    let jobs = (0..n).map(|_| job(durability)).collect();
    queue.enqueue(jobs).await.expect("stored").into_iter().map(|told| told.id).collect()
}

fn ask(max: usize) -> ClaimAsk {
    ClaimAsk { consumer: "workers".into(), max, lease: Duration::from_secs(15), ..ClaimAsk::default() }
}

async fn synchronous(queue: &SqliteQueue) -> i64 {
    let read =
        queue.writer.call(Sync::Os, |conn, _| Ok(conn.pragma_query_value(None, "synchronous", |row| row.get(0))?));
    read.await.expect("read")
}

async fn set_page_limit(queue: &SqliteQueue, pages: i64) {
    let set = queue.writer.call(Sync::Os, move |conn, _| Ok(conn.pragma_update(None, "max_page_count", pages)?));
    set.await.expect("set");
}
