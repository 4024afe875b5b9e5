//! A crowd that subscribes and does not read.

use groupcast_tests::home::BARE;
use groupcast_tests::kernel::allow_many_files;
use groupcast_tests::{Http, Raw};
use serde_json::{Value, json};

use super::scene::Scene;

const SOCKETS: usize = 1000;
/// What they do not read: far more than a log holds.
const MESSAGES: usize = 400;
const MESSAGE_BYTES: usize = 50 << 10;
/// They stay for as long as the test looks.
const PATIENT: &str = "[limits]\nwrite_timeout = \"100s\"\nping_interval = \"100s\"\n";
const TEXT: u8 = 0x81;

#[tokio::test]
async fn a_thousand_sockets_that_do_not_read_cost_what_one_log_costs() {
    let mut scene = scene().await;
    let address = scene.gateway.address();
    let mut crowd = Vec::new();
    for _ in 0..SOCKETS {
        let mut raw = Raw::narrow(address, 4096).await.upgraded(address).await;
        raw.send_frame(TEXT, true, br#"{"type":"subscribe","group":"flood"}"#).await;
        raw.frame().await.expect("subscribed");
        crowd.push(raw);
    }
    check(&mut scene, SOCKETS, "sockets").await;
}

async fn scene() -> Scene {
    allow_many_files();
    Scene::start(&format!("{BARE}\n{PATIENT}")).await
}

/// Sends to those who do not read; they are there until the end, and memory is bounded all the time.
async fn check(scene: &mut Scene, readers: usize, what: &str) {
    let http = scene.http.clone();
    let flood = async {
        for n in 0..MESSAGES / 10 {
            batch(&http, n).await;
        }
        http.get("/v1/groups/flood").await.expect(200)
    };
    let group = scene.beside(flood).await;
    assert_eq!(group["members"], readers, "{group}");
    let sent = (MESSAGES * MESSAGE_BYTES) >> 20;
    eprintln!("{readers} {what} that do not read {sent} MiB: {} KiB more memory", scene.grown() >> 10);
}

async fn batch(http: &Http, n: usize) {
    let padding = "x".repeat(MESSAGE_BYTES);
    let item = |i: usize| json!({"group": "flood", "message": {"type": "flood", "n": n * 10 + i, "p": padding}});
    let batch: Vec<Value> = (0..10).map(item).collect();
    let sent = http.post("/v1/send", &json!(batch)).await.expect(202);
    assert!(sent["results"].as_array().is_some_and(|all| all.iter().all(|one| one["status"] == 202)), "{sent}");
}
