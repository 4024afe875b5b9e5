//! The rows of a query as JSON, NDJSON and CSV, in pages, within limits.

use groupcast_tests::home::JOBS;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn one_result_has_three_faces() {
    let (gateway, path) = result_of(json!({"query": "numbers", "params": {"count": 3}})).await;
    let http = gateway.http();

    let json = http.get_as(&path, "application/json").await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    let expected =
        json!({"columns": ["i", "square"], "rows": [[1, 1], [2, 4], [3, 9]], "row_count": 3, "truncated": false});
    assert_eq!(json.expect(200), expected);

    let lines = http.get_as(&path, "application/x-ndjson").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let rows: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    assert_eq!(rows.len(), 3, "{}", lines.text());

    let csv = http.get_as(&path, "text/csv").await;
    assert!(csv.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")), "{csv:?}");
    let table: Vec<String> = csv.text().lines().map(str::to_owned).collect();
    assert_eq!(table, ["i,square", "1,1", "2,4", "3,9"]);

    http.get_as(&path, "image/png").await.problem(406, "not_acceptable");
    let best = http.get_as(&path, "text/csv;q=0.1, application/json").await;
    assert_eq!(best.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_result_from_the_cache_says_how_old_it_is() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let draw = async |message: Value| {
        let job = http.job("my_group", &message).await;
        let record = http.ended(&job).await;
        let reply = http.get(&format!("/v1/jobs/{job}/result")).await;
        let age = reply.header("age").map(str::to_owned);
        (record["result"]["age_ms"].as_u64(), age, reply.expect(200)["rows"][0][0].clone())
    };
    let ask =
        |max_stale_ms: Option<u64>| json!({"type": "execute_query", "query": "drawn", "max_stale_ms": max_stale_ms});
    let (age_ms, age, lot) = draw(ask(None)).await;
    assert_eq!((age_ms, age), (None, None), "made for this ask");
    let (age_ms, age, again) = draw(ask(None)).await;
    assert!(age_ms.is_some() && age.is_some_and(|age| age.parse::<u64>().is_ok()), "not made for this one");
    assert_eq!(again, lot);
    let (age_ms, _, fresh) = draw(ask(Some(0))).await;
    assert!(age_ms.is_none() && fresh != lot, "a fresh one was asked for");

    let mut asker = Socket::open(&gateway).await;
    asker.command(json!({"type": "query", "name": "drawn", "params": {"max_stale_ms": 600_000}})).await;
    let event = asker.skip_to("job.result").await;
    assert!(event["age_ms"].is_u64(), "{event}");
    assert_eq!(event["result"]["rows"], json!([[fresh]]));
}

#[tokio::test]
async fn a_result_is_read_in_pages() {
    let (gateway, path) = result_of(json!({"query": "numbers", "params": {"count": 25}})).await;
    let http = gateway.http();
    let mut all = Vec::new();
    for offset in [0, 10, 20] {
        let page = http.get(&format!("{path}?offset={offset}&limit=10")).await.expect(200);
        assert_eq!(page["row_count"], 25, "of the whole result: {page}");
        all.extend(page["rows"].as_array().expect("rows").iter().map(|row| row[0].clone()));
    }
    assert_eq!(all, (1..=25).map(|n| json!(n)).collect::<Vec<_>>());
    let beyond = http.get(&format!("{path}?offset=25")).await.expect(200);
    assert_eq!(beyond["rows"], json!([]));
}

#[tokio::test]
async fn values_of_sql_keep_their_type_and_every_digit() {
    let (gateway, path) = result_of(json!({"query": "kinds"})).await;
    let http = gateway.http();
    let text = http.get(&path).await.text();
    // Read as text: a reader that makes doubles of integers would hide a lost digit.
    assert!(text.contains("9007199254740993"), "{text}");
    assert!(text.contains("-9223372036854775808"), "{text}");
    let rows = http.get(&path).await.expect(200)["rows"].clone();
    assert_eq!(rows[0], json!([null, 9_007_199_254_740_993_i64, 0.1, "Ünïcode \"quoted\", comma\nline", 1]));
    assert_eq!(rows[1], json!([null, i64::MIN, -1e300, "", 0]));

    let csv = http.get_as(&path, "text/csv").await.text();
    assert!(csv.contains("\"Ünïcode \"\"quoted\"\", comma\nline\""), "{csv}");
    assert!(csv.contains("9007199254740993,0.1,"), "{csv}");
}

#[tokio::test]
async fn limits_cut_visibly() {
    for (work, rows) in [
        (json!({"query": "capped"}), 3),
        (json!({"query": "numbers", "params": {"count": 9}, "limit": 4}), 4),
        // A limit of the asker caps the query's own, and never raises it.
        (json!({"query": "capped", "limit": 100}), 3),
    ] {
        let (gateway, path) = result_of(work.clone()).await;
        let result = gateway.http().get(&path).await.expect(200);
        assert_eq!(result["rows"].as_array().map(Vec::len), Some(rows), "{work}: {result}");
        assert_eq!((&result["row_count"], &result["truncated"]), (&json!(rows), &json!(true)), "{work}: {result}");
    }
}

#[tokio::test]
async fn a_large_result_travels_as_a_url() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let job = ask(&http, json!({"query": "numbers", "params": {"count": 10_000}})).await;
    let event = reader.skip_to("job.result").await;
    assert_eq!((&event["job"], &event["result"]), (&json!(job), &Value::Null), "{event}");
    let url = event["url"].as_str().expect("more than 64 KiB come as a url");
    let result = http.get(url).await.expect(200);
    assert_eq!((&result["row_count"], &result["rows"][9_999]), (&json!(10_000), &json!([10_000, 100_000_000])));
}

async fn result_of(work: Value) -> (Gateway, String) {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = ask(&http, work).await;
    let record = http.ended(&job).await;
    assert_eq!(record["state"], "succeeded", "{record}");
    (gateway, format!("/v1/jobs/{job}/result"))
}

async fn ask(http: &Http, mut work: Value) -> String {
    work["type"] = json!("execute_query");
    http.job("my_group", &work).await
}
