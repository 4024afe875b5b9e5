//! The main job: somebody posts work to a group, and everybody in it gets the answer, once.

use groupcast_tests::home::{JOBS, WORST_OF_JFK};
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn one_line_of_work_reaches_three_subscribers_as_one_result() {
    let gateway = Gateway::start(JOBS).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Socket::subscribed(&gateway, &["my_group"]).await);
    }

    let http = gateway.http();
    let accepted = http.group_send("my_group", &json!({"type": "execute_query", "queryset_id": 7})).await;

    assert_eq!(accepted["group"], "my_group");
    assert_eq!((&accepted["members"], &accepted["existing"]), (&json!(3), &json!(false)), "{accepted}");
    assert_eq!(accepted["message_id"].as_str().map(str::len), Some(26), "{accepted}");
    let jobs = accepted["jobs"].as_array().expect("a list");
    assert_eq!(jobs.len(), 1, "{accepted}");
    assert_eq!((&jobs[0]["consumer"], &jobs[0]["durability"]), (&json!("queries"), &json!("disk")));
    let job = jobs[0]["id"].as_str().expect("an id");

    for reader in &mut readers {
        let result = reader.skip_to("job.result").await;
        check_worst_routes(&result["result"]);
        assert_eq!(
            (&result["job"], &result["consumer"], &result["attempt"]),
            (&json!(job), &json!("queries"), &json!(1))
        );
        assert!(result["elapsed_ms"].is_number(), "{result}");
    }
    let record = http.ended(job).await;
    assert_eq!((&record["state"], &record["attempt"]), (&json!("succeeded"), &json!(1)), "{record}");
    let all = http.get("/v1/jobs").await.expect(200);
    assert_eq!(all["jobs"].as_array().map(Vec::len), Some(1), "run once: {all}");
    for reader in &mut readers {
        assert_eq!(reader.pending().await, [] as [Value; 0], "nothing comes after the result");
    }
}

#[tokio::test]
async fn the_work_is_announced_started_and_answered_in_order() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let job = gateway.http().job("my_group", &worst_routes()).await;
    let started = reader.message_of("job.started").await;
    assert_eq!((&started["job"], &started["attempt"]), (&json!(job), &json!(1)));
    let result = reader.skip_to("job.result").await;
    assert_eq!(result["job"], json!(job));
}

#[tokio::test]
async fn with_nobody_listening_the_work_is_done_all_the_same() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let accepted = http.group_send("my_group", &worst_routes()).await;
    assert_eq!(accepted["members"], 0);
    let job = accepted["jobs"][0]["id"].as_str().expect("one job");
    let record = http.ended(job).await;
    check_record(&record, job);
    check_worst_routes(&http.get(&format!("/v1/jobs/{job}/result")).await.expect(200));
}

#[tokio::test]
async fn dots_and_underscores_of_a_type_are_one() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = http.job("my_group", &json!({"type": "execute.query", "query": "worst_routes"})).await;
    assert_eq!(http.ended(&job).await["state"], "succeeded");
}

#[tokio::test]
async fn what_no_consumer_claims_goes_to_the_subscribers() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group", "other"]).await;
    let http = gateway.http();
    // An unknown type, and a claimed type in a group where nobody claims it.
    for (group, message) in [("my_group", json!({"type": "no.such.thing", "n": 1})), ("other", worst_routes())] {
        let accepted = http.group_send(group, &message).await;
        assert_eq!((&accepted["members"], &accepted["jobs"]), (&json!(1), &json!([])), "{accepted}");
        let push = reader.expect("message").await;
        assert_eq!(push, json!({"type": "message", "group": group, "message": message}));
    }
}

#[tokio::test]
async fn work_is_not_shown_unless_the_consumer_says_both() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group", "watched.1"]).await;
    let http = gateway.http();

    let job = http.job("my_group", &worst_routes()).await;
    assert_eq!(reader.message_of("job.started").await["job"], json!(job), "the work itself is not shown");
    reader.skip_to("job.result").await;

    http.job("watched.1", &worst_routes()).await;
    let mut seen = [reader.message().await, reader.message().await, reader.message().await];
    seen.sort_by_key(|message| message["type"].to_string());
    assert_eq!(seen[0], worst_routes(), "both: the work is shown, and what came of it");
    assert_eq!((&seen[1]["type"], &seen[2]["type"]), (&json!("job.result"), &json!("job.started")));
}

#[tokio::test]
async fn work_that_is_shown_keeps_its_place_in_the_senders_order() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["watched.1"]).await;
    let chat = json!({"type": "chat"});
    let batch = json!([
        {"group": "watched.1", "message": worst_routes()},
        {"group": "watched.1", "message": chat},
    ]);
    gateway.http().post("/v1/send", &batch).await.expect(202);
    let mut shown = Vec::new();
    while shown.len() < 2 {
        let message = reader.message().await;
        if !message["type"].as_str().is_some_and(|kind| kind.starts_with("job.")) {
            shown.push(message);
        }
    }
    assert_eq!(shown, [worst_routes(), chat]);
}

#[tokio::test]
async fn reply_to_sends_the_answer_elsewhere() {
    let gateway = Gateway::start(JOBS).await;
    let mut asked = Socket::subscribed(&gateway, &["my_group"]).await;
    let mut answered = Socket::subscribed(&gateway, &["elsewhere"]).await;
    let mut alone = Socket::open(&gateway).await;
    let http = gateway.http();

    send_for(&http, "elsewhere").await;
    assert_eq!(answered.expect("message").await["group"], "elsewhere");
    check_worst_routes(&answered.skip_to("job.result").await["result"]);

    send_for(&http, &alone.channel.clone()).await;
    let started = alone.expect("message").await;
    assert_eq!((&started["channel"], &started["group"]), (&json!(alone.channel), &Value::Null), "{started}");
    check_worst_routes(&alone.skip_to("job.result").await["result"]);

    assert_eq!(asked.pending().await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_unique_key_makes_one_job_of_two_asks() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let work = json!({"type": "execute_query", "query": "worst_routes", "unique_key": "once", "delay_ms": 2000});
    let first = http.group_send("my_group", &work).await;
    let second = http.group_send("my_group", &work).await;
    assert_eq!(first["jobs"][0]["existing"], false);
    assert_eq!((&second["jobs"][0]["existing"], &second["jobs"][0]["id"]), (&json!(true), &first["jobs"][0]["id"]));
}

#[tokio::test]
async fn durability_says_what_a_job_survives() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    for (group, durability) in [("my_group", "disk"), ("kernel", "os"), ("fleeting", "memory")] {
        let accepted = http.group_send(group, &worst_routes()).await;
        assert_eq!(accepted["jobs"][0]["durability"], durability);
        let job = accepted["jobs"][0]["id"].as_str().expect("one job");
        let record = http.ended(job).await;
        assert_eq!((&record["state"], &record["durability"]), (&json!("succeeded"), &json!(durability)), "{record}");
    }
}

fn worst_routes() -> Value {
    json!({"type": "execute_query", "queryset_id": 7})
}

async fn send_for(http: &Http, reply_to: &str) {
    http.job("my_group", &json!({"type": "execute_query", "queryset_id": 7, "reply_to": reply_to})).await;
}

#[track_caller]
fn check_worst_routes(result: &Value) {
    assert_eq!(result["columns"], json!(["origin", "dest", "mean_delay"]), "{result}");
    let rows: Vec<Value> = WORST_OF_JFK.iter().map(|(dest, delay)| json!(["JFK", dest, delay])).collect();
    assert_eq!(result["rows"], json!(rows));
    assert_eq!((&result["row_count"], &result["truncated"]), (&json!(3), &json!(false)), "{result}");
}

#[track_caller]
fn check_record(record: &Value, job: &str) {
    let mut keys: Vec<&str> = record.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "attempt",
        "consumer",
        "durability",
        "enqueued_at",
        "error",
        "finished_at",
        "id",
        "max_attempts",
        "progress",
        "result",
        "started_at",
        "state",
        "type",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&record["id"], &record["type"]), (&json!(job), &json!("execute_query")));
    assert_eq!(
        (&record["state"], &record["error"], &record["max_attempts"]),
        (&json!("succeeded"), &json!(null), &json!(5))
    );
    for key in ["enqueued_at", "started_at", "finished_at"] {
        let time = record[key].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "RFC 3339, UTC, ms: {time}");
    }
    let result = &record["result"];
    assert_eq!((&result["rows"], &result["truncated"]), (&json!(3), &json!(false)), "{record}");
    assert!(result["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
    assert!(result["digest"].as_str().is_some_and(|digest| !digest.is_empty()), "{record}");
    assert_eq!(result["url"], format!("/v1/jobs/{job}/result"));
}
