//! A Redis whose master dies or falls silent, and whose replica the sentinels make the master: what only the old one had is
//! lost, and that is told.

use std::mem::swap;
use std::time::Instant;

use groupcast_tests::replicated::Replicated;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Redis, Socket};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::course::{config, not_ready, ready, rounds};
use super::crowd::{Crowd, KEPT};

/// Faults for each failover: they take as long as that many others.
const SHARE: usize = 6;

#[tokio::test]
async fn whatever_a_failover_loses_is_told() {
    let mut servers = spawn_blocking(Replicated::start).await.expect("they start");
    let layer = layer(&servers);
    let (one, two) = (config("gw1", &layer), config("gw2", &layer));
    let (one, two) = tokio::join!(Gateway::start(&one), Gateway::start(&two));
    let crowd = Crowd::start(&[&one, &two]).await;
    for failover in 0..rounds().div_ceil(SHARE) {
        if failover > 0 {
            servers = swapped(servers, failover % 2 == 1).await;
        }
        crowd.progress().await;
        let before = Socket::open(&one).await.command(json!({"type": "subscribe", "group": KEPT})).await;
        // What is acknowledged from here on, only the master has.
        servers.replica.stop();
        crowd.progress().await;
        if failover % 2 == 0 {
            servers.master.kill();
        } else {
            servers.master.stop();
        }
        servers.replica.cont();
        not_ready(&one).await;
        not_ready(&two).await;
        let began = Instant::now();
        ready(&one).await;
        ready(&two).await;
        let decided = began.elapsed();
        crowd.progress().await;
        eprintln!("failover {failover}: {decided:?} without a master, the next message after {:?}", began.elapsed());
        // Who was away is told, too.
        let after = json!({"epoch": before["epoch"], "offset": before["offset"]});
        let again = json!({"type": "subscribe", "group": KEPT, "after": after});
        assert_eq!(Socket::open(&two).await.command(again).await["recovered"], false);
    }
    let outcomes = crowd.end(&one.http()).await;
    eprintln!("{outcomes:?}");
    outcomes.are_sound();
    assert!(outcomes.plain.told > 0, "a failover that nobody notices is none: {outcomes:?}");
}

fn layer(servers: &Replicated) -> String {
    format!("[layer]\nkind = \"redis\"\nsentinel = \"{}\"\nhosts = {:?}\n", servers.name(), servers.addresses())
}

/// The old master is the replica of the new one, which is the next to be lost.
async fn swapped(mut servers: Replicated, is_dead: bool) -> Replicated {
    swap(&mut servers.master, &mut servers.replica);
    let servers = if is_dead {
        let restart = move || {
            servers.replica.restart();
            servers
        };
        spawn_blocking(restart).await.expect("it comes back")
    } else {
        servers.replica.cont();
        servers
    };
    eventually("the old master follows the new one", || follows(&servers.replica)).await;
    servers
}

async fn follows(server: &Redis) -> Option<()> {
    let said = server.command(&["INFO", "replication"]);
    (said.contains("role:slave") && said.contains("master_link_status:up")).then_some(())
}
