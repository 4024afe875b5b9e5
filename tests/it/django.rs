//! Work that Django sends by channels_redis, with several gateways on one job store: each is run once.

use std::process::{Command, Stdio};

use groupcast_tests::redis::Redis;
use groupcast_tests::wait::{eventually, within};
use groupcast_tests::{Gateway, Postgres, Socket};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

/// Messages of one sender.
const MESSAGES: usize = 200;

const WORK: &str = "[source.demo]\nkind = \"sqlite\"\npath = \"source.db\"\n[[query]]\nid = 7\nname = \"answer\"\n\
    source = \"demo\"\nsql = \"select 42 as n\"\n[[consumer]]\nname = \"queries\"\ngroup = \"my_group\"\n\
    type = \"execute_query\"\nrun = \"query\"\nconcurrency = 4\n";

#[tokio::test]
async fn work_is_run_once_with_one_two_and_four_gateways() {
    for gateways in [1, 2, 4] {
        let (redis, url) = (Redis::start(&[]), Postgres::shared().database());
        let mut running = Vec::new();
        for n in 0..gateways {
            running.push(start(&redis, &url, n).await);
        }
        let mut reader = Socket::subscribed(&running[gateways - 1], &["my_group"]).await;
        is_member(&redis).await;
        within("two senders", async { tokio::join!(send(&redis), send(&redis)) }).await;
        assert_eq!(ended(&running[0], 2 * MESSAGES).await, 2 * MESSAGES, "with {gateways} gateways");
        let mut told = std::collections::BTreeSet::new();
        while told.len() < 2 * MESSAGES {
            let result = reader.skip_to("job.result").await;
            assert_eq!(result["attempt"], 1);
            assert!(told.insert(result["job"].to_string()), "twice: {result}");
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_or_run_twice_when_registrars_are_killed() {
    let (redis, url) = (Redis::start(&[]), Postgres::shared().database());
    let mut running = vec![start(&redis, &url, 0).await, start(&redis, &url, 1).await];
    is_member(&redis).await;
    let sending = send(&redis);
    tokio::pin!(sending);
    for number in 2..6 {
        let killed = async {
            running.remove(0).kill().await;
            start(&redis, &url, number).await
        };
        let fresh = tokio::select! {
            biased;
            fresh = killed => fresh,
            () = &mut sending => break,
        };
        running.push(fresh);
    }
    within("the sender", &mut sending).await;
    let last = running.last().expect("one runs");
    assert_eq!(ended(last, MESSAGES).await, MESSAGES);
}

async fn start(redis: &Redis, url: &str, n: usize) -> Gateway {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"gw{n}\"\n[layer]\nkind = \"redis\"\nurl = \"{}\"\n\
         dialect = \"channels_redis.core\"\n[jobs]\nstore = \"postgres\"\nurl = \"{url}\"\nlease = \"2s\"\n{WORK}",
        redis.address()
    );
    Gateway::start(&config).await
}

/// Django sends to who is in the group when it sends.
async fn is_member(redis: &Redis) {
    let there = || async { (redis.command(&["ZCARD", "asgi:group:my_group"]).trim() == "1").then_some(()) };
    eventually("the gateways are in the group", there).await;
}

/// How many jobs there are, when all that there are have ended well: at least so many. Waits as long as it goes on.
async fn ended(gateway: &Gateway, expected: usize) -> usize {
    let (mut done, mut all) = (0, 0);
    while done < expected || done < all {
        let more = || async {
            let states = states(gateway).await;
            let succeeded = states.iter().filter(|state| **state == json!("succeeded")).count();
            (succeeded > done).then_some((succeeded, states.len()))
        };
        (done, all) = eventually("more work has been done", more).await;
    }
    states(gateway).await.len()
}

async fn states(gateway: &Gateway) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.http().get(&format!("/v1/jobs?limit=500{after}")).await.expect(200);
        all.extend(page["jobs"].as_array().expect("a list").iter().map(|job| job["state"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

async fn send(redis: &Redis) {
    let tests = env!("CARGO_MANIFEST_DIR");
    let python = format!("{tests}/.venv/bin/python");
    let mut sender = Command::new(&python);
    sender.arg(format!("{tests}/python/sender.py")).arg(redis.address()).arg("my_group").arg(MESSAGES.to_string());
    let output = spawn_blocking(move || sender.stdin(Stdio::null()).output()).await.expect("it ends");
    let output = output
        .unwrap_or_else(|error| panic!("{python} cannot be started ({error}); `./tests/run --only tools` makes it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
