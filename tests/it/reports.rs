//! Reports: rows become a file on the CPU pool, with progress on the way and a url at the end.

use groupcast_tests::home::JOBS;
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn an_html_report_is_made_with_progress() {
    let (gateway, messages) = report(json!({"format": "html"})).await;
    let progress: Vec<&Value> = messages.iter().filter(|message| message["type"] == "job.progress").collect();
    assert!(!progress.is_empty(), "{messages:?}");
    let done: Vec<u64> = progress.iter().map(|event| event["done"].as_u64().expect("a count")).collect();
    assert!(done.is_sorted(), "progress goes forward: {done:?}");
    assert!(progress.iter().all(|event| event["total"].is_number() && event["unit"].is_string()), "{progress:?}");

    let page = gateway.http().get_as(url(&messages), "text/html").await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{:?}", page.headers);
    assert!(page.text().contains("<table"), "{}", page.text());
    assert!(page.text().contains("5000"), "the last row is there");
}

#[tokio::test]
async fn a_csv_report_holds_every_row() {
    let (gateway, messages) = report(json!({"format": "csv"})).await;
    let table = gateway.http().get_as(url(&messages), "text/csv").await;
    let lines: Vec<String> = table.text().lines().map(str::to_owned).collect();
    assert_eq!((lines[0].as_str(), lines.len()), ("i,square", 5001), "{:?}", &lines[..3.min(lines.len())]);
    assert_eq!(lines[5000], "5000,25000000");
}

#[tokio::test]
async fn a_report_of_nothing_known_is_refused_before_it_is_stored() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    for (work, code) in [
        (json!({"type": "generate_report", "queryset_id": 99}), "unknown_query"),
        (json!({"type": "generate_report", "query": "numbers", "format": "pdf"}), "bad_params"),
        (json!({"type": "generate_report"}), "bad_params"),
    ] {
        http.post("/v1/groups/my_group/send", &work).await.problem(422, code);
    }
    assert_eq!(http.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
}

/// Messages of a report's job up to its result.
async fn report(extra: Value) -> (Gateway, Vec<Value>) {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let mut work = json!({"type": "generate_report", "query": "numbers", "params": {"count": 5000}});
    work["format"] = extra["format"].clone();
    let job = gateway.http().job("my_group", &work).await;
    let mut messages = Vec::new();
    loop {
        let message = reader.message().await;
        assert_eq!((&message["job"], &message["consumer"]), (&json!(job), &json!("reports")), "{message}");
        let kind = message["type"].as_str().expect("a type").to_owned();
        assert_ne!(kind, "job.failed", "{message}");
        messages.push(message);
        if kind == "job.result" {
            return (gateway, messages);
        }
    }
}

fn url(messages: &[Value]) -> &str {
    let last = messages.last().expect("there is a result");
    last["url"].as_str().unwrap_or_else(|| panic!("a report comes as a url: {last}"))
}
