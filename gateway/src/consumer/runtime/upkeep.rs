//! What goes on beside the attempts: heartbeats, tidying, sweeping, events that nobody else sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{POLL, Shared, courier};
use crate::jobs::queue::{Lease, LeaseState};

/// How often old jobs and orphaned results are swept.
const SWEEP: Duration = Duration::from_secs(600);

impl Shared {
    /// Prolongs the leases of what runs here. An attempt cannot outlive its timeout, so a lease that is prolonged is of
    /// work that still has time.
    pub(super) async fn beat(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = sleep(self.lease / 3) => drop(self.beat_once().await),
                () = self.interrupt.cancelled() => return,
            }
        }
    }

    /// After the process or a store stood still, what runs here comes before the next claim. Answers whether the
    /// heartbeat is in time.
    pub(super) async fn beat_if_late(&self) -> bool {
        let is_late = self.last_beat.lock().elapsed() > self.lease / 2;
        !is_late || self.beat_once().await
    }

    pub(super) fn held_leases(&self) -> Vec<Lease> {
        self.held.lock().keys().copied().collect()
    }

    /// Answers whether every store took it.
    pub(super) async fn beat_once(&self) -> bool {
        let (told, all_answered) = self.jobs.extend(self.held_leases(), self.lease).await;
        if all_answered {
            *self.last_beat.lock() = Instant::now();
        }
        let held = self.held.lock();
        for (lease, state) in told {
            match state {
                LeaseState::Held => {}
                LeaseState::CancelRequested | LeaseState::Lost => {
                    held.get(&lease).iter().for_each(|cancel| cancel.cancel());
                }
            }
        }
        all_answered
    }

    /// Ends what its time did, also while no slot is free and so nobody claims.
    pub(super) async fn tidy(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = sleep(POLL) => {}
                () = self.stop.cancelled() => return,
            }
            if !self.beat_if_late().await {
                continue;
            }
            if let Err(error) = self.jobs.tidy(self.held_leases()).await {
                tracing::debug!(%error, "jobs whose time is over could not be ended; trying again");
            }
        }
    }

    /// Removes what is old.
    pub(super) async fn sweep(self: Arc<Self>, began_ms: u64) {
        loop {
            match self.jobs.sweep(began_ms).await {
                Ok((0, 0)) => {}
                Ok((jobs, results)) => tracing::info!(jobs, results, "old jobs and orphaned results are removed"),
                Err(error) => tracing::warn!(%error, "removing old jobs failed; trying again later"),
            }
            tokio::select! {
                () = sleep(SWEEP) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Sends the events that nobody else sends.
    pub(super) async fn resend(self: Arc<Self>) {
        loop {
            self.courier.send_pending().await;
            tokio::select! {
                () = self.jobs.watch().events.notified() => {}
                () = sleep(courier::LOOK) => {}
                () = self.interrupt.cancelled() => return,
            }
        }
    }
}
