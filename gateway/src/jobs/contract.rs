//! The one list of tests that every store of jobs and every store of results passes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{GroupName, JobId, Message, TraceContext};

use super::backend::Backend;
use super::counters::Counters;
use super::error::JobsError;
use super::new_job::{Asker, NewJob, ReplyTo};
use super::once::{Once, Told};
use super::queue::{
    CancelOutcome, ClaimAsk, Claimed, DeadLetters, Filter, Finish, Finished, How, Lease, LeaseState, RedriveFilter,
    Sent, Settled, Tick,
};
use super::record::{ErrorClass, JobError, JobRecord, JobState, Progress, ResultInfo};
use super::results::{Chunk, Content, FileSet, ResultFile, ResultKey, RowSet, StoredResult};
use super::time::{Clock, ManualClock};
use crate::config::consumer::{Durability, JobsConfig};

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test] async fn $test() { super::$test(super::Rig::memory()).await; })*
        }
        mod in_sqlite {
            $(#[tokio::test] async fn $test() { super::$test(super::Rig::sqlite()).await; })*
        }
        #[cfg(feature = "postgres")]
        mod in_postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::Rig::postgres().await).await; })*
        }
    };
}

contract!(
    a_job_is_handed_out_once_and_ends_well,
    higher_priority_goes_first_then_age,
    a_delayed_job_waits_for_its_time,
    a_live_unique_key_is_answered_with_its_job,
    a_retry_waits_and_counts,
    a_late_report_is_fenced,
    a_lost_lease_is_a_crash_and_the_third_is_the_end,
    a_lost_lease_ends_a_job_without_attempts,
    an_extended_lease_holds,
    a_lease_in_hand_is_not_lost,
    tidying_needs_no_claim,
    a_deadline_ends_what_waits,
    cancelling_depends_on_the_state,
    a_cancelled_attempt_is_not_repeated,
    a_full_queue_refuses_and_stores_nothing,
    a_released_job_has_an_attempt_more,
    dead_jobs_are_redriven,
    one_job_is_redriven_by_its_id,
    redriving_keeps_unique_keys_unique,
    a_job_whose_event_is_pending_stays_dead,
    events_stay_pending_until_they_are_sent,
    nobody_is_sent_nothing,
    a_key_is_kept_with_its_jobs_for_a_day,
    a_refused_request_leaves_no_key,
    a_tick_is_noted_once_with_its_jobs,
    a_tick_without_room_for_its_jobs_is_not_noted,
    whose_a_job_is_is_kept,
    the_trace_of_who_asked_is_kept,
    lists_are_newest_first,
    a_paused_consumer_claims_nothing,
    dead_jobs_are_counted_by_reason,
    ended_jobs_are_pruned_once_their_event_is_sent,
    depths_count_live_jobs,
    a_result_is_referred_to_by_its_last_attempt,
    what_asks_for_the_same_rides_along,
    riders_are_bounded_and_of_their_consumer,
    a_shared_result_is_kept_for_the_last_who_shares_it,
    rows_are_read_by_page,
    values_and_files_are_kept,
    results_are_swept_in_order,
);

async fn a_job_is_handed_out_once_and_ends_well(rig: Rig) {
    let id = rig.enqueue(job()).await;
    assert_eq!(rig.state(id).await, JobState::Ready);
    let claimed = rig.claim_one().await;
    assert_eq!((claimed.lease.id, claimed.attempt, claimed.message.kind()), (id, 1, "work"));
    assert!(rig.claim(9).await.is_empty());
    assert_eq!(rig.state(id).await, JobState::Running);
    rig.clock.advance(Duration::from_millis(12));
    let settled = rig.accepted(&claimed, How::Succeeded(info())).await;
    let record = rig.record(id).await;
    assert_eq!(settled.record, record);
    assert_eq!((record.state, record.result.as_ref(), record.elapsed_ms()), (JobState::Succeeded, Some(&info()), 12));
    assert_eq!((record.durability, record.error), (rig.durability, None));
}

async fn whose_a_job_is_is_kept(rig: Rig) {
    let asked_by = |user: &str| Some(Asker { user: Some(user.to_owned()), ..Asker::default() });
    let service = Some(Asker { service: Some("billing".to_owned()), ..Asker::default() });
    for asker in [None, Some(Asker::default()), service, asked_by("alice"), asked_by("\u{0}\"é\u{2028}")] {
        let id = rig.enqueue(NewJob { asker: asker.clone(), ..job() }).await;
        assert_eq!(rig.record(id).await.asker, asker);
        let claimed = rig.claim_one().await;
        assert_eq!(rig.accepted(&claimed, How::Succeeded(info())).await.record.asker, asker);
    }
}

async fn higher_priority_goes_first_then_age(rig: Rig) {
    let low = rig.enqueue(NewJob { priority: -1, ..job() }).await;
    let first = rig.enqueue(NewJob { id: JobId::new(1, 1), ..job() }).await;
    let second = rig.enqueue(NewJob { id: JobId::new(2, 1), ..job() }).await;
    let high = rig.enqueue(NewJob { priority: 7, ..job() }).await;
    let order: Vec<_> = rig.claim(3).await.iter().map(|claimed| claimed.lease.id).collect();
    assert_eq!(order, [high, first, second]);
    assert_eq!(rig.claim_one().await.lease.id, low);
}

async fn a_delayed_job_waits_for_its_time(rig: Rig) {
    let at = rig.clock.wall_ms() + 5000;
    let id = rig.enqueue(NewJob { run_at: Some(at), ..job() }).await;
    assert_eq!(rig.state(id).await, JobState::Scheduled);
    let batch = rig.backend.queue.claim(ask(9)).await.expect("a batch");
    assert_eq!((batch.jobs.len(), batch.next_at), (0, Some(at)));
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(rig.claim_one().await.lease.id, id);
}

async fn a_live_unique_key_is_answered_with_its_job(rig: Rig) {
    let keyed = || NewJob { unique_key: Some("k".into()), ..job() };
    let id = rig.enqueue(keyed()).await;
    let other = NewJob { consumer: "other".into(), ..keyed() };
    let told = rig.backend.queue.enqueue(vec![keyed(), rig.at_level(other)]).await.expect("stored");
    assert_eq!((told[0].id, told[0].existing, told[1].existing), (id, true, false));
    let claimed = rig.claim_one().await;
    assert_eq!(rig.enqueue(keyed()).await, id, "a running job is live");
    rig.accepted(&claimed, How::Succeeded(info())).await;
    assert_ne!(rig.enqueue(keyed()).await, id, "an ended one is not");
}

async fn a_retry_waits_and_counts(rig: Rig) {
    let id = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    let at = rig.clock.wall_ms() + 1000;
    let settled = rig.accepted(&claimed, How::Retry { at, error: error("busy", ErrorClass::Timeout) }).await;
    assert_eq!((settled.record.state, settled.retry_at), (JobState::Scheduled, Some(at)));
    assert!(rig.claim(9).await.is_empty());
    rig.clock.advance(Duration::from_secs(1));
    let again = rig.claim_one().await;
    assert_eq!((again.attempt, again.timeouts, again.crashes), (2, 1, 0));
    assert!(again.lease.token > claimed.lease.token);
    assert_eq!(rig.record(id).await.error, Some(error("busy", ErrorClass::Timeout)));
}

async fn a_tick_is_noted_once_with_its_jobs(rig: Rig) {
    let queue = &rig.backend.queue;
    let tick = |due_ms| Tick { schedule: "night".into(), due_ms };
    assert_eq!(queue.ticks().await.expect("read"), []);
    let told = queue.tick(tick(5), vec![rig.at_level(job())]).await.expect("stored").expect("the first");
    assert_eq!(rig.state(told[0].id).await, JobState::Ready);
    for due_ms in [5, 4] {
        let told = queue.tick(tick(due_ms), vec![rig.at_level(job())]).await.expect("told");
        assert!(told.is_none(), "{due_ms} is noted");
    }
    let other = Tick { schedule: "other".into(), due_ms: 4 };
    assert_eq!(queue.tick(other.clone(), Vec::new()).await.expect("told").map(|told| told.len()), Some(0));
    assert_eq!(queue.tick(tick(6), vec![rig.at_level(job())]).await.expect("told").map(|told| told.len()), Some(1));
    assert_eq!(queue.ticks().await.expect("read"), [tick(6), other]);
    assert_eq!(rig.claim(9).await.len(), 2);
}

async fn a_tick_without_room_for_its_jobs_is_not_noted(rig: Rig) {
    for _ in 0..QUEUED_MAX {
        rig.enqueue(job()).await;
    }
    let queue = &rig.backend.queue;
    let tick = || Tick { schedule: "night".into(), due_ms: 5 };
    let refused = queue.tick(tick(), vec![rig.at_level(job())]).await;
    assert!(matches!(refused, Err(JobsError::QueueFull { limit: QUEUED_MAX })), "{refused:?}");
    assert_eq!(queue.ticks().await.expect("read"), []);
    rig.claim_one().await;
    assert!(queue.tick(tick(), vec![rig.at_level(job())]).await.expect("stored").is_some());
}

async fn a_late_report_is_fenced(rig: Rig) {
    let id = rig.enqueue(job()).await;
    let first = rig.claim_one().await;
    rig.clock.advance(LEASE);
    let second = rig.claim_one().await;
    assert_eq!((second.attempt, second.crashes), (2, 1));
    assert!(matches!(rig.finish(&first, How::Succeeded(info())).await, Finished::Fenced));
    assert_eq!(rig.backend.queue.extend(vec![first.lease], LEASE).await.expect("told"), [LeaseState::Lost]);
    let note = (first.lease, Progress { done: 1, total: None, unit: "x".into() });
    assert_eq!(rig.backend.queue.progress(vec![note]).await.expect("told"), [LeaseState::Lost]);
    let record = rig.record(id).await;
    assert_eq!((record.state, record.attempt, record.progress), (JobState::Running, 2, None));
    rig.accepted(&second, How::Succeeded(info())).await;
    assert!(matches!(rig.finish(&second, How::Cancelled).await, Finished::Fenced), "an end is the end");
    assert_eq!(rig.counters.fenced.get(), 2);
}

async fn a_lost_lease_is_a_crash_and_the_third_is_the_end(rig: Rig) {
    let id = rig.enqueue(job()).await;
    for attempt in 1..=3 {
        assert_eq!(rig.claim_one().await.attempt, attempt);
        rig.clock.advance(LEASE);
    }
    let batch = rig.backend.queue.claim(ask(9)).await.expect("a batch");
    assert!(batch.jobs.is_empty() && batch.ended);
    let record = rig.record(id).await;
    let error = record.error.expect("it failed");
    assert_eq!((record.state, record.attempt, error.class), (JobState::Dead, 3, ErrorClass::Crash));
}

async fn a_lost_lease_ends_a_job_without_attempts(rig: Rig) {
    let id = rig.enqueue(NewJob { max_attempts: 1, ..job() }).await;
    rig.claim_one().await;
    rig.clock.advance(LEASE);
    assert!(rig.claim(9).await.is_empty());
    assert_eq!(rig.state(id).await, JobState::Dead);
}

async fn an_extended_lease_holds(rig: Rig) {
    rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    for _ in 0..3 {
        rig.clock.advance(LEASE / 2);
        assert_eq!(rig.backend.queue.extend(vec![claimed.lease], LEASE).await.expect("told"), [LeaseState::Held]);
        assert!(rig.claim(9).await.is_empty());
    }
    let note = (claimed.lease, Progress { done: 1, total: Some(2), unit: "rows".into() });
    assert_eq!(rig.backend.queue.progress(vec![note.clone()]).await.expect("told"), [LeaseState::Held]);
    assert_eq!(rig.record(claimed.lease.id).await.progress, Some(note.1));
}

async fn a_lease_in_hand_is_not_lost(rig: Rig) {
    rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    rig.clock.advance(2 * LEASE);
    let holding = |held| ClaimAsk { held, ..ask(9) };
    let batch = rig.backend.queue.claim(holding(vec![claimed.lease])).await.expect("a batch");
    assert!(batch.jobs.is_empty() && !batch.ended);
    assert_eq!(rig.state(claimed.lease.id).await, JobState::Running);
    let older = Lease { token: claimed.lease.token - 1, ..claimed.lease };
    let batch = rig.backend.queue.claim(holding(vec![older])).await.expect("a batch");
    assert_eq!((batch.jobs[0].attempt, batch.jobs[0].crashes), (2, 1), "an older lease does not count");
}

async fn tidying_needs_no_claim(rig: Rig) {
    let late = rig.enqueue(NewJob { deadline_at: Some(rig.clock.wall_ms() + 1000), priority: -1, ..job() }).await;
    let lost = rig.enqueue(job()).await;
    let lease = rig.claim_one().await.lease;
    assert!(!rig.backend.queue.tidy(Vec::new()).await.expect("told"));
    rig.clock.advance(LEASE);
    assert!(rig.backend.queue.tidy(vec![lease]).await.expect("told"));
    assert_eq!((rig.state(late).await, rig.state(lost).await), (JobState::Dead, JobState::Running));
    assert!(!rig.backend.queue.tidy(vec![lease]).await.expect("told"));
    assert!(rig.backend.queue.tidy(Vec::new()).await.expect("told"));
    assert_eq!(rig.state(lost).await, JobState::Ready);
}

async fn a_deadline_ends_what_waits(rig: Rig) {
    let deadline_at = Some(rig.clock.wall_ms() + 1000);
    let ready = rig.enqueue(NewJob { deadline_at, ..job() }).await;
    let scheduled = rig.enqueue(NewJob { deadline_at, run_at: Some(u64::MAX >> 8), ..job() }).await;
    rig.clock.advance(Duration::from_secs(1));
    assert!(rig.backend.queue.claim(ask(9)).await.expect("a batch").ended);
    for id in [ready, scheduled] {
        let record = rig.record(id).await;
        assert_eq!((record.state, record.attempt), (JobState::Dead, 0));
        assert_eq!(record.error.expect("it failed").class, ErrorClass::Timeout);
    }
}

async fn cancelling_depends_on_the_state(rig: Rig) {
    let running = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    let waiting = rig.enqueue(job()).await;
    let unknown = JobId::new(1, 1);
    let told = rig.backend.queue.cancel(vec![waiting, running, unknown, waiting]).await.expect("told");
    use CancelOutcome::{Cancelled, Finished as Ended, NotFound, Requested};
    assert_eq!(told, [Cancelled, Requested, NotFound, Ended]);
    assert_eq!(rig.state(waiting).await, JobState::Cancelled);
    assert_eq!(rig.state(running).await, JobState::Running);
    let held = rig.backend.queue.extend(vec![claimed.lease], LEASE).await.expect("told");
    assert_eq!(held, [LeaseState::CancelRequested]);
    rig.accepted(&claimed, How::Cancelled).await;
    assert_eq!(rig.state(running).await, JobState::Cancelled);
    assert!(rig.claim(9).await.is_empty());
}

async fn a_cancelled_attempt_is_not_repeated(rig: Rig) {
    let id = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    rig.backend.queue.cancel(vec![id]).await.expect("told");
    let error = error("busy", ErrorClass::Transient);
    let settled = rig.accepted(&claimed, How::Retry { at: 0, error }).await;
    assert_eq!(settled.record.state, JobState::Cancelled);
}

async fn a_full_queue_refuses_and_stores_nothing(rig: Rig) {
    for _ in 0..QUEUED_MAX - 1 {
        rig.enqueue(job()).await;
    }
    let two = vec![rig.at_level(job()), rig.at_level(job())];
    assert!(matches!(rig.backend.queue.has_room(2).await, Err(JobsError::QueueFull { limit: QUEUED_MAX })));
    rig.backend.queue.has_room(1).await.expect("room for one");
    let refused = rig.backend.queue.enqueue(two).await;
    assert!(matches!(refused, Err(JobsError::QueueFull { limit: QUEUED_MAX })), "{refused:?}");
    rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    rig.enqueue(job()).await;
    let depths = rig.backend.queue.depths().await.expect("depths");
    assert_eq!(depths.iter().map(|depth| depth.jobs).sum::<u64>(), QUEUED_MAX + 1);
    let error = error("busy", ErrorClass::Transient);
    rig.accepted(&claimed, How::Retry { at: 0, error }).await;
    assert!(rig.backend.queue.enqueue(vec![rig.at_level(job())]).await.is_err(), "what is retried waits too");
}

async fn a_released_job_has_an_attempt_more(rig: Rig) {
    let id = rig.enqueue(NewJob { max_attempts: 1, ..job() }).await;
    let claimed = rig.claim_one().await;
    rig.accepted(&claimed, How::Released).await;
    let record = rig.record(id).await;
    assert_eq!((record.state, record.attempt, record.max_attempts), (JobState::Ready, 1, 2));
    assert_eq!((rig.claim_one().await.attempt, rig.counters.released.get()), (2, 1));
}

async fn dead_jobs_are_redriven(rig: Rig) {
    let slow = rig.dead(job(), "slow").await;
    let bad = rig.dead(job(), "bad").await;
    let other = rig.dead(NewJob { deadline_at: Some(1 << 60), ..job() }, "bad").await;
    rig.sent_all().await;
    let filter = |reason: &str, limit, dry_run| RedriveFilter {
        consumer: Some("workers".into()),
        reason: Some(reason.into()),
        limit,
        dry_run,
        job: None,
    };
    let redrive = async |filter| rig.backend.queue.redrive(filter).await.expect("told").len();
    assert_eq!(redrive(filter("bad", 9, true)).await, 2);
    assert_eq!(rig.state(bad).await, JobState::Dead);
    assert_eq!(redrive(filter("bad", 1, false)).await, 1);
    assert_eq!((rig.state(bad).await, rig.state(other).await), (JobState::Ready, JobState::Dead), "oldest first");
    assert_eq!(redrive(filter("permanent", 9, false)).await, 2);
    let none = RedriveFilter { consumer: Some("nobody".into()), limit: 9, ..RedriveFilter::default() };
    assert_eq!(redrive(none).await, 0);
    let record = rig.record(slow).await;
    assert_eq!((record.attempt, record.max_attempts, record.finished_at), (1, 6, None));
    assert_eq!(rig.claim(9).await.len(), 3);
}

async fn one_job_is_redriven_by_its_id(rig: Rig) {
    let (first, second) = (rig.dead(job(), "bad").await, rig.dead(job(), "bad").await);
    rig.sent_all().await;
    let one = |id| RedriveFilter { job: Some(id), limit: 9, ..RedriveFilter::default() };
    let redrive = async |filter| rig.backend.queue.redrive(filter).await.expect("told").len();
    assert_eq!(redrive(RedriveFilter { dry_run: true, ..one(second) }).await, 1);
    assert_eq!(redrive(RedriveFilter { consumer: Some("nobody".into()), ..one(second) }).await, 0);
    assert_eq!(redrive(one(second)).await, 1);
    assert_eq!((rig.state(first).await, rig.state(second).await), (JobState::Dead, JobState::Ready));
    assert_eq!(redrive(one(second)).await, 0, "it is not dead any more");
}

async fn redriving_keeps_unique_keys_unique(rig: Rig) {
    let keyed = || NewJob { unique_key: Some("k".into()), ..job() };
    let first = rig.dead(keyed(), "bad").await;
    let second = rig.dead(keyed(), "bad").await;
    rig.sent_all().await;
    let all = || RedriveFilter { limit: 9, ..RedriveFilter::default() };
    assert_eq!(rig.backend.queue.redrive(all()).await.expect("told").len(), 1);
    assert_eq!(rig.backend.queue.redrive(all()).await.expect("told").len(), 0);
    assert_eq!((rig.state(first).await, rig.state(second).await), (JobState::Ready, JobState::Dead));
}

async fn a_job_whose_event_is_pending_stays_dead(rig: Rig) {
    let id = rig.dead(job(), "bad").await;
    let all = || RedriveFilter { limit: 9, ..RedriveFilter::default() };
    assert_eq!(rig.backend.queue.redrive(all()).await.expect("told").len(), 0);
    assert_eq!((rig.state(id).await, rig.pending().await.len()), (JobState::Dead, 1));
    rig.sent_all().await;
    assert_eq!(rig.backend.queue.redrive(all()).await.expect("told").len(), 1);
}

async fn events_stay_pending_until_they_are_sent(rig: Rig) {
    let id = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    assert!(rig.pending().await.is_empty());
    let settled = rig.accepted(&claimed, How::Succeeded(info())).await;
    assert_eq!(rig.pending().await, std::slice::from_ref(&settled));
    let sent = Sent { id, attempt: claimed.attempt, state: JobState::Succeeded };
    rig.backend.queue.event_sent(vec![Sent { attempt: claimed.attempt + 1, ..sent }]).await.expect("told");
    assert_eq!(rig.pending().await, std::slice::from_ref(&settled), "that was another attempt's");
    rig.backend.queue.event_sent(vec![Sent { state: JobState::Dead, ..sent }]).await.expect("told");
    assert_eq!(rig.pending().await, [settled], "that was another end's");
    rig.backend.queue.event_sent(vec![sent]).await.expect("told");
    assert!(rig.pending().await.is_empty());
    let waiting = rig.enqueue(job()).await;
    rig.backend.queue.cancel(vec![waiting]).await.expect("told");
    assert_eq!(rig.pending().await.len(), 1, "what ends without a consumer has an event too");
}

async fn nobody_is_sent_nothing(rig: Rig) {
    rig.enqueue(NewJob { reply_to: ReplyTo::Nobody, ..job() }).await;
    let claimed = rig.claim_one().await;
    rig.accepted(&claimed, How::Succeeded(info())).await;
    assert!(rig.pending().await.is_empty());
}

async fn a_key_is_kept_with_its_jobs_for_a_day(rig: Rig) {
    let once = |body: u8| Once { name: [7; 32], body: [body; 32], answer: Bytes::from_static(b"first") };
    let ask = async |once| rig.backend.queue.enqueue_once(once, vec![rig.at_level(job())]).await.expect("told");
    let Told::Stored(stored) = ask(once(1)).await else { panic!("it is the first") };
    let first = Told::Repeated { answer: Bytes::from_static(b"first"), jobs: stored.clone() };
    assert_eq!(ask(Once { answer: Bytes::from_static(b"again"), ..once(1) }).await, first);
    assert_eq!(ask(once(2)).await, Told::Conflict);
    let recall = async |name, body| rig.backend.queue.recall([name; 32], [body; 32]).await.expect("told");
    assert_eq!((recall(7, 1).await, recall(7, 2).await, recall(8, 1).await), (Some(first), Some(Told::Conflict), None));
    let jobs = rig.backend.queue.list(Filter::default(), None, 9).await.expect("a list");
    assert_eq!(jobs.iter().map(|record| record.id).collect::<Vec<_>>(), [stored[0].id]);
    rig.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(recall(7, 1).await, None);
    let Told::Stored(second) = ask(once(2)).await else { panic!("the first is forgotten") };
    assert_ne!(second[0].id, stored[0].id);
    rig.clock.advance(Duration::from_secs(24 * 3600));
    rig.backend.queue.prune(0, 9).await.expect("told");
    assert_eq!(recall(7, 2).await, None);
}

async fn a_refused_request_leaves_no_key(rig: Rig) {
    for _ in 0..QUEUED_MAX {
        rig.enqueue(job()).await;
    }
    let once = || Once { name: [7; 32], body: [1; 32], answer: Bytes::new() };
    let refused = rig.backend.queue.enqueue_once(once(), vec![rig.at_level(job())]).await;
    assert!(matches!(refused, Err(JobsError::QueueFull { limit: QUEUED_MAX })), "{refused:?}");
    rig.claim_one().await;
    let told = rig.backend.queue.enqueue_once(once(), vec![rig.at_level(job())]).await.expect("told");
    assert!(matches!(told, Told::Stored(_)), "{told:?}");
}

async fn the_trace_of_who_asked_is_kept(rig: Rig) {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let long = format!("a={}", "x".repeat(500));
    for state in [None, Some("rojo=00f067aa0ba902b7,congo=t61 rc"), Some(&*long)] {
        let trace = TraceContext::parse(parent, state.map(str::as_bytes)).map(Arc::new);
        let new = job();
        let id = rig.enqueue(NewJob { message: new.message.clone().with_trace(trace.clone()), ..new }).await;
        assert_eq!(rig.record(id).await.trace, trace);
        let claimed = rig.claim_one().await;
        assert_eq!(claimed.message.trace(), &trace);
        let failed = How::Dead(error("x", ErrorClass::Permanent));
        assert_eq!(rig.accepted(&claimed, failed).await.record.trace, trace);
        assert_eq!(rig.pending().await.iter().map(|settled| &settled.record.trace).collect::<Vec<_>>(), [&trace]);
        rig.sent_all().await;
        let all = RedriveFilter { limit: 9, ..RedriveFilter::default() };
        assert_eq!(rig.backend.queue.redrive(all).await.expect("told").len(), 1);
        let claimed = rig.claim_one().await;
        assert_eq!(claimed.message.trace(), &trace);
        rig.accepted(&claimed, How::Succeeded(info())).await;
        rig.sent_all().await;
    }
    let id = rig.enqueue(job()).await;
    assert_eq!((rig.record(id).await.trace, rig.claim_one().await.message.trace()), (None, &None));
}

async fn lists_are_newest_first(rig: Rig) {
    let mut ids = Vec::new();
    for ms in 1..=5 {
        ids.push(rig.enqueue(NewJob { id: JobId::new(ms, 1), ..job() }).await);
    }
    let other = NewJob { id: JobId::new(9, 1), consumer: "other".into(), ..job() };
    let other = rig.enqueue(other).await;
    rig.backend.queue.cancel(vec![ids[1]]).await.expect("told");
    let list = async |state, consumer: Option<&str>, after, limit| -> Vec<JobId> {
        let filter = Filter { state, consumer: consumer.map(str::to_owned), reason: None };
        let records = rig.backend.queue.list(filter, after, limit).await.expect("a list");
        records.into_iter().map(|record| record.id).collect()
    };
    assert_eq!(list(None, None, None, 2).await, [other, ids[4]]);
    assert_eq!(list(None, Some("workers"), None, 9).await, [ids[4], ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list(None, Some("workers"), Some(ids[2]), 9).await, [ids[1], ids[0]]);
    assert_eq!(list(Some(JobState::Cancelled), None, None, 9).await, [ids[1]]);
    assert_eq!(list(Some(JobState::Ready), Some("workers"), Some(ids[3]), 1).await, [ids[2]]);
}

async fn a_paused_consumer_claims_nothing(rig: Rig) {
    let queue = &rig.backend.queue;
    let at = rig.clock.wall_ms() + 1000;
    let running = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    let late = rig.enqueue(NewJob { deadline_at: Some(at), ..job() }).await;
    let other = rig.enqueue(NewJob { consumer: "other".into(), ..job() }).await;
    for _ in 0..2 {
        queue.pause(vec!["workers".into(), "absent".into()]).await.expect("kept");
    }
    assert_eq!(queue.paused().await.expect("told"), ["absent", "workers"]);
    let waiting = rig.enqueue(job()).await;
    let batch = queue.claim(ask(9)).await.expect("a batch");
    assert_eq!((batch.jobs.len(), batch.paused), (0, true));
    rig.accepted(&claimed, How::Succeeded(info())).await;
    assert_eq!(rig.state(running).await, JobState::Succeeded, "what runs, ends");
    rig.clock.advance(Duration::from_secs(1));
    assert!(queue.claim(ask(9)).await.expect("a batch").ended, "deadlines are kept");
    assert_eq!(rig.state(late).await, JobState::Dead);
    let others = queue.claim(ClaimAsk { consumer: "other".into(), ..ask(9) }).await.expect("a batch");
    assert_eq!((others.jobs[0].lease.id, others.paused), (other, false));
    for _ in 0..2 {
        queue.resume(vec!["workers".into()]).await.expect("kept");
    }
    assert_eq!(queue.paused().await.expect("told"), ["absent"]);
    assert_eq!(rig.claim_one().await.lease.id, waiting);
}

async fn dead_jobs_are_counted_by_reason(rig: Rig) {
    let queue = &rig.backend.queue;
    let began = rig.clock.wall_ms();
    let bad = rig.dead(job(), "bad").await;
    rig.clock.advance(Duration::from_secs(1));
    let worse = rig.dead(job(), "worse").await;
    rig.dead(job(), "bad").await;
    rig.enqueue(job()).await;
    let letters = |code: &str, jobs, oldest, newest| DeadLetters {
        consumer: "workers".into(),
        code: code.into(),
        class: ErrorClass::Permanent,
        jobs,
        oldest,
        newest,
    };
    let all = [letters("bad", 2, began, began + 1000), letters("worse", 1, began + 1000, began + 1000)];
    assert_eq!(queue.dead_letters(9).await.expect("told"), all);
    assert_eq!(queue.dead_letters(1).await.expect("told"), all[..1]);
    let list = async |consumer: Option<&str>, reason: &str| -> Vec<JobId> {
        let (consumer, reason) = (consumer.map(str::to_owned), Some(reason.to_owned()));
        let filter = Filter { state: Some(JobState::Dead), consumer, reason };
        queue.list(filter, None, 9).await.expect("a list").into_iter().map(|record| record.id).collect()
    };
    assert_eq!(list(None, "worse").await, [worse]);
    assert_eq!(list(Some("workers"), "permanent").await.len(), 3);
    assert!(list(Some("workers"), "bad").await.contains(&bad));
    assert!(list(Some("other"), "bad").await.is_empty());
}

async fn ended_jobs_are_pruned_once_their_event_is_sent(rig: Rig) {
    let old = rig.dead(NewJob { reply_to: ReplyTo::Nobody, ..job() }, "bad").await;
    let unsent = rig.dead(job(), "bad").await;
    rig.clock.advance(Duration::from_secs(60));
    let young = rig.dead(NewJob { reply_to: ReplyTo::Nobody, ..job() }, "bad").await;
    let live = rig.enqueue(job()).await;
    assert_eq!(rig.backend.queue.prune(rig.clock.wall_ms(), 9).await.expect("told"), 1);
    let left = rig.backend.queue.get(vec![old, unsent, young, live]).await.expect("told");
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
}

async fn depths_count_live_jobs(rig: Rig) {
    let at = rig.clock.wall_ms();
    rig.enqueue(job()).await;
    rig.claim_one().await;
    rig.clock.advance(Duration::from_secs(1));
    rig.enqueue(job()).await;
    rig.enqueue(job()).await;
    rig.dead(NewJob { priority: 9, ..job() }, "bad").await;
    let mut depths: Vec<_> = rig.backend.queue.depths().await.expect("depths");
    depths.sort_by_key(|depth| depth.state.as_str());
    let seen: Vec<_> = depths.iter().map(|depth| (depth.state, depth.jobs, depth.oldest_at)).collect();
    assert_eq!(seen, [(JobState::Ready, 2, at + 1000), (JobState::Running, 1, at)]);
}

async fn a_result_is_referred_to_by_its_last_attempt(rig: Rig) {
    let id = rig.enqueue(job()).await;
    let claimed = rig.claim_one().await;
    let key = key_of(&claimed);
    let refers = async |key| rig.backend.queue.refers_to(vec![key]).await.expect("told")[0];
    assert!(!refers(key).await);
    assert_eq!(rig.backend.queue.result_of(id).await.expect("told").expect("there").1, None);
    rig.accepted(&claimed, How::Succeeded(info())).await;
    assert!(refers(key).await);
    assert!(!refers(ResultKey { token: key.token + 1, ..key }).await);
    assert_eq!(rig.backend.queue.result_of(id).await.expect("told").expect("there").1, Some(key));
}

async fn what_asks_for_the_same_rides_along(rig: Rig) {
    let same = |key: &str| NewJob { coalesce_key: Some(key.into()), ..job() };
    let first = rig.enqueue(NewJob { priority: 1, ..same("a") }).await;
    let (other, alone) = (rig.enqueue(same("b")).await, rig.enqueue(job()).await);
    let (second, third) = (rig.enqueue(same("a")).await, rig.enqueue(same("a")).await);
    let riding =
        |keys: &[&str]| ClaimAsk { riding: keys.iter().map(|key| (*key).into()).collect(), riders_max: 9, ..ask(1) };
    let batch = rig.backend.queue.claim(riding(&[])).await.expect("a batch");
    assert_eq!(ids(&batch.jobs), [first]);
    assert_eq!(ids(&batch.riders), [second, third], "with the job that was claimed, beyond the slots");
    assert_eq!(batch.riders[0].coalesce_key.as_deref(), Some("a"));
    let late = rig.enqueue(same("a")).await;
    let batch = rig.backend.queue.claim(ClaimAsk { max: 0, ..riding(&["a", "x"]) }).await.expect("a batch");
    assert_eq!((ids(&batch.jobs), ids(&batch.riders)), (vec![], vec![late]), "with what is executed, without a slot");
    assert_eq!(rig.state(late).await, JobState::Running);
    assert_eq!(ids(&rig.claim(9).await), [other, alone]);
}

async fn riders_are_bounded_and_of_their_consumer(rig: Rig) {
    let same = || NewJob { coalesce_key: Some("a".into()), ..job() };
    rig.enqueue(NewJob { consumer: "other".into(), ..same() }).await;
    rig.enqueue(NewJob { run_at: Some(u64::MAX >> 8), ..same() }).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(rig.enqueue(same()).await);
    }
    let few = ClaimAsk { riders_max: 2, ..ask(1) };
    let batch = rig.backend.queue.claim(few.clone()).await.expect("a batch");
    assert_eq!((ids(&batch.jobs), ids(&batch.riders)), (vec![waiting[0]], waiting[1..3].to_vec()));
    let none = ClaimAsk { riding: vec!["a".into()], max: 0, riders_max: 0, ..few.clone() };
    assert!(rig.backend.queue.claim(none).await.expect("a batch").riders.is_empty());
    let rest = rig.backend.queue.claim(ClaimAsk { riding: vec!["a".into()], max: 0, ..few }).await.expect("a batch");
    assert_eq!(ids(&rest.riders), [waiting[3]]);
}

async fn a_shared_result_is_kept_for_the_last_who_shares_it(rig: Rig) {
    let makers = [rig.enqueue(job()).await, rig.enqueue(job()).await];
    let claimed = rig.claim(2).await;
    let stored = key_of(&claimed[0]);
    rig.store(stored, Content::Rows(rows())).await;
    let refers = async || rig.backend.queue.refers_to(vec![stored]).await.expect("told")[0];
    let share = How::Shared { info: info(), stored };
    let settled = rig.accepted(&claimed[1], share).await;
    assert_eq!((settled.result, settled.record.result), (Some(stored), Some(info())));
    assert!(refers().await, "although the job that stored it has not ended");
    rig.accepted(&claimed[0], How::Cancelled).await;
    assert!(refers().await, "although the job that stored it has no result");
    let (_, found) = rig.backend.queue.result_of(makers[1]).await.expect("told").expect("there");
    assert_eq!(found, Some(stored));
    rig.sent_all().await;
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.backend.queue.prune(rig.clock.wall_ms(), 9).await.expect("told"), 2);
    assert!(!refers().await);
}

async fn rows_are_read_by_page(rig: Rig) {
    let set = rows();
    rig.store(key(), Content::Rows(set.clone())).await;
    for (offset, limit, expected, count) in [
        (0, 99, "[0]\n[1]\n[2]\n[3]\n[4]\n", 5),
        (1, 2, "[1]\n[2]\n", 2),
        (2, 1, "[2]\n", 1),
        (4, u64::MAX, "[4]\n", 1),
        (0, 0, "", 0),
        (5, 9, "", 0),
        (u64::MAX, u64::MAX, "", 0),
    ] {
        let Some(StoredResult::Rows(page)) = rig.read(key(), offset, limit).await else { panic!("there are rows") };
        assert_eq!((&page.ndjson[..], page.rows), (expected.as_bytes(), count), "{offset} {limit}");
        assert_eq!((page.row_count, page.truncated, &page.columns), (5, true, &set.columns));
        assert_eq!(page.offset, offset.min(5));
    }
    rig.store(key(), Content::Rows(RowSet { columns: vec!["n".into()], ..RowSet::default() })).await;
    let Some(StoredResult::Rows(page)) = rig.read(key(), 0, 9).await else { panic!("there is a result") };
    assert_eq!((page.row_count, page.rows), (0, 0), "the second replaced the first");
}

async fn values_and_files_are_kept(rig: Rig) {
    let other = ResultKey { attempt: 2, ..key() };
    let file = |format: &str, body: &'static str| ResultFile {
        format: format.into(),
        media_type: format!("text/{format}"),
        body: Bytes::from_static(body.as_bytes()),
    };
    let files = vec![file("html", "<p>"), file("csv", "a\r\n")];
    rig.store(key(), Content::Json(Bytes::from_static(b"{\"a\":1}"))).await;
    rig.store(other, Content::Files(FileSet { files: files.clone(), rows: None, truncated: false })).await;
    assert_eq!(rig.read(key(), 0, 0).await, Some(StoredResult::Json(Bytes::from_static(b"{\"a\":1}"))));
    let Some(StoredResult::Files(told)) = rig.read(other, 0, 0).await else { panic!("there are files") };
    let told: Vec<_> = told.iter().map(|info| (info.format.as_str(), info.bytes)).collect();
    assert_eq!(told, [("html", 3), ("csv", 3)]);
    let read = async |key, format: &str| rig.backend.results.file(key, format.to_owned()).await.expect("told");
    assert_eq!(read(other, "csv").await.as_ref(), Some(&files[1]));
    assert_eq!(read(other, "pdf").await, None);
    assert_eq!(read(key(), "csv").await, None);
}

async fn results_are_swept_in_order(rig: Rig) {
    let of = |ms| ResultKey { job: JobId::new(ms, 1), ..key() };
    for ms in [3, 1, 2] {
        rig.store(of(ms), Content::Rows(rows())).await;
    }
    rig.clock.advance(Duration::from_secs(1));
    let before = rig.clock.wall_ms();
    rig.store(of(4), Content::Rows(rows())).await;
    let keys = async |after, limit| rig.backend.results.keys(after, before, limit).await.expect("keys");
    assert_eq!(keys(None, 2).await, [of(1), of(2)]);
    assert_eq!(keys(Some(of(2)), 2).await, [of(3)]);
    rig.backend.results.remove(vec![of(1), of(9)]).await.expect("removed");
    assert_eq!(keys(None, 9).await, [of(2), of(3)]);
    assert_eq!(rig.read(of(1), 0, 9).await, None);
}

#[tokio::test]
async fn a_store_says_whether_others_work_on_it() {
    let is_shared = |rig: Rig| rig.backend.queue.capabilities().is_shared;
    assert!(!is_shared(Rig::memory()) && !is_shared(Rig::sqlite()));
    #[cfg(feature = "postgres")]
    assert!(is_shared(Rig::postgres().await));
}

const QUEUED_MAX: u64 = 8;
const LEASE: Duration = Duration::from_secs(15);

/// A store with a clock that stands still.
pub(super) struct Rig {
    backend: Backend,
    clock: Arc<ManualClock>,
    counters: Arc<Counters>,
    durability: Durability,
    _dir: Option<tempfile::TempDir>,
}

impl Rig {
    fn memory() -> Self {
        let (clock, counters) = (Arc::new(ManualClock::new()), Arc::default());
        let backend = Backend::memory(&config(), &(clock.clone() as Arc<dyn Clock>), &counters);
        Self { backend, clock, counters, durability: Durability::Memory, _dir: None }
    }

    fn sqlite() -> Self {
        let (clock, counters) = (Arc::new(ManualClock::new()), Arc::default());
        let dir = tempfile::tempdir().expect("a directory");
        let backend = Backend::sqlite(&config(), dir.path(), &(clock.clone() as Arc<dyn Clock>), &counters);
        let backend = backend.expect("a fresh store");
        Self { backend, clock, counters, durability: Durability::Os, _dir: Some(dir) }
    }

    #[cfg(feature = "postgres")]
    async fn postgres() -> Self {
        use super::postgres::{Place, PostgresQueue, Time, testing};
        use super::results::postgres::PostgresResults;
        let (clock, counters) = (Arc::new(ManualClock::new()), Arc::<Counters>::default());
        let address = testing::url().parse().expect("an address");
        let durability = Durability::Disk;
        let place = Place { address, schema: testing::schema(), node: "gw1".into(), tells: None, durability };
        let time = Time::Given(clock.clone());
        let queue = PostgresQueue::open(place, time, counters.clone(), QUEUED_MAX, Arc::default()).await;
        let queue = queue.expect("a fresh schema");
        let results = PostgresResults::new(queue.db());
        let backend = Backend { queue: Arc::new(queue), results: Arc::new(results) };
        Self { backend, clock, counters, durability: Durability::Os, _dir: None }
    }

    fn at_level(&self, job: NewJob) -> NewJob {
        NewJob { durability: self.durability, ..job }
    }

    async fn enqueue(&self, job: NewJob) -> JobId {
        self.backend.queue.enqueue(vec![self.at_level(job)]).await.expect("stored")[0].id
    }

    async fn claim(&self, max: usize) -> Vec<Claimed> {
        self.backend.queue.claim(ask(max)).await.expect("a batch").jobs
    }

    async fn claim_one(&self) -> Claimed {
        self.claim(1).await.pop().expect("a job is ready")
    }

    async fn finish(&self, claimed: &Claimed, how: How) -> Finished {
        let finish = Finish { lease: claimed.lease, how };
        self.backend.queue.finish(vec![finish]).await.expect("told").remove(0)
    }

    async fn accepted(&self, claimed: &Claimed, how: How) -> Settled {
        match self.finish(claimed, how).await {
            Finished::Accepted(settled) => *settled,
            Finished::Fenced => panic!("the lease holds"),
        }
    }

    async fn dead(&self, job: NewJob, code: &str) -> JobId {
        let id = self.enqueue(NewJob { priority: 99, ..job }).await;
        let claimed = self.claim_one().await;
        self.accepted(&claimed, How::Dead(error(code, ErrorClass::Permanent))).await;
        id
    }

    async fn record(&self, id: JobId) -> JobRecord {
        self.backend.queue.get(vec![id]).await.expect("told").remove(0).expect("there")
    }

    async fn state(&self, id: JobId) -> JobState {
        self.record(id).await.state
    }

    async fn pending(&self) -> Vec<Settled> {
        self.backend.queue.events_pending(9).await.expect("told")
    }

    async fn sent_all(&self) {
        let sent = self.pending().await.iter().map(|settled| Sent::from(&settled.record)).collect();
        self.backend.queue.event_sent(sent).await.expect("told");
    }

    async fn store(&self, key: ResultKey, content: Content) {
        self.backend.results.store(key, Arc::new(content), false).await.expect("stored");
    }

    async fn read(&self, key: ResultKey, offset: u64, limit: u64) -> Option<StoredResult> {
        self.backend.results.read(key, offset, limit).await.expect("told")
    }
}

fn config() -> JobsConfig {
    JobsConfig { max_queued: QUEUED_MAX, ..JobsConfig::default() }
}

fn job() -> NewJob {
    let message = Message::parse(Bytes::from_static(br#"{"type":"work"}"#)).expect("a message");
    NewJob::new("workers", message, ReplyTo::Group(GroupName::parse("g").expect("a name")))
}

fn ask(max: usize) -> ClaimAsk {
    ClaimAsk { consumer: "workers".into(), max, lease: LEASE, ..ClaimAsk::default() }
}

fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|one| one.lease.id).collect()
}

fn error(code: &str, class: ErrorClass) -> JobError {
    JobError { code: code.into(), message: "why".into(), class }
}

fn info() -> ResultInfo {
    ResultInfo { rows: Some(1), bytes: 4, truncated: false, digest: "d".into(), url: "/u".into(), age_ms: None }
}

fn key() -> ResultKey {
    ResultKey { job: JobId::new(7, 7), attempt: 1, token: 1 }
}

fn key_of(claimed: &Claimed) -> ResultKey {
    ResultKey { job: claimed.lease.id, attempt: claimed.attempt, token: claimed.lease.token }
}

fn rows() -> RowSet {
    let chunk =
        |first_row, rows, text: &'static str| Chunk { first_row, rows, ndjson: Bytes::from_static(text.as_bytes()) };
    let chunks = vec![chunk(0, 2, "[0]\n[1]\n"), chunk(2, 3, "[2]\n[3]\n[4]\n")];
    RowSet { columns: vec!["n".into()], chunks, truncated: true }
}
