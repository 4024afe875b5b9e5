//! Consumers that are somebody else's program, and consumers that are told to stand still.

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::{Backend, Gateway, Home, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn a_backend_does_the_work_and_is_asked_again_when_it_cannot() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend)).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let job = gateway.http().job("my_group", &json!({"type": "execute_query", "queryset_id": 7})).await;

    let first = backend.call().await;
    assert!(first.head.starts_with("POST /jobs HTTP/1.1\r\n"), "{}", first.head);
    assert_eq!((first.header("webhook-id"), first.header("groupcast-attempt")), (Some(job.as_str()), Some("1")));
    assert!(first.header("webhook-signature").is_some_and(|signature| signature.starts_with("v1,")));
    first.answer(503, "retry-after: 0\r\n", "").await;
    let retry = reader.skip_to("job.retry").await;
    assert_eq!(retry["error"]["code"], json!("backend_failed"));

    let second = backend.call().await;
    assert_eq!((second.header("idempotency-key"), second.header("groupcast-attempt")), (Some(job.as_str()), Some("2")));
    assert_eq!(second.body["message"], json!({"type": "execute_query", "queryset_id": 7}));
    second.json(&json!({"rows": [[1, "a"]]})).await;
    let result = reader.skip_to("job.result").await;
    assert_eq!((&result["job"], &result["result"]), (&json!(job), &json!({"rows": [[1, "a"]]})));
    let stored = gateway.http().get(&format!("/v1/jobs/{job}/result")).await.expect(200);
    assert_eq!(stored, json!({"rows": [[1, "a"]]}));

    let metrics = gateway.http().get("/metrics").await.text();
    for line in ["outcome=\"ok\"} 1", "outcome=\"failed\"} 1"] {
        assert!(metrics.contains(&format!("backend_requests_total{{consumer=\"views\",{line}")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_large_answer_travels_by_its_address() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend)).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    gateway.http().job("my_group", &json!({"type": "execute_query"})).await;
    let answer = json!(["é".repeat(100_000)]);
    backend.call().await.json(&answer).await;
    let result = reader.skip_to("job.result").await;
    let url = result["url"].as_str().expect("an address in place of the result");
    assert_eq!(gateway.http().get(url).await.expect(200), answer);
}

#[tokio::test]
async fn a_backend_hears_that_nobody_wants_the_result() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend)).await;
    let job = gateway.http().job("my_group", &json!({"type": "execute_query"})).await;
    let call = backend.call().await;
    gateway.http().delete(&format!("/v1/jobs/{job}")).await.expect(202);
    call.hung_up().await;
    assert_eq!(gateway.http().ended(&job).await["state"], json!("cancelled"));
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_given_up_twice() {
    let backend = Backend::start().await;
    let config = config(&backend).replace("allow_private = true", "allow_private = true\ntimeout = \"2s\"");
    let gateway = Gateway::start(&config).await;
    let job = gateway.http().job("my_group", &json!({"type": "execute_query"})).await;
    for attempt in ["1", "2"] {
        let call = backend.call().await;
        assert_eq!(call.header("groupcast-attempt"), Some(attempt));
        call.hung_up().await;
    }
    let record = gateway.http().ended(&job).await;
    assert_eq!((&record["state"], &record["attempt"]), (&json!("dead"), &json!(2)));
    assert_eq!(record["error"]["class"], json!("timeout"));
}

#[tokio::test]
async fn what_a_backend_refuses_is_dead_for_its_reason() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend)).await;
    let http = gateway.http();
    let refused = r#"{"code":"unknown_queryset","detail":"there is no queryset 9"}"#;
    for _ in 0..2 {
        let job = http.job("my_group", &json!({"type": "execute_query", "queryset_id": 9})).await;
        backend.call().await.answer(422, "content-type: application/json\r\n", refused).await;
        let record = http.ended(&job).await;
        assert_eq!((&record["state"], &record["attempt"]), (&json!("dead"), &json!(1)));
        let message = record["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("422") && message.ends_with("there is no queryset 9"), "{message}");
    }
    let reasons = http.get("/v1/jobs/dead").await.expect(200);
    let reason = &reasons["reasons"][0];
    assert_eq!((&reason["code"], &reason["jobs"]), (&json!("unknown_queryset"), &json!(2)));
    let listed = http.get("/v1/jobs?state=dead&reason=unknown_queryset&limit=1").await.expect(200);
    assert!(listed["next"].is_string());
    let address = format!("http://{}", gateway.address());
    let told = run(groupcast(gateway.home(), &["jobs", "dead", "--url", &address])).await;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("unknown_queryset") && told.contains("permanent"), "{told}");
}

#[tokio::test]
async fn a_pause_outlives_a_crash_and_ends_when_it_is_told_to() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend)).await;
    let address = format!("http://{}", gateway.address());
    let pause = run(groupcast(gateway.home(), &["consumers", "pause", "views", "--url", &address])).await;
    assert!(pause.status.success(), "{pause:?}");
    let job = gateway.http().job("my_group", &json!({"type": "execute_query", "n": 1})).await;
    let home = gateway.kill().await;

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    http.job("my_group", &json!({"type": "other", "n": 2})).await;
    // The other consumer's job comes first, though it was sent last.
    let other = backend.call().await;
    assert_eq!(other.body["message"]["n"], json!(2));
    let views = entry(&http.get("/v1/consumers").await.expect(200), "views");
    assert_eq!((&views["paused"], &views["ready"], &views["running"]), (&json!(true), &json!(1), &json!(0)));
    let resumed = http.post("/v1/consumers/views/resume", &json!(null)).await.expect(200);
    assert_eq!(resumed["paused"], json!(false));
    let call = backend.call().await;
    assert_eq!(call.body["job"], json!(job));
    call.json(&json!(null)).await;
    assert_eq!(http.ended(&job).await["state"], json!("succeeded"));
    other.json(&json!(null)).await;
}

#[tokio::test]
async fn a_backend_that_is_not_public_needs_leave() {
    let backend = Backend::start().await;
    let home = Home::new(&config(&backend).replace("allow_private = true", ""));
    let (code, printed) = Gateway::refused(&home).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("consumer[0].url") && printed.contains("allow_private"), "{printed}");
    assert!(!printed.contains("whsec_") && !printed.contains("MfKQ"), "{printed}");
}

fn entry(list: &Value, name: &str) -> Value {
    let consumers = list["consumers"].as_array().expect("a list");
    consumers.iter().find(|entry| entry["name"] == json!(name)).expect("it is listed").clone()
}

/// Two consumers over one backend.
fn config(backend: &Backend) -> String {
    let url = format!("http://{}/jobs", backend.address());
    let consumer = |name: &str, kind: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\ngroup = \"my_group\"\ntype = \"{kind}\"\nrun = \"http\"\nurl = \"{url}\"\n\
             allow_private = true\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
        )
    };
    let views = consumer("views", "execute_query");
    let others = consumer("others", "other");
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n[jobs]\nretry_base = \"10ms\"\nretry_max = \"50ms\"\n{views}{others}"
    )
}
