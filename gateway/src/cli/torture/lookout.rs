//! Watches lives from the start of a process until it is to die: when it is ready, when it picks up the first job, and how long
//! the jobs of the dead take to go on elsewhere. Meanwhile it allows the producers to ask.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::door::Door;
use super::fleet::Living;
use super::ledger::Ledger;
use super::{Plan, gather};
use crate::cli::CliError;
use crate::kill_point::KillPoint;

/// In which time of a life the asks are made that belong to it.
const ASKING: Duration = Duration::from_millis(450);

/// How long is waited for a gateway to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long is waited for the first job to be picked up. There may be none that is due.
const PICK_UP_DEADLINE: Duration = Duration::from_secs(5);

/// How often is looked, and how often more asks are allowed.
const LOOK: Duration = Duration::from_millis(5);

/// Jobs that are not running elsewhere after so long are as good as lost.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

const CLAIMED: &str = "groupcast_jobs_claimed_total";

/// The process that was started last.
pub(super) struct Newest {
    pub(super) place: usize,
    pub(super) began: Instant,
    pub(super) point: Option<(KillPoint, u32)>,
}

/// See the [module](self).
pub(super) struct Lookout<'a> {
    pub(super) plan: &'a Plan,
    pub(super) door: Door,
    /// How many asks may have been made.
    pub(super) allowed: watch::Sender<u64>,
    /// From the start of a process until ready.
    pub(super) ready: Histogram<u64>,
    /// Of one process: from its start until the first job was picked up.
    pub(super) recovery: Histogram<u64>,
}

impl Lookout<'_> {
    /// One life, up to the moment at which somebody is to be killed.
    pub(super) async fn live(
        &mut self,
        listening: impl Future<Output = Result<SocketAddr, CliError>>,
        newest: &Newest,
        lifetime: Duration,
        kill: u32,
    ) -> Result<(), CliError> {
        let (plan, allowed) = (self.plan, self.allowed.clone());
        let mut listening = pin!(listening);
        // The others must not have done all the work when the one comes that is to die of it.
        let address = match newest.point {
            Some(_) => Some(listening.as_mut().await?),
            None => None,
        };
        let listening = async { if let Some(address) = address { Ok(address) } else { listening.await } };
        tokio::select! {
            seen = self.observe(listening, newest.began, lifetime) => seen,
            never = allow_evenly(&allowed, plan, kill) => never,
        }
    }

    /// # Cancel safety
    /// What was seen is kept.
    async fn observe(
        &mut self,
        listening: impl Future<Output = Result<SocketAddr, CliError>>,
        began: Instant,
        lifetime: Duration,
    ) -> Result<(), CliError> {
        let gateway = listening.await?;
        let door = self.door.clone();
        let is_ready = async || door.get(gateway, "/readyz").await.is_some_and(|reply| reply.status == 200);
        if timeout(READY_DEADLINE, until(is_ready)).await.is_err() {
            let why = format!("a gateway was not ready within {} s", READY_DEADLINE.as_secs());
            return Err(CliError::Failed(why));
        }
        self.ready.saturating_record(nanos(began.elapsed()));
        let end = Instant::now() + lifetime;
        if self.plan.processes == 1 {
            let has_claimed = async || door.metric(gateway, CLAIMED).await.is_some_and(|claimed| claimed > 0);
            if timeout(PICK_UP_DEADLINE, until(has_claimed)).await.is_ok() {
                self.recovery.saturating_record(nanos(began.elapsed()));
            }
        }
        sleep_until(end).await;
        Ok(())
    }

    /// Lets the producers ask until as many jobs are accepted as have to be, and every ask has its answer.
    pub(super) async fn ask_for_the_rest(&self, ledger: &Ledger) {
        loop {
            let (answers, allowed) = (ledger.answers.load(Relaxed), *self.allowed.borrow());
            let missing = self.plan.jobs.saturating_sub(ledger.len());
            if answers >= allowed {
                match missing {
                    0 => return,
                    missing => drop(self.allowed.send_replace(allowed + missing)),
                }
            }
            sleep(LOOK).await;
        }
    }
}

async fn until(look: impl AsyncFn() -> bool) {
    while !look().await {
        sleep(LOOK).await;
    }
}

/// Allows the asks of one life bit by bit, so that kills find the producers asking.
async fn allow_evenly(allowed: &watch::Sender<u64>, plan: &Plan, kill: u32) -> ! {
    let began = Instant::now();
    loop {
        let part = began.elapsed().as_secs_f64() / ASKING.as_secs_f64();
        let lives = f64::from(kill) + part.min(1.0);
        let share = lives / f64::from(plan.kills);
        allowed.send_replace((plan.jobs as f64 * share) as u64);
        sleep(LOOK).await;
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits until jobs that ran in a process that is dead have ended or run elsewhere.
pub(super) async fn recovered(door: Door, mut living: watch::Receiver<Living>, jobs: Vec<(String, u64)>) -> Duration {
    let began = Instant::now();
    let all = async {
        for (job, attempt) in jobs {
            loop {
                let one = living.wait_for(|living| living.iter().any(Option::is_some)).await;
                // An error would mean that the run is over.
                let Ok(Some(gateway)) = one.map(|living| living.iter().flatten().next().copied()) else { return };
                if gather::has_gone_on(&door, gateway, &job, attempt).await {
                    break;
                }
                sleep(4 * LOOK).await;
            }
        }
    };
    // What did not recover took too long, and counts as that.
    let _ = timeout(RECOVERY_DEADLINE, all).await;
    began.elapsed()
}
