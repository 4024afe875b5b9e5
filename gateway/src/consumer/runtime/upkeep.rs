//! What goes on beside the attempts: heartbeats, tidying, sweeping, events that nobody else sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{POLL, Shared, courier};
use crate::jobs::queue::{Lease, LeaseState};

/// How often old jobs and orphaned results are swept.
const SWEEP: Duration = Duration::from_secs(600);

impl Shared {
    /// Prolongs the leases of what runs here and shows life. An attempt cannot outlive its timeout either, so a lease that is
    /// prolonged is of work that still has time.
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

    /// What runs here and was alive when it was looked at last.
    pub(super) fn held_leases(&self) -> Vec<Lease> {
        let held = self.held.lock();
        held.iter().filter(|(_, hold)| hold.vigil.is_alive(self.lease)).map(|(lease, _)| *lease).collect()
    }

    /// Answers whether every store took it.
    pub(super) async fn beat_once(&self) -> bool {
        let now = Instant::now();
        self.look(now);
        let (told, all_answered) = self.jobs.extend(self.held_leases(), self.lease).await;
        if all_answered {
            *self.last_beat.lock() = now;
        }
        let mut held = self.held.lock();
        for (lease, state) in told {
            let Some(hold) = held.get_mut(&lease) else { continue };
            match state {
                LeaseState::Held => hold.prolonged_at = now,
                LeaseState::CancelRequested => {
                    hold.prolonged_at = now;
                    hold.cancel.cancel();
                }
                LeaseState::Lost => hold.cancel.cancel(),
            }
        }
        all_answered
    }

    /// Looks which jobs in hand show life. Of one that does not, the lease is prolonged no more; when that is over, the
    /// attempt is.
    pub(super) fn look(&self, now: Instant) {
        for (lease, hold) in self.held.lock().iter_mut() {
            let was_alive = hold.vigil.is_alive(self.lease);
            if hold.vigil.look(now, self.lease) {
                continue;
            }
            if was_alive {
                self.jobs.counters().hung.add(1);
                tracing::error!(job = %lease.id, "the work of a job shows no life; its lease is prolonged no more");
            }
            if now.saturating_duration_since(hold.prolonged_at) >= self.lease {
                hold.lost.cancel();
            }
        }
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
        let (mut is_due, mut looked_at) = (true, Instant::now());
        loop {
            self.courier.send_carried().await;
            if is_due {
                self.courier.send_pending().await;
                looked_at = Instant::now();
            }
            is_due = tokio::select! {
                () = self.jobs.watch().arrived.come.notified() => false,
                () = self.jobs.watch().events.notified() => true,
                () = sleep_until(looked_at + courier::LOOK) => true,
                () = self.interrupt.cancelled() => return,
            };
        }
    }
}
