//! The course of a run: life after life is killed while jobs are asked for; then everything may end, and is looked at.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::config::CONCURRENCY;
use super::door::Door;
use super::gather::Fate;
use super::judge::Findings;
use super::ledger::Ledger;
use super::producer::{Counter, produce};
use super::progress::Progress;
use super::report::{Figures, in_ms};
use super::witness::{self, Testimony};
use super::work::Work;
use super::{Plan, files, gather};
use crate::cli::CliError;
use crate::cli::delays::{Percentiles, histogram};
use crate::cli::sandbox::{Folder, Life};
use crate::kill_point::KillPoint;

/// How long a gateway lives after it was ready.
const LIFE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(700));

/// How long a gateway may take to come to its kill point; then it is killed there and then.
const POINT_DEADLINE: Duration = Duration::from_secs(10);

/// What a process ends by that is killed or kills itself.
const SIGKILL: i32 = 9;

/// In which time of a life the asks are made that belong to it.
const ASKING: Duration = Duration::from_millis(450);

/// How long is waited for a gateway to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long is waited for the first job to be picked up. There may be none that is due.
const PICK_UP_DEADLINE: Duration = Duration::from_secs(5);

/// How often is looked, and how often more asks are allowed.
const LOOK: Duration = Duration::from_millis(5);

/// The files are checked after so many kills.
const CHECK_EVERY: u32 = 10;

const PRODUCERS: usize = 4;

const CLAIMED: &str = "groupcast_jobs_claimed_total";
const FENCED: &str = "groupcast_jobs_fenced_total";

/// Carries the plan out.
///
/// # Errors
/// When a gateway does not start or ends by itself, when it takes too long, and when it is told to stop.
pub(super) async fn run(plan: &Plan, folder: &Folder) -> Result<Figures, CliError> {
    let course = async {
        let mut course = Course::begin(plan, folder)?;
        course.kill_all().await?;
        course.finish().await
    };
    tokio::select! {
        figures = timeout(plan.time_max, course) => figures.unwrap_or_else(|_| {
            let why = format!("the run took longer than {} s and was given up", plan.time_max.as_secs());
            Err(CliError::Failed(why))
        }),
        () = told_to_stop() => Err(CliError::Failed("stopped before there were figures".to_owned())),
    }
}

async fn told_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        // An error would mean that Ctrl-C cannot be heard: then it is no reason to stop.
        heard = ctrl_c() => if heard.is_err() { std::future::pending().await },
        _ = terminate.recv() => {}
    }
}

struct Course<'a> {
    plan: &'a Plan,
    folder: &'a Folder,
    door: Door,
    began: Instant,
    chance: Chance,
    gateway: watch::Sender<Option<SocketAddr>>,
    allowed: watch::Sender<u64>,
    counter: Arc<Counter>,
    /// They end with the run.
    producers: JoinSet<()>,
    witness: JoinHandle<Testimony>,
    hearing: CancellationToken,
    progress: Progress,
    kills: BTreeMap<String, u64>,
    samples: Samples,
    fenced: u64,
    integrity_checks: u64,
    faults: Vec<String>,
}

impl<'a> Course<'a> {
    fn begin(plan: &'a Plan, folder: &'a Folder) -> Result<Self, CliError> {
        let door = Door::new()?;
        let (gateway, living) = watch::channel(None);
        let (allowed, allowance) = watch::channel(0);
        let counter = Arc::new(Counter {
            gateway: living.clone(),
            allowed: allowance,
            stop: CancellationToken::new(),
            ledger: Arc::new(Ledger::default()),
            next: AtomicU64::new(0),
            seed: plan.seed,
        });
        let mut producers = JoinSet::new();
        (0..PRODUCERS).for_each(|_| drop(producers.spawn(produce(Arc::clone(&counter), door.clone()))));
        let hearing = CancellationToken::new();
        let witness = tokio::spawn(witness::listen(living, hearing.clone()));
        Ok(Self {
            plan,
            folder,
            door,
            began: Instant::now(),
            chance: Chance::new(plan.seed, 1 << 63),
            gateway,
            allowed,
            counter,
            producers,
            witness,
            hearing,
            progress: Progress::stderr(plan.kills),
            kills: BTreeMap::new(),
            samples: Samples { ready: histogram(), recovery: histogram() },
            fenced: 0,
            integrity_checks: 0,
            faults: Vec::new(),
        })
    }

    /// Life after life, each killed at work.
    async fn kill_all(&mut self) -> Result<(), CliError> {
        for kill in 0..self.plan.kills {
            let point = self.point(kill);
            let mut life = Life::start(self.folder, point)?;
            let (listening, began) = (life.listening(), life.began());
            let end = tokio::select! {
                lived = self.live(listening, began, kill, point) => lived.map(|()| None)?,
                status = life.ended() => Some(status),
            };
            let place = match (end, point) {
                (None, _) => "at random",
                (Some(status), Some((point, _))) if status.signal() == Some(SIGKILL) => point.as_str(),
                (Some(status), _) => return Err(ended_by_itself(self.folder, status)),
            };
            life.kill().await;
            self.gateway.send_replace(None);
            *self.kills.entry(place.to_owned()).or_default() += 1;
            if (kill + 1).is_multiple_of(CHECK_EVERY) {
                self.check_files();
            }
            self.progress.killed(&self.counter.ledger);
        }
        Ok(())
    }

    /// Where the next life ends by itself, if every second one has to: each point in turn.
    fn point(&mut self, kill: u32) -> Option<(KillPoint, u32)> {
        let points = &self.plan.kill_points;
        if points.is_empty() || kill.is_multiple_of(2) {
            return None;
        }
        let point = points[(kill / 2) as usize % points.len()];
        // Not always the first time: the job that comes first would soon be dead of it.
        let times = match point {
            KillPoint::MidRows => 200,
            KillPoint::MidCheckpoint => 2,
            KillPoint::AfterInsertBeforeSync
            | KillPoint::AfterSyncBefore202
            | KillPoint::AfterClaim
            | KillPoint::AfterResultBeforeAck
            | KillPoint::AfterAckBeforePublish => 8,
        };
        Some((point, 1 + self.chance.below(times) as u32))
    }

    /// One life, up to the moment at which it is to be killed.
    async fn live(
        &mut self,
        listening: impl Future<Output = Result<SocketAddr, CliError>>,
        began: Instant,
        kill: u32,
        point: Option<(KillPoint, u32)>,
    ) -> Result<(), CliError> {
        let lifetime = match point {
            None => self.chance.between(LIFE.0, LIFE.1),
            Some(_) => POINT_DEADLINE,
        };
        let gateway = listening.await?;
        self.gateway.send_replace(Some(gateway));
        let is_ready = tokio::select! {
            is_ready = self.samples.observe(&self.door, gateway, began, lifetime) => is_ready,
            never = allow_evenly(&self.allowed, self.plan, kill) => never,
        };
        if !is_ready {
            let log = self.folder.log().display().to_string();
            let why = format!("a gateway was not ready within {} s; see {log}", READY_DEADLINE.as_secs());
            return Err(CliError::Failed(why));
        }
        self.fenced += self.door.metric(gateway, FENCED).await.unwrap_or(0);
        Ok(())
    }

    /// The last life, in which everything may end; then everything is looked at.
    async fn finish(mut self) -> Result<Figures, CliError> {
        self.progress.step("finishing");
        let mut life = Life::start(self.folder, None)?;
        let listening = life.listening();
        let (accepted, fates) = tokio::select! {
            gathered = self.gather(listening) => gathered?,
            status = life.ended() => return Err(ended_by_itself(self.folder, status)),
        };
        self.hearing.cancel();
        let testimony = (&mut self.witness).await;
        let testimony = testimony.map_err(|_| CliError::Failed("the subscriber panicked".to_owned()))?;
        self.faults.extend(life.stop().await.err());
        self.gateway.send_replace(None);
        self.check_files();
        let mut findings = Findings::default();
        findings.judge(&accepted, &fates);
        findings.hear(&testimony, &fates);
        match files::jobs(&self.folder.data()) {
            Ok(stored) => findings.inspect(&stored, &accepted, self.plan.seed),
            Err(why) => self.faults.push(why),
        }
        Ok(self.figures(findings, &testimony))
    }

    /// Lets the producers ask for the rest, waits until all has ended, and reads what came of it.
    async fn gather(
        &mut self,
        listening: impl Future<Output = Result<SocketAddr, CliError>>,
    ) -> Result<(HashMap<String, Work>, HashMap<String, Fate>), CliError> {
        let gateway = listening.await?;
        self.gateway.send_replace(Some(gateway));
        let ledger = Arc::clone(&self.counter.ledger);
        loop {
            let (answers, allowed) = (ledger.answers.load(Relaxed), *self.allowed.borrow());
            let missing = self.plan.jobs.saturating_sub(ledger.len());
            if answers >= allowed {
                match missing {
                    0 => break,
                    missing => drop(self.allowed.send_replace(allowed + missing)),
                }
            }
            sleep(LOOK).await;
        }
        self.counter.stop.cancel();
        while self.producers.join_next().await.is_some() {}
        gather::all_ended(&self.door, gateway).await;
        let accepted = ledger.jobs();
        let fates = gather::fates(&self.door, gateway, accepted.keys().cloned()).await;
        self.fenced += self.door.metric(gateway, FENCED).await.unwrap_or(0);
        Ok((accepted, fates))
    }

    fn check_files(&mut self) {
        match files::check(&self.folder.data(), &self.folder.path().join("copy")) {
            Ok(0) => {}
            Ok(_) => self.integrity_checks += 1,
            Err(why) => self.faults.push(why),
        }
    }

    fn figures(self, findings: Findings, testimony: &Testimony) -> Figures {
        let ledger = &self.counter.ledger;
        let mut faults = self.faults;
        faults.extend(ledger.contradictions.lock().iter().cloned());
        let recovery_max = nanos(self.plan.recovery_max);
        let lives = self.kills.values().sum::<u64>();
        Figures {
            store: "sqlite",
            durability: self.plan.durability,
            seed: self.plan.seed,
            seconds: in_ms(self.began.elapsed()).round() / 1e3,
            re_executions_max: lives * CONCURRENCY,
            kills: self.kills,
            acked: ledger.len(),
            repeated_asks: ledger.repeated.load(Relaxed),
            recognised_asks: ledger.recognised.load(Relaxed),
            refused_asks: ledger.refused.lock().clone(),
            findings,
            fenced: self.fenced,
            events: testimony.told.len() as u64,
            events_repeated: testimony.repeated,
            events_missed: testimony.missed,
            ready_ms: Percentiles::of(&self.samples.ready),
            recovery_ms: Percentiles::of(&self.samples.recovery),
            recoveries_unseen: lives - self.samples.recovery.len(),
            recovery_max_ms: in_ms(self.plan.recovery_max),
            recovery_is_late: self.samples.recovery.value_at_quantile(0.99) > recovery_max,
            integrity_checks: self.integrity_checks,
            faults,
        }
    }
}

fn ended_by_itself(folder: &Folder, status: ExitStatus) -> CliError {
    let log = folder.log().display().to_string();
    CliError::Failed(format!("a gateway ended by itself ({status}); what it said is in {log}"))
}

/// How long lives took to begin.
struct Samples {
    /// From the start until ready.
    ready: Histogram<u64>,
    /// From the start until the first job was picked up.
    recovery: Histogram<u64>,
}

impl Samples {
    /// Watches a life up to the end of its time: whether it was ready in time.
    ///
    /// # Cancel safety
    /// What was seen is kept.
    async fn observe(&mut self, door: &Door, gateway: SocketAddr, began: Instant, lifetime: Duration) -> bool {
        let is_ready = async || door.get(gateway, "/readyz").await.is_some_and(|reply| reply.status == 200);
        if timeout(READY_DEADLINE, until(is_ready)).await.is_err() {
            return false;
        }
        self.ready.saturating_record(nanos(began.elapsed()));
        let end = Instant::now() + lifetime;
        let has_claimed = async || door.metric(gateway, CLAIMED).await.is_some_and(|claimed| claimed > 0);
        if timeout(PICK_UP_DEADLINE, until(has_claimed)).await.is_ok() {
            self.recovery.saturating_record(nanos(began.elapsed()));
        }
        sleep_until(end).await;
        true
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

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
