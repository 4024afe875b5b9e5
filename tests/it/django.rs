//! Work that Django sends by channels_redis or channels_nats, with several gateways on one job store: each is run once.
//!
//! `GROUPCAST_WORK_MESSAGES=3000 GROUPCAST_CHECK_SECONDS=600` makes it three thousand messages; `--nocapture` shows the table.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use groupcast_tests::gateway::check_time;
use groupcast_tests::nats::Nats;
use groupcast_tests::redis::Redis;
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Gateway, Postgres, Socket};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Messages of two senders together, unless more are asked for.
const MESSAGES: usize = 400;

/// Between the kills of two gateways that are all that there are.
const BETWEEN_KILLS: Duration = Duration::from_secs(1);

const WORK: &str = "[source.demo]\nkind = \"sqlite\"\npath = \"source.db\"\n[[query]]\nid = 7\nname = \"answer\"\n\
    source = \"demo\"\nsql = \"select :n as n\"\nparams.n = { type = \"integer\", default = 0 }\n[[consumer]]\nname = \"queries\"\n\
    group = \"my_group\"\ntype = \"execute_query\"\nrun = \"query\"\nconcurrency = 4\n";

#[tokio::test]
async fn work_is_run_once_with_one_two_four_and_eight_gateways() {
    for gateways in [1, 2, 4, 8] {
        is_run_once(&Between::Redis(Redis::start(&[])), gateways).await;
    }
}

#[tokio::test]
async fn work_that_all_gateways_hear_is_run_once_with_one_two_four_and_eight() {
    for gateways in [1, 2, 4, 8] {
        is_run_once(&Between::Pubsub(Redis::start(&[])), gateways).await;
    }
}

#[tokio::test]
async fn over_nats_work_is_run_once_with_one_two_and_four_gateways() {
    for gateways in [1, 2, 4] {
        is_run_once(&Between::Nats(Nats::start_jetstream("")), gateways).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_run_twice_when_registrars_are_killed() {
    survives_kills(&Between::Redis(Redis::start(&[]))).await;
}

#[tokio::test]
async fn nothing_that_all_gateways_hear_is_lost_or_run_twice_when_registrars_are_killed() {
    survives_kills(&Between::Pubsub(Redis::start(&[]))).await;
}

#[tokio::test]
async fn over_nats_nothing_is_lost_or_run_twice_when_registrars_are_killed() {
    survives_kills(&Between::Nats(Nats::start_jetstream(""))).await;
}

/// The project in `tests/django`, unchanged: its view asks once, and the sockets of every gateway have the answer.
#[tokio::test]
async fn the_view_of_the_project_runs_its_query_once_and_every_gateway_tells() {
    for gateways in [1, 2, 4] {
        is_told_everywhere(&Between::Redis(Redis::start(&[])), gateways).await;
        is_told_everywhere(&Between::Pubsub(Redis::start(&[])), gateways).await;
        is_told_everywhere(&Between::Nats(Nats::start_jetstream("")), gateways).await;
    }
}

async fn is_told_everywhere(between: &Between, gateways: usize) {
    let url = Postgres::shared().database();
    let (mut running, mut readers) = (Vec::new(), Vec::new());
    for n in 0..gateways {
        running.push(start(between, &url, n).await);
        readers.push(Socket::subscribed(&running[n], &["my_group"]).await);
    }
    between.is_heard(gateways).await;
    view(between).await;
    for reader in &mut readers {
        let result = reader.skip_to("job.result").await;
        assert_eq!((&result["result"]["rows"], &result["attempt"]), (&json!([[0]]), &json!(1)), "{result}");
    }
    assert_eq!(ended(&running[0], 1).await, 1, "with {gateways} gateways");
}

/// Asks the project's view for a report, through all of Django but the socket.
async fn view(between: &Between) {
    const ASK: &str = "import django; django.setup()\n\
        from django.test import Client\n\
        answer = Client(HTTP_HOST='localhost').get('/reports/7/')\n\
        assert (answer.status_code, answer.json()) == (202, {'status': 'accepted'}), answer";
    let tests = env!("CARGO_MANIFEST_DIR");
    let mut python = Command::new(format!("{tests}/.venv/bin/python"));
    let project = format!("{tests}/django");
    python.args(["-c", ASK]).env("PYTHONPATH", project).env("DJANGO_SETTINGS_MODULE", "project.settings");
    python.env("LAYER", between.project()).env("LAYER_HOSTS", between.address()).env("PYTHONDONTWRITEBYTECODE", "1");
    run(python, "the project's view").await;
}

/// What is between Django and the gateways.
enum Between {
    Redis(Redis),
    /// Redis, and the layer of channels_redis that only publishes.
    Pubsub(Redis),
    Nats(Nats),
}

impl Between {
    fn address(&self) -> String {
        match self {
            Self::Redis(redis) | Self::Pubsub(redis) => redis.address(),
            Self::Nats(nats) => nats.address(),
        }
    }

    /// As the sender wants it.
    fn sender(&self) -> String {
        let layer = if matches!(self, Self::Pubsub(_)) { "pubsub+" } else { "" };
        format!("{layer}{}", self.address())
    }

    /// As the project calls it.
    fn project(&self) -> &'static str {
        match self {
            Self::Redis(_) => "core",
            Self::Pubsub(_) => "pubsub",
            Self::Nats(_) => "nats",
        }
    }

    fn layer(&self) -> String {
        let (kind, dialect) = match self {
            Self::Redis(_) => ("redis", "channels_redis.core"),
            Self::Pubsub(_) => ("redis", "channels_redis.pubsub"),
            Self::Nats(_) => ("nats", "channels_nats"),
        };
        format!("[layer]\nkind = \"{kind}\"\nurl = \"{}\"\ndialect = \"{dialect}\"\n", self.address())
    }

    /// With Redis, Django sends to who is in the group or listens when it sends; NATS keeps it all from the first gateway's
    /// start on.
    async fn is_heard(&self, gateways: usize) {
        let heard = || async {
            match self {
                Self::Redis(redis) => redis.command(&["ZCARD", "asgi:group:my_group"]).trim() == "1",
                // Each gateway listens to one pattern of all groups, and to one of its own channels.
                Self::Pubsub(redis) => redis.command(&["PUBSUB", "NUMPAT"]).trim() == (1 + gateways).to_string(),
                Self::Nats(_) => true,
            }
            .then_some(())
        };
        eventually("the gateways hear the group", heard).await;
    }
}

async fn is_run_once(between: &Between, gateways: usize) {
    let messages = messages();
    let url = Postgres::shared().database();
    let mut running = Vec::new();
    for n in 0..gateways {
        running.push(start(between, &url, n).await);
    }
    let mut reader = Socket::subscribed(&running[gateways - 1], &["my_group"]).await;
    between.is_heard(gateways).await;
    let (since, half) = (Instant::now(), messages / 2);
    let (sent, runs) = tokio::join!(
        async {
            tokio::join!(send(between, 0, half), send(between, half, messages - half));
            since.elapsed()
        },
        runs(&mut reader, messages)
    );
    let jobs = ended(&running[0], messages).await;
    let mut begun = 0;
    for gateway in &running {
        begun += metric(gateway, "jobs_claimed_total").await;
    }
    let results: usize = runs.values().sum();
    let time = since.elapsed();
    eprintln!(
        "gateways: {gateways}; {messages} messages sent in {sent:.1?}; {jobs} jobs, {begun} runs, {results} results of {} \
         messages in {time:.1?}",
        runs.len()
    );
    assert_eq!((jobs, begun), (messages, messages), "with {gateways} gateways");
    let once: BTreeMap<_, _> = (0..messages).map(|n| (n as u64, 1)).collect();
    assert_eq!(runs, once, "with {gateways} gateways");
}

async fn survives_kills(between: &Between) {
    let url = Postgres::shared().database();
    let mut running = vec![start(between, &url, 0).await, start(between, &url, 1).await];
    between.is_heard(2).await;
    let killed = async {
        for number in 2..6 {
            running.remove(0).kill().await;
            running.push(start(between, &url, number).await);
            // What is only heard is with those that heard it: one of them has to have a moment to put it down.
            sleep(BETWEEN_KILLS).await;
        }
    };
    tokio::join!(send(between, 0, MESSAGES / 2), killed);
    let last = running.last().expect("one runs");
    assert_eq!(ended(last, MESSAGES / 2).await, MESSAGES / 2);
}

async fn start(between: &Between, url: &str, n: usize) -> Gateway {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"gw{n}\"\n{}\
         [jobs]\nstore = \"postgres\"\nurl = \"{url}\"\nlease = \"2s\"\n{WORK}",
        between.layer()
    );
    Gateway::start(&config).await
}

/// How often each message was run, when so many runs were told: by the number that each carries and its result repeats.
async fn runs(reader: &mut Socket, expected: usize) -> BTreeMap<u64, usize> {
    let mut runs = BTreeMap::new();
    for _ in 0..expected {
        let result = reader.skip_to("job.result").await;
        assert_eq!(result["attempt"], 1);
        *runs.entry(result["result"]["rows"][0][0].as_u64().expect("a number")).or_default() += 1;
    }
    runs
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

async fn metric(gateway: &Gateway, name: &str) -> usize {
    let text = gateway.http().get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("groupcast_{name} ")).map(str::to_owned));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Sends so many messages, numbered from the first one.
async fn send(between: &Between, first: usize, count: usize) {
    let tests = env!("CARGO_MANIFEST_DIR");
    let mut sender = Command::new(format!("{tests}/.venv/bin/python"));
    sender.arg(format!("{tests}/python/sender.py")).args([between.sender().as_str(), "my_group", "n"]);
    sender.args([first, count].map(|number| number.to_string()));
    run(sender, "a sender").await;
}

/// Runs a program of Python's to its good end.
async fn run(mut python: Command, what: &str) {
    python.stdin(Stdio::null());
    let done = within_time(check_time(20), what, spawn_blocking(move || python.output())).await.expect("it ends");
    let done =
        done.unwrap_or_else(|error| panic!("{what} cannot be started ({error}); `./tests/run --only tools` makes it"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn messages() -> usize {
    std::env::var("GROUPCAST_WORK_MESSAGES").map_or(MESSAGES, |text| text.parse().expect("a number"))
}
