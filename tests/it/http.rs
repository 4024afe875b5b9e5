//! HTTP: every bad request gets its status, its code and a problem of RFC 9457, and changes nothing.

use std::time::Duration;

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Http, Raw, Reply, Socket};
use serde_json::{Value, json};

/// Well over the deadlines of the test, well under the default ones.
const DOOR: Duration = Duration::from_secs(4);
const JSON: (&str, &str) = ("content-type", "application/json");
const SEND: &str = "/v1/groups/my_group/send";

#[tokio::test]
async fn bad_requests_get_their_status_and_code() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["my_group"]).await;
    let http = gateway.http();
    let check = async |method: &str, path: &str, body: &str, status: u16, code: &str| {
        let reply = http.request(method, path, &[JSON], body.as_bytes().to_vec()).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text());
        reply.problem(status, code);
    };
    for body in ["", "x", "{", "7", "null", "[1]", "{}", r#"{"type":""}"#, r#"{"type":7}"#, r#"{"type":"x"} {}"#] {
        check("POST", SEND, body, 422, "invalid_message").await;
        check("POST", "/v1/channels/c/send", body, 422, "invalid_message").await;
    }
    check("POST", SEND, r#"{"type":"job.result"}"#, 403, "forbidden").await;
    check("POST", "/v1/channels/c/send", r#"{"type":"job.started"}"#, 403, "forbidden").await;
    check("POST", SEND, r#"{"type":"execute_query","queryset_id":99}"#, 422, "unknown_query").await;
    check("POST", SEND, r#"{"type":"execute_query","query":"no"}"#, 422, "unknown_query").await;
    for wish in [
        r#""params":{"count":"9"}"#,
        r#""params":{"count":1.5}"#,
        r#""params":{"count":100001}"#,
        r#""params":{"counts":9}"#,
        r#""params":[]"#,
        r#""limit":0"#,
        r#""priority":"high""#,
        r#""delay_ms":-1"#,
        r#""max_attempts":0"#,
        r#""reply_to":"a b""#,
        r#""unique_key":"""#,
    ] {
        let body = format!(r#"{{"type":"execute_query","query":"numbers",{wish}}}"#);
        check("POST", SEND, &body, 422, "bad_params").await;
    }
    check("POST", "/v1/queries/no_such", "{}", 404, "not_found").await;
    check("POST", "/v1/queries/numbers", r#"{"count":"9"}"#, 422, "bad_params").await;
    // Said twice: who checks may go by the one, and who works by the other.
    check("POST", "/v1/queries/numbers", r#"{"count":1,"count":1}"#, 422, "bad_params").await;
    for twice in [r#""query":"numbers","query":"numbers""#, r#""query":"numbers","params":{"count":1,"count":1}"#] {
        check("POST", SEND, &format!(r#"{{"type":"execute_query",{twice}}}"#), 422, "bad_params").await;
    }
    check("POST", "/v1/jobs/redrive", r#"{"limit":0}"#, 400, "bad_request").await;
    check("POST", "/v1/jobs/redrive", r#"{"consumers":"x"}"#, 400, "bad_request").await;

    assert_eq!(reader.pending().await, [] as [Value; 0], "nothing was sent");
    assert_eq!(http.get("/v1/jobs").await.expect(200)["jobs"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_other_methods_are_named() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let job = "0".repeat(26);
    for path in ["/nothing", "/v1", "/v1/groups/g/nothing", "/v1/jobs/x"].map(str::to_owned).into_iter().chain([
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/result"),
        "/v1/connections/specific.gw1!nobody".to_owned(),
    ]) {
        http.get(&path).await.problem(404, "not_found");
    }
    http.delete(&format!("/v1/jobs/{job}")).await.problem(404, "not_found");
    http.delete("/v1/groups/g/members/nobody").await.problem(404, "not_found");
    http.post("/v1/channels/specific.gw1!nobody/send", &json!({"type": "x"})).await.problem(404, "not_found");

    for (method, path, allowed) in [
        ("GET", SEND, "POST"),
        ("DELETE", "/v1/send", "POST"),
        ("POST", "/v1/jobs", "GET"),
        ("PATCH", "/v1/groups/g/members/c", "PUT"),
        ("POST", "/healthz", "GET"),
    ] {
        let reply = http.request(method, path, &[], Vec::new()).await;
        reply.problem(405, "method_not_allowed");
        let allow = reply.header("allow").unwrap_or_default();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {path}: allow: {allow}");
    }
}

#[tokio::test]
async fn parameters_of_the_query_string_are_checked() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    for path in [
        "/v1/jobs?state=sleeping",
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=x",
        "/v1/jobs?after=x",
        "/v1/groups?limit=-1",
        "/v1/groups?limit=99999999999999999999",
    ] {
        let reply = http.get(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        reply.problem(400, "bad_request");
    }
    let job = http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await;
    for path in ["?wait=x", "?wait=-1", "/result?offset=x", "/result?limit=-1"] {
        http.get(&format!("/v1/jobs/{job}{path}")).await.problem(400, "bad_request");
    }
}

#[tokio::test]
async fn bodies_have_a_type_and_a_size() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let message = br#"{"type":"x"}"#.to_vec();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let reply = http.request("POST", SEND, &[("content-type", kind)], message.clone()).await;
        reply.problem(415, "unsupported_media_type");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.example+json"] {
        http.request("POST", SEND, &[("content-type", kind)], message.clone()).await.expect(202);
    }
    http.request("POST", SEND, &[JSON], b"{\"type\":\"\xC3\x28\"}".to_vec()).await.problem(422, "invalid_message");

    let large = |bytes: usize| format!(r#"{{"type":"x","p":"{}"}}"#, "x".repeat(bytes - 19)).into_bytes();
    http.request("POST", SEND, &[JSON], large(1 << 20)).await.expect(202);
    http.request("POST", SEND, &[JSON], large((1 << 20) + 1)).await.problem(413, "too_large");

    // What is announced as far too large is refused before it is sent.
    let mut raw = Raw::connect(gateway.address()).await;
    let length = 1_u64 << 40;
    let head = format!("POST {SEND} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", gateway.address());
    raw.write(head.as_bytes()).await;
    raw.reply().await.problem(413, "too_large");
}

#[tokio::test]
async fn a_head_that_is_too_large_or_ambiguous_is_refused() {
    let gateway = Gateway::start(BARE).await;
    let headers = format!("x-large: {}\r\n", "x".repeat(20 << 10));
    let reply = raw(&gateway, &format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).await;
    assert_eq!(reply.status, 431, "{reply:?}");
    for (what, head) in [
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no HTTP", "nonsense\r\n\r\n"),
        ("two lengths", "POST /v1/send HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    ] {
        let reply = raw(&gateway, head).await;
        assert_eq!(reply.status, 400, "{what}: {reply:?} {}", reply.text());
    }
    gateway.http().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn who_dawdles_is_shown_the_door() {
    let config = format!(
        "{BARE}\n[limits]\nfirst_byte_timeout = \"300ms\"\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n"
    );
    let gateway = Gateway::start(&config).await;
    let good = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, sent, answers) in [
        ("nothing at all", "", 0),
        ("half a head", "GET /healthz HTTP/1.1\r\nHost: a\r\n", 0),
        ("silence after an answer", good, 1),
        ("half a head after an answer", &format!("{good}GET /he"), 1),
    ] {
        let mut raw = Raw::connect(gateway.address()).await;
        raw.write(sent.as_bytes()).await;
        for _ in 0..answers {
            assert_eq!(raw.reply().await.status, 200, "{what}");
        }
        // With or without a 408: the connection ends.
        within_time(DOOR, what, raw.hung_up()).await;
    }
    let half = format!("POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{{\"ty");
    let reply = within_time(DOOR, "half a body", raw(&gateway, &half)).await;
    assert_eq!(reply.status, 408, "{}", reply.text());
    Socket::open(&gateway).await;
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.insert(0, http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await);
    }
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/jobs?limit=2{after}")).await.expect(200);
        let ids = page["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_str().map(str::to_owned));
        listed.extend(ids.map(|id| id.expect("an id")));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed, jobs);
}

#[tokio::test]
async fn operators_find_health_readiness_metrics_and_the_description() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    http.get("/healthz").await.expect(200);
    http.get("/readyz").await.expect(200);

    let before = sent_total(&http).await;
    http.group_send("g", &json!({"type": "x"})).await;
    assert!(sent_total(&http).await > before, "a counter moves");

    let description = http.get("/openapi.json").await.expect(200);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{description}");
    for (path, method) in [
        ("/v1/groups/{group}/send", "post"),
        ("/v1/send", "post"),
        ("/v1/channels/{channel}/send", "post"),
        ("/v1/groups/{group}/members/{channel}", "put"),
        ("/v1/groups/{group}/members/{channel}", "delete"),
        ("/v1/groups/{group}/members", "get"),
        ("/v1/groups/{group}", "get"),
        ("/v1/groups", "get"),
        ("/v1/connections", "get"),
        ("/v1/connections/{channel}", "delete"),
        ("/v1/queries/{name}", "post"),
        ("/v1/jobs", "get"),
        ("/v1/jobs/{id}", "get"),
        ("/v1/jobs/{id}", "delete"),
        ("/v1/jobs/{id}/result", "get"),
        ("/v1/jobs/redrive", "post"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    ] {
        assert!(description["paths"][path][method].is_object(), "{method} {path} is not described");
    }
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys().filter(|method| *method != "parameters") {
            let real =
                path.replace("{group}", "g").replace("{channel}", "c").replace("{id}", "x").replace("{name}", "x");
            let reply = http.request(&method.to_uppercase(), &real, &[JSON], b"{}".to_vec()).await;
            assert_ne!(reply.status, 405, "{method} {path} is described, not served");
            let unrouted = reply.status == 404 && reply.text().contains(&format!("no route `{real}`"));
            assert!(!unrouted && reply.status < 500, "{method} {path}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_source_that_is_gone_makes_the_gateway_unready_and_is_named() {
    let gateway = Gateway::start(JOBS).await;
    std::fs::remove_file(gateway.home().path().join("source.db")).expect("the database is there");
    let http = gateway.http();
    let unready = || async { Some(http.get("/readyz").await).filter(|reply| reply.status == 503) };
    let reply = groupcast_tests::wait::eventually("the gateway is not ready", unready).await;
    reply.problem(503, "unavailable");
    assert!(reply.text().contains("shop"), "{}", reply.text());
    http.get("/healthz").await.expect(200);
}

/// The sum of all counters: some counter of sent messages is among them.
async fn sent_total(http: &Http) -> f64 {
    let reply = http.get("/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let samples =
        text.lines().filter(|line| line.contains("_total") && !line.starts_with('#') && !line.contains("http"));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn raw(gateway: &Gateway, head: &str) -> Reply {
    let mut raw = Raw::connect(gateway.address()).await;
    raw.write(head.as_bytes()).await;
    raw.reply().await
}
