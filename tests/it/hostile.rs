//! Hostile jobs: each ends in an error of its own, and the others do not notice.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use groupcast_tests::gateway::{Process, example};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Http, Socket};
use rustix::process::Signal;
use serde_json::{Value, json};

/// One thread for all that computes: what holds it up for ever holds everything up.
const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[jobs]
cpu_threads = 1
lease = "2s"
retry_base = "10ms"
retry_max = "50ms"

[source.shop]
kind = "sqlite"
path = "source.db"
threads = 2

[[query]]
id = 1
name = "rows"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000000) select i from n"
timeout = "60s"
max_rows = 10000000
max_bytes = "1MiB"

[[query]]
id = 2
name = "endless"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
timeout = "300ms"

[[query]]
id = 3
name = "text"
source = "shop"
sql = "select printf('%.*c', 1073741824, 'x') as long"

[[query]]
id = 4
name = "replaced"
source = "shop"
sql = "select length(replace(hex(zeroblob(4000000)), '00', printf('%.*c', 1000, 'x'))) as long"

[[query]]
id = 5
name = "small"
source = "shop"
sql = "select count(*) as flights from flights"

[[consumer]]
name = "queries"
group = "work"
type = "execute_query"
run = "query"

[[consumer]]
name = "burner"
group = "work"
type = "burn"
run = "embedded"
durability = "os"

[[consumer]]
name = "aborter"
group = "work"
type = "abort"
run = "embedded"

[[consumer]]
name = "deaf"
group = "work"
type = "shout"
run = "embedded"
timeout = "1s"

[[consumer]]
name = "mute"
group = "work"
type = "hang"
run = "embedded"
timeout = "10m"
"#;

#[tokio::test]
async fn a_job_that_aborts_the_process_is_dead_after_three_crashes() {
    let home = Arc::new(Home::new(CONFIG));
    let gateway = Gateway::start_example("hostile_jobs", home.clone()).await;
    let http = gateway.http();
    let good = http.job("work", &json!({"type": "burn", "ms": 5, "delay_ms": 2000})).await;
    // Later, so that its acceptance is told before the process is gone.
    let bad = http.job("work", &json!({"type": "abort", "max_attempts": 50, "delay_ms": 1000})).await;
    let (code, _home) = gateway.ended().await;
    assert_eq!(code, None, "it aborted");
    for _ in 0..2 {
        let mut process = Process::spawn(example("hostile_jobs", &home));
        assert_eq!(process.ended().await.signal(), Some(Signal::ABORT.as_raw()), "{}", process.printed());
    }
    let gateway = Gateway::start_example("hostile_jobs", home).await;
    let record = gateway.http().ended(&bad).await;
    assert_eq!((&record["state"], &record["attempt"]), (&json!("dead"), &json!(3)), "{record}");
    check_error(&record, "worker_lost", "crash");
    assert_eq!(gateway.http().ended(&good).await["state"], "succeeded");
}

#[tokio::test]
async fn work_that_does_not_listen_or_hangs_is_given_up_and_its_thread_replaced() {
    let gateway = Gateway::start_example("hostile_jobs", Arc::new(Home::new(CONFIG))).await;
    let http = gateway.http();
    let mut client = Socket::open(&gateway).await;

    let deaf = http.job("work", &json!({"type": "shout", "max_attempts": 1})).await;
    let record = http.ended(&deaf).await;
    check_error(&record, "timeout", "timeout");
    lost_threads(&http, 1).await;
    check_burning(&http).await;

    let mute = http.job("work", &json!({"type": "hang", "max_attempts": 50})).await;
    let record = http.ended(&mute).await;
    assert_eq!(record["attempt"], 3, "{record}");
    check_error(&record, "worker_lost", "crash");
    lost_threads(&http, 4).await;
    assert!(metric(&http, "groupcast_jobs_hung_total").await >= 3);
    check_burning(&http).await;
    assert_eq!(client.command(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn queries_that_want_too_much_are_stopped_each_by_its_own_limit() {
    let gateway = Gateway::start_example("hostile_jobs", Arc::new(Home::new(CONFIG))).await;
    let http = gateway.http();
    let ask = async |query: &str| {
        http.job("work", &json!({"type": "execute_query", "query": query, "max_attempts": 1})).await
    };
    let (rows, endless) = (ask("rows").await, ask("endless").await);
    let (text, replaced) = (ask("text").await, ask("replaced").await);
    let small: Vec<String> = futures_util::future::join_all((0..10).map(|_| ask("small"))).await;

    let record = http.ended(&rows).await;
    assert_eq!((&record["state"], &record["result"]["truncated"]), (&json!("succeeded"), &json!(true)), "{record}");
    let bytes = record["result"]["bytes"].as_u64().expect("a number");
    assert!((1 << 19..=1 << 20).contains(&bytes), "as much as the budget allows: {record}");
    check_error(&http.ended(&endless).await, "timeout", "timeout");
    for job in [text, replaced] {
        let record = http.ended(&job).await;
        check_error(&record, "query_failed", "permanent");
        assert!(record["error"]["message"].as_str().is_some_and(|text| text.contains("too big")), "{record}");
    }
    for job in small {
        assert_eq!(http.ended(&job).await["state"], "succeeded", "the others do not notice");
    }
    let resident = gateway.usage().resident_bytes;
    assert!(resident < 512 << 20, "nothing of a gibibyte was made: {resident}");
}

#[track_caller]
fn check_error(record: &Value, code: &str, class: &str) {
    assert_eq!(record["state"], "dead", "{record}");
    assert_eq!((&record["error"]["code"], &record["error"]["class"]), (&json!(code), &json!(class)), "{record}");
}

/// So many threads were given up and replaced.
async fn lost_threads(http: &Http, wanted: u64) {
    let lost = || async { (metric(http, "groupcast_jobs_threads_lost_total").await >= wanted).then_some(()) };
    eventually("a thread is replaced", lost).await;
}

/// Work that computes is done.
async fn check_burning(http: &Http) {
    let job = http.job("work", &json!({"type": "burn", "ms": 5})).await;
    assert_eq!(http.ended(&job).await["state"], "succeeded");
}

async fn metric(http: &Http, name: &str) -> u64 {
    let text = http.get("/metrics").await.text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no metric `{name}`"))
}
