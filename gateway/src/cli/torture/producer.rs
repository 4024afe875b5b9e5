//! A producer: asks for one work after the other, each again and again until it is accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::fleet::Living;
use super::ledger::Ledger;
use super::work::Work;

/// Between two tries of the same ask.
const PAUSE: Duration = Duration::from_millis(10);

/// What producers share.
#[derive(Debug)]
pub(super) struct Counter {
    /// The gateways that live, if any does.
    pub(super) living: watch::Receiver<Living>,
    /// How many works may have been asked for by now.
    pub(super) allowed: watch::Receiver<u64>,
    pub(super) stop: CancellationToken,
    pub(super) ledger: Arc<Ledger>,
    pub(super) next: AtomicU64,
    pub(super) seed: u64,
}

/// Asks until it is told to stop. Work that was begun then may stay unanswered.
pub(super) async fn produce(counter: Arc<Counter>, door: Door) {
    let asking = async {
        let (mut allowed, mut living) = (counter.allowed.clone(), counter.living.clone());
        loop {
            let n = counter.next.fetch_add(1, Relaxed);
            // Both end with the run only.
            if allowed.wait_for(|allowed| n < *allowed).await.is_err() {
                return;
            }
            ask(&counter, &door, &mut living, Work::of(counter.seed, n)).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = counter.stop.cancelled() => {}
    }
}

async fn ask(counter: &Counter, door: &Door, living: &mut watch::Receiver<Living>, work: Work) {
    let ledger = &counter.ledger;
    let mut is_repeated = false;
    // Asks are spread over the gateways, and a repeat goes to another one if there is.
    for turn in work.number().. {
        let address = match living.wait_for(|living| living.iter().any(Option::is_some)).await {
            Ok(living) => {
                let addresses: Vec<_> = living.iter().flatten().copied().collect();
                addresses[turn as usize % addresses.len()]
            }
            Err(_) => return,
        };
        match door.send(address, &work).await {
            Some(reply) if reply.status == 202 => {
                let job = &reply.json()["jobs"][0];
                let Some(id) = job["id"].as_str() else {
                    ledger.contradictions.lock().push(format!("ask {} was accepted without a job", work.number()));
                    return;
                };
                if is_repeated && job["existing"] == true {
                    ledger.recognised.fetch_add(1, Relaxed);
                }
                return ledger.accept(id.to_owned(), work);
            }
            Some(reply) => ledger.refuse(&reply.code()),
            None if is_repeated => {}
            None => {
                is_repeated = true;
                ledger.repeated.fetch_add(1, Relaxed);
            }
        }
        sleep(PAUSE).await;
    }
}
