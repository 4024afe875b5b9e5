//! The command line, as somebody at a terminal uses it.

use std::process::Output;

use groupcast_tests::gateway::{Process, groupcast, run};
use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn check_says_yes_to_a_good_configuration() {
    let home = Home::new(JOBS);
    let output = groupcast_in(&home, &["check", "--config", "groupcast.toml"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

#[tokio::test]
async fn check_names_file_key_and_the_nearest_known_key() {
    for (config, words) in [
        (BARE.replace("data_dir", "data_dri"), &["server.data_dri", "did you mean `data_dir`"][..]),
        (format!("{BARE}\n[limts]\nconnections = 5\n"), &["limts", "did you mean `limits`"]),
        (format!("{BARE}\n[limits]\nmessage_bytes = \"lots\"\n"), &["limits.message_bytes", "lots"]),
        (BARE.replace("127.0.0.1:0", "nowhere"), &["server.listen", "nowhere"]),
        (JOBS.replace("id = 1\n", "id = 7\n"), &["query[6].id", "7"]),
        (JOBS.replace("source = \"shop\"", "source = \"shp\""), &["query[0].source", "did you mean `shop`"]),
        (JOBS.replace("from kinds", "from kind"), &["kinds", "no such table"]),
        (JOBS.replace("from kinds", "from kinds; drop table kinds"), &["kinds"]),
        (JOBS.replace("path = \"source.db\"", "path = \"missing.db\""), &["shop", "missing.db"]),
        ("[server".to_owned(), &["line 1"]),
    ] {
        let home = Home::new(&config);
        let output = groupcast_in(&home, &["check", "--config", "groupcast.toml"]).await;
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{config}\n{told}");
        assert!(told.contains("groupcast.toml"), "names the file: {told}");
        for word in words {
            assert!(told.contains(word), "`{word}` is not in: {told}");
        }
    }
}

#[tokio::test]
async fn a_broker_need_not_be_there_to_be_fine() {
    for layer in ["kind = \"redis\"\nurl = \"redis://127.0.0.1:1/0\"", "kind = \"nats\"\nurl = \"nats://127.0.0.1:1\""]
    {
        let home = Home::new(&format!("[layer]\n{layer}\n"));
        let output = groupcast_in(&home, &["check", "--config", "groupcast.toml"]).await;
        assert_eq!(output.status.code(), Some(0), "{layer}: {output:?}");
    }
}

#[tokio::test]
async fn what_no_start_would_take_is_no_fine_configuration() {
    let work =
        "[[consumer]]\nname = \"c\"\ngroup = \"g\"\ntype = \"t\"\nrun = \"http\"\nurl = \"https://example.com/\"\n";
    for (config, key) in [
        ("[layer]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:notaport/0\"\n".to_owned(), "layer.url"),
        (format!("[server]\ndata_dir = \"groupcast.toml\"\n{work}"), "server.data_dir"),
    ] {
        let home = Home::new(&config);
        let checked = groupcast_in(&home, &["check", "--config", "groupcast.toml"]).await;
        assert_eq!(checked.status.code(), Some(2), "{config}");
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(told.contains(key), "{told}");
        let listen = ["serve", "--config", "groupcast.toml", "--listen", "127.0.0.1:0"];
        let served = groupcast_in(&home, &listen).await;
        assert!(matches!(served.status.code(), Some(1 | 2)), "{served:?}");
    }
    let home = Home::new("[layer]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:notaport/0\"\n");
    let served = groupcast_in(&home, &["serve", "--config", "groupcast.toml"]).await;
    assert_eq!(served.status.code(), Some(2), "a supervisor is not to try it again");
}

#[tokio::test]
async fn check_prints_the_effective_configuration() {
    let home = Home::new(BARE);
    let output = groupcast_in(&home, &["check", "--config", "groupcast.toml", "--print"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    for line in ["[limits]", "message_bytes", "subscriptions_per_connection", "log_bytes"] {
        assert!(printed.contains(line), "`{line}` is not in: {printed}");
    }
}

#[tokio::test]
async fn the_environment_and_flags_win_over_the_file() {
    let home = Home::new(BARE);
    let mut command = groupcast(&home, &["check", "--config", "groupcast.toml", "--print"]);
    command.env("GROUPCAST_LIMITS__CONNECTIONS", "4321");
    let output = run(command).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("connections = 4321"), "{}", told(&output));

    let mut command = groupcast(&home, &["check", "--config", "groupcast.toml"]);
    command.env("GROUPCAST_LIMITS__CONECTIONS", "4321");
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("GROUPCAST_LIMITS__CONECTIONS"), "{}", told(&output));
}

#[tokio::test]
async fn bad_usage_exits_with_2_and_a_gateway_that_is_not_there_with_1() {
    let home = Home::new(BARE);
    for arguments in [
        &[][..],
        &["dance"],
        &["serve", "--frobnicate"],
        &["send", "g"],
        &["send", "g", "{"],
        &["send", "a b", r#"{"type":"x"}"#],
        &["subscribe"],
        &["query", "numbers", "count"],
        &["jobs", "get", "no-id"],
        &["demo", "--listen", "nowhere"],
        &["serve", "--config", "missing.toml"],
    ] {
        let output = groupcast_in(&home, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(!told(&output).is_empty(), "{arguments:?} says nothing");
    }
    let output = groupcast_in(&home, &["send", "g", r#"{"type":"x"}"#, "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert_eq!(groupcast_in(&home, arguments).await.status.code(), Some(0), "{arguments:?}");
    }
}

#[tokio::test]
async fn health_is_an_exit_code() {
    let gateway = Gateway::start(BARE).await;
    for arguments in [&["health"][..], &["health", "--live"]] {
        assert!(answer(&gateway, arguments).await.contains("\"status\":\"ok\""));
    }
    let url = format!("http://{}", gateway.address());
    let home = gateway.kill().await;
    let output = groupcast_in(&home, &["health", "--live", "--url", &url]).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
}

#[tokio::test]
async fn send_and_subscribe_meet() {
    let gateway = Gateway::start(JOBS).await;
    let url = format!("http://{}", gateway.address());
    let mut command = groupcast(gateway.home(), &["subscribe", "my_group", "--count", "1"]);
    command.env("GROUPCAST_URL", &url);
    let mut subscriber = Process::spawn(command);
    let http = gateway.http();
    let joined = || async { (http.get("/v1/groups/my_group").await.expect(200)["members"] == 1).then_some(()) };
    eventually("the terminal is subscribed", joined).await;

    let sent = answer(&gateway, &["send", "my_group", r#"{"type":"chat","text":"hello"}"#]).await;
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!(sent["members"], 1, "{sent}");

    assert_eq!(subscriber.ended().await.code(), Some(0));
    let push = || {
        let line = subscriber.printed().lines().find(|line| line.starts_with('{')).map(str::to_owned);
        std::future::ready(line)
    };
    let push: Value = serde_json::from_str(&eventually("the push is printed", push).await).expect("JSON");
    assert_eq!(push["message"], json!({"type": "chat", "text": "hello"}), "{push}");
}

#[tokio::test]
async fn a_live_query_is_followed_and_asked_again() {
    let live = JOBS.replace("name = \"numbers\"", "name = \"numbers\"\ntags = [\"numbers\"]");
    let gateway = Gateway::start(&live).await;
    let mut command = groupcast(gateway.home(), &["subscribe", "--query", "numbers", "count=2", "--count", "1"]);
    command.env("GROUPCAST_URL", format!("http://{}", gateway.address()));
    let mut subscriber = Process::spawn(command);
    assert_eq!(subscriber.ended().await.code(), Some(0), "{}", subscriber.printed());
    let push = subscriber.printed().lines().find(|line| line.starts_with('{')).map(str::to_owned);
    let push: Value = serde_json::from_str(&push.expect("the push is printed")).expect("JSON");
    assert_eq!(push["message"]["rows"], json!([[1, 1], [2, 4]]), "{push}");

    let told = answer(&gateway, &["invalidate", "numbers", "others"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["invalidated"]["queries"], 1, "{told}");
    let refused = ask(&gateway, &["subscribe", "--query", "kinds"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[tokio::test]
async fn query_prints_rows_as_a_table_as_json_and_as_csv() {
    let gateway = Gateway::start(JOBS).await;
    let table = answer(&gateway, &["query", "worst_routes", "origin=JFK"]).await;
    for word in ["dest", "mean_delay", "ORD", "15.5"] {
        assert!(table.contains(word), "{table}");
    }
    let rows: Value =
        serde_json::from_str(&answer(&gateway, &["query", "numbers", "count=2", "--json"]).await).expect("JSON");
    assert_eq!(rows["rows"], json!([[1, 1], [2, 4]]));
    let csv = answer(&gateway, &["query", "numbers", "count=2", "--csv"]).await;
    assert_eq!(csv.lines().collect::<Vec<_>>(), ["i,square", "1,1", "2,4"]);

    for (arguments, word) in [
        (&["query", "worst_rout"][..], "worst_routes"),
        (&["query", "numbers", "count=x"], "count"),
        (&["query", "broken"], "overflow"),
    ] {
        let output = ask(&gateway, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(word), "`{word}` is not in: {}", told(&output));
    }
}

#[tokio::test]
async fn jobs_are_listed_shown_cancelled_and_redriven() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let done = http.job("my_group", &json!({"type": "execute_query", "queryset_id": 7})).await;
    let dead = http.job("my_group", &json!({"type": "execute_query", "query": "broken"})).await;
    let late = http.job("my_group", &json!({"type": "execute_query", "query": "numbers", "delay_ms": 3_600_000})).await;
    http.ended(&done).await;
    http.ended(&dead).await;

    let all = answer(&gateway, &["jobs", "list"]).await;
    assert!([&done, &dead, &late].iter().all(|id| all.contains(id.as_str())), "{all}");
    assert_eq!(answer(&gateway, &["jobs"]).await.lines().count(), all.lines().count());
    let some = answer(&gateway, &["jobs", "list", "--state", "dead"]).await;
    assert!(some.contains(&dead) && !some.contains(&done), "{some}");
    let one: Value = serde_json::from_str(&answer(&gateway, &["jobs", "get", &done, "--json"]).await).expect("JSON");
    assert_eq!(one, http.get(&format!("/v1/jobs/{done}")).await.expect(200));

    answer(&gateway, &["jobs", "cancel", &late]).await;
    assert_eq!(http.ended(&late).await["state"], "cancelled");
    assert!(answer(&gateway, &["jobs", "redrive", "--dry-run"]).await.contains('1'));
    let refused = ask(&gateway, &["jobs", "cancel", &done]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("finished"), "{}", told(&refused));
}

#[tokio::test]
async fn demo_once_prints_the_whole_round_trip() {
    let home = Home::new(BARE);
    let output = groupcast_in(&home, &["demo", "--once"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let transcript = String::from_utf8_lossy(&output.stdout);
    for word in ["subscribe", "execute_query", "202", "job.result", "JFK"] {
        assert!(transcript.contains(word), "`{word}` is not in: {transcript}");
    }
}

#[tokio::test]
async fn serve_without_a_file_listens_on_loopback_without_consumers() {
    let home = Home::new(BARE);
    let mut process = Process::spawn(groupcast(&home, &["serve", "--listen", "127.0.0.1:0"]));
    let address = process.address().await;
    assert!(address.ip().is_loopback());
    let mut socket = Socket::dial(address, "/ws?group=my_group", &[], None).await.expect("it serves");
    socket.expect("subscribed").await;
    let http = groupcast_tests::Http::new(address);
    let accepted = http.group_send("my_group", &json!({"type": "execute_query", "queryset_id": 7})).await;
    assert_eq!((&accepted["members"], &accepted["jobs"]), (&json!(1), &json!([])), "nobody claims it");
}

async fn groupcast_in(home: &Home, arguments: &[&str]) -> Output {
    run(groupcast(home, arguments)).await
}

async fn ask(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = groupcast(gateway.home(), arguments);
    command.env("GROUPCAST_URL", format!("http://{}", gateway.address()));
    run(command).await
}

/// What a command prints that has to succeed.
async fn answer(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = ask(gateway, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
