//! Who gets in at the admin page, by what, and from where. What it shows is driven in a browser (`tests/browser/admin.mjs`).

use std::sync::Arc;

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Home, Http, Reply};
use serde_json::{Value, json};

/// None of these may ever be printed.
const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const KEY: &str = "canary-key-0123456789abcdef0123456789abc";

/// Everything that is for operators alone.
const GUARDED: &[(&str, &str)] = &[
    ("GET", "overview"),
    ("GET", "groups"),
    ("GET", "groups/room.1"),
    ("GET", "groups/room.1/members"),
    ("GET", "groups/room.1/history"),
    ("GET", "events?group=room.1"),
    ("GET", "connections"),
    ("GET", "connections/specific.gw1!c1"),
    ("DELETE", "connections/specific.gw1!c1"),
    ("GET", "jobs"),
    ("GET", "jobs/dead"),
    ("POST", "jobs/redrive"),
    ("GET", "jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K"),
    ("DELETE", "jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K"),
    ("GET", "jobs/01JD8ZJ4M5E8RAX0V4C9QW2N7K/result"),
    ("GET", "consumers"),
    ("POST", "consumers/queries/pause"),
    ("POST", "consumers/queries/resume"),
    ("GET", "schedules"),
];

#[tokio::test]
async fn everything_but_the_empty_page_wants_a_key_for_everything() {
    let (gateway, billing) = guarded(BARE).await;
    let http = gateway.http();
    let user = token(SECRET, &json!({"sub": "alice", "exp": seconds_from_now(60), "subscribe": ["*"], "send": ["*"]}));
    for (method, path) in GUARDED {
        let what = format!("{method} {path}");
        let asked = async |bearer: Option<&str>| {
            let bearer = bearer.map(|bearer| format!("Bearer {bearer}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            api(&http, method, path, &headers).await
        };
        asked(None).await.problem(401, "unauthenticated");
        asked(Some("canary-of-nobody-0123456789abcdef0123456789")).await.problem(401, "unauthenticated");
        for less in [&user, &billing] {
            asked(Some(less)).await.problem(403, "forbidden");
        }
        if !path.starts_with("events") {
            let status = asked(Some(KEY)).await.status;
            assert!(matches!(status, 200 | 404), "{what}: {status}");
        }
    }
    let page = http.get("/admin/").await;
    assert_eq!(page.status, 200);
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert!(page.header(name).is_some_and(|value| value.contains(part)), "{name}: {:?}", page.headers);
    }
    assert_eq!(http.get("/admin").await.status, 200, "led to the page");
}

#[tokio::test]
async fn a_session_is_a_cookie_for_this_page_alone_and_ends_when_its_operator_leaves() {
    let (gateway, _) = guarded(BARE).await;
    let http = gateway.http();
    let own = [("sec-fetch-site", "same-origin")];
    let reply = sign_in(&http, KEY, &own).await;
    assert_eq!(reply.expect(200)["operator"], "api_keys");
    let said = reply.header("set-cookie").expect("a cookie").to_owned();
    assert!(!said.contains("Secure") && !said.contains(KEY), "{said}");
    for attribute in ["; Path=/admin/; ", "; HttpOnly; ", "; SameSite=Strict; ", "; Max-Age=28800"] {
        assert!(said.contains(attribute), "{said}");
    }
    let cookie = said.split(';').next().expect("a pair").to_owned();
    let with = |site: &'static str| [("cookie", cookie.as_str()), ("sec-fetch-site", site)];
    api(&http, "GET", "overview", &with("same-origin")).await.expect(200);
    assert_eq!(api(&http, "GET", "session", &with("same-origin")).await.expect(200)["operator"], "api_keys");
    for path in ["/v1/groups", "/v1/jobs", "/metrics", "/v1/connections"] {
        http.request("GET", path, &with("same-origin"), Vec::new()).await.problem(401, "unauthenticated");
    }
    let mut tail = Events::open_at(gateway.address(), "/admin/api/events?group=room.1", &with("same-origin")).await;
    tail.expect("subscribed", "subscribed").await;
    api(&http, "DELETE", "session", &with("same-origin")).await.expect(204);
    api(&http, "GET", "overview", &with("same-origin")).await.problem(401, "unauthenticated");
    assert!(tail.next().await.is_none(), "its streams end, too");
    let encrypted = [("sec-fetch-site", "same-origin"), ("x-forwarded-proto", "https")];
    let reply = sign_in(&http, KEY, &encrypted).await;
    assert!(reply.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")), "{:?}", reply.headers);
}

#[tokio::test]
async fn what_another_page_sends_is_refused_whatever_it_shows() {
    let (gateway, _) = guarded(&format!("{BARE}origins = [\"https://app.example\"]\n")).await;
    let http = gateway.http();
    let cookie = sign_in(&http, KEY, &[]).await.header("set-cookie").expect("a cookie").to_owned();
    let bearer = format!("Bearer {KEY}");
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://app.example"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "null"),
    ] {
        for credential in [("cookie", cookie.as_str()), ("authorization", bearer.as_str())] {
            for (method, path) in
                [("POST", "jobs/redrive"), ("DELETE", "session"), ("POST", "session"), ("GET", "groups")]
            {
                api(&http, method, path, &[credential, foreign]).await.problem(403, "forbidden");
            }
        }
    }
    // A program shows no page, and may not use a cookie to change something; a key it may use.
    api(&http, "POST", "jobs/redrive", &[("cookie", &cookie)]).await.problem(403, "forbidden");
    api(&http, "POST", "jobs/redrive", &[("authorization", &bearer)]).await.expect(200);
    api(&http, "GET", "groups", &[("cookie", &cookie), ("sec-fetch-site", "same-origin")]).await.expect(200);
}

#[tokio::test]
async fn wrong_keys_are_counted_and_the_right_one_is_never_told() {
    let (gateway, billing) = guarded(BARE).await;
    let http = gateway.http();
    sign_in(&http, &billing, &[]).await.problem(403, "forbidden");
    for _ in 0..9 {
        sign_in(&http, "canary-of-nobody-0123456789abcdef0123456789", &[]).await.problem(401, "unauthenticated");
    }
    let refused = sign_in(&http, KEY, &[]).await;
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert!(!gateway.printed().contains("canary"), "{}", gateway.printed());
}

#[tokio::test]
async fn without_auth_it_is_open_to_this_machine_and_can_do_what_the_page_does() {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    let session = api(&http, "GET", "session", &[]).await.expect(200);
    assert_eq!((&session["open"], &session["operator"]), (&json!(true), &Value::Null));
    api(&http, "POST", "jobs/redrive", &[("sec-fetch-site", "cross-site")]).await.problem(403, "forbidden");
    let dead = http.job("my_group", &json!({"type": "execute_query", "query": "broken"})).await;
    let other = http.job("my_group", &json!({"type": "execute_query", "query": "broken"})).await;
    for job in [&dead, &other] {
        assert_eq!(http.ended(job).await["state"], "dead");
    }
    let redrive = async |body: Value| {
        let headers = [("content-type", "application/json")];
        let path = "/admin/api/jobs/redrive";
        http.request("POST", path, &headers, body.to_string().into_bytes()).await
    };
    assert_eq!(redrive(json!({"consumer": "queries", "dry_run": true})).await.expect(200)["redriven"], 2);
    // Its event may be under way for a moment.
    let again = || async { (redrive(json!({"job": dead})).await.expect(200)["redriven"] == 1).then_some(()) };
    eventually("one job is tried again", again).await;
    let record = http.ended(&dead).await;
    assert!(record["attempt"].as_u64() > http.ended(&other).await["attempt"].as_u64(), "{record}");
    redrive(json!({"job": "nonsense"})).await.problem(400, "bad_request");
    let overview = api(&http, "GET", "overview", &[]).await.expect(200);
    assert!(overview["values"]["jobs_dead"].as_f64() >= Some(2.0), "{overview}");
    let parts: Vec<_> = overview["parts"].as_array().expect("parts").iter().map(|part| &part["part"]).collect();
    assert_eq!(parts[..4], ["gateway", "layer", "jobs", "sources"]);
    assert!(overview["times"]["http"]["counts"].as_array().is_some_and(|counts| !counts.is_empty()), "{overview}");
    let mut listener = Events::open(&gateway, "group=room.1").await;
    listener.expect("subscribed", "subscribed").await;
    let found = api(&http, "GET", "connections?text=127.0.0.1&limit=1", &[]).await.expect(200);
    assert_eq!(found["connections"][0]["groups"], json!(["room.1"]), "{found}");
    let none = api(&http, "GET", "connections?text=nobody", &[]).await.expect(200);
    assert_eq!((&none["connections"], &none["looked_at"], &none["next"]), (&json!([]), &json!(1), &Value::Null));
}

#[tokio::test]
async fn where_others_can_reach_it_a_key_is_wanted() {
    let (gateway, _) = guarded(&BARE.replace("127.0.0.1:0", "0.0.0.0:0")).await;
    let http = gateway.http();
    api(&http, "GET", "overview", &[]).await.problem(401, "unauthenticated");
    assert_eq!(api(&http, "GET", "session", &[]).await.expect(200)["open"], false);
    api(&http, "GET", "overview", &[("authorization", &format!("Bearer {KEY}"))]).await.expect(200);
}

#[tokio::test]
async fn where_operators_have_an_address_it_is_there_alone() {
    let apart = |ops: &str| BARE.replacen("[server]\n", &format!("[server]\nops_listen = \"{ops}:0\"\n"), 1);
    let (gateway, _) = guarded(&apart("127.0.0.1")).await;
    let (clients, operators) = (gateway.http(), gateway.operators().await);
    let key = format!("Bearer {KEY}");
    for path in ["/admin/", "/admin/api/session", "/admin/api/overview"] {
        clients.request("GET", path, &[("authorization", &key)], Vec::new()).await.problem(404, "not_found");
    }
    assert_eq!(operators.get("/admin/").await.status, 200);
    api(&operators, "GET", "overview", &[]).await.problem(401, "unauthenticated");
    let cookie = sign_in(&operators, KEY, &[]).await.header("set-cookie").expect("a cookie").to_owned();
    let own = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    api(&operators, "GET", "overview", &own).await.expect(200);
    let address = operators.address();
    let mut tail = Events::open_at(address, "/admin/api/events?group=room.1", &own).await;
    tail.expect("subscribed", "subscribed").await;
    let chat = json!({"type": "chat"}).to_string().into_bytes();
    clients.request("POST", "/v1/groups/room.1/send", &[("authorization", &key)], chat).await.expect(202);
    assert_eq!(tail.message().await["type"], "chat");
    let open = Gateway::start(&apart("127.0.0.1")).await;
    api(&open.operators().await, "GET", "overview", &[]).await.expect(200);
    let (everywhere, _) = guarded(&apart("0.0.0.0")).await;
    api(&everywhere.operators().await, "GET", "overview", &[]).await.problem(401, "unauthenticated");
}

/// A gateway with a key for everything, and one for less, which is given along.
async fn guarded(config: &str) -> (Gateway, String) {
    let made = run(groupcast(&Home::new(BARE), &["key", "new", "--name", "billing", "--send", "invoice.*"])).await;
    let printed = String::from_utf8_lossy(&made.stdout).into_owned();
    let (billing, entry) = printed.split_once("\n\n").expect("the key, and its entry");
    let home = Home::new(&format!(
        "{config}\n[auth]\njwt_secret_file = \"jwt.secret\"\napi_keys_file = \"api.keys\"\n{entry}"
    ));
    home.write("jwt.secret", SECRET);
    home.write("api.keys", KEY);
    (Gateway::start_in(Arc::new(home)).await, billing.to_owned())
}

async fn api(http: &Http, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    http.request(method, &format!("/admin/api/{path}"), headers, Vec::new()).await
}

async fn sign_in(http: &Http, key: &str, headers: &[(&str, &str)]) -> Reply {
    let headers = [&[("content-type", "application/json")], headers].concat();
    http.request("POST", "/admin/api/session", &headers, json!({"key": key}).to_string().into_bytes()).await
}
