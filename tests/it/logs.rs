//! The log as programs read it: each line is an object, whatever happens, and no secret is in any.

use std::collections::HashSet;
use std::sync::Arc;

use groupcast_tests::gateway::{groupcast, run};
use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Socket};
use serde_json::{Value, json};

const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const KEY: &str = "canary-key-0123456789abcdef0123456789abc";
const PAYLOAD: &str = "canary-payload";

#[tokio::test]
async fn every_line_of_the_log_is_an_object_and_no_secret_is_in_any() {
    let gateway = start("trace,hyper=debug,h2=debug").await;
    let bearer = format!("Bearer {KEY}");
    let auth = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let user = token(SECRET, &json!({"sub": "alice", "exp": seconds_from_now(60), "subscribe": ["*"], "send": ["*"]}));
    let user_bearer = format!("Bearer {user}");
    let mut socket = Socket::open_at(&gateway, "/ws", &[("authorization", &user_bearer)]).await;
    socket.subscribe("room.1").await;
    let message = json!({"type": "chat", "text": PAYLOAD}).to_string().into_bytes();
    gateway.http().request("POST", "/v1/groups/room.1/send", &auth, message).await.expect(202);
    socket.message().await;
    let wrong = [("authorization", "Bearer canary-wrong-0123456789abcdef0123456789")];
    gateway.http().request("GET", "/v1/connections", &wrong, Vec::new()).await.problem(401, "unauthenticated");
    let work = json!({"type": "execute_query", "query": "broken"}).to_string().into_bytes();
    gateway.http().request("POST", "/v1/groups/my_group/send", &auth, work).await.expect(202);
    let query = gateway.http().request("POST", "/v1/queries/numbers", &auth, b"{}".to_vec()).await;
    assert!(query.status < 300, "{}", query.text());
    gateway.home().write("api.keys", "canary-short");
    gateway.hang_up();
    let told = || async { gateway.printed().contains("all stays as it was").then_some(()) };
    eventually("the bad key is told", told).await;
    gateway.terminate();
    let printed = eventually("the drain is told", || async { said(&gateway, "drained") }).await;
    assert!(lines(&printed).len() > 4, "{printed}");
    for line in lines(&printed) {
        for field in ["timestamp", "level", "message", "target"] {
            // A library may say something without words.
            assert!(line.get(field).is_some() || field == "message", "no `{field}`: {line}");
        }
    }
    for secret in ["canary", &user, &user[user.len() - 40..]] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
}

#[tokio::test]
async fn a_line_says_whose_work_it_was_written_for() {
    // Nobody listens there, and the log says so.
    let away = "http://127.0.0.1:1";
    let server = "[server]\nlog_format = \"json\"\nlog = \"groupcast=debug\"\n";
    let config = BARE.replacen("[server]\n", server, 1);
    let gateway = Gateway::start(&format!(
        r#"{config}
[hooks]
url = "{away}/hook"
allow_private = true
events = ["message"]
types = ["chat"]
[[consumer]]
name = "views"
group = "my_group"
type = "execute_query"
run = "http"
url = "{away}/jobs"
allow_private = true
durability = "memory"
max_attempts = 1
"#
    ))
    .await;
    let headers = [("x-request-id", "proxy-1:7"), ("content-type", "application/json")];
    let body = json!({"key": "wrong"}).to_string().into_bytes();
    let refused = gateway.http().request("POST", "/admin/api/session", &headers, body).await;
    refused.problem(401, "unauthenticated");
    assert_eq!(refused.header("x-request-id"), Some("proxy-1:7"));
    let mut socket = Socket::open(&gateway).await;
    let channel = json!(socket.channel);
    let chat = json!({"type": "group_send", "group": "room.1", "message": {"type": "chat"}});
    socket.refused(chat, "unavailable").await;
    let job = gateway.http().job("my_group", &json!({"type": "execute_query"})).await;

    line(&gateway, "a sign-in at the admin page was refused", "request", &json!("proxy-1:7")).await;
    line(&gateway, "the service of [hooks] gave no answer that can be followed", "connection", &channel).await;
    line(&gateway, "a backend gave no answer", "job", &json!(job)).await;
    let listening = lines(&gateway.printed()).into_iter().find(|line| line["message"] == "listening");
    let listening = listening.expect("the log begins with it");
    assert!(["request", "connection", "job"].iter().all(|field| listening.get(field).is_none()), "{listening}");
}

#[tokio::test]
async fn every_answer_says_what_its_request_was_called() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let mut made = Vec::new();
    for (method, path) in
        [("POST", "/v1/groups/g/send"), ("GET", "/v1/groups"), ("GET", "/nowhere"), ("PUT", "/healthz")]
    {
        let ask = async |headers: &[(&str, &str)]| {
            let reply = http.request(method, path, headers, b"{\"type\":\"x\"}".to_vec()).await;
            reply
                .header("x-request-id")
                .map(str::to_owned)
                .unwrap_or_else(|| panic!("{method} {path}: {}", reply.text()))
        };
        assert_eq!(ask(&[("x-request-id", "a.7-b_c")]).await, "a.7-b_c", "{method} {path}");
        made.push(ask(&[]).await);
        made.push(ask(&[("x-request-id", "has \"quotes\"")]).await);
        made.push(ask(&[("x-request-id", &"x".repeat(65))]).await);
    }
    assert!(made.iter().all(|id| id.len() == 26), "{made:?}");
    let (made_in_all, different) = (made.len(), made.into_iter().collect::<HashSet<_>>().len());
    assert_eq!(different, made_in_all);
}

#[tokio::test]
async fn what_operators_change_is_in_the_log_with_who_it_was() {
    let gateway = start("info").await;
    let bearer = format!("Bearer {KEY}");
    let user = token(SECRET, &json!({"sub": "alice", "exp": seconds_from_now(60), "query": ["*"]}));
    let user_bearer = format!("Bearer {user}");
    let as_operator = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let as_user = [("authorization", user_bearer.as_str()), ("content-type", "application/json")];
    let (http, url) = (gateway.http(), format!("http://{}", gateway.address()));
    let pause = ["consumers", "pause", "queries", "--url", &url, "--token", KEY];
    let paused = run(groupcast(gateway.home(), &pause)).await;
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    let socket = Socket::open_at(&gateway, "/ws", &[("authorization", &user_bearer)]).await;
    let mut asked = vec!["POST /v1/consumers/queries/pause 200".to_owned()];
    for (method, path, body, status) in [
        ("POST", "/v1/consumers/queries/resume".to_owned(), "", 200),
        ("POST", "/v1/consumers/nobody/pause".to_owned(), "", 404),
        ("POST", "/v1/jobs/redrive".to_owned(), "{}", 200),
        ("POST", "/v1/invalidate".to_owned(), r#"{"tags": ["flights"]}"#, 202),
        ("DELETE", format!("/v1/connections/{}", socket.channel), "", 204),
    ] {
        let reply = http.request(method, &path, &as_operator, body.as_bytes().to_vec()).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        asked.push(format!("{method} {path} {status}"));
    }
    // Of two that cancel a job, one does what users do with their own.
    for headers in [&as_user, &as_operator] {
        let asked_for = http.request("POST", "/v1/queries/endless", &as_user, b"{}".to_vec()).await.expect(202);
        let path = format!("/v1/jobs/{}", asked_for["id"].as_str().expect("a job"));
        http.request("DELETE", &path, headers, Vec::new()).await.expect(202);
        if headers == &as_operator {
            asked.push(format!("DELETE {path} 202"));
        }
    }
    // What is refused changes nothing, and what only looks does not either.
    http.request("POST", "/v1/jobs/redrive", &as_user, b"{}".to_vec()).await.problem(403, "forbidden");
    http.request("GET", "/v1/consumers", &as_operator, Vec::new()).await.expect(200);
    gateway.terminate();
    let printed = eventually("the drain is told", || async { said(&gateway, "drained") }).await;
    let changes = lines(&printed).into_iter().filter(|line| line["message"] == "an operator has changed something");
    let told: Vec<String> = changes
        .map(|line| {
            assert_eq!((&line["operator"], &line["level"]), (&json!("api_keys"), &json!("INFO")), "{line}");
            let text = |name: &str| line[name].as_str().expect("a text").to_owned();
            format!("{} {} {}", text("method"), text("path"), line["status"])
        })
        .collect();
    assert_eq!(told, asked);
}

/// There is a line that begins so, and it has this.
async fn line(gateway: &Gateway, message: &str, field: &str, value: &Value) {
    let is_it = |line: &Value| line["message"].as_str().is_some_and(|said| said.starts_with(message));
    let said = || async { lines(&gateway.printed()).into_iter().find(is_it) };
    let line = eventually(message, said).await;
    assert_eq!(&line[field], value, "{line}");
}

async fn start(filter: &str) -> Gateway {
    let server = format!("[server]\nlog_format = \"json\"\nlog = \"{filter}\"\n");
    let config = JOBS.replacen("[server]\n", &server, 1);
    let home =
        Home::new(&format!("{config}\n[auth]\njwt_secret_file = \"jwt.secret\"\napi_keys_file = \"api.keys\"\n"));
    home.write("jwt.secret", SECRET);
    home.write("api.keys", KEY);
    Gateway::start_in(Arc::new(home)).await
}

fn said(gateway: &Gateway, message: &str) -> Option<String> {
    let printed = gateway.printed();
    printed.contains(&format!("\"message\":\"{message}\"")).then_some(printed)
}

/// Everything but what the command itself prints on standard output.
fn lines(printed: &str) -> Vec<Value> {
    let log = printed.lines().filter(|line| !line.starts_with("groupcast listens on "));
    log.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))).collect()
}
