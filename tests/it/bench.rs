//! `groupcast bench`: its figures hold against a good gateway, and it sees what a bad one does.

mod fake;

use std::process::Output;

use groupcast_tests::gateway::{Process, groupcast, run};
use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Socket};
use rustix::process::Signal;
use serde_json::{Value, json};

use self::fake::{Fake, Fault};

#[tokio::test]
async fn figures_agree_with_each_other_and_nothing_is_lost() {
    let gateway = Gateway::start(BARE).await;
    let line = "--connections 50 --groups 5 --publishers 2 --duration 1s --json";
    let output = bench(gateway.home(), &url(&gateway), line).await;
    let figures = clean(&output);
    assert_eq!((&figures["connections"], &figures["connections_failed"]), (&json!(50), &json!(0)));
    let published = figures["published"].as_u64().expect("a number");
    assert!(published > 10, "{figures}");
    assert_eq!(figures["deliveries"], published * 10, "each message has ten readers: {figures}");
    for fault in ["lost", "told_missing", "duplicated", "reordered", "misrouted"] {
        assert_eq!(figures[fault], 0, "{fault}: {figures}");
    }
    for delays in ["connect_ms", "answer_ms", "delivery_ms"] {
        let at = |name: &str| figures[delays][name].as_f64().expect("a number");
        assert!(0.0 < at("p50") && at("p50") <= at("p90") && at("p90") <= at("p99"), "{delays}: {figures}");
        assert!(at("p99") <= at("p999") && at("p999") <= at("max"), "{delays}: {figures}");
    }
    // 128 bytes, and what is around them in a frame.
    assert!(figures["bytes"].as_u64() > Some(published * 10 * 128), "{figures}");
    assert!(figures["seconds"].as_f64().is_some_and(|s| (1.0..15.0).contains(&s)), "{figures}");
    // The gateway is a process of the same user on the same machine.
    assert_eq!(figures["server"]["name"], "groupcast", "{figures}");
    assert!(figures["server"]["rss_bytes"].as_u64() > Some(1 << 20), "{figures}");
    // Its connections are gone with it.
    let empty = || async { (gateway.http().get("/v1/groups").await.expect(200)["groups"] == json!([])).then_some(()) };
    eventually("the groups are empty", empty).await;
}

#[tokio::test]
async fn every_pace_loses_nothing_in_silence() {
    let gateway = Gateway::start(BARE).await;
    for line in [
        "--connections 20 --in-flight 1",
        "--connections 20 --groups 4 --publishers 2 --rate 200",
        "--connections 20 --publishers 4 --in-flight 16 --flood",
        "--connections 0",
    ] {
        let line = format!("{line} --duration 500ms --warmup 100ms --size 300 --json");
        let figures = clean(&bench(gateway.home(), &url(&gateway), &line).await);
        assert!(figures["published"].as_u64() > Some(5), "{line}: {figures}");
        assert_eq!(figures["errors"], json!({}), "{line}: {figures}");
    }
}

#[tokio::test]
async fn a_rate_is_kept() {
    let gateway = Gateway::start(BARE).await;
    let line = "--connections 2 --publishers 2 --rate 100 --duration 1s --warmup 0s --json";
    let figures = clean(&bench(gateway.home(), &url(&gateway), line).await);
    assert!((95..=101).contains(&figures["published"].as_u64().expect("a number")), "{figures}");
}

#[tokio::test]
async fn a_table_is_printed_for_people() {
    let home = Home::new(BARE);
    let output = run(groupcast(&home, &["bench", "--spawn", "--connections", "3", "--duration", "300ms"])).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for begin in [
        "connections   3 in 1 group",
        "published     ",
        "deliveries    ",
        "delivery      p50 ",
        "server        groupcast (",
    ] {
        assert!(table.lines().any(|line| line.starts_with(begin)), "`{begin}` is not in\n{table}");
    }
    assert!(table.contains("lost          0\n"), "{table}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "no progress where nobody looks");
}

#[tokio::test]
async fn accepted_work_is_measured_against_the_disk() {
    let home = Home::new(BARE);
    let line = ["bench", "jobs", "--clients", "4", "--duration", "500ms", "--durability", "disk", "--json"];
    let figures = clean(&run(groupcast(&home, &line)).await);
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!(number(&figures["disk"]["syncs_per_second"]) > 0.0, "{figures}");
    assert!(number(&figures["accepted"]) > 0.0 && number(&figures["times_the_disk"]) > 0.0, "{figures}");
    assert!(number(&figures["due"]) > 0.0, "{figures}");
    assert_eq!(figures["due"], figures["succeeded_at_once"], "{figures}");
    assert!(number(&figures["pickup_ms"]["p50"]) <= number(&figures["pickup_ms"]["p99"]), "{figures}");
    let left = std::fs::read_dir(home.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("groupcast-bench")), "nothing is left");
}

#[tokio::test]
async fn ctrl_c_ends_it_early_with_what_was_measured() {
    let gateway = Gateway::start(BARE).await;
    let url = url(&gateway);
    let arguments = ["bench", "--connections", "3", "--duration", "60s", "--warmup", "0s", "--url", &url];
    let mut process = Process::spawn(groupcast(gateway.home(), &arguments));
    let group = || async {
        let groups = gateway.http().get("/v1/groups?prefix=bench.").await.expect(200);
        groups["groups"][0]["group"].as_str().map(str::to_owned)
    };
    let group = eventually("it has subscribed", group).await;
    let mut socket = Socket::subscribed(&gateway, &[&group]).await;
    socket.message().await;
    process.signal(Signal::INT);
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.printed());
    let printed = || std::future::ready(process.printed().contains("note: ended before its time").then_some(()));
    eventually("the table is printed", printed).await;
    assert!(process.printed().contains("lost          0"), "{}", process.printed());
}

#[tokio::test]
async fn only_this_machine_is_loaded_unless_another_is_meant() {
    let home = Home::new(BARE);
    let output = bench(&home, "http://192.0.2.1:8000", "--duration 100ms").await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("--remote") && told(&output).contains("192.0.2.1"), "{}", told(&output));
}

#[tokio::test]
async fn without_a_gateway_it_says_what_to_do() {
    let home = Home::new(BARE);
    let output = bench(&home, "http://127.0.0.1:1", "--duration 100ms").await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    for words in ["http://127.0.0.1:1", "groupcast serve", "--spawn"] {
        assert!(told(&output).contains(words), "`{words}` is not in: {}", told(&output));
    }

    let gateway = Gateway::start(BARE).await;
    let output = bench(&home, &format!("{}/elsewhere", url(&gateway)), "--duration 100ms").await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("404"), "{}", told(&output));
}

#[tokio::test]
async fn a_gateway_that_drops_duplicates_or_swaps_is_found_out() {
    const READERS: u64 = 6;
    let cases = [
        (Fault::None, None),
        (Fault::Drop, Some("lost")),
        (Fault::Duplicate, Some("duplicated")),
        (Fault::Swap, Some("reordered")),
        (Fault::Stray, Some("misrouted")),
        (Fault::Hangup, Some("connections_failed")),
    ];
    let checks = cases.map(async |(fault, seen)| {
        let (code, figures) = against(fault).await;
        for counter in ["lost", "duplicated", "reordered", "misrouted", "connections_failed"] {
            // Of the two groups one is hit, and a stray comes to the other one.
            let expected = match (seen, fault) {
                (Some(name), Fault::Hangup) if name == counter => READERS,
                (Some(name), _) if name == counter => READERS / 2,
                _ => 0,
            };
            assert_eq!(figures[counter], expected, "{fault:?}, {counter}: {figures}");
        }
        assert_eq!(code, Some(i32::from(seen.is_some())), "{fault:?}: {figures}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn what_a_gateway_tells_is_not_held_against_it() {
    let (code, figures) = against(Fault::Gap).await;
    assert_eq!((code, &figures["lost"], &figures["told_missing"]), (Some(0), &json!(0), &json!(3)), "{figures}");
    let (code, figures) = against(Fault::Refuse).await;
    assert_eq!((code, &figures["lost"]), (Some(0), &json!(0)), "{figures}");
    assert_eq!(figures["errors"], json!({"overloaded": 1}), "{figures}");
}

/// A run against a fake with a fault: the exit code and the figures.
async fn against(fault: Fault) -> (Option<i32>, Value) {
    let fake = Fake::start(fault).await;
    let line = "--connections 6 --groups 2 --in-flight 4 --duration 500ms --warmup 0s --json";
    let output = bench(&Home::new(BARE), &fake.url(), line).await;
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", told(&output)));
    (output.status.code(), figures)
}

async fn bench(home: &Home, url: &str, line: &str) -> Output {
    let mut command = groupcast(home, &["bench"]);
    command.args(line.split_whitespace()).env("GROUPCAST_URL", url);
    run(command).await
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address())
}

/// The figures of a run that has to be clean.
fn clean(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
