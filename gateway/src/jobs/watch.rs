//! `Watch`: who in this process waits for what happens to jobs. Hints only: everybody who waits also looks by himself
//! now and then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use groupcast_protocol::JobId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::carried::Arrived;

/// Cancellations that may wait for their job to start.
const EARLY_MAX: usize = 1024;

/// Wakes consumers, waiters and the sender of events.
#[derive(Default)]
pub(crate) struct Watch {
    /// One a consumer; their number is that of the configured consumers.
    wakes: Mutex<HashMap<String, Arc<Notify>>>,
    /// Entries live as long as somebody waits.
    waiters: Mutex<HashMap<JobId, Waiter>>,
    /// The jobs that run in this process.
    running: Mutex<HashMap<JobId, (u64, CancellationToken)>>,
    /// Numbers them: a job that was lost may run again here before its former attempt has left.
    runs: AtomicU64,
    /// Jobs whose cancellation came between their claim and their start here.
    early: Mutex<HashSet<JobId>>,
    /// Wakes the sender of events.
    pub(crate) events: Notify,
    /// What other processes say of the jobs that this one took in.
    pub(crate) arrived: Arrived,
}

struct Waiter {
    notify: Arc<Notify>,
    waiting: usize,
}

impl Watch {
    /// Tells a consumer that there is work.
    pub(crate) fn wake(&self, consumer: &str) {
        self.wake_of(consumer).notify_one();
    }

    /// Tells a consumer that there is work, if it is one of this process.
    #[cfg(feature = "postgres")]
    pub(crate) fn wake_known(&self, consumer: &str) {
        if let Some(wake) = self.wakes.lock().get(consumer) {
            wake.notify_one();
        }
    }

    /// Tells everybody to look: hints may have been lost.
    #[cfg(feature = "postgres")]
    pub(crate) fn wake_all(&self) {
        self.wakes.lock().values().for_each(|wake| wake.notify_one());
        self.waiters.lock().values().for_each(|waiter| waiter.notify.notify_waiters());
        self.events.notify_one();
    }

    /// What wakes a consumer.
    pub(crate) fn wake_of(&self, consumer: &str) -> Arc<Notify> {
        let mut wakes = self.wakes.lock();
        if let Some(wake) = wakes.get(consumer) {
            return Arc::clone(wake);
        }
        Arc::clone(wakes.entry(consumer.to_owned()).or_default())
    }

    /// Tells those who wait for a job's end to look.
    pub(crate) fn ended(&self, id: JobId) {
        if let Some(waiter) = self.waiters.lock().get(&id) {
            waiter.notify.notify_waiters();
        }
    }

    /// Waits with others for a job's end.
    pub(crate) fn wait_for(self: &Arc<Self>, id: JobId) -> Waiting {
        let mut waiters = self.waiters.lock();
        let waiter = waiters.entry(id).or_insert_with(|| Waiter { notify: Arc::default(), waiting: 0 });
        waiter.waiting += 1;
        Waiting { watch: Arc::clone(self), id, notify: Arc::clone(&waiter.notify) }
    }

    /// Notes that a job runs here until the guard is dropped; `cancel` stops it.
    pub(crate) fn runs(self: &Arc<Self>, id: JobId, cancel: CancellationToken) -> Running {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running.lock();
        running.insert(id, (run, cancel.clone()));
        if self.early.lock().remove(&id) {
            cancel.cancel();
        }
        drop(running);
        Running { watch: Arc::clone(self), id, run }
    }

    /// Whether a job runs here.
    pub(crate) fn is_running(&self, id: JobId) -> bool {
        self.running.lock().contains_key(&id)
    }

    /// Stops a job if it runs here. Another process asks: whether the job is about to start here, the heartbeat finds.
    #[cfg(feature = "postgres")]
    pub(crate) fn cancel_running(&self, id: JobId) {
        if let Some((_, cancel)) = self.running.lock().get(&id) {
            cancel.cancel();
        }
    }

    /// Stops a job that runs here, or is about to.
    pub(crate) fn cancel(&self, id: JobId) {
        let running = self.running.lock();
        match running.get(&id) {
            Some((_, cancel)) => cancel.cancel(),
            None => {
                let mut early = self.early.lock();
                // Those of another node never start here. What is forgotten is found by the next heartbeat.
                if early.len() == EARLY_MAX {
                    early.clear();
                }
                early.insert(id);
            }
        }
    }
}

/// Somebody waits for a job's end.
pub(crate) struct Waiting {
    watch: Arc<Watch>,
    id: JobId,
    pub(crate) notify: Arc<Notify>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = self.watch.waiters.lock();
        if let Some(waiter) = waiters.get_mut(&self.id) {
            waiter.waiting -= 1;
            if waiter.waiting == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}

/// A job runs here.
pub(crate) struct Running {
    watch: Arc<Watch>,
    id: JobId,
    run: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.watch.running.lock();
        if running.get(&self.id).is_some_and(|(run, _)| *run == self.run) {
            running.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_between_claim_and_start_is_kept() {
        let watch = Arc::new(Watch::default());
        let (id, cancel) = (JobId::new(1, 1), CancellationToken::new());
        watch.cancel(id);
        let running = watch.runs(id, cancel.clone());
        assert!(cancel.is_cancelled() && watch.is_running(id));
        drop(running);
        let again = CancellationToken::new();
        let _running = watch.runs(id, again.clone());
        assert!(!again.is_cancelled());
        watch.cancel(id);
        assert!(again.is_cancelled());
    }

    #[test]
    fn a_former_attempt_that_leaves_late_takes_nothing_with_it() {
        let watch = Arc::new(Watch::default());
        let (id, cancel) = (JobId::new(1, 1), CancellationToken::new());
        let former = watch.runs(id, CancellationToken::new());
        let _running = watch.runs(id, cancel.clone());
        drop(former);
        assert!(watch.is_running(id));
        watch.cancel(id);
        assert!(cancel.is_cancelled());
    }
}
