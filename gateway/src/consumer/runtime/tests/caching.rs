//! Answers from the results of earlier jobs.

use super::*;
use crate::jobs::ResultInfo;

#[tokio::test]
async fn an_identical_ask_is_answered_by_the_earlier_result_and_told_its_age() {
    let rig = Rig::start().await;
    let first = rig.info(CACHED).await;
    assert_eq!((first.rows, first.age_ms), (Some(1), None));
    rig.change();
    let id = rig.send(CACHED).await;
    let event = rig.events(id, "job.result").await.pop().expect("an event");
    let info = rig.ended(id).await.result.expect("a result");
    assert_eq!((&event["result"]["rows"], event["age_ms"].as_u64()), (&json!([[2]]), info.age_ms));
    assert_eq!((info.age_ms.is_some(), &info.digest), (true, &first.digest));
    assert_eq!(info.url, format!("/v1/jobs/{id}/result"));
    let StoredResult::Rows(rows) = rig.jobs.read_result(id, 0, 9).await.expect("stored") else { panic!("rows") };
    assert_eq!(&rows.ndjson[..], b"[2]\n");
    assert_eq!(rig.jobs.counters().cached.get(), 1);
    rig.no_events_are_pending().await;
}

#[tokio::test]
async fn an_ask_may_want_it_fresh_and_then_it_is_kept_for_the_next() {
    let rig = Rig::start().await;
    let first = rig.info(CACHED).await;
    rig.change();
    let fresh = rig.info(r#"{"type":"execute_query","query":"cached","max_stale_ms":0}"#).await;
    assert!(fresh.age_ms.is_none() && fresh.digest != first.digest);
    let next = rig.info(CACHED).await;
    assert!(next.age_ms.is_some() && next.digest == fresh.digest);
}

#[tokio::test]
async fn an_invalidated_result_is_not_given_again() {
    let rig = Rig::start().await;
    let first = rig.info(CACHED).await;
    rig.change();
    assert_eq!(rig.cache.invalidate(&["flights".to_owned()]), 1);
    let next = rig.info(CACHED).await;
    assert!(next.age_ms.is_none() && next.digest != first.digest);
}

#[tokio::test]
async fn what_runs_since_before_the_invalidation_serves_nobody_who_asks_after_it() {
    let rig = Rig::start().await;
    let job = || rig.claims.query(&By::gateway(), "endless", None, ReplyTo::Nobody).expect("claimed");
    let ask = async || rig.jobs.enqueue(vec![job()]).await.expect("stored")[0].id;
    let before = ask().await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (1, 0))).await;
    rig.cache.invalidate(&["slow".to_owned()]);
    let after = ask().await;
    rig.until(|| rig.sources.loads().any(|(_, load)| load == (2, 0))).await;
    let joined = ask().await;
    rig.until(|| rig.jobs.counters().coalesced.get() == 1).await;
    for (id, left) in [(before, 1), (after, 1), (joined, 0)] {
        rig.jobs.cancel(id).await.expect("told");
        assert_eq!(rig.ended(id).await.state, JobState::Cancelled);
        rig.until(|| rig.sources.loads().any(|(_, load)| load == (left, 0))).await;
    }
}

#[tokio::test]
async fn a_failure_is_not_kept() {
    let rig = Rig::start().await;
    rig.break_it(true);
    let id = rig.send(CACHED).await;
    assert_eq!(rig.ended(id).await.state, JobState::Dead);
    rig.break_it(false);
    assert_eq!(rig.info(CACHED).await.age_ms, None);
}

const CACHED: &str = r#"{"type":"execute_query","query":"cached"}"#;

impl Rig {
    async fn info(&self, json: &str) -> ResultInfo {
        let id = self.send(json).await;
        self.ended(id).await.result.expect("a result")
    }

    fn change(&self) {
        self.write("insert into flights values ('EWR', 3)");
    }

    fn break_it(&self, broken: bool) {
        self.write(if broken { "alter table flights rename to gone" } else { "alter table gone rename to flights" });
    }

    fn write(&self, sql: &str) {
        let conn = rusqlite::Connection::open(self.home.path().join("demo.db")).expect("open");
        conn.execute_batch(sql).expect("written");
    }
}
