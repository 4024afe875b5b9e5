//! One gateway for several customers, of whom none may know of the others.

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

use super::{KEY, asked, guarded_with, user};

const TENANTS: &str = r#"
[[group]]
name = "tenant.acme.quiet"
types = ["wave"]

[auth]
jwt_secret_file = "jwt.secret"
api_keys_file = "api.keys"
tenant_claim = "tenant"
"#;

const WORK_OF_TENANTS: &str = r#"
[[consumer]]
name = "tenants"
group = "tenant.*"
type = "execute_query"
run = "query"
"#;

/// Rows of whoever asks: the claim is bound, and nobody gives it.
const OWN_ROWS: &str = r#"
[[query]]
id = 50
name = "own"
source = "shop"
sql = "select distinct origin from flights where origin = :claim_home and delay >= :least"
params.claim_home = { type = "text" }
params.least = { type = "real", default = -1000 }
cache = "1h"
refresh = "250ms"
"#;

#[tokio::test]
async fn tenants_meet_in_no_group_whatever_their_tokens_say() {
    let gateway = guarded_with(BARE, TENANTS).await;
    let http = gateway.http();
    let all = |tenant: &str| user(tenant, &json!({"tenant": tenant, "subscribe": ["*"], "send": ["*"]}));
    let (acme, other) = (all("acme"), all("acme2"));
    let mut sockets = [open(&gateway, &acme).await, open(&gateway, &other).await];
    sockets[0].subscribe("tenant.acme.room").await;
    sockets[1].subscribe("tenant.acme2.room").await;
    for group in ["tenant.acme2.room", "tenant.acme", "room", "tenant."] {
        for command in ["subscribe", "members", "history"] {
            sockets[0].refused(json!({"type": command, "group": group}), "forbidden").await;
        }
        let send = json!({"type": "group_send", "group": group, "message": {"type": "chat"}});
        sockets[0].refused(send, "forbidden").await;
        asked(&http, "GET", &format!("/v1/events?group={group}"), Some(&acme), "").await.problem(403, "forbidden");
    }
    let chat = json!({"type": "chat"}).to_string();
    asked(&http, "POST", "/v1/groups/tenant.acme.room/send", Some(&other), &chat).await.problem(403, "forbidden");
    asked(&http, "POST", "/v1/groups/tenant.acme.room/send", Some(&acme), &chat).await.expect(202);
    assert_eq!(sockets[0].message().await["type"], "chat");
    // A client's message has the bound of a socket's, by whichever door.
    let long = json!({"type": "chat", "text": "x".repeat(65 << 10)}).to_string();
    let path = "/v1/groups/tenant.acme.other/send";
    asked(&http, "POST", path, Some(&acme), &long).await.problem(413, "too_large");
    asked(&http, "POST", path, Some(KEY), &long).await.expect(202);
    let batch = format!(r#"[{{"group":"tenant.acme.other","message":{long}}}]"#);
    let batch = asked(&http, "POST", "/v1/send", Some(&acme), &batch).await.expect(202);
    assert_eq!(batch["results"][0]["status"], 413, "{batch}");
    // A consumer of Channels would take it for the result of a job.
    for (token, status) in [(acme.as_str(), 403), (KEY, 202)] {
        let forged = json!({"type": "job_result"}).to_string();
        let sent = asked(&http, "POST", "/v1/groups/tenant.acme.other/send", Some(token), &forged).await;
        assert_eq!(sent.status, status, "{}", sent.text());
    }
    assert_eq!(sockets[1].pending().await, [] as [Value; 0]);
    let list = async |token: &str, prefix: &str| {
        asked(&http, "GET", &format!("/v1/groups?prefix={prefix}"), Some(token), "").await
    };
    assert_eq!(list(&acme, "tenant.acme.").await.expect(200)["groups"][0]["group"], "tenant.acme.room");
    list(&acme, "tenant.acme").await.problem(403, "forbidden");
    list(&acme, "").await.problem(403, "forbidden");
    for tenant in [json!("a.b"), json!("*"), json!(7), Value::Null] {
        let token = user("mallory", &json!({"tenant": tenant, "subscribe": ["*"]}));
        asked(&http, "GET", "/v1/groups/tenant.acme.room", Some(&token), "").await.problem(401, "unauthenticated");
    }
    let quiet = |kind: &str| json!({"type": kind}).to_string();
    let send = async |token: &str, kind: &str| {
        asked(&http, "POST", "/v1/groups/tenant.acme.quiet/send", Some(token), &quiet(kind)).await.status
    };
    assert_eq!((send(&acme, "wave").await, send(&acme, "chat").await, send(KEY, "chat").await), (202, 403, 202));
}

#[tokio::test]
async fn a_user_of_the_same_name_in_another_tenant_is_somebody_else() {
    let gateway = guarded_with(&format!("{JOBS}{WORK_OF_TENANTS}"), TENANTS).await;
    let http = gateway.http();
    let alice =
        |tenant: &str| user("alice", &json!({"tenant": tenant, "subscribe": ["*"], "send": ["*"], "query": ["*"]}));
    let (acme, other) = (alice("acme"), alice("acme2"));
    let ask = async |token: &str, key: &str| {
        let headers = [("authorization", format!("Bearer {token}")), ("idempotency-key", key.to_owned())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let record = http.request("POST", "/v1/queries/numbers", &headers, b"{}".to_vec()).await.record();
        record["id"].as_str().expect("a job").to_owned()
    };
    let job = ask(&acme, "k").await;
    assert_eq!(ask(&acme, "k").await, job, "a repeat is answered by the first");
    assert_ne!(ask(&other, "k").await, job, "a key of somebody else is no repeat");
    asked(&http, "GET", &format!("/v1/jobs/{job}?wait=20"), Some(&acme), "").await.expect(200);
    for path in [format!("/v1/jobs/{job}"), format!("/v1/jobs/{job}/result")] {
        asked(&http, "GET", &path, Some(&other), "").await.problem(404, "not_found");
        asked(&http, "GET", &path, Some(&acme), "").await.expect(200);
    }
    asked(&http, "DELETE", &format!("/v1/jobs/{job}"), Some(&other), "").await.problem(404, "not_found");

    let unique =
        json!({"type": "execute_query", "query": "numbers", "unique_key": "u", "delay_ms": 60_000}).to_string();
    let queued = async |token: &str, group: &str| {
        let path = format!("/v1/groups/{group}/send");
        asked(&http, "POST", &path, Some(token), &unique).await.expect(202)["jobs"][0].clone()
    };
    let (mine, theirs) = (queued(&acme, "tenant.acme.x").await, queued(&other, "tenant.acme2.x").await);
    assert_ne!(mine["id"], theirs["id"]);
    assert_eq!((&mine["existing"], &theirs["existing"]), (&json!(false), &json!(false)));

    let mut socket = open(&gateway, &acme).await;
    socket.refused(json!({"type": "authenticate", "token": other}), "forbidden").await;
    assert_eq!(socket.command(json!({"type": "authenticate", "token": acme})).await["type"], "authenticated");
}

#[tokio::test]
async fn a_repeat_is_answered_to_those_alone_who_may_ask() {
    let gateway = guarded_with(JOBS, "\n[auth]\njwt_secret_file = \"jwt.secret\"\n").await;
    let http = gateway.http();
    let with = user("alice", &json!({"send": ["room"], "query": ["numbers"]}));
    let without = user("alice", &json!({"subscribe": ["room"]}));
    for (path, body) in [("/v1/groups/room/send", r#"{"type":"chat"}"#), ("/v1/queries/numbers", "{}")] {
        let ask = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
            http.request("POST", path, &headers, body.as_bytes().to_vec()).await
        };
        ask(&with).await.record();
        ask(&without).await.problem(403, "forbidden");
        ask(&with).await.record();
    }
}

#[tokio::test]
async fn a_query_shows_each_asker_the_rows_that_the_token_says() {
    let auth = "\n[auth]\njwt_secret_file = \"jwt.secret\"\napi_keys_file = \"api.keys\"\n";
    let gateway = guarded_with(&format!("{JOBS}{OWN_ROWS}"), auth).await;
    let http = gateway.http();
    let from = |name: &str, home: &str| user(name, &json!({"home": home, "query": ["own"], "send": ["my_group"]}));
    let (jfk, lga) = (from("j", "JFK"), from("l", "LGA"));
    let rows = async |token: &str, params: &str| {
        let record = asked(&http, "POST", "/v1/queries/own", Some(token), params).await.record();
        let job = record["id"].as_str().expect("a job").to_owned();
        asked(&http, "GET", &format!("/v1/jobs/{job}?wait=20"), Some(token), "").await.expect(200);
        asked(&http, "GET", &format!("/v1/jobs/{job}/result"), Some(token), "").await.expect(200)["rows"].clone()
    };
    // Twice: what is kept of one asker's answer is not another's.
    for _ in 0..2 {
        assert_eq!(rows(&jfk, "{}").await, json!([["JFK"]]));
        assert_eq!(rows(&lga, "{}").await, json!([["LGA"]]));
    }
    let given = r#"{"claim_home":"LGA"}"#;
    asked(&http, "POST", "/v1/queries/own", Some(&jfk), given).await.problem(422, "bad_params");
    let without = user("w", &json!({"query": ["own"]}));
    asked(&http, "POST", "/v1/queries/own", Some(&without), "{}").await.problem(403, "forbidden");
    let odd = user("o", &json!({"query": ["own"], "home": 7}));
    asked(&http, "POST", "/v1/queries/own", Some(&odd), "{}").await.problem(422, "bad_params");
    assert_eq!(rows(KEY, given).await, json!([["LGA"]]), "a service says whose rows it wants");

    let work = json!({"type": "execute_query", "query": "own", "params": {"claim_home": "LGA"}}).to_string();
    asked(&http, "POST", "/v1/groups/my_group/send", Some(&jfk), &work).await.problem(422, "bad_params");
}

#[tokio::test]
async fn a_live_query_is_followed_by_those_who_may_see_the_same_rows() {
    let auth = "\n[auth]\njwt_secret_file = \"jwt.secret\"\n";
    let gateway = guarded_with(&format!("{JOBS}{OWN_ROWS}"), auth).await;
    let from = |home: &str| user("alice", &json!({"home": home, "query": ["own"]}));
    let (mut jfk, mut lga) = (open(&gateway, &from("JFK")).await, open(&gateway, &from("LGA")).await);
    let follow = json!({"type": "subscribe", "query": "own"});
    let (own, other) = (jfk.command(follow.clone()).await, lga.command(follow).await);
    assert_ne!(own["group"], other["group"]);
    assert_eq!(jfk.message_of("query.snapshot").await["rows"], json!([["JFK"]]));
    assert_eq!(lga.message_of("query.snapshot").await["rows"], json!([["LGA"]]));
    // The same claims, and it stays; another one, and it is left.
    let authenticate = |home: &str| json!({"type": "authenticate", "token": from(home)});
    assert_eq!(jfk.command(authenticate("JFK")).await["type"], "authenticated");
    assert_eq!(jfk.pending().await.iter().filter(|frame| frame["type"] == "unsubscribed").count(), 0);
    assert_eq!(jfk.command(authenticate("LGA")).await["type"], "authenticated");
    let left = jfk.expect("unsubscribed").await;
    assert_eq!(left["group"], own["group"]);
}

async fn open(gateway: &Gateway, token: &str) -> Socket {
    Socket::open_at(gateway, "/ws", &[("authorization", &format!("Bearer {token}"))]).await
}
