//! What changes while the gateway runs: keys, rules, the list of who is revoked. Whoever came by what is gone has to go.

use std::sync::Arc;

use groupcast_tests::home::BARE;
use groupcast_tests::socket::End;
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Home, Socket};
use serde_json::json;

const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const OTHER_SECRET: &str = "canary-other-0123456789abcdef01234567890";
const KEY: &str = "canary-key-0123456789abcdef0123456789abc";
const NEW_KEY: &str = "canary-new-0123456789abcdef0123456789abc";

const AUTH: &str = r#"
[auth]
jwt_secret_file = "jwt.secret"
api_keys_file = "api.keys"
revoked_file = "revoked"
"#;

#[tokio::test]
async fn a_key_that_is_taken_away_closes_what_was_opened_by_it_and_nothing_else() {
    let gateway = start().await;
    let mut service = opened(&gateway, KEY).await;
    let mut user = opened(&gateway, &user("alice", "t1")).await;
    gateway.home().write("api.keys", NEW_KEY);
    gateway.hang_up();
    assert_eq!(service.end().await, End::Closed(3000));
    assert_eq!(status(&gateway, KEY).await, 401);
    assert_eq!(status(&gateway, NEW_KEY).await, 200);
    user.command(json!({"type": "ping"})).await;
    // The reload is counted when all of it is done; the socket was closed on the way.
    let counted = || async {
        let metrics = metrics(&gateway, NEW_KEY).await;
        metrics.contains("groupcast_config_reloads_total{outcome=\"taken\"} 1\n").then_some(metrics)
    };
    let metrics = eventually("the reload is counted", counted).await;
    assert!(metrics.contains("groupcast_config_reloads_total{outcome=\"refused\"} 0\n"), "{metrics}");

    gateway.home().write("jwt.secret", OTHER_SECRET);
    gateway.hang_up();
    assert_eq!(user.end().await, End::Closed(3000));
    check_silence(&gateway);
}

#[tokio::test]
async fn who_is_revoked_is_out_without_a_signal() {
    let gateway = start().await;
    let (lost, kept) = (user("alice", "t1"), user("alice", "t2"));
    let mut socket = opened(&gateway, &lost).await;
    let mut other = opened(&gateway, &kept).await;
    let bearer = format!("Bearer {lost}");
    let mut events = Events::open_with(&gateway, "group=room.1", &[("authorization", &bearer)]).await;
    events.expect("subscribed", "subscribed").await;
    gateway.home().write("revoked", "# stolen\ntoken t1\n");
    assert_eq!(socket.end().await, End::Closed(3000));
    let told = events.expect("message", "error").await;
    assert_eq!(told["code"], "unauthenticated", "{told}");
    other.command(json!({"type": "ping"})).await;
    gateway
        .http()
        .request("POST", "/v1/groups/room.1/send", &[("authorization", &bearer)], message())
        .await
        .problem(401, "unauthenticated");

    // A list that makes no sense does not let anybody in again.
    gateway.home().write("revoked", "alice\n");
    let told = || async { gateway.printed().contains("line 1: is neither").then_some(()) };
    eventually("the bad list is told", told).await;
    gateway
        .http()
        .request("POST", "/v1/groups/room.1/send", &[("authorization", &bearer)], message())
        .await
        .problem(401, "unauthenticated");
    check_silence(&gateway);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing_and_what_waits_is_named() {
    let gateway = start().await;
    let mut service = opened(&gateway, KEY).await;
    let good = std::fs::read_to_string(gateway.home().config()).expect("it is there");
    gateway.home().write("groupcast.toml", &good.replace("[auth]\n", "[auth]\nleeway = \"1h\"\n"));
    gateway.hang_up();
    let told =
        || async { gateway.printed().lines().find(|line| line.contains("all stays as it was")).map(str::to_owned) };
    let told = eventually("the log says why", told).await;
    assert!(told.contains("auth.leeway") && told.contains("longer than a minute"), "{told}");
    service.command(json!({"type": "ping"})).await;
    let counted = || async {
        let metrics = metrics(&gateway, KEY).await;
        metrics.contains("groupcast_config_reloads_total{outcome=\"refused\"} 1\n").then_some(())
    };
    eventually("the refusal is counted", counted).await;

    gateway.home().write("groupcast.toml", &good.replace("[server]\n", "[server]\nnode = \"gw2\"\n"));
    gateway.hang_up();
    let told =
        || async { gateway.printed().lines().find(|line| line.contains("wait for a restart")).map(str::to_owned) };
    let told = eventually("what waits is named", told).await;
    assert!(told.contains("server.node") && !told.contains("auth."), "{told}");
    service.command(json!({"type": "ping"})).await;
}

#[tokio::test]
async fn other_limits_are_in_force_at_once() {
    let gateway = start().await;
    let _open = (opened(&gateway, &user("alice", "t1")).await, opened(&gateway, &user("alice", "t2")).await);
    let config = std::fs::read_to_string(gateway.home().config()).expect("it is there");
    gateway.home().write("groupcast.toml", &format!("{config}\n[limits]\nconnections_per_user = 2\n"));
    gateway.hang_up();
    let told = || async { gateway.printed().contains("the configuration was read again").then_some(()) };
    eventually("the configuration was taken", told).await;
    assert!(!gateway.printed().contains("wait for a restart"), "{}", gateway.printed());
    let bearer = format!("Bearer {}", user("alice", "t3"));
    let third = Socket::dial(gateway.address(), "/ws", &[("authorization", &bearer)], None).await;
    third.expect_err("as many as are allowed are open").problem(429, "rate_limited");
    opened(&gateway, &user("bob", "t4")).await;
}

async fn start() -> Gateway {
    let home = Home::new(&format!("{BARE}{AUTH}"));
    home.write("jwt.secret", SECRET);
    home.write("api.keys", KEY);
    home.write("revoked", "");
    Gateway::start_in(Arc::new(home)).await
}

fn user(name: &str, id: &str) -> String {
    token(
        SECRET,
        &json!({"sub": name, "jti": id, "exp": seconds_from_now(600), "subscribe": ["room.*"], "send": ["room.*"]}),
    )
}

fn message() -> Vec<u8> {
    json!({"type": "chat"}).to_string().into_bytes()
}

async fn opened(gateway: &Gateway, credential: &str) -> Socket {
    let bearer = format!("Bearer {credential}");
    let mut socket = Socket::open_at(gateway, "/ws", &[("authorization", &bearer)]).await;
    socket.subscribe("room.1").await;
    socket
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    let bearer = format!("Bearer {key}");
    gateway.http().request("GET", "/v1/connections", &[("authorization", &bearer)], Vec::new()).await.status
}

async fn metrics(gateway: &Gateway, key: &str) -> String {
    let bearer = format!("Bearer {key}");
    gateway.http().request("GET", "/metrics", &[("authorization", &bearer)], Vec::new()).await.text()
}

/// No secret is in the log, whatever it told.
fn check_silence(gateway: &Gateway) {
    let printed = gateway.printed();
    assert!(!printed.contains("canary"), "{printed}");
}
