//! `kill -9` at the worst moment: what was accepted is done, and done once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use groupcast_tests::home::JOBS;
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Gateway, Home, Http, Socket};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Less than the lease of 15 s, after which anybody may take a job.
const AT_ONCE: Duration = Duration::from_secs(8);

#[tokio::test]
async fn work_that_was_accepted_and_not_begun_runs_once_after_the_restart() {
    let gateway = Gateway::start(JOBS).await;
    let work = json!({"type": "execute_query", "queryset_id": 7, "delay_ms": 1500});
    let job = gateway.http().job("my_group", &work).await;
    let home = gateway.kill().await;

    let gateway = Gateway::start_in(home).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    check_one_result(&gateway, &mut reader, &job, 1).await;
}

#[tokio::test]
async fn work_that_was_running_runs_again_and_answers_once() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let work = json!({"type": "execute_query", "query": "seconds", "params": {"count": 6_000_000}});
    let job = gateway.http().job("my_group", &work).await;
    let started = reader.message_of("job.started").await;
    assert_eq!((&started["job"], &started["attempt"]), (&json!(job), &json!(1)));
    let home = gateway.kill().await;

    let gateway = Gateway::start_in(home).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let again = async { eventually("the job runs again", || attempt(&gateway, &job, 2)).await };
    within_time(AT_ONCE, "the predecessor's job is released, not left to its lease", again).await;
    check_one_result(&gateway, &mut reader, &job, 2).await;
}

#[tokio::test]
async fn nothing_that_was_accepted_is_lost_over_five_kills() {
    let mut home = Arc::new(Home::new(JOBS));
    let mut accepted = BTreeSet::new();
    for round in 0..5 {
        let gateway = Gateway::start_in(home).await;
        let mut senders = JoinSet::new();
        for _ in 0..4 {
            senders.spawn(send_until_it_dies(gateway.http()));
        }
        let http = gateway.http();
        let enough = || async {
            let page = http.get("/v1/jobs?limit=1000").await.expect(200);
            (page["jobs"].as_array().map(Vec::len) > Some((round + 1) * 80)).then_some(())
        };
        eventually("a few dozen jobs are stored", enough).await;
        home = gateway.kill().await;
        for jobs in senders.join_all().await {
            accepted.extend(jobs);
        }
    }
    eprintln!("{} jobs were accepted", accepted.len());
    assert!(accepted.len() > 300, "{}", accepted.len());

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    for job in &accepted {
        let record = http.ended(job).await;
        assert_eq!(record["state"], "succeeded", "{record}");
        assert_eq!(http.get(&format!("/v1/jobs/{job}/result")).await.expect(200)["row_count"], 10);
    }
}

#[tokio::test]
async fn a_repeat_after_a_kill_gets_the_first_answer() {
    let gateway = Gateway::start(JOBS).await;
    let work = json!({"type": "execute_query", "queryset_id": 7});
    let send = async |http: &Http, group: &str, work: &Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        http.request("POST", &format!("/v1/groups/{group}/send"), &headers, work.to_string().into_bytes()).await
    };
    let first = send(&gateway.http(), "my_group", &work).await.expect(202);
    assert_eq!(first["existing"], false, "{first}");
    let home = gateway.kill().await;

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    let again = send(&http, "my_group", &work).await.expect(202);
    assert_eq!((&again["existing"], &again["jobs"][0]["existing"]), (&json!(true), &json!(true)), "{again}");
    for field in ["message_id", "group", "members"] {
        assert_eq!(again[field], first[field], "{again}");
    }
    assert_eq!(again["jobs"][0]["id"], first["jobs"][0]["id"]);
    send(&http, "my_group", &json!({"type": "execute_query", "queryset_id": 6}))
        .await
        .problem(409, "idempotency_conflict");
    // In a group with consumers a key of work is one of a mere message, too.
    send(&http, "my_group", &json!({"type": "hello"})).await.problem(409, "idempotency_conflict");
    assert_eq!(send(&http, "kernel", &work).await.expect(202)["existing"], false, "another route has its own keys");
    assert_eq!(http.get("/v1/jobs").await.expect(200)["jobs"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn memory_is_what_it_says() {
    let gateway = Gateway::start(JOBS).await;
    let work = json!({"type": "execute_query", "query": "numbers", "delay_ms": 3_600_000});
    let http = gateway.http();
    let accepted = http.group_send("fleeting", &work).await;
    assert_eq!(accepted["jobs"][0]["durability"], "memory", "{accepted}");
    let fleeting = accepted["jobs"][0]["id"].as_str().expect("an id").to_owned();
    let kept = http.job("kernel", &work).await;
    http.get(&format!("/v1/jobs/{fleeting}")).await.expect(200);
    let home = gateway.kill().await;

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    http.get(&format!("/v1/jobs/{fleeting}")).await.problem(404, "not_found");
    assert_eq!(http.get(&format!("/v1/jobs/{kept}")).await.expect(200)["state"], "scheduled");
}

#[tokio::test]
async fn results_and_records_outlive_a_kill() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = http.job("my_group", &json!({"type": "execute_query", "queryset_id": 7})).await;
    let before = http.ended(&job).await;
    let result = http.get(&format!("/v1/jobs/{job}/result")).await.expect(200);
    let home = gateway.kill().await;

    let http = Gateway::start_in(home).await;
    let http = http.http();
    assert_eq!(http.get(&format!("/v1/jobs/{job}")).await.expect(200), before);
    assert_eq!(http.get(&format!("/v1/jobs/{job}/result")).await.expect(200), result);
}

#[tokio::test]
async fn a_poisonous_job_that_kills_its_process_is_dead_after_three_crashes() {
    let mut home = Arc::new(Home::new(JOBS));
    let mut job = None;
    for crash in 0..3 {
        let gateway = Gateway::start_in(home).await;
        let http = gateway.http();
        let work = json!({"type": "execute_query", "query": "endless", "max_attempts": 50});
        let id = match &job {
            Some(id) => id,
            None => &*job.insert(http.job("my_group", &work).await),
        };
        let running = || async {
            let record = http.get(&format!("/v1/jobs/{id}")).await.expect(200);
            (record["state"] == "running" && record["attempt"] == crash + 1).then_some(())
        };
        eventually("the job runs", running).await;
        home = gateway.kill().await;
    }
    let gateway = Gateway::start_in(home).await;
    let job = job.expect("the first round made it");
    let record = gateway.http().ended(&job).await;
    assert_eq!(record["state"], "dead", "{record}");
}

/// `Some` once the job is at this attempt.
async fn attempt(gateway: &Gateway, job: &str, attempt: u64) -> Option<()> {
    let record = gateway.http().get(&format!("/v1/jobs/{job}")).await.expect(200);
    (record["attempt"] == attempt).then_some(())
}

/// The job succeeds at this attempt, and a reader sees one result of it and no other terminal event.
async fn check_one_result(gateway: &Gateway, reader: &mut Socket, job: &str, attempt: u64) {
    let record = gateway.http().ended(job).await;
    assert_eq!((&record["state"], &record["attempt"]), (&json!("succeeded"), &json!(attempt)), "{record}");
    let result = reader.skip_to("job.result").await;
    assert_eq!((&result["job"], &result["attempt"]), (&json!(job), &json!(attempt)), "{result}");
    assert_eq!(reader.pending().await, [] as [Value; 0], "one terminal event");
}

/// Asks for work one by one; the ids of what was accepted.
async fn send_until_it_dies(http: Http) -> Vec<String> {
    let work = json!({"type": "execute_query", "query": "numbers"}).to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    let mut accepted = Vec::new();
    while let Ok(reply) = http.try_request("POST", "/v1/groups/my_group/send", &headers, work.clone()).await {
        let id = reply.expect(202)["jobs"][0]["id"].as_str().map(str::to_owned);
        accepted.push(id.expect("one job"));
    }
    accepted
}
