//! Schedules: messages that are sent by the clock, as work and as news.

use std::sync::Arc;

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::home::JOBS;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Socket};
use serde_json::{Value, json};

const SCHEDULES: &str = r#"
[[schedule]]
name = "often"
cron = "* * * * * *"
group = "my_group"
message = { type = "execute_query", query = "numbers", params = { count = 3 } }
catch_up = "one"

[[schedule]]
name = "news"
cron = "* * * * * *"
group = "news"
message = { type = "tick", list = [1, "a"] }

[[schedule]]
name = "night"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
group = "my_group"
message = { type = "generate_report", query = "worst_routes" }
"#;

#[tokio::test]
async fn ticks_are_work_for_consumers_and_news_for_sockets() {
    let gateway = Gateway::start(&format!("{JOBS}{SCHEDULES}")).await;
    let mut reader = Socket::subscribed(&gateway, &["news"]).await;
    let mut asker = Socket::subscribed(&gateway, &["my_group"]).await;
    assert_eq!(reader.message().await, json!({"type": "tick", "list": [1, "a"]}));
    let result = asker.skip_to("job.result").await;
    assert_eq!(result["result"]["row_count"], 3, "{result}");
    let listed = gateway.http().get("/v1/schedules").await.expect(200);
    let schedules = listed["schedules"].as_array().expect("a list");
    let names: Vec<&Value> = schedules.iter().map(|schedule| &schedule["name"]).collect();
    assert_eq!(names, ["often", "news", "night"]);
    assert!(schedules[0]["last"].is_string() && schedules[0]["next"].is_string(), "{listed}");
    assert_eq!((&schedules[2]["last"], &schedules[2]["timezone"]), (&json!(null), &json!("Europe/Berlin")), "{listed}");

    let mut command = groupcast(gateway.home(), &["schedules"]);
    command.env("GROUPCAST_URL", format!("http://{}", gateway.address()));
    let output = run(command).await;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(table.contains("30 2 * * *") && table.contains("Europe/Berlin"), "{table}");
}

#[tokio::test]
async fn each_tick_is_one_job_also_over_restarts() {
    let mut home = Arc::new(Home::new(&format!("{JOBS}{SCHEDULES}")));
    for round in 1..=3 {
        let gateway = Gateway::start_in(home).await;
        let http = gateway.http();
        let enough = || async {
            let page = http.get("/v1/jobs?consumer=queries&limit=1000").await.expect(200);
            (page["jobs"].as_array().map(Vec::len) > Some(round * 2)).then_some(())
        };
        eventually("there are some ticks", enough).await;
        home = gateway.kill().await;
    }
    let gateway = Gateway::start_in(home).await;
    let page = gateway.http().get("/v1/jobs?consumer=queries&limit=1000").await.expect(200);
    let times = page["jobs"].as_array().expect("a list").iter();
    let mut seconds: Vec<&str> = times.map(|job| job["enqueued_at"].as_str().expect("a time")).collect();
    // A tick is stored within its second, or later if it was made up for: never two for one second.
    seconds.sort_unstable();
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    let passed = seconds_between(first, last).expect("times are RFC 3339");
    assert!(seconds.len() as u64 <= passed + 2, "{} jobs in {passed} s: {seconds:?}", seconds.len());
}

#[tokio::test]
async fn check_prints_when_schedules_tick_and_refuses_what_is_wrong() {
    let home = Home::new(&format!("{JOBS}{SCHEDULES}"));
    let output = run(groupcast(&home, &["check", "--config", "groupcast.toml"])).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let line = told.lines().find(|line| line.contains("`night`")).expect("a line for each schedule");
    assert_eq!(line.matches("Z").count(), 3, "{line}");

    let wrong = [
        ("cron = \"30 2 * * *\"", "cron = \"30 25 * * *\"", "schedule[2].cron"),
        ("cron = \"30 2 * * *\"", "cron = \"0 0 30 2 *\"", "never comes"),
        ("Europe/Berlin", "Europe/Berlim", "schedule[2].timezone"),
        ("{ type = \"tick\", list = [1, \"a\"] }", "{ text = \"tick\" }", "schedule[1].message"),
        ("{ type = \"tick\", list = [1, \"a\"] }", "{ type = \"job.tick\" }", "schedule[1].message"),
        ("group = \"news\"", "group = \"no news\"", "schedule[1].group"),
        ("name = \"news\"", "name = \"night\"", "schedule[2].name"),
    ];
    for (right, other, expected) in wrong {
        let home = Home::new(&format!("{JOBS}{SCHEDULES}").replace(right, other));
        let output = run(groupcast(&home, &["check", "--config", "groupcast.toml"])).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{other}: {told}");
        assert!(told.contains(expected), "{other}: {told}");
    }
}

/// Whole seconds between two times of one day, or of two neighbouring ones.
fn seconds_between(first: &str, last: &str) -> Option<u64> {
    let second = |text: &str| -> Option<u64> {
        let (_, clock) = text.split_once('T')?;
        let mut parts = clock.trim_end_matches('Z').split(['.', ':']).map(|part| part.parse::<u64>().ok());
        Some(parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
    };
    let (first, last) = (second(first)?, second(last)?);
    Some(if last >= first { last - first } else { last + 86_400 - first })
}
