//! Who may do what: a team puts its gateway where others can reach it.

mod model;
mod sockets;
mod tenants;

use groupcast_tests::gateway::{Process, groupcast, run};
use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::token::{seconds_from_now, signed, token};
use groupcast_tests::{Events, Gateway, Home, Http, Reply, Socket};
use serde_json::{Value, json};

/// None of these may ever be printed.
const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
pub(crate) const KEY: &str = "canary-key-0123456789abcdef0123456789abc";

pub(crate) const AUTH: &str = r#"
[auth]
jwt_secret_file = "jwt.secret"
api_keys_file = "api.keys"
"#;

#[tokio::test]
async fn a_service_may_do_everything_a_user_what_the_token_says_and_nobody_else_anything() {
    let gateway = guarded(BARE).await;
    let http = gateway.http();
    let chat = json!({"type": "chat"}).to_string();
    let send = async |group: &str, credential: Option<&str>| {
        asked(&http, "POST", &format!("/v1/groups/{group}/send"), credential, &chat).await
    };
    let alice = user("alice", &json!({"send": ["room.*"]}));
    assert_eq!(send("anything", Some(KEY)).await.expect(202)["members"], 0);
    send("room.1", Some(&alice)).await.expect(202);
    send("other", Some(&alice)).await.problem(403, "forbidden");
    let refused = send("room.1", None).await;
    refused.problem(401, "unauthenticated");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for path in ["/v1/connections", "/v1/jobs", "/metrics", "/v1/consumers"] {
        asked(&http, "GET", path, Some(&alice), "").await.problem(403, "forbidden");
        asked(&http, "GET", path, None, "").await.problem(401, "unauthenticated");
        assert_eq!(asked(&http, "GET", path, Some(KEY), "").await.status, 200, "{path}");
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_forged_token_opens_nothing() {
    let gateway = guarded(BARE).await;
    let http = gateway.http();
    let claims = json!({"sub": "root", "exp": seconds_from_now(60), "subscribe": ["*"], "send": ["*"], "query": ["*"]});
    let head = |head: Value| signed(SECRET, &head, &claims);
    let good = token(SECRET, &claims);
    let body = good.rsplit_once('.').expect("three parts").0;
    let own = "a secret that an attacker has chosen himself";
    let forgeries = [
        format!("{body}."),
        format!("{}.", head(json!({"alg": "none"})).rsplit_once('.').expect("three parts").0),
        head(json!({"alg": "none"})),
        head(json!({"alg": "RS256"})),
        head(json!({"alg": "HS512"})),
        head(json!({"alg": "HS256", "crit": ["exp"]})),
        token(own, &claims),
        signed(own, &json!({"alg": "HS256", "jku": "http://127.0.0.1:9/keys", "kid": "attacker"}), &claims),
        signed(own, &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "YSBzZWNyZXQ"}}), &claims),
        token(SECRET, &json!({"sub": "root", "exp": 1, "send": ["*"]})),
        token(SECRET, &json!({"sub": "root", "send": ["*"]})),
        token(SECRET, &json!({"sub": "root", "exp": "never", "send": ["*"]})),
        token(SECRET, &json!({"exp": seconds_from_now(60), "send": ["*"]})),
        SECRET.to_owned(),
    ];
    let chat = json!({"type": "chat"}).to_string();
    asked(&http, "POST", "/v1/groups/g/send", Some(&good), &chat).await.expect(202);
    for forgery in forgeries {
        asked(&http, "POST", "/v1/groups/g/send", Some(&forgery), &chat).await.problem(401, "unauthenticated");
        asked(&http, "GET", "/v1/groups/g", Some(&forgery), "").await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn jobs_are_seen_and_cancelled_by_whoever_asked_for_them() {
    let gateway = guarded(JOBS).await;
    let http = gateway.http();
    let (alice, bob) = (user("alice", &json!({"query": ["*"]})), user("bob", &json!({"query": ["*"]})));
    let accepted = asked(&http, "POST", "/v1/queries/numbers", Some(&alice), r#"{"count":3}"#).await;
    let job = accepted.json()["id"].as_str().expect("a job").to_owned();
    let (record, result) = (format!("/v1/jobs/{job}?wait=20"), format!("/v1/jobs/{job}/result"));
    assert_eq!(asked(&http, "GET", &record, Some(&alice), "").await.expect(200)["state"], "succeeded");
    assert_eq!(asked(&http, "GET", &result, Some(&alice), "").await.expect(200)["row_count"], 3);
    for path in [&record, &result] {
        asked(&http, "GET", path, Some(&bob), "").await.problem(404, "not_found");
        asked(&http, "GET", path, Some(KEY), "").await.expect(200);
    }
    let endless = asked(&http, "POST", "/v1/queries/endless", Some(&alice), "{}").await.expect(202);
    let path = format!("/v1/jobs/{}", endless["id"].as_str().expect("a job"));
    asked(&http, "DELETE", &path, Some(&bob), "").await.problem(404, "not_found");
    asked(&http, "DELETE", &path, Some(&alice), "").await.expect(202);
    let forbidden = user("carol", &json!({"query": ["numbers"]}));
    asked(&http, "POST", "/v1/queries/endless", Some(&forbidden), "{}").await.problem(403, "forbidden");
}

#[tokio::test]
async fn whose_a_job_is_outlives_the_gateway() {
    let gateway = guarded(JOBS).await;
    let (alice, bob) = (user("alice", &json!({"query": ["*"]})), user("bob", &json!({})));
    let accepted = asked(&gateway.http(), "POST", "/v1/queries/numbers", Some(&alice), "{}").await;
    let path = format!("/v1/jobs/{}?wait=20", accepted.json()["id"].as_str().expect("a job"));
    let gateway = Gateway::start_in(gateway.kill().await).await;
    let http = gateway.http();
    assert_eq!(asked(&http, "GET", &path, Some(&alice), "").await.expect(200)["state"], "succeeded");
    asked(&http, "GET", &path, Some(&bob), "").await.problem(404, "not_found");
}

#[tokio::test]
async fn an_event_stream_is_opened_by_a_token_and_ends_with_it() {
    let gateway = guarded(BARE).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let alice = bearer(&user("alice", &json!({"subscribe": ["room.*"]})));
    let short = bearer(&token(SECRET, &json!({"sub": "bob", "exp": seconds_from_now(2), "subscribe": ["room.*"]})));
    let mut stays = Events::open_with(&gateway, "group=room.1", &[("authorization", &alice)]).await;
    stays.expect("subscribed", "subscribed").await;
    let mut ends = Events::open_with(&gateway, "group=room.1", &[("authorization", &short)]).await;
    ends.expect("subscribed", "subscribed").await;
    let last = ends.next().await.expect("it is told why it ends");
    let told = last.data;
    assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("unauthenticated")), "{told}");
    assert!(ends.next().await.is_none(), "the stream ends");
    let chat = json!({"type": "chat"}).to_string();
    asked(&gateway.http(), "POST", "/v1/groups/room.1/send", Some(KEY), &chat).await.expect(202);
    assert_eq!(stays.message().await["type"], "chat");
    let http = gateway.http();
    http.get("/v1/events?group=room.1").await.problem(401, "unauthenticated");
    let other = asked(&http, "GET", "/v1/events?group=other", Some(alice.trim_start_matches("Bearer ")), "").await;
    other.problem(403, "forbidden");
}

#[tokio::test]
async fn with_auth_any_address_may_be_listened_on_and_without_it_loopback_alone() {
    let everywhere = BARE.replace("127.0.0.1:0", "0.0.0.0:0");
    let home = Home::new(&everywhere);
    let (code, printed) = Gateway::refused(&home).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("server.listen") && printed.contains("[auth]"), "{printed}");
    let gateway = guarded(&everywhere).await;
    gateway.http().get("/v1/groups").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_secret_that_is_missing_or_weak_is_refused_at_start_and_never_shown() {
    let weak = "canary-weak";
    let home = |auth: &str| {
        let home = Home::new(&format!("{BARE}\n[auth]\n{auth}"));
        home.write("weak", weak);
        home
    };
    for (auth, key, word) in [
        ("jwt_secret_env = \"GROUPCAST_NOT_SET\"", "auth.jwt_secret_env", "`GROUPCAST_NOT_SET` is not set"),
        ("api_keys_file = \"nowhere\"", "auth.api_keys_file", "nowhere"),
        ("jwt_secret_file = \"weak\"", "auth.jwt_secret_env", "11 characters"),
        ("api_keys_file = \"weak\"", "auth.api_keys_env", "11 characters"),
        ("", "auth", "lets nobody in"),
    ] {
        let home = home(auth);
        for command in ["serve", "check"] {
            let output = run(groupcast(&home, &[command, "--config", "groupcast.toml"])).await;
            let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{command} {auth}: {told}");
            assert!(told.contains(key) && told.contains(word) && !told.contains(weak), "{command} {auth}: {told}");
        }
    }
}

#[tokio::test]
async fn no_secret_reaches_a_log_or_an_answer() {
    let gateway = guarded(&BARE.replace("[server]", "[server]\nlog = \"trace\"")).await;
    let http = gateway.http();
    let alice = user("alice", &json!({"send": ["*"]}));
    let mut told = Vec::new();
    for credential in [KEY, &alice, &format!("{KEY}x"), &format!("{alice}x")] {
        for path in ["/v1/groups", "/v1/connections", "/openapi.json", "/metrics"] {
            told.push(asked(&http, "GET", path, Some(credential), "").await.text());
        }
        let protocol = format!("groupcast.v1, groupcast.token.{credential}");
        let headers = [("sec-websocket-protocol", protocol.as_str())];
        if let Err(reply) = Socket::dial(gateway.address(), "/ws", &headers, None).await {
            told.push(reply.text());
        }
    }
    told.push(gateway.printed());
    let signature = alice.rsplit('.').next().expect("three parts");
    for text in told {
        assert!(!text.contains("canary") && !text.contains(signature), "{text}");
    }
}

#[tokio::test]
async fn a_token_of_the_command_line_is_one_that_the_gateway_takes() {
    let home = Home::new(&format!("{BARE}\n[auth]\njwt_secret_env = \"APP_SECRET\"\napi_keys_env = \"APP_KEYS\"\n"));
    let command = |arguments: &[&str]| {
        let mut command = groupcast(&home, arguments);
        command.env("APP_SECRET", SECRET).env("APP_KEYS", format!("{KEY},{SECRET}"));
        command
    };
    let mut process = Process::spawn(command(&["serve", "--config", "groupcast.toml"]));
    let address = process.address().await;
    let mint = async |arguments: &[&str]| {
        let all = [&["token", "--config", "groupcast.toml", "--sub", "alice"], arguments].concat();
        let output = run(command(&all)).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (code, alice) = mint(&["--send", "room.*", "--for", "5m"]).await;
    assert_eq!(code, Some(0));
    let url = format!("http://{address}");
    let send = async |group: &str, token: &str| {
        let arguments = ["send", group, r#"{"type":"chat"}"#, "--url", &url, "--token", token];
        run(groupcast(&home, &arguments)).await.status.code()
    };
    assert_eq!(send("room.1", &alice).await, Some(0));
    assert_eq!(send("other", &alice).await, Some(1));
    assert_eq!(send("other", KEY).await, Some(0));
    assert_eq!(mint(&["--send", "a*b"]).await.0, Some(2), "a pattern that no gateway takes");
    let without = run(groupcast(&Home::new(BARE), &["token", "--sub", "alice"])).await;
    assert_eq!(without.status.code(), Some(2));
}

#[tokio::test]
async fn a_token_of_the_command_line_says_what_the_configuration_asks_for() {
    let auth = "[auth]\njwt_secret_env = \"APP_SECRET\"\nissuer = \"us\"\naudience = \"here\"\ntenant_claim = \"tenant\"\nrevoked_file = \"revoked\"\n";
    let home = Home::new(&format!("{BARE}\n{auth}"));
    home.write("revoked", "user alice 2020-01-01T00:00:00Z\n");
    let command = |arguments: &[&str]| {
        let mut command = groupcast(&home, arguments);
        command.env("APP_SECRET", SECRET);
        command
    };
    let mut process = Process::spawn(command(&["serve", "--config", "groupcast.toml"]));
    let http = Http::new(process.address().await);
    let base = ["token", "--config", "groupcast.toml", "--sub", "alice", "--send", "*"];
    let mint = async |more: &[&str]| run(command(&[&base[..], more].concat())).await;
    let output = mint(&["--claim", "tenant=acme", "--claim", "level=3"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let send = async |group: &str| {
        asked(&http, "POST", &format!("/v1/groups/{group}/send"), Some(&token), r#"{"type":"chat"}"#).await
    };
    send("tenant.acme.room").await.expect(202);
    send("tenant.other.room").await.problem(403, "forbidden");
    for bad in [&[][..], &["--claim", "tenant"], &["--claim", "exp=7", "--claim", "tenant=acme"]] {
        assert_eq!(mint(bad).await.status.code(), Some(2), "{bad:?}");
    }
}

#[tokio::test]
async fn a_key_of_the_command_line_may_do_what_its_scopes_say() {
    let home = Home::new(BARE);
    let arguments = ["key", "new", "--name", "billing", "--send", "invoice.*", "--type", "invoice.paid"];
    let output = run(groupcast(&home, &arguments)).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (key, entry) = printed.split_once("\n\n").expect("the key, and its entry");
    assert!(key.len() >= 40 && !entry.contains(key), "{printed}");
    let gateway = guarded_with(BARE, &format!("\n{entry}")).await;
    let http = gateway.http();
    let send = async |group: &str, kind: &str| {
        let body = json!({"type": kind}).to_string();
        asked(&http, "POST", &format!("/v1/groups/{group}/send"), Some(key), &body).await
    };
    send("invoice.1", "invoice.paid").await.expect(202);
    send("invoice.1", "chat").await.problem(403, "forbidden");
    send("room.1", "invoice.paid").await.problem(403, "forbidden");
    asked(&http, "GET", "/metrics", Some(key), "").await.problem(403, "forbidden");
    asked(&http, "GET", "/v1/jobs", Some(key), "").await.problem(403, "forbidden");
    send("invoice.1", "invoice.paid").await.expect(202);
    let nothing = run(groupcast(&home, &["key", "new", "--name", "idle"])).await;
    assert_eq!(nothing.status.code(), Some(2), "a key that may do nothing");
}

/// A gateway with secrets.
async fn guarded(config: &str) -> Gateway {
    guarded_with(config, AUTH).await
}

pub(crate) async fn guarded_with(config: &str, auth: &str) -> Gateway {
    let home = Home::new(&format!("{config}{auth}"));
    home.write("jwt.secret", &format!("{SECRET}\n"));
    home.write("api.keys", KEY);
    Gateway::start_in(std::sync::Arc::new(home)).await
}

/// A token that is good for the length of a test.
pub(crate) fn user(name: &str, grants: &Value) -> String {
    let mut claims = grants.clone();
    claims["sub"] = json!(name);
    claims["exp"] = json!(seconds_from_now(600));
    token(SECRET, &claims)
}

pub(crate) async fn asked(http: &Http, method: &str, path: &str, credential: Option<&str>, body: &str) -> Reply {
    let bearer = credential.map(|credential| format!("Bearer {credential}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    http.request(method, path, &headers, body.as_bytes().to_vec()).await
}
