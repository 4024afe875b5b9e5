//! What `/metrics` tells is what `docs/metrics.md` says, both ways: names, types and labels.

use std::collections::{BTreeMap, BTreeSet};

use groupcast_tests::home::JOBS;
use groupcast_tests::nats::Nats;
use groupcast_tests::redis::Redis;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Socket};
use serde_json::json;

/// Type and labels of each metric by its name, as a program asks for it.
type Table = BTreeMap<String, (String, BTreeSet<String>)>;

/// Backends that are not there, and a rate that is soon used up.
const MORE: &str = r#"
[limits]
group_rate = "1/s"
exempt_addresses = []

[[consumer]]
name = "backend"
group = "calls"
type = "call"
run = "http"
url = "http://127.0.0.1:1/"
allow_private = true
durability = "memory"
max_attempts = 1

[hooks]
url = "http://127.0.0.1:1/"
allow_private = true
events = ["subscribe"]
groups = ["private.*"]
"#;

#[tokio::test]
async fn the_table_of_metrics_is_what_gateways_tell() {
    let (redis, nats) = (Redis::start(&[]), Nats::start_jetstream(""));
    let redis = format!("kind = \"redis\"\nurl = \"{}\"\ndialect = \"channels_redis.core\"\n", redis.address());
    let nats = format!("kind = \"nats\"\nhosts = [\"{}\"]\ndialect = \"channels_nats\"\n", nats.address());
    let mut told = Table::new();
    for layer in [redis, nats] {
        let jobs = JOBS.replacen("[jobs]\n", "[jobs]\nsingle_gateway = true\n", 1);
        let gateway = Gateway::start(&format!("{jobs}\n[layer]\n{layer}{MORE}")).await;
        for (name, (kind, labels)) in of_text(&busy(&gateway).await) {
            let known = told.entry(name).or_insert_with(|| (kind, BTreeSet::new()));
            known.1.extend(labels);
        }
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let documented = of_page(&std::fs::read_to_string(page).expect("docs/metrics.md is there"));
    assert!(documented.len() > 80, "{} metrics were found in {page}", documented.len());
    let both: BTreeSet<&String> = documented.keys().chain(told.keys()).collect();
    let differences: Vec<String> = both
        .into_iter()
        .filter(|name| documented.get(*name) != told.get(*name))
        .map(|name| format!("{name}: documented {:?}, told {:?}", documented.get(name), told.get(name)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What a gateway tells once everything has happened that has to be counted to be there.
async fn busy(gateway: &Gateway) -> String {
    let http = gateway.http();
    http.post("/v1/queries/numbers", &json!({})).await;
    let call = http.job("calls", &json!({"type": "call"})).await;
    assert_eq!(http.ended(&call).await["state"], "dead");
    let mut socket = Socket::subscribed(gateway, &["room.1"]).await;
    socket.refused(json!({"type": "subscribe", "group": "private.1"}), "unavailable").await;
    socket.close().await;
    let over =
        || async { (http.post("/v1/groups/room.1/send", &json!({"type": "chat"})).await.status == 429).then_some(()) };
    eventually("a group gets more than it may", over).await;
    let paused = http.request("POST", "/v1/consumers/queries/pause", &[], Vec::new()).await;
    assert_eq!(paused.status, 200, "{}", paused.text());
    http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await;
    let all = || async {
        let text = http.get("/metrics").await.text();
        let counted = [
            "websockets_closed_total{",
            "backend_requests_total{",
            "hook_calls_total{",
            "job_run_seconds_count{",
            "jobs{",
            "refusals_total{",
        ];
        counted.iter().all(|name| text.contains(&format!("\ngroupcast_{name}"))).then_some(text)
    };
    eventually("all is counted", all).await
}

/// The rows of the page's tables: `| name | type | labels | …`.
fn of_page(page: &str) -> Table {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (format!("groupcast_{}", cells[1].trim_matches('`')), (cells[2].to_owned(), labels))
    })
    .collect()
}

fn of_text(text: &str) -> Table {
    let mut kinds = BTreeMap::new();
    let mut table = Table::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let told = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            table.insert(told.clone(), (kind.to_owned(), BTreeSet::new()));
            kinds.insert(name.to_owned(), told);
            continue;
        }
        let Some((series, _)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else { continue };
        let (series, labels) = series.split_once('{').unwrap_or((series, ""));
        let family =
            ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| kinds.get(series.strip_suffix(end)?));
        let family = kinds.get(series).or(family).unwrap_or_else(|| panic!("`{series}` has no type"));
        let names = labels.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"']).next());
        let names = names.filter(|name| !name.is_empty() && *name != "le" && *name != "}").map(str::to_owned);
        table.get_mut(family).expect("it was typed").1.extend(names);
    }
    table
}
