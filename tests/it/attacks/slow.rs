//! Many who are slow at once: each is let go of in time, and nobody else waits for them.

use std::net::SocketAddr;
use std::time::Duration;

use groupcast_tests::Raw;
use groupcast_tests::home::BARE;
use groupcast_tests::kernel::{allow_many_files, server_ends};
use groupcast_tests::wait::within_time;
use tokio::time::{MissedTickBehavior, interval};

use super::scene::Scene;

/// Of each kind.
const SLOW: usize = 200;
/// Often enough that no silence tells them.
const TRICKLE: Duration = Duration::from_millis(200);
const GONE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_crowd_that_trickles_is_let_go_of_and_costs_little() {
    allow_many_files();
    let limits = "[limits]\nheader_timeout = \"2s\"\nbody_timeout = \"2s\"\nfirst_byte_timeout = \"2s\"\n";
    let mut scene = Scene::start(&format!("{BARE}\n{limits}")).await;
    let address = scene.gateway.address();
    let half = "x".repeat(64 << 10);
    let beginnings = [
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned(),
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nX-Slow: ".to_owned(),
        "POST /v1/groups/g/send HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{\"type\":\"x\",\"p\":\""
            .to_owned()
            + &half,
        "POST /v1/send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFF\r\n".to_owned() + &half,
        "PRI * HTTP/2.0\r\n\r\nS".to_owned(),
    ];
    let crowd = async {
        let mut crowd = Vec::new();
        for beginning in &beginnings {
            for _ in 0..SLOW {
                let mut raw = Raw::connect(address).await;
                raw.write(beginning.as_bytes()).await;
                crowd.push(raw);
            }
        }
        within_time(GONE, "all are let go of", trickle(address, &mut crowd)).await;
    };
    scene.beside(crowd).await;
    eprintln!("{} who were slow: {} KiB more memory", beginnings.len() * SLOW, scene.grown() >> 10);
}

/// Sends a byte of each now and then, until the gateway holds none of them any more.
async fn trickle(address: SocketAddr, crowd: &mut Vec<Raw>) {
    let mut turns = interval(TRICKLE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !crowd.is_empty() {
        turns.tick().await;
        let ends = server_ends(address);
        crowd.retain(|raw| ends.contains_key(&raw.address().port()));
        crowd.iter_mut().for_each(|raw| _ = raw.write_some(b"a"));
    }
}
