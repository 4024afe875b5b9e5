//! A broker that is killed, cut off, silent and slow while messages go through it: sockets stay, and of what they did not get
//! they are told.
//!
//! `GROUPCAST_FAULT_ROUNDS=100 GROUPCAST_CHECK_SECONDS=900` makes it a hundred faults.

mod course;
pub(crate) mod crowd;
mod sentinel;

use groupcast_tests::nats::{self, Nats};
use groupcast_tests::redis::{self, Redis};

use course::Victim;

#[tokio::test]
async fn whatever_happens_to_redis_a_loss_is_told() {
    course::run(Redis::start(&redis::DURABLE)).await.are_sound();
}

#[tokio::test]
async fn whatever_happens_to_nats_a_loss_is_told() {
    course::run(Forgetful(Nats::start_jetstream(""))).await.are_sound();
}

#[tokio::test]
async fn what_a_nats_that_waits_for_its_disk_has_taken_is_never_lost() {
    let outcomes = course::run(Durable(Nats::start_jetstream(nats::DURABLE))).await;
    outcomes.are_sound();
    assert_eq!(outcomes.kept.told_lost, 0, "{outcomes:?}");
}

impl Victim for Redis {
    fn port(&self) -> u16 {
        Self::port(self)
    }

    fn layer(&self, port: u16) -> String {
        format!("[layer]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n")
    }

    fn kill(&mut self) {
        Self::kill(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

/// Does not wait for its disk: after a restart its groups begin anew.
struct Forgetful(Nats);

/// Waits for its disk, and says so: its groups go on.
struct Durable(Nats);

impl Victim for Forgetful {
    fn port(&self) -> u16 {
        self.0.port()
    }

    fn layer(&self, port: u16) -> String {
        format!("[layer]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\n")
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn restart(&mut self) {
        self.0.restart();
    }
}

impl Victim for Durable {
    fn port(&self) -> u16 {
        self.0.port()
    }

    fn layer(&self, port: u16) -> String {
        let proof = format!("durability = \"fsync\"\nmonitoring = \"{}\"\n", self.0.monitoring_address());
        format!("[layer]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\n{proof}")
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn restart(&mut self) {
        self.0.restart();
    }
}
