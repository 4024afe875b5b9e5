//! Identical jobs that share an execution.

use super::*;

#[tokio::test]
async fn a_thousand_identical_jobs_are_one_execution_and_a_thousand_answers() {
    let rig = Rig::start().await;
    let ids = rig.enqueue_same(1000, r#"{"type":"act","do":"wait_for_gate"}"#, 5).await;
    rig.until(|| rig.jobs.counters().coalesced.get() == 999).await;
    rig.act.gate.notify_one();
    rig.until(|| rig.jobs.counters().succeeded.get() == 1000).await;
    assert_eq!(rig.act.runs.load(Ordering::SeqCst), 1);
    for id in &ids {
        let record = rig.ended(*id).await;
        let url = record.result.map(|result| result.url);
        assert_eq!(
            (record.state, record.attempt, url),
            (JobState::Succeeded, 1, Some(format!("/v1/jobs/{id}/result")))
        );
    }
    rig.no_events_are_pending().await;
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    for event in rig.outlet.sent.lock().iter() {
        let id = event["job"].as_str().expect("a job").to_owned();
        told.entry(id).or_default().push(kind(event).to_owned());
    }
    assert!(ids.iter().all(|id| told[&id.to_string()] == ["job.started", "job.result"]));
    let stored = rusqlite::Connection::open(rig.home.path().join("results.db")).expect("open");
    let count: i64 = stored.query_row("select count(*) from result", [], |row| row.get(0)).expect("a number");
    assert_eq!(count, 1, "stored once for all");
    let read = rig.jobs.read_result(ids[999], 0, 9).await.expect("there");
    assert_eq!(read, StoredResult::Json(Bytes::from_static(b"\"done\"")));
}

#[tokio::test]
async fn what_comes_while_it_runs_joins_although_no_slot_is_free() {
    let rig = Rig::start_with(|config| config.concurrency = 1).await;
    let first = rig.enqueue_same(1, r#"{"type":"act","do":"wait_for_gate"}"#, 5).await[0];
    rig.until(|| rig.act.running.load(Ordering::SeqCst) == 1).await;
    let late = rig.enqueue_same(3, r#"{"type":"act","do":"wait_for_gate"}"#, 5).await;
    rig.until(|| rig.jobs.counters().coalesced.get() == 3).await;
    let other = rig.send(r#"{"type":"act","do":"answer"}"#).await;
    assert_eq!(rig.record(other).await.state, JobState::Ready, "what is not the same waits for the slot");
    rig.act.gate.notify_one();
    for id in late.into_iter().chain([first, other]) {
        assert_eq!(rig.ended(id).await.state, JobState::Succeeded);
    }
    assert_eq!(rig.act.runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn it_goes_on_until_the_last_asker_has_gone() {
    let rig = Rig::start().await;
    let job = || rig.claims.query(&By::gateway(), "endless", None, ReplyTo::Nobody).expect("claimed");
    let ids: Vec<_> = rig.jobs.enqueue(vec![job(), job(), job()]).await.expect("stored").iter().map(|t| t.id).collect();
    rig.until(|| rig.jobs.counters().coalesced.get() == 2).await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    for id in &ids {
        assert!(rig.sources.loads().any(|(_, load)| load == (1, 0)), "somebody asks still");
        assert_eq!(rig.jobs.cancel(*id).await.expect("told"), CancelOutcome::Requested);
        assert_eq!(rig.ended(*id).await.state, JobState::Cancelled);
    }
    rig.until(|| rig.sources.loads().all(|(_, load)| load == (0, 0))).await;
    let next = rig.jobs.enqueue(vec![job()]).await.expect("stored")[0].id;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    assert_eq!(rig.record(next).await.state, JobState::Running, "what was stopped is not joined");
}

#[tokio::test]
async fn a_failure_is_everybodys_and_each_goes_on_by_his_own_policy() {
    let rig = Rig::start().await;
    let many = rig.enqueue_same(2, r#"{"type":"act","do":"fail_at_the_gate"}"#, 5).await;
    let one = rig.enqueue_same(1, r#"{"type":"act","do":"fail_at_the_gate"}"#, 1).await[0];
    rig.until(|| rig.jobs.counters().coalesced.get() == 2).await;
    rig.act.gate.notify_one();
    let error = rig.ended(one).await.error.expect("it failed");
    assert_eq!((error.code.as_str(), error.class), ("busy", ErrorClass::Transient));
    for id in many {
        let events = rig.events(id, "job.retry").await;
        // It may have begun again by now.
        let retry = events.iter().find(|event| kind(event) == "job.retry").expect("an event");
        assert_eq!(retry["error"]["code"], json!("busy"));
    }
}

#[tokio::test]
async fn a_panic_of_what_is_shared_fails_everybody() {
    let rig = Rig::start().await;
    let ids = rig.enqueue_same(3, r#"{"type":"act","do":"panic"}"#, 1).await;
    for id in ids {
        assert_eq!(rig.ended(id).await.error.expect("it failed").class, ErrorClass::Crash);
    }
}

#[tokio::test]
async fn a_drain_gives_back_all_who_wait() {
    let rig = Rig::start().await;
    let ids = rig.enqueue_same(3, r#"{"type":"act","do":"hang"}"#, 5).await;
    rig.until(|| rig.jobs.counters().coalesced.get() == 2).await;
    let drained = rig.consumers.drain(Duration::from_millis(10)).await;
    assert_eq!(drained, Drained { finished: 0, released: 3 });
    for id in ids {
        assert_eq!(rig.record(id).await.state, JobState::Ready);
    }
}

#[tokio::test]
async fn a_deadline_is_of_one_asker_alone() {
    let rig = Rig::start().await;
    let group = ReplyTo::Group(GroupName::parse("my_group").expect("a name"));
    let hurried = |deadline_ms: u64| {
        let job = NewJob::new("act", message(r#"{"type":"act","do":"wait_for_gate"}"#), group.clone());
        let deadline_at = Some(crate::clock::now_ms() + deadline_ms);
        NewJob { coalesce_key: Some("same".into()), durability: Durability::Os, deadline_at, ..job }
    };
    // Long enough that both are claimed, and the first is the one who began it.
    let jobs = vec![hurried(3000), hurried(3_600_000)];
    let ids: Vec<_> = rig.jobs.enqueue(jobs).await.expect("stored").iter().map(|told| told.id).collect();
    assert_eq!(rig.ended(ids[0]).await.error.expect("it failed").class, ErrorClass::Timeout);
    rig.act.gate.notify_one();
    assert_eq!(rig.ended(ids[1]).await.state, JobState::Succeeded);
    assert_eq!(rig.act.runs.load(Ordering::SeqCst), 1);
}

impl Rig {
    /// Stores jobs that ask for the same.
    async fn enqueue_same(&self, n: usize, json: &str, max_attempts: u32) -> Vec<JobId> {
        let group = ReplyTo::Group(GroupName::parse("my_group").expect("a name"));
        let job = |_| NewJob {
            coalesce_key: Some("same".into()),
            durability: Durability::Os,
            max_attempts,
            ..NewJob::new("act", message(json), group.clone())
        };
        let told = self.jobs.enqueue((0..n).map(job).collect()).await.expect("stored");
        told.into_iter().map(|told| told.id).collect()
    }
}
