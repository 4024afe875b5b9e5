//! Asking over a WebSocket: the answer comes to the asker alone; what is slow can be cancelled, what fails is told.

use groupcast_tests::home::JOBS;
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn accepted_comes_before_the_answer_and_only_to_the_asker() {
    let gateway = Gateway::start(JOBS).await;
    let mut asker = Socket::subscribed(&gateway, &["my_group"]).await;
    let mut other = Socket::subscribed(&gateway, &["my_group"]).await;

    asker.send(&json!({"type": "query", "id": "q", "name": "numbers", "params": {"count": 3}})).await;
    let accepted = asker.expect("accepted").await;
    assert_eq!(accepted["id"], "q");
    let job = accepted["jobs"][0]["id"].as_str().expect("one job");
    let started = asker.expect("message").await;
    assert_eq!(started["channel"], json!(asker.channel), "{started}");
    assert_eq!((&started["message"]["type"], &started["message"]["job"]), (&json!("job.started"), &json!(job)));
    let result = asker.skip_to("job.result").await;
    assert_eq!(result["result"]["rows"], json!([[1, 1], [2, 4], [3, 9]]));

    assert_eq!(other.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn many_queries_of_one_connection_are_each_accepted_before_their_events() {
    let gateway = Gateway::start(JOBS).await;
    let mut asker = Socket::open(&gateway).await;
    for id in 0..20 {
        asker.send(&json!({"type": "query", "id": id, "name": "numbers", "params": {"count": id + 1}})).await;
    }
    let (mut accepted, mut results) = (Vec::new(), 0);
    while results < 20 {
        let frame = asker.next().await;
        if frame["type"] == "accepted" {
            assert_eq!(frame["id"], accepted.len(), "answers come in the order of the commands");
            accepted.push(frame["jobs"][0]["id"].clone());
        } else {
            assert!(accepted.contains(&frame["message"]["job"]), "an event before its `accepted`: {frame}");
            results += usize::from(frame["message"]["type"] == "job.result");
        }
    }
}

#[tokio::test]
async fn a_slow_query_is_cancelled_by_its_asker() {
    let gateway = Gateway::start(JOBS).await;
    let mut asker = Socket::open(&gateway).await;
    let accepted = asker.command(json!({"type": "query", "name": "endless"})).await;
    let job = accepted["jobs"][0]["id"].as_str().expect("one job").to_owned();
    asker.skip_to("job.started").await;

    let answer = asker.command(json!({"type": "cancel", "job": job})).await;
    assert_eq!(answer["type"], "cancelled", "{answer}");
    assert_eq!(asker.skip_to("job.cancelled").await["job"], json!(job));
    let http = gateway.http();
    assert_eq!(http.ended(&job).await["state"], "cancelled");
    http.delete(&format!("/v1/jobs/{job}")).await.problem(409, "finished");
    asker.refused(json!({"type": "cancel", "job": job}), "finished").await;
}

#[tokio::test]
async fn a_slow_query_is_cancelled_over_http() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let job = http.job("my_group", &json!({"type": "execute_query", "query": "endless"})).await;
    reader.skip_to("job.started").await;
    http.get(&format!("/v1/jobs/{job}/result")).await.problem(409, "not_ready");

    http.delete(&format!("/v1/jobs/{job}")).await.expect(202);
    assert_eq!(reader.skip_to("job.cancelled").await["job"], json!(job));
    assert_eq!(http.ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_before_it_runs() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let late = json!({"type": "execute_query", "query": "numbers", "delay_ms": 3_600_000});
    let job = http.job("my_group", &late).await;
    assert_eq!(http.get(&format!("/v1/jobs/{job}")).await.expect(200)["state"], "scheduled");
    http.delete(&format!("/v1/jobs/{job}")).await.expect(202);
    let event = reader.message().await;
    assert_eq!((&event["type"], &event["job"]), (&json!("job.cancelled"), &json!(job)), "{event}");
    assert_eq!(http.ended(&job).await["attempt"], 0);
}

#[tokio::test]
async fn who_leaves_cancels_what_he_asked_for_himself() {
    let gateway = Gateway::start(JOBS).await;
    let mut asker = Socket::open(&gateway).await;
    let accepted = asker.command(json!({"type": "query", "name": "endless"})).await;
    let job = accepted["jobs"][0]["id"].as_str().expect("one job").to_owned();
    asker.skip_to("job.started").await;
    asker.close().await;
    assert_eq!(gateway.http().ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn identical_queries_share_an_execution_until_the_last_asker_has_left() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let (mut askers, mut jobs) = (Vec::new(), Vec::new());
    // One more than the consumer has slots.
    for _ in 0..3 {
        let mut asker = Socket::open(&gateway).await;
        let accepted = asker.command(json!({"type": "query", "name": "endless"})).await;
        jobs.push(accepted["jobs"][0]["id"].as_str().expect("one job").to_owned());
        asker.skip_to("job.started").await;
        askers.push(asker);
    }
    let state = async |job: &str| http.get(&format!("/v1/jobs/{job}")).await.expect(200)["state"].clone();
    for (asker, job) in askers.into_iter().zip(&jobs) {
        assert_eq!(state(job).await, "running");
        asker.close().await;
        assert_eq!(http.ended(job).await["state"], "cancelled");
    }
    let metrics = http.get("/metrics").await.text();
    assert!(metrics.contains("groupcast_jobs_coalesced_total 2\n"), "{metrics}");
    let next = http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await;
    assert_eq!(http.ended(&next).await["state"], "succeeded", "the slot is free again");
}

#[tokio::test]
async fn a_query_that_fails_is_dead_and_its_error_is_told() {
    let gateway = Gateway::start(JOBS).await;
    for query in ["broken", "hurried"] {
        let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
        let http = gateway.http();
        let work = json!({"type": "execute_query", "query": query, "max_attempts": 2});
        let job = http.job("my_group", &work).await;
        let failed = reader.skip_to("job.failed").await;
        assert_eq!(failed["job"], json!(job));
        let record = http.ended(&job).await;
        assert_eq!(record["state"], "dead", "{record}");
        assert_eq!(record["error"], failed["error"], "the event and the record say the same");
        let text = |key: &str| record["error"][key].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("code") && text("message") && text("class"), "{record}");
        http.get(&format!("/v1/jobs/{job}/result")).await.problem(404, "not_found");
        reader.close().await;
    }
}

#[tokio::test]
async fn dead_letters_are_listed_and_redriven() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = http.job("my_group", &json!({"type": "execute_query", "query": "broken"})).await;
    let dead = http.ended(&job).await;
    let listed = http.get("/v1/jobs?state=dead&consumer=queries").await.expect(200);
    assert_eq!(listed["jobs"], json!([dead]));

    let redrive = async |body: Value| http.post("/v1/jobs/redrive", &body).await.expect(200)["redriven"].clone();
    assert_eq!(redrive(json!({"consumer": "reports"})).await, 0);
    assert_eq!(redrive(json!({"dry_run": true})).await, 1);
    assert_eq!(http.get(&format!("/v1/jobs/{job}")).await.expect(200), dead, "a dry run changes nothing");
    assert_eq!(redrive(json!({"consumer": "queries", "limit": 5})).await, 1);
    let again = http.ended(&job).await;
    assert_eq!(again["state"], "dead");
    assert!(again["attempt"].as_u64() > dead["attempt"].as_u64(), "attempt never goes down: {dead} {again}");
}

#[tokio::test]
async fn a_query_over_http_answers_inline_when_it_is_ready() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let ask = async |query: &str, wait: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("prefer", wait)];
        http.request("POST", &format!("/v1/queries/{query}"), &headers, body.to_string().into_bytes()).await
    };
    let reply = ask("numbers", "wait=20", json!({"count": 2})).await.expect(200);
    assert_eq!((&reply["state"], &reply["result"]["rows"]), (&json!("succeeded"), &json!(2)), "{reply}");

    let reply = ask("endless", "wait=0", json!({})).await;
    let record = reply.expect(202);
    let job = record["id"].as_str().expect("an id").to_owned();
    assert_eq!(reply.header("location"), Some(format!("/v1/jobs/{job}").as_str()));
    http.delete(&format!("/v1/jobs/{job}")).await.expect(202);
    assert_eq!(http.ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn a_long_poll_ends_with_the_job_and_not_before() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = http.job("my_group", &json!({"type": "execute_query", "query": "numbers", "delay_ms": 1200})).await;
    let at_once = http.get(&format!("/v1/jobs/{job}")).await.expect(200);
    assert_eq!(at_once["state"], "scheduled", "{at_once}");
    let soon = http.get(&format!("/v1/jobs/{job}?wait=0")).await.expect(200);
    assert_ne!(soon["state"], "succeeded", "{soon}");
    assert_eq!(http.get(&format!("/v1/jobs/{job}?wait=20")).await.expect(200)["state"], "succeeded");
}
