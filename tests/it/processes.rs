//! Several processes on one PostgreSQL: gateways take work in, consumers do it, and any of them may die.

use std::collections::BTreeSet;
use std::sync::Arc;

use groupcast_tests::home::JOBS;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Backend, Gateway, Home, Http, Postgres, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn what_either_gateway_takes_in_is_run_once_and_told_to_who_asked_there() {
    let url = Postgres::shared().database();
    // They start at once, and one of them makes the tables.
    let (first, second, one, two) = tokio::join!(
        start(&url, "gw1", "gateway"),
        start(&url, "gw2", "gateway"),
        start(&url, "c1", "consumer"),
        start(&url, "c2", "consumer"),
    );
    let mut readers =
        [Socket::subscribed(&first, &["my_group"]).await, Socket::subscribed(&second, &["my_group"]).await];
    let mut asked = [BTreeSet::new(), BTreeSet::new()];
    for count in 1..=20 {
        for (gateway, asked) in [&first, &second].into_iter().zip(&mut asked) {
            let work = json!({"type": "execute_query", "query": "numbers", "params": {"count": count}});
            asked.insert(gateway.http().job("my_group", &work).await);
        }
    }
    for ((reader, asked), other) in readers.iter_mut().zip(&asked).zip([&second, &first]) {
        let mut told = BTreeSet::new();
        while told.len() < asked.len() {
            let result = reader.skip_to("job.result").await;
            assert!(told.insert(result["job"].as_str().expect("an id").to_owned()), "twice: {result}");
        }
        assert_eq!(&told, asked, "who asked here is told here, and nobody else");
        for job in asked {
            let record = other.http().ended(job).await;
            assert_eq!((&record["state"], &record["attempt"]), (&json!("succeeded"), &json!(1)), "{record}");
            other.http().get(&format!("/v1/jobs/{job}/result")).await.expect(200);
        }
    }
    for gateway in [&first, &second] {
        assert_eq!(metric(gateway, "jobs_claimed_total").await, 0, "a gateway runs nothing");
    }
    let claimed = metric(&one, "jobs_claimed_total").await + metric(&two, "jobs_claimed_total").await;
    assert_eq!(claimed, 40, "each job is claimed once");
}

#[tokio::test]
async fn a_job_of_a_consumer_that_is_killed_runs_again_and_is_cancelled_from_afar() {
    let url = Postgres::shared().database();
    let (gateway, doomed) = tokio::join!(start(&url, "gw1", "gateway"), start(&url, "c1", "consumer"));
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let job = http.job("my_group", &endless()).await;
    is_at_attempt(&http, &job, 1).await;
    doomed.kill().await;
    let _other = start(&url, "c2", "consumer").await;
    is_at_attempt(&http, &job, 2).await;
    http.delete(&format!("/v1/jobs/{job}")).await.expect(202);
    let told = reader.skip_to("job.cancelled").await;
    assert_eq!((&told["job"], &told["attempt"]), (&json!(job), &json!(2)), "{told}");
    assert_eq!(http.ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn a_consumer_that_stood_still_is_not_believed_any_more() {
    let url = Postgres::shared().database();
    let (gateway, zombie) = tokio::join!(start(&url, "gw1", "gateway"), start(&url, "c1", "consumer"));
    let http = gateway.http();
    let job = http.job("my_group", &endless()).await;
    is_at_attempt(&http, &job, 1).await;
    zombie.pause();
    let _other = start(&url, "c2", "consumer").await;
    is_at_attempt(&http, &job, 2).await;
    zombie.resume();
    let fenced = || async { (metric(&zombie, "jobs_fenced_total").await == 1).then_some(()) };
    eventually("the late report is refused", fenced).await;
    let record = http.get(&format!("/v1/jobs/{job}")).await.expect(200);
    assert_eq!((&record["state"], &record["attempt"]), (&json!("running"), &json!(2)), "{record}");
    http.delete(&format!("/v1/jobs/{job}")).await.expect(202);
    assert_eq!(http.ended(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn what_was_accepted_outlives_a_kill_of_the_server_and_all_goes_on() {
    // A server of its own, which keeps what it says it has.
    let mut server = Postgres::start();
    let url = server.url();
    let (gateway, _consumer) = tokio::join!(start(&url, "gw1", "gateway"), start(&url, "c1", "consumer"));
    let http = gateway.http();
    let mut accepted = Vec::new();
    for _ in 0..30 {
        accepted.extend(try_job(&http).await);
    }
    assert_eq!(accepted.len(), 30);
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    });
    let mut server = server.await.expect("it is killed");
    http.get("/healthz").await.expect(200);
    assert_eq!(try_job(&http).await, None, "nothing is accepted without the store");
    let unready = || async { (http.get("/readyz").await.status == 503).then_some(()) };
    eventually("the gateway says that it is not ready", unready).await;
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let _server = server.await.expect("it is started");
    let again = || async { try_job(&http).await };
    accepted.push(eventually("work is accepted again", again).await);
    for job in &accepted {
        let record = http.ended(job).await;
        assert_eq!(record["state"], "succeeded", "{record}");
    }
}

#[tokio::test]
async fn who_asked_hears_how_it_goes_in_another_process() {
    let url = Postgres::shared().database();
    let backend = Backend::start().await;
    let views = format!(
        "{}\n[[consumer]]\nname = \"views\"\ngroup = \"my_group\"\ntype = \"view\"\nrun = \"http\"\ndurability = \"os\"\n\
         url = \"http://{}/jobs\"\nallow_private = true\n",
        JOBS,
        backend.address()
    );
    let start = |node, role| Gateway::start_in(Arc::new(Home::new(&config_of(&views, &url, node, role))));
    let (gateway, other, _consumer) =
        tokio::join!(start("gw1", "gateway"), start("gw2", "gateway"), start("c1", "consumer"));
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let mut stranger = Socket::subscribed(&other, &["my_group"]).await;
    let job = gateway.http().job("my_group", &json!({"type": "view"})).await;
    for attempt in [1, 2] {
        let call = backend.call().await;
        // It is told while the job runs, which waits for this answer.
        let started = reader.message().await;
        assert_eq!((kind(&started), &started["attempt"]), ("job.started", &json!(attempt)), "{started}");
        if attempt == 2 {
            call.json(&json!(7)).await;
            break;
        }
        // Late enough: a hint that comes after the next attempt has begun is not told.
        call.answer(503, "retry-after: 2\r\n", "").await;
        let retry = reader.message().await;
        assert_eq!((kind(&retry), &retry["error"]["code"]), ("job.retry", &json!("backend_failed")), "{retry}");
    }
    let result = reader.message().await;
    assert_eq!((kind(&result), &result["job"], &result["result"]), ("job.result", &json!(job), &json!(7)), "{result}");

    // How far a report is may be said for the last time after its end, and then is not told: one of several is enough.
    let mut told = 0;
    for _ in 0..20 {
        told += progress_of_a_report(&gateway, &mut reader).await;
        if told > 0 {
            break;
        }
    }
    assert!(told > 0, "progress is told");
    assert_eq!(stranger.pending().await, Vec::<Value>::new(), "nobody asked there");
}

/// How often it was told how far a report is, in order and before its end.
async fn progress_of_a_report(gateway: &Gateway, reader: &mut Socket) -> usize {
    let work = json!({"type": "generate_report", "query": "numbers", "params": {"count": 10_000}});
    let job = gateway.http().job("my_group", &work).await;
    let (mut done, mut count) = (0, 0);
    loop {
        let event = reader.message().await;
        assert_eq!(event["job"], json!(job), "nothing of a job after its end: {event}");
        match kind(&event) {
            "job.started" => assert_eq!(count, 0, "first: {event}"),
            "job.progress" => {
                let now = event["done"].as_u64().expect("a count");
                assert!(now > done || count == 0, "forward, and once: {event}");
                (done, count) = (now, count + 1);
            }
            "job.result" => return count,
            _ => panic!("{event}"),
        }
    }
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().expect("a type")
}

#[tokio::test]
async fn a_gateway_that_is_gone_has_an_heir_that_tells() {
    let url = Postgres::shared().database();
    let (doomed, heir) = tokio::join!(start(&url, "gw1", "gateway"), start(&url, "gw2", "gateway"));
    let mut reader = Socket::subscribed(&heir, &["my_group"]).await;
    let work = json!({"type": "execute_query", "query": "numbers"});
    let job = doomed.http().job("my_group", &work).await;
    doomed.kill().await;
    let _consumer = start(&url, "c1", "consumer").await;
    let result = reader.skip_to("job.result").await;
    assert_eq!((&result["job"], &result["attempt"]), (&json!(job), &json!(1)), "{result}");
}

#[tokio::test]
async fn a_repeat_at_another_gateway_gets_the_first_answer() {
    let url = Postgres::shared().database();
    let (first, second) = tokio::join!(start(&url, "gw1", "gateway"), start(&url, "gw2", "gateway"));
    let work = json!({"type": "execute_query", "queryset_id": 7}).to_string().into_bytes();
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let (first, second) = (first.http(), second.http());
    let path = "/v1/groups/my_group/send";
    let (one, two) =
        tokio::join!(first.request("POST", path, &headers, work.clone()), second.request("POST", path, &headers, work));
    let (one, two) = (one.expect(202), two.expect(202));
    assert_eq!(one["jobs"][0]["id"], two["jobs"][0]["id"], "whoever came first");
    assert_ne!(one["existing"], two["existing"], "{one} {two}");
    let other = json!({"type": "execute_query", "queryset_id": 6}).to_string().into_bytes();
    second.request("POST", path, &headers, other).await.problem(409, "idempotency_conflict");
}

#[tokio::test]
async fn a_consumer_process_answers_about_itself_and_nothing_else() {
    let url = Postgres::shared().database();
    let consumer = start(&url, "c1", "consumer").await;
    let http = consumer.http();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    for path in ["/v1/jobs", "/ws", "/docs"] {
        http.get(path).await.problem(404, "not_found");
    }
    http.post("/v1/groups/g/send", &json!({"type": "a"})).await.problem(404, "not_found");
}

#[tokio::test]
async fn roles_need_a_store_that_can_be_shared() {
    let home = Home::new(&JOBS.replacen("[server]\n", "[server]\nrole = \"consumer\"\n", 1));
    let (code, printed) = Gateway::refused(&home).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("server.role") && printed.contains("store = \"postgres\""), "{printed}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_the_password() {
    let url = "postgres://me:hidden@127.0.0.1:1/jobs";
    let (code, printed) = Gateway::refused(&Home::new(&config(url, "gw1", "all"))).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("127.0.0.1:1/jobs") && !printed.contains("hidden"), "{printed}");
}

async fn start(url: &str, node: &str, role: &str) -> Gateway {
    Gateway::start_in(Arc::new(Home::new(&config(url, node, role)))).await
}

fn config(url: &str, node: &str, role: &str) -> String {
    config_of(JOBS, url, node, role)
}

fn config_of(jobs: &str, url: &str, node: &str, role: &str) -> String {
    let server = format!("[server]\nnode = \"{node}\"\nrole = \"{role}\"\n");
    let store = format!("[jobs]\nstore = \"postgres\"\nurl = \"{url}\"\nlease = \"2s\"\n");
    // A job in memory stays in its process, so the roles do not take it.
    let config = jobs.replacen("[server]\n", &server, 1).replacen("[jobs]\n", &store, 1);
    config.replace("durability = \"memory\"", "durability = \"os\"")
}

fn endless() -> Value {
    json!({"type": "execute_query", "query": "endless", "max_attempts": 50})
}

async fn is_at_attempt(http: &Http, job: &str, attempt: u64) {
    let look = || async {
        let record = http.get(&format!("/v1/jobs/{job}")).await.expect(200);
        (record["state"] == "running" && record["attempt"] == attempt).then_some(())
    };
    eventually(&format!("the job is at attempt {attempt}"), look).await;
}

/// The id of a job, if it is accepted.
async fn try_job(http: &Http) -> Option<String> {
    let work = json!({"type": "execute_query", "query": "numbers"});
    let reply = http.post("/v1/groups/my_group/send", &work).await;
    if reply.status != 202 {
        assert_eq!(reply.status, 503, "{}", reply.text());
        return None;
    }
    Some(reply.json()["jobs"][0]["id"].as_str().expect("an id").to_owned())
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.http().get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("groupcast_")?.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a whole number")
}
