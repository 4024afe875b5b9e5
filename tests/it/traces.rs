//! A trace goes with what is asked: to other gateways, into jobs and what they tell, and to the services that do the work.
//! Nobody who is sent a message sees it.

mod odd;

use std::sync::Arc;

use groupcast_tests::backend::Call;
use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Backend, Events, Gateway, Home, Nats, Postgres, Redis, Socket};
use serde_json::{Value, json};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61 rcWkgMzE";
/// What a publisher that traces sends.
const TRACED: [(&str, &str); 3] =
    [("content-type", "application/json"), ("traceparent", PARENT), ("tracestate", STATE)];

#[tokio::test]
async fn a_job_keeps_its_trace_in_another_process_and_when_both_die() {
    let (backend, url) = (Backend::start().await, Postgres::shared().database());
    let start = |node, role| {
        let store = format!("store = \"postgres\"\nurl = \"{url}\"\nlease = \"2s\"\n");
        Gateway::start_in(Arc::new(Home::new(&config(
            &backend,
            &format!("node = \"{node}\"\nrole = \"{role}\""),
            &store,
        ))))
    };
    let (gateway, consumer) = tokio::join!(start("gw1", "gateway"), start("c1", "consumer"));
    let job = traced_job(&gateway).await;
    let first = backend.call().await;
    is_traced(&first, 1);
    first.answer(503, "retry-after: 0\r\n", "").await;
    let second = backend.call().await;
    is_traced(&second, 2);
    let homes = (gateway.kill().await, consumer.kill().await);
    let (gateway, _consumer) = tokio::join!(Gateway::start_in(homes.0), Gateway::start_in(homes.1));
    let third = backend.call().await;
    is_traced(&third, 3);
    third.json(&json!("done")).await;
    let record = gateway.http().ended(&job).await;
    assert_eq!((&record["state"], &record["traceparent"]), (&json!("succeeded"), &json!(PARENT)), "{record}");
}

#[tokio::test]
async fn a_job_keeps_its_trace_when_its_gateway_is_killed_and_when_it_is_redriven() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend, "", "")).await;
    let job = traced_job(&gateway).await;
    is_traced(&backend.call().await, 1);
    let gateway = Gateway::start_in(gateway.kill().await).await;
    let second = backend.call().await;
    is_traced(&second, 2);
    second.answer(422, "", "").await;
    assert_eq!(gateway.http().ended(&job).await["state"], "dead");
    gateway.http().post("/v1/jobs/redrive", &json!({"job": job})).await.expect(200);
    let third = backend.call().await;
    is_traced(&third, 3);
    third.json(&json!("done")).await;
    assert_eq!(gateway.http().ended(&job).await["traceparent"], PARENT);
}

#[tokio::test]
async fn work_is_traced_however_it_is_asked_for_and_so_is_what_follows_from_it() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&config(&backend, "", "")).await;
    let batch = json!([{"group": "my_group", "message": {"type": "view"}}]);
    let told = gateway.http().request("POST", "/v1/send", &TRACED, batch.to_string().into_bytes()).await.expect(202);
    assert_eq!(told["results"][0]["status"], 202, "{told}");
    let call = backend.call().await;
    is_traced(&call, 1);
    call.json(&json!("done")).await;
    // The event of the job is the work of another consumer.
    let after = backend.call().await;
    assert_eq!(after.body["message"]["type"], "job.result");
    is_traced(&after, 1);
    after.json(&json!("done")).await;

    let mut socket = Socket::open_at(&gateway, "/ws", &TRACED[1..]).await;
    let send = json!({"type": "group_send", "group": "my_group", "message": {"type": "view"}});
    assert_eq!(socket.command(send).await["type"], "accepted");
    let call = backend.call().await;
    is_traced(&call, 1);
    call.json(&json!("done")).await;
    is_traced(&backend.call().await, 1);

    let asked = socket.command(json!({"type": "query", "name": "answer", "params": {}})).await;
    let job = asked["jobs"][0]["id"].as_str().expect("a job").to_owned();
    assert_eq!(gateway.http().ended(&job).await["traceparent"], PARENT);
    let headers = [TRACED[0], TRACED[1], ("prefer", "wait=20")];
    let record = gateway.http().request("POST", "/v1/queries/answer", &headers, Vec::new()).await.expect(200);
    assert_eq!(record["traceparent"], PARENT, "{record}");
    let untraced = gateway.http().request("POST", "/v1/queries/answer", &headers[2..], Vec::new()).await.expect(200);
    assert_eq!(untraced.get("traceparent"), None, "{untraced}");
}

#[tokio::test]
async fn over_redis_a_publication_is_delivered_in_its_trace() {
    let redis = Redis::start(&[]);
    is_delivered_in_its_trace(&format!("kind = \"redis\"\nurl = \"{}\"\n", redis.address())).await;
}

#[tokio::test]
async fn over_nats_a_publication_is_delivered_in_its_trace() {
    let nats = Nats::start_jetstream("");
    is_delivered_in_its_trace(&format!("kind = \"nats\"\nurl = \"{}\"\n", nats.address())).await;
}

/// Published at one gateway, with and without a trace, and read at another one.
async fn is_delivered_in_its_trace(layer: &str) {
    let start = async |node: &str| {
        let server = format!("[server]\nnode = \"{node}\"\nlog = \"info,groupcast::telemetry=trace\"\n");
        let kept = "[[group]]\nname = \"kept.*\"\nhistory = { messages = 10, age = \"1h\" }\n";
        Gateway::start(&format!("{}[layer]\n{layer}{kept}", BARE.replacen("[server]\n", &server, 1))).await
    };
    let (one, two) = tokio::join!(start("gw1"), start("gw2"));
    for group in ["room", "kept.room"] {
        let mut reader = Socket::subscribed(&two, &[group]).await;
        let path = format!("/v1/groups/{group}/send");
        let message = json!({"type": "chat", "text": "hello"});
        for headers in [&TRACED[..1], &TRACED[..], &TRACED[..1]] {
            one.http().request("POST", &path, headers, message.to_string().into_bytes()).await.expect(202);
            assert_eq!(reader.message_of("chat").await, message, "it is as it was sent");
        }
        let told = || async {
            let printed = two.printed();
            let lines: Vec<_> = printed.lines().filter(|line| line.contains("delivered to the logs")).collect();
            lines.iter().any(|line| line.contains(PARENT) && line.contains(group)).then_some(lines.len())
        };
        let lines = eventually("the delivery is told", told).await;
        assert_eq!(lines, if group == "room" { 1 } else { 2 }, "{}", two.printed());
    }
}

#[tokio::test]
async fn a_service_that_is_asked_about_a_client_gets_the_trace_of_its_connection() {
    let backend = Backend::start().await;
    let hooks = format!(
        "[hooks]\nurl = \"http://{}/hook\"\nallow_private = true\ntimeout = \"15s\"\n\
         events = [\"connect\", \"subscribe\", \"message\", \"disconnect\"]\ntypes = [\"chat\"]\n",
        backend.address()
    );
    let gateway = Gateway::start(&format!("{}{hooks}", config(&backend, "", ""))).await;
    // What the service sends is part of the trace, too.
    let work = json!({"type": "group_send", "group": "my_group", "message": {"type": "view"}});
    let answer = json!([{"type": "websocket.accept", "user": "alice"}, work]);
    let asked = async {
        is_asked(&backend, "websocket.connect", &answer).await;
        let call = backend.call().await;
        is_traced(&call, 1);
        call
    };
    // Whose connection is held, or it would be tried again.
    let (socket, _work) = tokio::join!(Socket::dial(gateway.address(), "/ws", &TRACED[1..], None), asked);
    let mut socket = socket.unwrap_or_else(|reply| panic!("{}", reply.text()));
    let allow = json!({"type": "allow"});
    let subscribe = json!({"type": "subscribe", "group": "room"});
    tokio::join!(socket.command(subscribe), is_asked(&backend, "group.subscribe", &allow));
    let send = json!({"type": "group_send", "group": "room", "message": {"type": "chat"}});
    tokio::join!(socket.command(send), is_asked(&backend, "websocket.receive", &allow));
    socket.close().await;
    is_asked(&backend, "websocket.disconnect", &json!([])).await;

    let accept = json!({"type": "websocket.accept"});
    let asked = async {
        is_asked(&backend, "http.request", &accept).await;
        is_asked(&backend, "group.subscribe", &allow).await;
    };
    let (stream, ()) = tokio::join!(Events::open_with(&gateway, "group=room", &TRACED[1..]), asked);
    drop(stream);
    is_asked(&backend, "http.disconnect", &json!([])).await;
}

async fn is_asked(backend: &Backend, event: &str, answer: &Value) {
    let call = backend.call().await;
    assert_eq!(call.body["type"], event, "{}", call.body);
    assert_eq!((call.header("traceparent"), call.header("tracestate")), (Some(PARENT), Some(STATE)), "{}", call.head);
    call.json(answer).await;
}

fn is_traced(call: &Call, attempt: u32) {
    assert_eq!(call.header("groupcast-attempt"), Some(attempt.to_string().as_str()), "{}", call.head);
    assert_eq!((call.header("traceparent"), call.header("tracestate")), (Some(PARENT), Some(STATE)), "{}", call.head);
    assert!(!call.body.to_string().contains(TRACE_ID), "the message is as it was sent: {}", call.body);
}

/// Sends work, as part of a trace; the job's id.
async fn traced_job(gateway: &Gateway) -> String {
    let work = json!({"type": "view"}).to_string().into_bytes();
    let told = gateway.http().request("POST", "/v1/groups/my_group/send", &TRACED, work).await.expect(202);
    told["jobs"][0]["id"].as_str().expect("an id").to_owned()
}

/// Work for the backend, work for it when that has ended, and a query.
fn config(backend: &Backend, server: &str, jobs: &str) -> String {
    let consumer = |name: &str, kind: &str, more: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\ngroup = \"my_group\"\ntype = \"{kind}\"\nrun = \"http\"\n\
             url = \"http://{}/jobs\"\nallow_private = true\n{more}",
            backend.address()
        )
    };
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n{server}\n\
         [jobs]\nretry_base = \"10ms\"\nretry_max = \"50ms\"\n{jobs}\
         [source.demo]\nkind = \"sqlite\"\npath = \"source.db\"\n\
         [[query]]\nid = 1\nname = \"answer\"\nsource = \"demo\"\nsql = \"select 42 as n\"\n\
         {}{}[[consumer]]\nname = \"queries\"\ngroup = \"other\"\ntype = \"execute_query\"\nrun = \"query\"\n",
        consumer("views", "view", ""),
        consumer("after", "job.result", "chain = true\n"),
    )
}
