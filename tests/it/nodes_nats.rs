//! Several gateways on one NATS: what clients see on all of them, also when the broker dies.

use std::time::Duration;

use groupcast_tests::nats::{DURABLE, Nats};
use groupcast_tests::wait::{eventually, within_time};
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

use crate::nodes::{goes_on_elsewhere, is_found_elsewhere};

/// Groups that keep history, and quick notice of a broker that is gone.
const LAYER: &str = "timeout = \"2s\"\n[[group]]\nname = \"kept.*\"\nhistory = { messages = 1000, age = \"1h\" }\n";

#[tokio::test]
async fn over_nats_a_message_reaches_the_sockets_of_all_gateways() {
    let nats = Nats::start_jetstream("");
    let (one, two) = pair(&nats, "").await;
    let mut sockets = [Socket::subscribed(&one, &["room."]).await, Socket::subscribed(&two, &["room."]).await];
    for n in 0..10 {
        let gateway = if n % 2 == 0 { &one } else { &two };
        gateway.http().group_send("room.", &json!({"type": "chat", "n": n})).await;
    }
    for socket in &mut sockets {
        for n in 0..10 {
            assert_eq!(socket.message_of("chat").await["n"], n);
        }
    }
    is_found_elsewhere(&one, &two).await;
}

#[tokio::test]
async fn over_nats_a_client_goes_on_at_another_gateway_where_it_was() {
    let nats = Nats::start_jetstream("");
    let (one, two) = pair(&nats, "").await;
    goes_on_elsewhere(one, &two).await;
}

#[tokio::test]
async fn over_nats_sockets_outlive_a_broker_that_dies_and_are_told_what_may_be_lost() {
    let mut nats = Nats::start_jetstream("");
    let (one, two) = pair(&nats, "").await;
    let mut sockets = [Socket::subscribed(&two, &["room"]).await, Socket::subscribed(&two, &["kept.room"]).await];
    nats.kill();
    let refused = within_time(Duration::from_secs(5), "an answer", async {
        one.http().post("/v1/groups/room/send", &json!({"type": "chat", "n": 2})).await
    });
    refused.await.problem(503, "unavailable");
    nats.restart();
    for gateway in [&one, &two] {
        let ready = || async { gateway.http().try_get("/readyz").await.filter(|reply| reply.status == 200) };
        eventually("the gateway is ready again", ready).await;
    }
    for (socket, group) in sockets.iter_mut().zip(["room", "kept.room"]) {
        // Also when nothing comes: the last that was sent may be lost.
        let gap = socket.expect("gap").await;
        assert_eq!((&gap["missed"], &gap["reason"]), (&Value::Null, &json!("broker_gap")), "{gap}");
        one.http().group_send(group, &json!({"type": "chat", "n": 3})).await;
        assert_eq!(socket.message_of("chat").await["n"], 3);
    }
}

#[tokio::test]
async fn what_nats_does_not_prove_is_refused() {
    for (settings, is_proved) in [("", false), (DURABLE, true)] {
        let nats = Nats::start_jetstream(settings);
        let proof = format!("durability = \"fsync\"\nmonitoring = \"{}\"\n", nats.monitoring_address());
        let gateway = Gateway::start_unready(&layer(&nats, "gw1", &proof)).await;
        if is_proved {
            let ready = || async { gateway.http().try_get("/readyz").await.filter(|reply| reply.status == 200) };
            eventually("the gateway is ready", ready).await;
            gateway.http().group_send("room", &json!({"type": "chat"})).await;
        } else {
            let refused = gateway.http().post("/v1/groups/room/send", &json!({"type": "chat"})).await;
            refused.problem(503, "unavailable");
            let says =
                || async { gateway.http().try_get("/readyz").await.filter(|r| r.text().contains("sync_interval")) };
            eventually("it says what to set", says).await;
        }
    }
}

async fn pair(nats: &Nats, lines: &str) -> (Gateway, Gateway) {
    let (one, two) = (layer(nats, "gw1", lines), layer(nats, "gw2", lines));
    tokio::join!(Gateway::start(&one), Gateway::start(&two))
}

fn layer(nats: &Nats, node: &str, lines: &str) -> String {
    let listen = format!("[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n");
    format!("{listen}[layer]\nkind = \"nats\"\nurl = \"{}\"\n{lines}{LAYER}", nats.address())
}
