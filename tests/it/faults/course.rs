//! The course of faults that every broker is put through, with two gateways: one beside the broker, and one behind a proxy.

use std::time::{Duration, Instant};

use groupcast_tests::Gateway;
use groupcast_tests::proxy::{Fault, Proxy, Way};
use groupcast_tests::wait::eventually;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::crowd::{Crowd, GROUPS, Outcomes, PLAIN};

/// Faults, unless more are asked for: each once.
const ROUNDS: usize = 6;

/// A broker that can be killed.
pub(crate) trait Victim: Send + 'static {
    /// Its port.
    fn port(&self) -> u16;
    /// `[layer]` of a gateway that reaches it by a port.
    fn layer(&self, port: u16) -> String;
    fn kill(&mut self);
    /// Starts it again; it answers when this returns.
    fn restart(&mut self);
}

/// Does one thing after the other to a broker.
pub(crate) async fn run(mut broker: impl Victim) -> Outcomes {
    let mut proxy = Proxy::start(broker.port()).await;
    let (near, far) = (config("gw1", &broker.layer(broker.port())), config("gw2", &broker.layer(proxy.port())));
    let (near, far) = tokio::join!(Gateway::start(&near), Gateway::start(&far));
    let crowd = Crowd::start(&[&near, &far]).await;
    let mut back = Vec::new();
    for round in 0..rounds() {
        crowd.progress().await;
        match round % 6 {
            0 => {
                broker.kill();
                not_ready(&near).await;
                not_ready(&far).await;
                broker = restarted(broker).await;
            }
            1 => proxy.cut().await,
            2 => {
                proxy.inflict(Fault::Silence([Way::Both, Way::ToClient, Way::ToServer][round / 6 % 3]));
                // Noticed by itself: nobody says that the other end is gone.
                not_ready(&far).await;
                is_ready(&near).await;
                crowd.progress_of(0..1).await;
                // What was swallowed does not come any more, so neither does anything behind it.
                proxy.heal();
                proxy.reset().await;
            }
            3 => proxy.reset().await,
            4 => {
                proxy.inflict(Fault::Delay(Duration::from_millis(60)));
                crowd.progress().await;
                proxy.heal();
            }
            _ => part(&mut proxy, &crowd, &near, &far).await,
        }
        let since = Instant::now();
        crowd.progress().await;
        back.push(since.elapsed());
        if rounds() > ROUNDS {
            eprintln!("fault {round}: the next message came after {:?}", since.elapsed());
        }
        ready(&near).await;
        ready(&far).await;
    }
    let outcomes = crowd.end(&near.http()).await;
    back.sort_unstable();
    let at = |part: f64| back.get((back.len() as f64 * part) as usize).or(back.last());
    eprintln!(
        "{} faults; the next message came within {:?}, 99 % {:?}, all {:?}",
        back.len(),
        at(0.5),
        at(0.99),
        back.last()
    );
    eprintln!("{outcomes:?}");
    outcomes
}

/// One gateway cannot reach the broker, and the other one can.
async fn part(proxy: &mut Proxy, crowd: &Crowd, near: &Gateway, far: &Gateway) {
    proxy.refuse().await;
    proxy.cut().await;
    not_ready(far).await;
    let message = json!({"type": "aside"});
    far.http().post(&format!("/v1/groups/{PLAIN}/send"), &message).await.problem(503, "unavailable");
    is_ready(near).await;
    crowd.progress_of(0..1).await;
    proxy.accept().await;
}

/// A restart waits for the server, and the crowd goes on meanwhile.
async fn restarted<V: Victim>(mut broker: V) -> V {
    let restart = move || {
        broker.restart();
        broker
    };
    spawn_blocking(restart).await.expect("it comes back")
}

pub(crate) fn config(node: &str, layer: &str) -> String {
    format!("[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n{layer}timeout = \"500ms\"\n{GROUPS}")
}

pub(crate) fn rounds() -> usize {
    let asked = std::env::var("GROUPCAST_FAULT_ROUNDS").ok();
    asked.map_or(ROUNDS, |text| text.parse().expect("a number of faults"))
}

pub(crate) async fn not_ready(gateway: &Gateway) {
    eventually("the gateway says that the broker is gone", || readiness(gateway, 503)).await;
}

pub(crate) async fn ready(gateway: &Gateway) {
    eventually("the gateway says that the broker is there", || readiness(gateway, 200)).await;
}

async fn is_ready(gateway: &Gateway) {
    gateway.http().get("/readyz").await.expect(200);
}

async fn readiness(gateway: &Gateway, status: u16) -> Option<()> {
    gateway.http().try_get("/readyz").await.filter(|reply| reply.status == status).map(drop)
}
