//! `Scene`: a gateway, and a client that behaves well while somebody else does not.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use groupcast_tests::{Gateway, Http, Socket};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

/// What an attack may add to the memory of the process. Debug builds and the allocator's habits are in it.
const GROWTH_MAX: u64 = 64 << 20;
/// How often the bystander asks. Every step of it has the deadline of any step of a test.
const ROUND: Duration = Duration::from_millis(100);
/// Where the bystander listens.
const CALM: &str = "calm";

/// A gateway under attack.
pub(super) struct Scene {
    pub(super) gateway: Gateway,
    pub(super) http: Http,
    bystander: Socket,
    resident_before: u64,
    resident_most: u64,
    rounds: u64,
}

impl Scene {
    /// Starts a gateway and the client beside it.
    pub(super) async fn start(config: &str) -> Self {
        Self::with(Gateway::start(config).await).await
    }

    /// The client beside this gateway.
    pub(super) async fn with(gateway: Gateway) -> Self {
        let bystander = Socket::subscribed(&gateway, &[CALM]).await;
        let http = gateway.http();
        let mut scene = Self { gateway, http, bystander, resident_before: 0, resident_most: 0, rounds: 0 };
        // What the first of everything needs is no growth.
        scene.round().await;
        scene.resident_before = scene.gateway.usage().resident_bytes;
        scene
    }

    /// Attacks while the bystander is served, again and again; what came of the attack.
    pub(super) async fn beside<T>(&mut self, attack: impl Future<Output = T>) -> T {
        let over = Cell::new(false);
        let attack = async {
            let outcome = attack.await;
            over.set(true);
            outcome
        };
        let beside = async {
            let mut turns = interval(ROUND);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !over.get() {
                turns.tick().await;
                self.round().await;
            }
        };
        let (outcome, ()) = tokio::join!(attack, beside);
        self.check().await;
        outcome
    }

    /// The bystander is served, and memory has stayed within its bound.
    pub(super) async fn check(&mut self) {
        self.round().await;
        let grown = self.grown();
        assert!(grown < GROWTH_MAX, "memory grew by {} KiB", grown >> 10);
    }

    /// By how much memory has grown at most.
    pub(super) fn grown(&self) -> u64 {
        self.resident_most.saturating_sub(self.resident_before)
    }

    /// One message over HTTP to the socket, and a new socket.
    async fn round(&mut self) {
        self.rounds += 1;
        let message = json!({"type": "calm", "n": self.rounds});
        let accepted = self.http.group_send(CALM, &message).await;
        assert_eq!(accepted["members"], 1, "{accepted}");
        assert_eq!(self.bystander.message().await, message);
        self.resident_most = self.resident_most.max(self.gateway.usage().resident_bytes);
    }
}
