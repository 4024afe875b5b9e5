//! The routes, called without sockets; layer, jobs and consumers are the real ones.

mod access;
mod fixture;
mod jobs;
mod openapi;

use serde_json::{Value, json};

use self::fixture::{Api, call, call_without_host};

#[tokio::test]
async fn a_message_is_taken_and_reaches_the_members() {
    let api = Api::new().await;
    assert_eq!(call("PUT", "/v1/groups/g/members/mailbox").to(&api).await.status, 204);
    let answer = call("POST", "/v1/groups/g/send").body(r#"{"type":"chat","n":1}"#).to(&api).await;
    assert_eq!((answer.status, &answer.json["group"], &answer.json["members"]), (202, &json!("g"), &json!(1)));
    assert_eq!((&answer.json["existing"], &answer.json["jobs"]), (&json!(false), &json!([])));
    assert_eq!(answer.json["message_id"].as_str().map(str::len), Some(26));
    let received = api.receive("mailbox").await;
    assert_eq!((received.message.as_str(), received.group.is_some()), (r#"{"type":"chat","n":1}"#, true));
}

#[tokio::test]
async fn a_channel_that_nobody_reads_keeps_up_to_its_capacity() {
    let api = Api::new().await;
    for _ in 0..api.app.config.layer.capacity {
        assert_eq!(call("POST", "/v1/channels/c/send").body(r#"{"type":"x"}"#).to(&api).await.status, 202);
    }
    let answer = call("POST", "/v1/channels/c/send").body(r#"{"type":"x"}"#).to(&api).await;
    answer.is(503, "channel_full");
    assert_eq!(answer.header("retry-after"), "1");
    let gone = call("POST", "/v1/channels/specific.gw1!c99/send").body(r#"{"type":"x"}"#).to(&api).await;
    gone.is(404, "not_found");
}

#[tokio::test]
async fn bad_input_gets_its_code_and_changes_nothing() {
    let api = Api::new().await;
    let long = "x".repeat(api.app.config.limits.publish_bytes.0);
    let large = format!(r#"{{"type":"x","x":"{long}"}}"#);
    let name = format!("/v1/groups/{}/send", "x".repeat(100));
    for (method, path, body, status, code) in [
        ("POST", "/v1/groups/a%2Fb/send", r#"{"type":"x"}"#, 422, "invalid_name"),
        ("POST", "/v1/groups/a!b/send", r#"{"type":"x"}"#, 422, "invalid_name"),
        ("POST", name.as_str(), r#"{"type":"x"}"#, 422, "invalid_name"),
        ("POST", "/v1/groups/%FF/send", r#"{"type":"x"}"#, 400, "bad_request"),
        ("POST", "/v1/channels/!a/send", r#"{"type":"x"}"#, 422, "invalid_name"),
        ("POST", "/v1/groups/g/send", "", 422, "invalid_message"),
        ("POST", "/v1/groups/g/send", "{", 422, "invalid_message"),
        ("POST", "/v1/groups/g/send", "[1]", 422, "invalid_message"),
        ("POST", "/v1/groups/g/send", r#"{"type":7}"#, 422, "invalid_message"),
        ("POST", "/v1/groups/g/send", r#"{"type":""}"#, 422, "invalid_message"),
        ("POST", "/v1/groups/g/send", r#"{"type":"job.result"}"#, 403, "forbidden"),
        ("POST", "/v1/groups/g/send", large.as_str(), 413, "too_large"),
        ("POST", "/v1/groups/my_group/send", r#"{"type":"execute_query","queryset_id":8}"#, 422, "unknown_query"),
        (
            "POST",
            "/v1/groups/my_group/send",
            r#"{"type":"execute_query","query":"one","params":{"x":1}}"#,
            422,
            "bad_params",
        ),
        ("POST", "/v1/send", "{}", 400, "bad_request"),
        ("POST", "/v1/send", "[]", 400, "bad_request"),
        ("POST", "/v1/send", r#"[{"group":"g","message":{"type":"x"},"grop":1}]"#, 400, "bad_request"),
        ("POST", "/v1/queries/none", "{}", 404, "not_found"),
        ("POST", "/v1/queries/one", "[]", 422, "bad_params"),
        ("POST", "/v1/queries/one", r#"{"x":1}"#, 422, "bad_params"),
        ("GET", "/v1/groups?limit=0", "", 400, "bad_request"),
        ("GET", "/v1/groups?limit=1001", "", 400, "bad_request"),
        ("GET", "/v1/groups?lim=1", "", 400, "bad_request"),
        ("GET", "/v1/groups/g?x=1", "", 400, "bad_request"),
        ("GET", "/v1/groups/g/members?limit=-1", "", 400, "bad_request"),
        ("GET", "/v1/groups/g/history", "", 404, "not_found"),
        ("DELETE", "/v1/groups/g/members/c", "", 404, "not_found"),
        ("PUT", "/v1/groups/g/members/specific.gw1!c9", "", 404, "not_found"),
        ("GET", "/v1/connections/specific.gw1!c9", "", 404, "not_found"),
        ("DELETE", "/v1/connections/specific.gw1!c9", "", 404, "not_found"),
        ("GET", "/v1/connections/a!b!c", "", 422, "invalid_name"),
        ("GET", "/v1/jobs?state=lost", "", 400, "bad_request"),
        ("GET", "/v1/jobs?after=x", "", 400, "bad_request"),
        ("GET", "/v1/jobs/x", "", 404, "not_found"),
        ("GET", "/v1/jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K", "", 404, "not_found"),
        ("GET", "/v1/jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K?wait=soon", "", 400, "bad_request"),
        ("GET", "/v1/jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K/result", "", 404, "not_found"),
        ("DELETE", "/v1/jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K", "", 404, "not_found"),
        ("POST", "/v1/jobs/redrive", r#"{"limit":0}"#, 400, "bad_request"),
        ("POST", "/v1/jobs/redrive", r#"{"conumer":"x"}"#, 400, "bad_request"),
        ("GET", "/v1/nothing", "", 404, "not_found"),
        ("GET", "/v1/groups/", "", 404, "not_found"),
    ] {
        let answer = call(method, path).body(body).to(&api).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {path} {body:.80}: {}", answer.json);
    }
    assert_eq!(call("GET", "/v1/groups").to(&api).await.json, json!({"groups": [], "next": null}));
    assert_eq!(call("GET", "/v1/jobs").to(&api).await.json, json!({"jobs": [], "next": null}));
}

#[tokio::test]
async fn headers_are_checked() {
    let api = Api::new().await;
    let send = || call("POST", "/v1/groups/g/send").body(r#"{"type":"x"}"#);
    send().header("content-type", "text/plain").to(&api).await.is(415, "unsupported_media_type");
    send().header("content-length", "99999999").to(&api).await.is(413, "too_large");
    send().header("idempotency-key", &"k".repeat(256)).to(&api).await.is(400, "bad_request");
    send().header("idempotency-key", "").to(&api).await.is(400, "bad_request");
    assert_eq!(send().header("content-type", "application/json; charset=utf-8").to(&api).await.status, 202);
    let wrong = call("PATCH", "/v1/groups/g").to(&api).await;
    wrong.is(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn heads_are_bounded_and_have_one_host() {
    let api = Api::new().await;
    let limit = api.app.config.limits.header_bytes.0;
    call("GET", "/healthz").header("x", &"x".repeat(limit)).to(&api).await.is(431, "headers_too_large");
    call("GET", &format!("/{}", "x".repeat(limit))).to(&api).await.is(431, "headers_too_large");
    assert_eq!(call("GET", "/healthz").header("x", &"x".repeat(limit - 100)).to(&api).await.status, 200);
    call_without_host("GET", "/healthz").to(&api).await.is(400, "bad_request");
    call("GET", "/healthz").header("host", "other").to(&api).await.is(400, "bad_request");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_does_nothing_again() {
    let api = Api::new().await;
    call("PUT", "/v1/groups/g/members/mailbox").to(&api).await;
    let send = |n: u32| {
        call("POST", "/v1/groups/g/send").header("idempotency-key", "k").body(&format!(r#"{{"type":"x","n":{n}}}"#))
    };
    let (first, second) = (send(1).to(&api).await.json, send(1).to(&api).await.json);
    assert_eq!((&first["existing"], &second["existing"]), (&json!(false), &json!(true)));
    assert_eq!(first["message_id"], second["message_id"]);
    send(2).to(&api).await.is(409, "idempotency_conflict");
    // The same key of another route is another key.
    let other = call("POST", "/v1/channels/mailbox/send").header("idempotency-key", "k").body(r#"{"type":"y"}"#);
    assert_eq!(other.to(&api).await.json["existing"], json!(false));
    assert_eq!(api.receive("mailbox").await.message.kind(), "x");
    assert_eq!(api.receive("mailbox").await.message.kind(), "y");
}

#[tokio::test]
async fn a_batch_is_answered_entry_by_entry_in_order() {
    let api = Api::new().await;
    call("PUT", "/v1/groups/g/members/mailbox").to(&api).await;
    let body = json!([
        {"group": "g", "message": {"type": "a"}},
        {"group": "g/", "message": {"type": "b"}},
        {"group": "my_group", "message": {"type": "execute_query", "query": "one"}},
        {"channel": "mailbox", "message": {"type": "c"}},
        {"message": {"type": "d"}},
        {"group": "g", "message": "e"},
        {"group": "g", "message": {"type": "f"}, "idempotency_key": ""},
        {"group": "my_group", "message": {"type": "execute_query", "query": "two"}},
    ]);
    let answer = call("POST", "/v1/send").body(&body.to_string()).to(&api).await;
    assert_eq!(answer.status, 202);
    let results = answer.json["results"].as_array().expect("results").clone();
    let told: Vec<(u64, &str)> =
        results.iter().map(|r| (r["status"].as_u64().unwrap_or(0), r["code"].as_str().unwrap_or(""))).collect();
    let expected = [
        (202, ""),
        (422, "invalid_name"),
        (202, ""),
        (202, ""),
        (400, "bad_request"),
        (422, "invalid_message"),
        (400, "bad_request"),
        (422, "unknown_query"),
    ];
    assert_eq!(told, expected);
    assert_eq!(results[2]["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.receive("mailbox").await.message.kind(), "a");
    assert_eq!(api.receive("mailbox").await.message.kind(), "c");
    let many = Value::Array(vec![json!({"group": "g", "message": {"type": "a"}}); 1001]);
    call("POST", "/v1/send").body(&many.to_string()).to(&api).await.is(400, "bad_request");
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let api = Api::new().await;
    for (group, channel) in [("room.2", "c"), ("room.1", "b"), ("room.1", "a"), ("other", "a")] {
        call("PUT", &format!("/v1/groups/{group}/members/{channel}")).to(&api).await;
    }
    let get = async |path: &str| call("GET", path).to(&api).await.json;
    let first = json!({"groups": [{"group": "room.1", "members": 2}], "next": "room.1"});
    assert_eq!(get("/v1/groups?prefix=room.&limit=1").await, first);
    let second = json!({"groups": [{"group": "room.2", "members": 1}], "next": null});
    assert_eq!(get("/v1/groups?prefix=room.&limit=1&after=room.1").await, second);
    assert_eq!(get("/v1/groups/room.1/members?limit=1").await, json!({"members": ["a"], "next": "a"}));
    assert_eq!(get("/v1/groups/room.1/members?after=a").await, json!({"members": ["b"], "next": null}));
    let one = json!({"group": "room.1", "members": 2, "epoch": null, "offset": null});
    assert_eq!(get("/v1/groups/room.1").await, one);
    assert_eq!(get("/v1/groups/nobody").await["members"], json!(0));
    assert_eq!(call("DELETE", "/v1/groups/room.1/members/a").to(&api).await.status, 204);
    assert_eq!(get("/v1/groups/room.1").await["members"], json!(1));
    assert_eq!(get("/v1/connections").await, json!({"connections": [], "next": null}));
}

#[tokio::test]
async fn a_panic_is_a_problem_and_is_counted() {
    let more =
        axum::Router::new().route("/panics", axum::routing::get(async || -> &'static str { panic!("on purpose") }));
    let api = Api::with(more).await;
    call("GET", "/panics").to(&api).await.is(500, "internal");
    assert_eq!(api.app.metrics.panics.get(), 1);
}

#[tokio::test]
async fn readiness_names_what_is_not_ready() {
    let api = Api::new().await;
    assert_eq!(call("GET", "/healthz").to(&api).await.json["status"], json!("ok"));
    let ready = call("GET", "/readyz").to(&api).await.json;
    assert_eq!(ready, json!({"status": "ok", "parts": {"gateway": "ok", "jobs": "ok"}}));
    api.app.health.drain();
    let answer = call("GET", "/readyz").to(&api).await;
    answer.is(503, "unavailable");
    assert_eq!(answer.json["detail"], json!("not ready: gateway: about to end"));
    assert_eq!(call("GET", "/healthz").to(&api).await.status, 200);
}

#[tokio::test]
async fn metrics_name_routes_and_never_what_clients_invent() {
    let api = Api::new().await;
    call("POST", "/v1/groups/secret_group/send").body(r#"{"type":"x"}"#).to(&api).await;
    call("GET", "/secret_path").to(&api).await;
    call("SECRET", "/v1/groups").to(&api).await;
    let answer = call("GET", "/metrics").to(&api).await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        r#"groupcast_http_requests_total{method="POST",route="/v1/groups/{group}/send",status="202"} 1"#,
        r#"groupcast_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"groupcast_http_requests_total{method="other",route="/v1/groups",status="405"} 1"#,
        "groupcast_group_sends_total 1",
        "groupcast_connections 0",
        "groupcast_jobs_enqueued_total 0",
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line} in\n{}", answer.text);
    }
    assert!(!answer.text.contains("secret") && !answer.text.contains("SECRET") && answer.text.ends_with("# EOF\n"));
}
