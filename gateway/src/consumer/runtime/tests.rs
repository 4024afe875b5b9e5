//! Jobs from enqueue to event, with an outlet that remembers and consumers that misbehave.

mod caching;
mod sharing;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use groupcast_protocol::{GroupName, JobId, Message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Consumers, Drained, Setup};
use crate::auth::By;
use crate::config::Role;
use crate::config::consumer::{ConsumerConfig, Durability, JobsConfig};
use crate::config::query::{QueryConfig, SourceConfig};
use crate::config::units::Time;
use crate::consumer::testing::message;
use crate::consumer::{
    BoxFuture, Claims, Consumer, Failure, JobContext, Outcome, Outlet, OutletError, Queries, QueryCache, Sources,
};
use crate::jobs::queue::How;
use crate::jobs::results::{Content, StoredResult};
use crate::jobs::{CancelOutcome, ErrorClass, JobError, JobRecord, JobState, Jobs, NewJob, RedriveFilter, ReplyTo};
use crate::lag::LoopLag;

#[tokio::test]
async fn the_mission_line_gives_rows_to_the_group() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","queryset_id":7,"params":{"origin":"JFK"}}"#).await;
    let events = rig.events(id, "job.result").await;
    assert_eq!(events.iter().map(kind).collect::<Vec<_>>(), ["job.started", "job.result"]);
    let result = &events[1];
    assert_eq!(result["result"], json!({"columns":["origin","n"],"rows":[["JFK",1]],"row_count":1,"truncated":false}));
    assert_eq!((&result["consumer"], &result["attempt"]), (&json!("queries"), &json!(1)));
    assert!(result["elapsed_ms"].is_u64() && result.get("hops").is_none());
    let record = rig.ended(id).await;
    let info = record.result.expect("a result");
    assert_eq!((record.state, info.rows, info.bytes), (JobState::Succeeded, Some(1), 10));
    let StoredResult::Rows(rows) = rig.jobs.read_result(id, 0, 9).await.expect("stored") else { panic!("rows") };
    assert_eq!(&rows.ndjson[..], b"[\"JFK\",1]\n");
    rig.no_events_are_pending().await;
}

#[tokio::test]
async fn a_large_result_travels_by_address() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","query":"many"}"#).await;
    let result = rig.events(id, "job.result").await.pop().expect("an event");
    assert_eq!(result["url"], json!(format!("/v1/jobs/{id}/result")));
    assert!(result.get("result").is_none());
    let StoredResult::Rows(rows) = rig.jobs.read_result(id, 9_999, 9).await.expect("stored") else { panic!("rows") };
    assert_eq!((&rows.ndjson[..], rows.row_count, rows.truncated), (&b"[10000]\n"[..], 10_000, true));
}

#[tokio::test]
async fn a_limit_cuts_and_says_so() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","query":"many","limit":2}"#).await;
    let result = rig.events(id, "job.result").await.pop().expect("an event");
    let expected = json!({"columns":["x"],"rows":[[1],[2]],"row_count":2,"truncated":true});
    assert_eq!(result["result"], expected);
    assert!(rig.ended(id).await.result.expect("a result").truncated);
}

#[tokio::test]
async fn a_report_is_two_files_and_progress() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"generate_report","query":"evil"}"#).await;
    let events = rig.events(id, "job.result").await;
    let progress: Vec<_> = events.iter().filter(|event| kind(event) == "job.progress").collect();
    assert_eq!(progress.last().expect("some")["done"], json!(3));
    assert_eq!(events.last().expect("some")["url"], json!(format!("/v1/jobs/{id}/result?format=html")));
    let record = rig.ended(id).await;
    let info = record.result.expect("a result");
    assert_eq!((info.rows, info.truncated), (Some(3), false));
    let html = rig.jobs.file(id, "html").await.expect("read").expect("there");
    let text = String::from_utf8(html.body.to_vec()).expect("UTF-8");
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !text.contains("<script"), "{text}");
    assert!(text.contains("<svg") && text.contains("Evil &amp; good"), "{text}");
    assert_eq!(info.bytes as usize, html.body.len() + rig.file(id, "csv").await.len());
    let csv = rig.file(id, "csv").await;
    assert_eq!(String::from_utf8_lossy(&csv), "name,n\r\n<script>alert(1)</script>,3\r\n\"a,\"\"b\",-2\r\n,1\r\n");
    assert_eq!(rig.jobs.file(id, "pdf").await.expect("read"), None);
}

#[tokio::test]
async fn a_report_can_be_csv_first() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"generate_report","query":"evil","format":"csv"}"#).await;
    let result = rig.events(id, "job.result").await.pop().expect("an event");
    assert_eq!(result["url"], json!(format!("/v1/jobs/{id}/result?format=csv")));
}

#[tokio::test]
async fn a_transient_failure_is_retried_and_told() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"fail_twice"}"#).await;
    let events = rig.events(id, "job.result").await;
    let kinds: Vec<_> = events.iter().map(kind).collect();
    assert_eq!(kinds, ["job.started", "job.retry", "job.started", "job.retry", "job.started", "job.result"]);
    assert_eq!(events[1]["error"], json!({"code":"busy","message":"not yet","class":"transient"}));
    assert!(events[1]["retry_at"].is_string());
    assert_eq!((events[5]["attempt"].clone(), events[5]["result"].clone()), (json!(3), json!("done")));
    assert_eq!((rig.ended(id).await.attempt, rig.jobs.counters().retried.get()), (3, 2));
}

#[tokio::test]
async fn a_permanent_failure_is_a_dead_letter_and_can_be_redriven() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"fail_for_good"}"#).await;
    let failed = rig.events(id, "job.failed").await.pop().expect("an event");
    assert_eq!(failed["error"], json!({"code":"broken","message":"never","class":"permanent"}));
    let record = rig.ended(id).await;
    assert_eq!((record.state, record.attempt), (JobState::Dead, 1));
    let filter = RedriveFilter { reason: Some("broken".into()), limit: 9, ..RedriveFilter::default() };
    assert_eq!(rig.jobs.redrive(filter).await.expect("told"), 1);
    rig.until(|| rig.count(id, "job.failed") == 2).await;
    assert_eq!(rig.ended(id).await.attempt, 2);
}

#[tokio::test]
async fn each_end_at_one_attempt_is_told() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"fail_for_good"}"#).await;
    rig.events(id, "job.failed").await;
    rig.no_events_are_pending().await;
    // Both slots are taken, so what is redriven waits.
    for _ in 0..2 {
        rig.send(r#"{"type":"act","do":"hang"}"#).await;
    }
    rig.until(|| rig.act.running.load(Ordering::SeqCst) == 2).await;
    let all = RedriveFilter { limit: 9, ..RedriveFilter::default() };
    assert_eq!(rig.jobs.redrive(all).await.expect("told"), 1);
    assert_eq!(rig.jobs.cancel(id).await.expect("told"), CancelOutcome::Cancelled);
    assert_eq!(rig.events(id, "job.cancelled").await.last().expect("an event")["attempt"], json!(1));
    rig.no_events_are_pending().await;
}

#[tokio::test]
async fn a_panic_fails_its_own_job_alone() {
    let rig = Rig::start().await;
    let bad = rig.send(r#"{"type":"act","do":"panic"}"#).await;
    let worse = rig.send(r#"{"type":"act","do":"panic_computing"}"#).await;
    let good = rig.send(r#"{"type":"act","do":"answer"}"#).await;
    assert_eq!(rig.ended(good).await.state, JobState::Succeeded);
    for id in [bad, worse] {
        let record = rig.ended(id).await;
        let error = record.error.expect("it failed");
        assert_eq!((record.state, record.attempt, error.class), (JobState::Dead, 3, ErrorClass::Crash));
        assert!(!error.message.contains("secret"));
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_tried_once_more() {
    let rig = Rig::start_with(|config| config.timeout = Time(Duration::from_millis(30))).await;
    let id = rig.send(r#"{"type":"act","do":"hang"}"#).await;
    let record = rig.ended(id).await;
    let error = record.error.expect("it failed");
    assert_eq!((record.state, record.attempt, error.class), (JobState::Dead, 2, ErrorClass::Timeout));
    assert_eq!(rig.count(id, "job.retry"), 1);
}

#[tokio::test]
async fn a_deadline_ends_a_job_that_waits_for_a_slot() {
    let rig = Rig::start().await;
    for _ in 0..2 {
        rig.send(r#"{"type":"act","do":"hang"}"#).await;
    }
    rig.until(|| rig.act.running.load(Ordering::SeqCst) == 2).await;
    let id = rig.send(r#"{"type":"act","do":"answer","deadline_ms":1}"#).await;
    assert_eq!(rig.events(id, "job.failed").await[0]["error"]["code"], json!("deadline"));
    assert_eq!(rig.record(id).await.attempt, 0);
}

#[tokio::test]
async fn a_deadline_ends_a_running_job() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"hang","deadline_ms":1000}"#).await;
    let record = rig.ended(id).await;
    assert_eq!((record.state, record.attempt), (JobState::Dead, 1));
    assert_eq!(record.error.expect("it failed").class, ErrorClass::Timeout);
}

#[tokio::test]
async fn a_running_query_is_cancelled() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","query":"endless"}"#).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    let start = Instant::now();
    assert_eq!(rig.jobs.cancel(id).await.expect("told"), CancelOutcome::Requested);
    rig.until(|| rig.sources.loads().all(|(_, load)| load == (0, 0))).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(rig.ended(id).await.state, JobState::Cancelled);
    rig.events(id, "job.cancelled").await;
    assert_eq!(rig.jobs.cancel(id).await.expect("told"), CancelOutcome::Finished);
}

#[tokio::test]
async fn a_heartbeat_finds_a_cancellation_from_elsewhere() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","query":"endless"}"#).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    let conn = rusqlite::Connection::open(rig.home.path().join("jobs.db")).expect("open");
    conn.execute("update job set cancel_requested = 1 where id = ?1", [id.to_bytes()]).expect("asked");
    rig.consumers.shared.beat_once().await;
    assert_eq!(rig.ended(id).await.state, JobState::Cancelled);
}

#[tokio::test]
async fn a_heartbeat_that_the_store_did_not_take_is_none() {
    let rig = Rig::start().await;
    rig.send(r#"{"type":"execute_query","query":"endless"}"#).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    let conn = rusqlite::Connection::open(rig.home.path().join("jobs.db")).expect("open");
    conn.execute_batch("alter table job rename to gone").expect("broken");
    let shared = &rig.consumers.shared;
    *shared.last_beat.lock() -= shared.lease;
    let before = *shared.last_beat.lock();
    assert!(!shared.beat_if_late().await, "nothing may be claimed now");
    assert_eq!(*shared.last_beat.lock(), before);
    conn.execute_batch("alter table gone rename to job").expect("mended");
    assert!(shared.beat_if_late().await);
    assert!(*shared.last_beat.lock() > before);
}

#[tokio::test]
async fn a_cpu_thread_that_never_returns_is_replaced() {
    // Long enough for the job that follows, on a machine that has other things to do.
    let rig = Rig::start_with(|config| config.timeout = Time(Duration::from_secs(1))).await;
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    *rig.act.stuck.lock() = Some(gate);
    let id = rig.send(r#"{"type":"act","do":"never_return","max_attempts":1}"#).await;
    assert_eq!(rig.ended(id).await.error.expect("it failed").class, ErrorClass::Timeout);
    rig.until(|| rig.jobs.counters().threads_lost.get() == 1).await;
    let next = rig.send(r#"{"type":"act","do":"progress"}"#).await;
    assert_eq!(rig.ended(next).await.state, JobState::Succeeded, "on the one thread that took its place");
    go.send(()).expect("it waits still");
    rig.until(|| rig.cpu() == (0, 0)).await;
}

#[tokio::test]
async fn a_hung_thread_loses_its_job_and_is_replaced() {
    let rig = Rig::start_leased(Duration::from_secs(1)).await;
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    *rig.act.stuck.lock() = Some(gate);
    let id = rig.send(r#"{"type":"act","do":"hang_once"}"#).await;
    let other = rig.send(r#"{"type":"act","do":"answer"}"#).await;
    assert_eq!(rig.ended(other).await.state, JobState::Succeeded, "the others do not notice");
    let record = rig.ended(id).await;
    assert_eq!((record.state, record.attempt), (JobState::Succeeded, 2), "on the one thread that took its place");
    let counters = rig.jobs.counters();
    assert_eq!((counters.hung.get(), counters.threads_lost.get(), counters.retried.get()), (1, 1, 0));
    assert_eq!((rig.count(id, "job.started"), rig.count(id, "job.result")), (2, 1));
    go.send(()).expect("it waits still");
    rig.until(|| rig.cpu() == (0, 0)).await;
    assert_eq!(rig.record(id).await, record, "what it says late is ignored");
}

#[tokio::test]
async fn a_job_that_hangs_each_time_is_dead_after_three() {
    let rig = Rig::start_leased(Duration::from_secs(1)).await;
    let id = rig.send(r#"{"type":"act","do":"hang_always","max_attempts":50}"#).await;
    let record = rig.ended(id).await;
    let error = record.error.expect("it failed");
    assert_eq!((record.state, record.attempt, &*error.code), (JobState::Dead, 3, "worker_lost"));
    assert_eq!(error.class, ErrorClass::Crash);
    rig.events(id, "job.failed").await;
    rig.act.is_over.store(true, Ordering::SeqCst);
}

#[tokio::test]
async fn work_that_shows_life_or_waits_for_a_thread_keeps_its_lease() {
    let rig = Rig::start().await;
    let working = rig.send(r#"{"type":"act","do":"ask_until_stopped"}"#).await;
    rig.until(|| rig.cpu() == (1, 0)).await;
    let waiting = rig.send(r#"{"type":"act","do":"ask_until_stopped"}"#).await;
    rig.until(|| rig.cpu() == (1, 1)).await;
    let shared = &rig.consumers.shared;
    for look in 1..20 {
        let asked = rig.act.asked.load(Ordering::SeqCst);
        rig.until(|| rig.act.asked.load(Ordering::SeqCst) > asked + 1).await;
        shared.look(tokio::time::Instant::now() + look * shared.lease);
        assert_eq!(shared.held_leases().len(), 2);
    }
    for id in [working, waiting] {
        rig.jobs.cancel(id).await.expect("told");
        assert_eq!(rig.ended(id).await.state, JobState::Cancelled);
    }
    assert_eq!(rig.jobs.counters().hung.get(), 0);
}

#[tokio::test]
async fn a_query_shows_life_by_its_steps() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"execute_query","query":"endless"}"#).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    let shared = &rig.consumers.shared;
    let signs = || shared.held.lock().values().map(|hold| hold.vigil.signs()).sum::<u64>();
    for look in 1..20 {
        let before = signs();
        rig.until(|| signs() > before).await;
        shared.look(tokio::time::Instant::now() + look * shared.lease);
        assert_eq!(shared.held_leases().len(), 1);
    }
    rig.jobs.cancel(id).await.expect("told");
    assert_eq!(rig.ended(id).await.state, JobState::Cancelled);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_and_told() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"answer","delay_ms":60000}"#).await;
    assert_eq!(rig.jobs.cancel(id).await.expect("told"), CancelOutcome::Cancelled);
    assert_eq!(rig.events(id, "job.cancelled").await.len(), 1);
    assert_eq!(rig.jobs.cancel(JobId::new(1, 1)).await.expect("told"), CancelOutcome::NotFound);
    rig.no_events_are_pending().await;
}

#[tokio::test]
async fn a_delayed_job_runs_when_its_time_comes() {
    let rig = Rig::start().await;
    let start = Instant::now();
    let id = rig.send(r#"{"type":"act","do":"answer","delay_ms":40}"#).await;
    assert_eq!(rig.ended(id).await.state, JobState::Succeeded);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(40) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn no_more_than_the_slots_run_at_once() {
    let rig = Rig::start().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.send(r#"{"type":"act","do":"meet"}"#).await);
    }
    for id in ids {
        assert_eq!(rig.ended(id).await.state, JobState::Succeeded);
    }
    assert_eq!(rig.act.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_result_that_is_no_json_fails_the_job() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"answer_nonsense"}"#).await;
    assert_eq!(rig.ended(id).await.error.expect("it failed").code, "bad_result");
}

#[tokio::test]
async fn a_result_too_deep_for_a_message_travels_by_address() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"answer_deeply"}"#).await;
    let result = rig.events(id, "job.result").await.pop().expect("an event");
    assert!(result["url"].is_string());
    assert!(matches!(rig.jobs.read_result(id, 0, 1).await, Ok(StoredResult::Json(text)) if text.len() == 256));
}

#[tokio::test]
async fn a_drain_lets_jobs_end() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"wait_for_gate"}"#).await;
    rig.until(|| rig.act.running.load(Ordering::SeqCst) == 1).await;
    let late = rig.consumers.drain(Duration::from_secs(20));
    let open = async {
        rig.until(|| rig.consumers.shared.stop.is_cancelled()).await;
        let waiting = rig.send(r#"{"type":"act","do":"answer"}"#).await;
        rig.act.gate.notify_one();
        waiting
    };
    let (drained, waiting) = tokio::join!(late, open);
    assert_eq!(drained, Drained { finished: 1, released: 0 });
    assert_eq!(rig.record(id).await.state, JobState::Succeeded);
    assert_eq!(rig.record(waiting).await.state, JobState::Ready, "nothing is claimed any more");
}

#[tokio::test]
async fn a_drain_gives_back_what_does_not_end() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"hang"}"#).await;
    let query = rig.send(r#"{"type":"execute_query","query":"endless"}"#).await;
    rig.until(|| rig.act.running.load(Ordering::SeqCst) == 1).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    let drained = rig.consumers.drain(Duration::from_millis(10)).await;
    assert_eq!(drained, Drained { finished: 0, released: 2 });
    for id in [id, query] {
        let record = rig.record(id).await;
        assert_eq!((record.state, record.attempt, record.max_attempts), (JobState::Ready, 1, 6));
    }
    rig.until(|| rig.sources.loads().all(|(_, load)| load == (0, 0))).await;
}

#[tokio::test]
async fn an_event_that_was_not_taken_is_sent_again() {
    let rig = Rig::start().await;
    rig.outlet.refuse_terminal.store(1, Ordering::SeqCst);
    let id = rig.send(r#"{"type":"act","do":"answer"}"#).await;
    assert_eq!(rig.ended(id).await.state, JobState::Succeeded);
    rig.jobs.watch().events.notify_one();
    let events = rig.events(id, "job.result").await;
    assert_eq!(events.last().expect("an event")["result"], json!("done"));
    assert_eq!(rig.jobs.counters().events_failed.get(), 1);
    rig.no_events_are_pending().await;
}

#[tokio::test]
async fn a_terminal_event_survives_the_process() {
    let home = tempfile::tempdir().expect("a directory");
    let jobs = Jobs::open(&JobsConfig::default(), home.path()).expect("free");
    let group = ReplyTo::Group(GroupName::parse("my_group").expect("a name"));
    let job = |json: &str| NewJob { durability: Durability::Disk, ..NewJob::new("act", message(json), group.clone()) };
    let ids: Vec<_> = jobs
        .enqueue(vec![job(r#"{"type":"act"}"#), job(r#"{"type":"act"}"#), job(r#"{"type":"act","do":"answer"}"#)])
        .await
        .expect("stored")
        .iter()
        .map(|told| told.id)
        .collect();
    let lease = std::time::Duration::from_secs(15);
    let ask = super::ClaimAsk { consumer: "act".into(), max: 3, lease, ..Default::default() };
    let claimed = jobs.claim(ask).await.expect("a batch").jobs;
    let content = Content::Json(Bytes::from_static(b"[4]"));
    let info = content.info(claimed[0].lease.id);
    jobs.store_result(&claimed[0], Arc::new(content)).await.expect("stored");
    jobs.finish(claimed[0].lease, How::Succeeded(info)).await.expect("told");
    let error = JobError { code: "x".into(), message: "y".into(), class: ErrorClass::Permanent };
    jobs.finish(claimed[1].lease, How::Dead(error)).await.expect("told");
    // The process ends here: two events are not sent, one job is not done.
    jobs.close().await;
    drop(jobs);
    let rig = Rig::start_in(home, |_| ()).await;
    let result = rig.events(ids[0], "job.result").await.pop().expect("an event");
    assert_eq!((&result["result"], &result["attempt"]), (&json!([4]), &json!(1)));
    assert_eq!(rig.events(ids[1], "job.failed").await.len(), 1);
    assert_eq!(rig.events(ids[2], "job.result").await.pop().expect("an event")["attempt"], json!(2));
    rig.no_events_are_pending().await;
    assert_eq!((rig.count(ids[0], "job.result"), rig.count(ids[1], "job.failed")), (1, 1));
}

#[tokio::test]
async fn waiting_for_a_job_ends_with_it_or_with_the_time() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"wait_for_gate"}"#).await;
    let early = rig.jobs.wait(id, Duration::from_millis(5)).await.expect("read").expect("there");
    assert!(!early.state.is_ended());
    let wait = rig.jobs.wait(id, Duration::from_secs(20));
    let open = async { rig.act.gate.notify_one() };
    let (record, ()) = tokio::join!(wait, open);
    assert_eq!(record.expect("read").expect("there").state, JobState::Succeeded);
    assert_eq!(rig.jobs.wait(JobId::new(1, 1), Duration::from_secs(20)).await.expect("read"), None);
}

#[tokio::test]
async fn progress_is_thinned_and_ends_with_the_last() {
    let rig = Rig::start().await;
    let id = rig.send(r#"{"type":"act","do":"progress"}"#).await;
    let events = rig.events(id, "job.result").await;
    let done: Vec<_> = events.iter().filter_map(|event| event["done"].as_u64()).collect();
    assert_eq!(done.last(), Some(&10_000));
    assert!(done.len() <= 25 && done.is_sorted(), "{done:?}");
    assert_eq!(rig.ended(id).await.progress.expect("noted").done, 10_000);
}

#[tokio::test]
async fn an_embedded_consumer_must_be_registered() {
    let rig = Rig::start().await;
    let setup = Setup {
        consumers: vec![toml::from_str("name='x'\ngroup='g'\ntype='t'\nrun='embedded'").expect("a consumer")],
        role: Role::All,
        config: JobsConfig::default(),
        jobs: rig.jobs.clone(),
        queries: Arc::default(),
        cache: Arc::new(QueryCache::new(Arc::default(), 0, 1)),
        sources: Arc::clone(&rig.sources),
        outlet: Arc::clone(&rig.outlet) as Arc<dyn Outlet>,
        lag: LoopLag::default(),
        tracer: crate::telemetry::Tracer::off(),
        embedded: HashMap::new(),
    };
    let problems = Consumers::start(setup).err().expect("a problem");
    assert_eq!(problems[0].key, "consumer.x.run");
}

/// The clock goes on by itself when everybody waits, so this takes no time.
#[tokio::test(start_paused = true)]
async fn jobs_over_the_rate_wait_for_their_time() {
    let config = JobsConfig { cpu_threads: Some(1), ..JobsConfig::default() };
    let jobs = Jobs::in_memory(&config);
    let outlet = Arc::new(Remembers::default());
    let act = "name = 'act'\ngroup = 'g'\ntype = 'act'\nrun = 'embedded'\ndurability = 'memory'\nconcurrency = 9\n\
        rate = '2/s'\nrate_burst = 3";
    let setup = Setup {
        consumers: vec![toml::from_str(act).expect("a consumer")],
        role: Role::All,
        config,
        jobs: jobs.clone(),
        queries: Arc::default(),
        cache: Arc::new(QueryCache::new(Arc::default(), 0, 1)),
        sources: Arc::new(Sources::open(&BTreeMap::new(), Path::new(".")).map_err(|_| "none").expect("none to open")),
        outlet: Arc::clone(&outlet) as Arc<dyn Outlet>,
        lag: LoopLag::default(),
        tracer: crate::telemetry::Tracer::off(),
        embedded: [("act".to_owned(), Arc::new(Act::default()) as Arc<dyn Consumer>)].into(),
    };
    let began = tokio::time::Instant::now();
    let _consumers = Consumers::start(setup).expect("started");
    let new_job = || NewJob {
        durability: Durability::Memory,
        ..NewJob::new("act", message(r#"{"type":"act","do":"answer"}"#), ReplyTo::Nobody)
    };
    let stored = jobs.enqueue((0..8).map(|_| new_job()).collect()).await.expect("nothing is refused");
    let mut ended_ms = Vec::new();
    for job in stored {
        jobs.wait(job.id, Duration::from_secs(60)).await.expect("read").expect("there");
        ended_ms.push(began.elapsed().as_millis());
    }
    // Three at once, and one each half second from then on: the eighth after two and a half.
    assert!(ended_ms[2] < 500, "{ended_ms:?}");
    assert!((2500..3500).contains(&ended_ms[7]), "{ended_ms:?}");
}

/// The longest that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    jobs: Jobs,
    claims: Claims,
    sources: Arc<Sources>,
    cache: Arc<QueryCache>,
    consumers: Consumers,
    outlet: Arc<Remembers>,
    act: Arc<Act>,
    home: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl Fn(&mut ConsumerConfig)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), change).await
    }

    async fn start_leased(lease: Duration) -> Self {
        let config = JobsConfig { lease: Time(lease), ..Self::config() };
        Self::start_all(tempfile::tempdir().expect("a directory"), config, |_| ()).await
    }

    async fn start_in(home: tempfile::TempDir, change: impl Fn(&mut ConsumerConfig)) -> Self {
        Self::start_all(home, Self::config(), change).await
    }

    fn config() -> JobsConfig {
        JobsConfig { retry_base: Time(Duration::from_millis(5)), cpu_threads: Some(1), ..JobsConfig::default() }
    }

    async fn start_all(home: tempfile::TempDir, config: JobsConfig, change: impl Fn(&mut ConsumerConfig)) -> Self {
        let (sources, queries) = demo(home.path());
        let mut consumers: Vec<ConsumerConfig> = CONSUMERS.map(|one| toml::from_str(one).expect("a consumer")).into();
        consumers.iter_mut().for_each(change);
        let jobs = Jobs::open(&config, home.path()).expect("free");
        let (outlet, act) = (Arc::new(Remembers::default()), Arc::new(Act::default()));
        let cache = Arc::new(QueryCache::new(Arc::clone(&queries), 1 << 20, 100));
        let setup = Setup {
            consumers: consumers.clone(),
            role: Role::All,
            config,
            jobs: jobs.clone(),
            queries: Arc::clone(&queries),
            cache: Arc::clone(&cache),
            sources: Arc::clone(&sources),
            outlet: Arc::clone(&outlet) as Arc<dyn Outlet>,
            lag: LoopLag::default(),
            tracer: crate::telemetry::Tracer::off(),
            embedded: [("act".to_owned(), Arc::clone(&act) as Arc<dyn Consumer>)].into(),
        };
        let claims = Claims::new(&consumers, queries).expect("valid");
        let consumers = Consumers::start(setup).expect("started");
        Self { jobs, claims, sources, cache, consumers, outlet, act, home }
    }

    async fn send(&self, json: &str) -> JobId {
        let group = GroupName::parse("my_group").expect("a name");
        let claimed =
            self.claims.claim(&By::gateway(), &group, &message(json), ReplyTo::Group(group.clone())).expect("claimed");
        let jobs = claimed.into_iter().map(|claimed| claimed.job).collect();
        self.jobs.enqueue(jobs).await.expect("stored")[0].id
    }

    /// The job's events, when there is one of a kind.
    async fn events(&self, id: JobId, kind: &str) -> Vec<Value> {
        self.until(|| self.count(id, kind) > 0).await;
        self.of(id)
    }

    fn of(&self, id: JobId) -> Vec<Value> {
        let sent = self.outlet.sent.lock();
        sent.iter().filter(|event| event["job"] == json!(id.to_string())).cloned().collect()
    }

    fn count(&self, id: JobId, wanted: &str) -> usize {
        self.of(id).iter().filter(|event| kind(event) == wanted).count()
    }

    async fn ended(&self, id: JobId) -> JobRecord {
        let record = self.jobs.wait(id, PATIENCE).await.expect("read").expect("there");
        assert!(record.state.is_ended(), "{record:?}");
        record
    }

    async fn record(&self, id: JobId) -> JobRecord {
        self.jobs.get(id).await.expect("read").expect("there")
    }

    async fn file(&self, id: JobId, format: &str) -> Bytes {
        self.jobs.file(id, format).await.expect("read").expect("there").body
    }

    /// How many pieces of work are computed, and how many wait.
    fn cpu(&self) -> (usize, usize) {
        let load = self.consumers.cpu_load();
        (load.busy, load.queued)
    }

    async fn no_events_are_pending(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.jobs.events_pending(9).await.expect("read").is_empty() {
            assert!(Instant::now() < deadline, "an event stays pending");
        }
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "it never came to that: {:?}", self.outlet.sent.lock());
            tokio::task::yield_now().await;
        }
    }
}

const CONSUMERS: [&str; 3] = [
    "name = 'queries'\ngroup = 'my_group'\ntype = 'execute_query'\nrun = 'query'\ndurability = 'disk'",
    "name = 'reports'\ngroup = 'my_group'\ntype = 'generate_report'\nrun = 'report'\ndurability = 'os'",
    "name = 'act'\ngroup = 'my_group'\ntype = 'act'\nrun = 'embedded'\ndurability = 'memory'\nconcurrency = 2",
];

fn demo(dir: &Path) -> (Arc<Sources>, Arc<Queries>) {
    let conn = rusqlite::Connection::open(dir.join("demo.db")).expect("a file");
    conn.execute_batch(
        "create table flights (origin text, n integer); insert into flights values ('JFK', 1), ('LGA', 2);
         create table evil (name text, n integer);
         insert into evil values ('<script>alert(1)</script>', 3), ('a,\"b', -2), (null, 1);",
    )
    .expect("made");
    let counting = "with recursive c(x) as (select 1 union all select x + 1 from c";
    let queries = [
        "id = 7\nname = 'worst'\nsource = 'demo'\nsql = 'select origin, n from flights where origin = :origin'\n\
            params.origin = { type = 'text' }"
            .to_owned(),
        format!("id = 1\nname = 'many'\nsource = 'demo'\nsql = '{counting} where x < 50000) select x from c'"),
        format!(
            "id = 2\nname = 'endless'\nsource = 'demo'\ntags = ['slow']\ntimeout = '60s'\nsql = '{counting}) select max(x) from c'"
        ),
        "id = 4\nname = 'cached'\nsource = 'demo'\nsql = 'select count(*) as n from flights'\ncache = '1h'\n\
            tags = ['flights']"
            .to_owned(),
        "id = 3\nname = 'evil'\ntitle = 'Evil & good'\nsource = 'demo'\nsql = 'select name, n from evil'".to_owned(),
    ];
    let queries: Vec<QueryConfig> = queries.iter().map(|one| toml::from_str(one).expect("a query")).collect();
    let source: SourceConfig = toml::from_str("kind = 'sqlite'\npath = 'demo.db'").expect("a source");
    let sources: BTreeMap<_, _> = [("demo".to_owned(), source)].into();
    let opened = Sources::open(&sources, dir).map_err(|problems| format!("{problems:?}")).expect("opened");
    (Arc::new(opened), Arc::new(Queries::new(&sources, &queries).expect("valid")))
}

/// An outlet that remembers, and may refuse terminal events first.
#[derive(Default)]
struct Remembers {
    sent: Mutex<Vec<Value>>,
    refuse_terminal: AtomicU32,
}

impl Outlet for Remembers {
    fn publish(&self, _to: ReplyTo, message: Message) -> BoxFuture<'_, Result<(), OutletError>> {
        let event: Value = serde_json::from_slice(message.raw()).expect("JSON");
        let is_terminal = ["job.result", "job.failed", "job.cancelled"].contains(&kind(&event));
        let refuse = |n: u32| n.checked_sub(1);
        if is_terminal && self.refuse_terminal.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
            return async { Err(OutletError("on purpose".into())) }.boxed();
        }
        self.sent.lock().push(event);
        async { Ok(()) }.boxed()
    }
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// A consumer that does what the message says.
#[derive(Default)]
struct Act {
    runs: AtomicU32,
    running: AtomicU32,
    most: AtomicU32,
    gate: Notify,
    stuck: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    asked: Arc<AtomicU32>,
    /// Lets the threads go that hang.
    is_over: Arc<AtomicBool>,
}

impl Consumer for Act {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        async move {
            let ask: Value = serde_json::from_slice(job.message().raw()).expect("JSON");
            self.runs.fetch_add(1, Ordering::SeqCst);
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            let outcome = self.act(ask["do"].as_str().unwrap_or_default(), job).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            outcome
        }
        .boxed()
    }
}

impl Act {
    async fn act(&self, what: &str, job: &JobContext) -> Result<Outcome, Failure> {
        match what {
            "fail_twice" if job.attempt() < 3 => return Err(Failure::transient("busy", "not yet")),
            "fail_for_good" => return Err(Failure::permanent("broken", "never")),
            "panic" => panic!("with a secret"),
            "panic_computing" => job.compute(|_| panic!("with a secret")).await?,
            "hang_once" if job.attempt() > 1 => {}
            "hang_always" => {
                let is_over = Arc::clone(&self.is_over);
                let hang = move || {
                    while !is_over.load(Ordering::SeqCst) {
                        std::thread::park_timeout(Duration::from_millis(20))
                    }
                };
                job.compute(move |_| hang()).await?;
            }
            "ask_until_stopped" => {
                let asked = Arc::clone(&self.asked);
                let ask = move |job: &JobContext| {
                    while !job.is_cancelled() {
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                };
                job.compute(ask).await?;
            }
            "never_return" | "hang_once" => {
                let gate = self.stuck.lock().take().expect("set by the test");
                job.compute(move |_| gate.recv().is_ok()).await?;
            }
            "hang" => std::future::pending().await,
            "fail_at_the_gate" => {
                self.gate.notified().await;
                return Err(Failure::transient("busy", "not yet"));
            }
            "wait_for_gate" => self.gate.notified().await,
            "meet" => tokio::task::yield_now().await,
            "answer_nonsense" => return Ok(Outcome::Json(Bytes::from_static(b"{"))),
            "answer_deeply" => return Ok(Outcome::Json(format!("{}{}", "[".repeat(128), "]".repeat(128)).into())),
            "progress" => {
                job.compute(|job| (1..=10_000).for_each(|n| job.progress(n, Some(10_000), "steps"))).await?;
            }
            _ => {}
        }
        Outcome::json(&"done")
    }
}
