//! The log as programs read it: each line is an object, whatever happens, and no secret is in any.

use std::sync::Arc;

use groupcast_tests::home::JOBS;
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
