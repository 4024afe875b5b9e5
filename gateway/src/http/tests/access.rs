//! Every route asks who is asking: a new one that does not is found here.

use serde_json::Value;

use super::fixture::{Api, call};
use crate::auth::mint::{Claims, mint};
use crate::clock;
use crate::config::{AuthConfig, Hidden};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "fedcba9876543210fedcba9876543210";

/// Open to everybody.
const OPEN: &[&str] = &["/healthz", "/readyz", "/openapi.json", "/docs"];
/// These ask whether a name is granted; everything else is for services that may do everything.
const BY_NAME: &[&str] = &[
    "get /v1/groups",
    "get /v1/groups/{group}",
    "get /v1/groups/{group}/history",
    "get /v1/groups/{group}/members",
    "put /v1/groups/{group}/members/{channel}",
    "delete /v1/groups/{group}/members/{channel}",
    "post /v1/channels/{channel}/send",
    "post /v1/groups/{group}/send",
    "post /v1/send",
    "post /v1/queries/{name}",
    "get /v1/jobs/{id}",
    "delete /v1/jobs/{id}",
    "get /v1/jobs/{id}/result",
    "get /v1/events",
];

#[tokio::test]
async fn every_route_but_the_open_ones_wants_a_credential_and_most_an_api_key() {
    let api = guarded().await;
    let token = token(&["none"]);
    let mut users = Vec::new();
    for (path, method) in operations(&api).await {
        let what = format!("{method} {path}");
        let target =
            path.replace("{id}", "01JD8ZJ4M5E8RAX0V4C9QW2N7K").replace("{channel}", "c").replace(['{', '}'], "");
        let asked = |credential: Option<String>| {
            let call = call(&method.to_uppercase(), &target).header("content-type", "application/json").body("{}");
            match credential {
                Some(credential) => call.header("authorization", &format!("Bearer {credential}")),
                None => call,
            }
        };
        let (nobody, user) = (asked(None).to(&api).await, asked(Some(token.clone())).to(&api).await);
        if OPEN.contains(&path.as_str()) {
            assert!(matches!(nobody.status, 200 | 503), "{what}: {}", nobody.text);
            continue;
        }
        assert_eq!((nobody.status, nobody.json["code"].as_str()), (401, Some("unauthenticated")), "{what}");
        assert_eq!(nobody.headers["www-authenticate"], "Bearer", "{what}");
        for wrong in ["nonsense".to_owned(), format!("{KEY}0"), format!("{token}x")] {
            assert_eq!(asked(Some(wrong)).to(&api).await.status, 401, "{what}");
        }
        let service = asked(Some(KEY.to_owned())).to(&api).await;
        assert!(!matches!(service.status, 401 | 403), "{what}: {}", service.text);
        // A user never gets through, since nothing here is called as the token grants it.
        assert!(!matches!(user.status, 200..=299), "{what}: {}", user.text);
        if !user.text.contains("by an API key for everything") {
            users.push(what);
        }
    }
    users.sort_unstable();
    let mut expected: Vec<String> = BY_NAME.iter().map(|route| (*route).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(users, expected);
}

#[tokio::test]
async fn a_credential_in_an_address_is_none() {
    let api = guarded().await;
    for path in ["/v1/groups", "/v1/groups/room.1", "/v1/jobs"] {
        for name in ["token", "access_token", "api_key", "authorization"] {
            assert_eq!(call("GET", &format!("{path}?{name}={KEY}")).to(&api).await.status, 401, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn only_one_bearer_is_understood() {
    let api = guarded().await;
    let asked = async |values: &[&str]| {
        let call = values.iter().fold(call("GET", "/v1/jobs"), |call, value| call.header("authorization", value));
        call.to(&api).await.status
    };
    let (good, scheme) = (format!("Bearer {KEY}"), format!("bEaReR   {KEY} "));
    assert_eq!(asked(&[&good]).await, 200);
    assert_eq!(asked(&[&scheme]).await, 200, "schemes are case-insensitive (RFC 9110, section 11.1)");
    assert_eq!(asked(&[&good, &good]).await, 400);
    for wrong in ["Bearer", "Bearer ", "Basic dXNlcjpwYXNz", &format!("Token {KEY}"), KEY] {
        assert_eq!(asked(&[wrong]).await, 401, "{wrong}");
    }
}

#[tokio::test]
async fn names_decide_what_a_user_may_do() {
    let api = guarded().await;
    let bearer = format!("Bearer {}", token(&["room.*"]));
    let asked = async |method: &str, path: &str, body: &str| {
        let call = call(method, path).header("authorization", &bearer).header("content-type", "application/json");
        let answer = call.body(body).to(&api).await;
        (answer.status, answer.json)
    };
    let chat = r#"{"type":"chat"}"#;
    assert_eq!(asked("POST", "/v1/groups/room.1/send", chat).await.0, 202);
    assert_eq!(asked("POST", "/v1/groups/my_group/send", chat).await.0, 403);
    let batch = r#"[{"group":"room.1","message":{"type":"chat"}},{"group":"my_group","message":{"type":"chat"}},{"channel":"c","message":{"type":"chat"}}]"#;
    let (status, answer) = asked("POST", "/v1/send", batch).await;
    let statuses: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|one| one["status"].clone()).collect();
    assert_eq!((status, statuses), (202, vec![Value::from(202), Value::from(403), Value::from(403)]));
    for (path, granted) in [
        ("/v1/groups?prefix=room.", 200),
        ("/v1/groups?prefix=ro", 403),
        ("/v1/groups", 403),
        ("/v1/groups/room.1", 200),
        ("/v1/groups/room.1/members", 200),
        ("/v1/groups/my_group", 403),
        ("/v1/groups/my_group/members", 403),
        ("/v1/groups/my_group/history", 403),
        ("/v1/groups/query.x/members", 403),
    ] {
        assert_eq!(asked("GET", path, "").await.0, granted, "{path}");
    }
    assert_eq!(asked("POST", "/v1/queries/one", "{}").await.0, 403);
    assert_eq!(asked("POST", "/v1/queries/nothing", "{}").await.0, 403, "whether there is one is not told");
}

#[tokio::test]
async fn work_that_a_message_asks_for_takes_the_rights_that_the_work_takes() {
    let api = guarded().await;
    let service = format!("Bearer {KEY}");
    let user = |query: &[&str]| format!("Bearer {}", mint(SECRET, &claims("alice", &["my_group"], query)));
    let send = async |bearer: &str, body: &str| {
        let call = call("POST", "/v1/groups/my_group/send").header("authorization", bearer);
        call.header("content-type", "application/json").body(body).to(&api).await
    };
    let work = r#"{"type":"execute_query","queryset_id":7}"#;
    assert_eq!(send(&user(&[]), work).await.status, 403, "the group is granted, the query is not");
    let accepted = send(&user(&["one"]), work).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let elsewhere = |to: &str| format!(r#"{{"type":"execute_query","queryset_id":7,"reply_to":{to}}}"#);
    for to in [r#""other""#, r#""specific.gw1!c1""#, r#"{"channel":"mailbox"}"#] {
        assert_eq!(send(&user(&["one"]), &elsewhere(to)).await.status, 403, "{to}");
        assert_eq!(send(&service, &elsewhere(to)).await.status, 202, "{to}");
    }
    let job = format!("/v1/jobs/{}", accepted.json["jobs"][0]["id"].as_str().expect("a job"));
    let bob = format!("Bearer {}", mint(SECRET, &claims("bob", &["*"], &["*"])));
    for path in [job.clone(), format!("{job}/result")] {
        assert_eq!(call("GET", &path).header("authorization", &bob).to(&api).await.status, 404, "{path}");
    }
    let cancel = async |bearer: &str| call("DELETE", &job).header("authorization", bearer).to(&api).await.status;
    assert_eq!(cancel(&bob).await, 404);
    let seen = call("GET", &job).header("authorization", &user(&[])).to(&api).await;
    assert_eq!((seen.status, seen.text.contains("alice")), (200, false), "{}", seen.text);
    assert_eq!(cancel(&user(&[])).await, 202);
}

#[tokio::test]
async fn keys_that_callers_choose_are_their_own() {
    let api = guarded().await;
    let bearer = |name: &str| format!("Bearer {}", mint(SECRET, &claims(name, &["my_group"], &["one"])));
    let send = async |name: &str, key: &str, body: &str| {
        let call = call("POST", "/v1/groups/my_group/send").header("authorization", &bearer(name));
        let answer =
            call.header("idempotency-key", key).header("content-type", "application/json").body(body).to(&api).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        (answer.json["existing"] == true, answer.json["jobs"][0]["id"].clone())
    };
    let chat = r#"{"type":"chat"}"#;
    assert!(!send("alice", "k", chat).await.0 && send("alice", "k", chat).await.0);
    assert!(!send("bob", "k", chat).await.0);
    let unique = r#"{"type":"execute_query","query":"one","unique_key":"u","delay_ms":60000}"#;
    let (first, again, other) =
        (send("alice", "1", unique).await, send("alice", "2", unique).await, send("bob", "3", unique).await);
    assert_eq!(first.1, again.1);
    assert_ne!(first.1, other.1, "nobody holds back another's work");
}

async fn guarded() -> Api {
    Api::guarded(&AuthConfig {
        jwt_secret: Some(Hidden::new(SECRET)),
        api_keys: Some(Hidden::new(KEY)),
        ..AuthConfig::default()
    })
    .await
}

fn token(rights: &[&str]) -> String {
    mint(SECRET, &Claims { subscribe: list(rights), ..claims("alice", rights, &[]) })
}

fn claims(user: &str, send: &[&str], query: &[&str]) -> Claims {
    let exp = clock::now_ms() / 1000 + 60;
    Claims { sub: user.to_owned(), exp, send: list(send), query: list(query), ..Claims::default() }
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Every path and method of the description.
async fn operations(api: &Api) -> Vec<(String, String)> {
    let description = call("GET", "/openapi.json").to(api).await.json;
    let paths = description["paths"].as_object().expect("paths").clone();
    let methods = |(path, methods): (String, Value)| {
        let methods: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
        methods.into_iter().map(move |method| (path.clone(), method))
    };
    paths.into_iter().flat_map(methods).collect()
}
