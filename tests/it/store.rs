//! Which PostgreSQL servers jobs are kept on: one that keeps what it commits, and one that is who it says it is.

use std::process::Output;
use std::sync::Arc;

use groupcast_tests::gateway::groupcast;
use groupcast_tests::home::JOBS;
use groupcast_tests::{Gateway, Home, Postgres};
use serde_json::json;
use tokio::task::spawn_blocking;

#[tokio::test]
async fn a_server_without_fsync_is_no_place_for_what_is_to_be_on_disk() {
    let server = spawn_blocking(|| Postgres::start_with(&["fsync=off"])).await.expect("it starts");
    let home = Home::new(&config(&server.url(), "disk"));
    let (code, printed) = Gateway::refused(&home).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("set `fsync = on`") && printed.contains("durability = \"os\""), "{printed}");
    let checked = check(&home).await;
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.contains("jobs.store") && told.contains("set `fsync = on`"), "{told}");

    let home = Arc::new(Home::new(&config(&server.url(), "os")));
    let gateway = Gateway::start_in(Arc::clone(&home)).await;
    let work = json!({"type": "execute_query", "query": "numbers", "params": {"count": 3}});
    let job = gateway.http().job("my_group", &work).await;
    assert_eq!(gateway.http().ended(&job).await["state"], "succeeded");
    let checked = check(&home).await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[tokio::test]
async fn a_server_has_to_show_the_certificate_that_is_trusted_for_its_name() {
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name is all it needs");
    let (own, other) = (pair(), pair());
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let server = spawn_blocking(move || Postgres::start_with_tls(&certificate, &key)).await.expect("it starts");
    let url = |host: &str| {
        format!("postgres://postgres@{host}:{}/postgres?sslmode=verify-full&sslrootcert=ca.pem", server.port())
    };

    let home = Arc::new(Home::new(&config(&url("localhost"), "disk")));
    home.write("ca.pem", &own.cert.pem());
    let gateway = Gateway::start_in(home).await;
    let work = json!({"type": "execute_query", "query": "numbers", "params": {"count": 3}});
    let job = gateway.http().job("my_group", &work).await;
    assert_eq!(gateway.http().ended(&job).await["state"], "succeeded");
    let encrypted = "select count(*) > 0 and bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid)
        where application_name = 'groupcast'";
    assert_eq!(server.query(encrypted), "t");

    for (host, trusted) in [("localhost", other.cert.pem()), ("127.0.0.1", own.cert.pem())] {
        let home = Home::new(&config(&url(host), "disk"));
        home.write("ca.pem", &trusted);
        let (code, printed) = Gateway::refused(&home).await;
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("job store in PostgreSQL"), "{printed}");
        let checked = check(&home).await;
        assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    }
}

async fn check(home: &Home) -> Output {
    let mut command = groupcast(home, &["check", "--config"]);
    command.arg(home.config());
    spawn_blocking(move || command.output().expect("the binary can be started")).await.expect("no panic")
}

/// All consumers of the usual configuration, with this durability.
fn config(url: &str, durability: &str) -> String {
    let jobs = format!("[jobs]\nstore = \"postgres\"\nurl = \"{url}\"\n");
    let others = JOBS.lines().filter(|line| !line.starts_with("durability = "));
    let config = others.map(|line| format!("{line}\n")).collect::<String>();
    let config = config.replacen("[jobs]\n", &jobs, 1);
    config.replace("\nrun = ", &format!("\ndurability = \"{durability}\"\nrun = "))
}
