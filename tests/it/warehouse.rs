//! Named queries of a PostgreSQL source: shared by a thousand asks, stopped on the server, checked before anything starts.

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Postgres, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn a_thousand_identical_asks_are_one_query_and_a_thousand_answers() {
    let url = warehouse();
    let gateway = Gateway::start(&config(&url)).await;
    let http = gateway.http();
    let message = json!({"group": "my_group", "message": {"type": "execute_query", "query": "gated"}});
    let sent = http.post("/v1/send", &Value::from(vec![message; 1000])).await.expect(202);
    assert_eq!(sent["results"].as_array().map(Vec::len), Some(1000));
    let shared = || async { metric(&gateway, "groupcast_jobs_coalesced_total 999").await.then_some(()) };
    eventually("all of them wait for one", shared).await;
    assert_eq!(running(&url), "1", "the server has one of them");

    psql(&url, "insert into gate values (7)");
    let ended = || async { metric(&gateway, "groupcast_jobs_succeeded_total 1000").await.then_some(()) };
    eventually("all of them are answered", ended).await;
    let jobs = http.get("/v1/jobs?state=succeeded&limit=500").await.expect(200);
    let jobs = jobs["jobs"].as_array().expect("a list").clone();
    assert_eq!(jobs.len(), 500);
    for job in [&jobs[0], &jobs[250], &jobs[499]] {
        let rows = http.get(job["result"]["url"].as_str().expect("a result")).await.expect(200);
        assert_eq!(rows["rows"], json!([[7]]), "{job}");
    }
    assert!(metric(&gateway, "groupcast_jobs_claimed_total 1000").await, "each was tried once");
}

#[tokio::test]
async fn a_query_that_nobody_wants_any_more_is_stopped_on_the_server() {
    let url = warehouse();
    let gateway = Gateway::start(&config(&url)).await;
    let mut asker = Socket::open(&gateway).await;
    asker.command(json!({"type": "query", "name": "gated"})).await;
    let runs = || async { (running(&url) == "1").then_some(()) };
    eventually("the server runs it", runs).await;
    asker.close().await;
    let stopped = || async { (running(&url) == "0").then_some(()) };
    eventually("the server has stopped it", stopped).await;
}

#[tokio::test]
async fn check_prepares_every_query_against_the_server() {
    let url = warehouse();
    let check = async |config: &str| {
        let home = Home::new(config);
        let output = run(groupcast(&home, &["check", "--config", &home.config().to_string_lossy()])).await;
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    assert_eq!(check(&config(&url)).await.0, Some(0));
    let (code, told) = check(&config(&url).replace("select gate() as n", "select nope from gate")).await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("query.gated.sql") && told.contains("nope"), "{told}");
    let (code, told) = check(&config("postgres://me:hidden@127.0.0.1:1/none")).await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("source.warehouse.url") && !told.contains("hidden"), "{told}");
}

/// A database with a function that returns when somebody has put a number into a table.
fn warehouse() -> String {
    let url = Postgres::shared().database();
    psql(
        &url,
        "create table gate (n int); create function gate() returns int language plpgsql as $$
         begin
            loop
                if exists (select 1 from gate) then return (select n from gate); end if;
                perform pg_sleep(0.01);
            end loop;
         end $$",
    );
    url
}

fn psql(url: &str, sql: &str) -> String {
    Postgres::shared().query_in(url, sql)
}

/// How many of the queries the server runs.
fn running(url: &str) -> String {
    psql(
        url,
        "select count(*) from pg_stat_activity where state = 'active' and query like '%gate()%'
         and datname = current_database() and pid <> pg_backend_pid()",
    )
}

async fn metric(gateway: &Gateway, line: &str) -> bool {
    gateway.http().get("/metrics").await.text().lines().any(|found| found == line)
}

fn config(url: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[source.warehouse]
kind = "postgres"
url = "{url}"
pool = 2

[[query]]
id = 1
name = "gated"
source = "warehouse"
sql = "select gate() as n"
timeout = "60s"

[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"
durability = "os"
coalesce = true
concurrency = 2
"#
    )
}
