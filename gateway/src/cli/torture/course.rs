//! The course of a run: life after life is killed while jobs are asked for; then everything may end, and is looked at.
//!
//! With several processes the others go on when one is killed, and now and then one stands still for longer than its lease,
//! so that it comes back with reports that nobody may believe.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::config::{CONCURRENCY, Store};
use super::door::Door;
use super::files::Stored;
use super::fleet::{Fleet, Living};
use super::judge::Findings;
use super::ledger::Ledger;
use super::lookout::{Lookout, Newest, nanos, recovered};
use super::producer::{Counter, produce};
use super::progress::Progress;
use super::report::{Figures, in_ms};
use super::witness::{self, Testimony};
use super::{Plan, files, gather, server};
use crate::cli::CliError;
use crate::cli::delays::{Percentiles, histogram};
use crate::cli::sandbox::Folder;
use crate::kill_point::KillPoint;

/// How long a gateway lives after it was ready.
const LIFE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(700));

/// How long a gateway may take to come to its kill point; then it is killed there and then.
const POINT_DEADLINE: Duration = Duration::from_secs(10);

/// What a process ends by that is killed or kills itself.
const SIGKILL: i32 = 9;

/// How long a gateway that is to be killed may take for a last word.
const ANSWER: Duration = Duration::from_secs(1);

/// The files are checked after so many kills.
const CHECK_EVERY: u32 = 10;

/// With several processes, one stands still after so many kills.
const STALL_EVERY: u32 = 10;

const PRODUCERS: usize = 4;

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
    began: Instant,
    chance: Chance,
    fleet: Fleet<'a>,
    lookout: Lookout<'a>,
    counter: Arc<Counter>,
    /// They end with the run.
    producers: JoinSet<()>,
    testimony: Arc<Mutex<Testimony>>,
    witnesses: JoinSet<()>,
    hearing: CancellationToken,
    /// How long the jobs of one that was killed took until they ran elsewhere.
    recoveries: JoinSet<Duration>,
    progress: Progress,
    kills: BTreeMap<String, u64>,
    stalls: u64,
    fenced: u64,
    integrity_checks: u64,
    faults: Vec<String>,
}

impl<'a> Course<'a> {
    fn begin(plan: &'a Plan, folder: &'a Folder) -> Result<Self, CliError> {
        let door = Door::new()?;
        let fleet = Fleet::new(plan, folder);
        let (allowed, allowance) = watch::channel(0);
        let counter = Arc::new(Counter {
            living: fleet.living(),
            allowed: allowance,
            stop: CancellationToken::new(),
            ledger: Arc::new(Ledger::default()),
            next: AtomicU64::new(0),
            seed: plan.seed,
        });
        let mut producers = JoinSet::new();
        (0..PRODUCERS).for_each(|_| drop(producers.spawn(produce(Arc::clone(&counter), door.clone()))));
        let (hearing, testimony, mut witnesses) = (CancellationToken::new(), Arc::default(), JoinSet::new());
        for place in 0..fleet.len() {
            witnesses.spawn(witness::listen(fleet.living(), place, Arc::clone(&testimony), hearing.clone()));
        }
        Ok(Self {
            plan,
            folder,
            began: Instant::now(),
            chance: Chance::new(plan.seed, 1 << 63),
            fleet,
            lookout: Lookout { plan, door, allowed, ready: histogram(), recovery: histogram() },
            counter,
            producers,
            testimony,
            witnesses,
            hearing,
            recoveries: JoinSet::new(),
            progress: Progress::stderr(plan.kills),
            kills: BTreeMap::new(),
            stalls: 0,
            fenced: 0,
            integrity_checks: 0,
            faults: Vec::new(),
        })
    }

    /// Life after life, each killed at work.
    async fn kill_all(&mut self) -> Result<(), CliError> {
        for place in 1..self.fleet.len() {
            self.fleet.start(place, None)?;
            let listening = self.fleet.listening(place);
            tokio::select! {
                address = listening => drop(address?),
                (_, status) = self.fleet.first_ended() => return Err(ended_by_itself(self.folder, status)),
            }
        }
        let mut newest = self.start(0, None)?;
        for kill in 0..self.plan.kills {
            let lifetime = match newest.point {
                None => self.chance.between(LIFE.0, LIFE.1),
                Some(_) => POINT_DEADLINE,
            };
            let listening = self.fleet.listening(newest.place);
            let end = tokio::select! {
                lived = self.lookout.live(listening, &newest, lifetime, kill) => lived.map(|()| None)?,
                ended = self.fleet.first_ended() => Some(ended),
            };
            let (victim, place) = match (end, newest.point) {
                (None, None) => (self.chance.below(self.fleet.len() as u64) as usize, "at random"),
                (None, Some(_)) => (newest.place, "at random"),
                (Some((at, status)), Some((point, _))) if at == newest.place && status.signal() == Some(SIGKILL) => {
                    (at, point.as_str())
                }
                (Some((_, status)), _) => return Err(ended_by_itself(self.folder, status)),
            };
            self.kill(victim).await;
            *self.kills.entry(place.to_owned()).or_default() += 1;
            if (kill + 1).is_multiple_of(CHECK_EVERY) {
                self.check_files();
            }
            if (kill + 1).is_multiple_of(STALL_EVERY) && self.fleet.len() > 1 {
                self.stall((victim + 1) % self.fleet.len()).await?;
            }
            self.progress.killed(&self.counter.ledger);
            let point = if kill + 1 == self.plan.kills { None } else { self.point(kill + 1) };
            newest = self.start(victim, point)?;
        }
        let listening = self.fleet.listening(newest.place);
        tokio::select! {
            address = listening => address.map(drop),
            (_, status) = self.fleet.first_ended() => Err(ended_by_itself(self.folder, status)),
        }
    }

    fn start(&mut self, place: usize, point: Option<(KillPoint, u32)>) -> Result<Newest, CliError> {
        let began = self.fleet.start(place, point)?;
        Ok(Newest { place, began, point })
    }

    /// Kills, and has somebody watch when the jobs that ran then are run elsewhere.
    async fn kill(&mut self, victim: usize) {
        let (door, several) = (self.lookout.door.clone(), self.fleet.len() > 1);
        if let Some(address) = self.fleet.address(victim) {
            self.fenced += timeout(ANSWER, door.metric(address, FENCED)).await.ok().flatten().unwrap_or(0);
        }
        let running = match self.fleet.other_than(victim) {
            Some(other) if several => gather::running(&door, other).await,
            _ => Vec::new(),
        };
        self.fleet.kill(victim).await;
        if !running.is_empty() {
            self.recoveries.spawn(recovered(door, self.fleet.living(), running));
        }
    }

    /// Has a process stand still for longer than its lease.
    async fn stall(&mut self, place: usize) -> Result<(), CliError> {
        let Store::Postgres { lease, .. } = &self.plan.store else { return Ok(()) };
        let Some(address) = self.fleet.address(place) else { return Ok(()) };
        self.fleet.hide(place);
        self.fleet.stand_still(place, true)?;
        let time = lease.mul_f64(1.5);
        let ended = tokio::select! {
            () = sleep(time) => None,
            ended = self.fleet.first_ended() => Some(ended),
        };
        self.fleet.stand_still(place, false)?;
        if let Some((_, status)) = ended {
            return Err(ended_by_itself(self.folder, status));
        }
        self.fleet.show(place, address);
        self.stalls += 1;
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
            // Every transaction has one, those of claims that find nothing as well.
            KillPoint::AfterCommitBeforeAnswer => 40,
            KillPoint::AfterInsertBeforeSync
            | KillPoint::AfterSyncBefore202
            | KillPoint::AfterClaim
            | KillPoint::AfterResultBeforeAck
            | KillPoint::AfterAckBeforePublish => 8,
        };
        Some((point, 1 + self.chance.below(times) as u32))
    }

    /// The last lives, in which everything may end; then everything is looked at.
    async fn finish(mut self) -> Result<Figures, CliError> {
        self.progress.step("finishing");
        let gateway = self.fleet.other_than(0).expect("one has just said where it listens");
        let ledger = Arc::clone(&self.counter.ledger);
        let gathered = async {
            self.lookout.ask_for_the_rest(&ledger).await;
            self.counter.stop.cancel();
            while self.producers.join_next().await.is_some() {}
            gather::all_ended(&self.lookout.door, gateway).await;
            let accepted = ledger.jobs();
            let fates = gather::fates(&self.lookout.door, gateway, accepted.keys().cloned()).await;
            (accepted, fates)
        };
        let (accepted, fates) = tokio::select! {
            gathered = gathered => gathered,
            (_, status) = self.fleet.first_ended() => return Err(ended_by_itself(self.folder, status)),
        };
        let living: Living = self.fleet.living().borrow().clone();
        for address in living.into_iter().flatten() {
            self.fenced += self.lookout.door.metric(address, FENCED).await.unwrap_or(0);
        }
        while let Some(Ok(time)) = self.recoveries.join_next().await {
            self.lookout.recovery.saturating_record(nanos(time));
        }
        self.hearing.cancel();
        while self.witnesses.join_next().await.is_some() {}
        let testimony = std::mem::take(&mut *self.testimony.lock());
        let fleet = std::mem::replace(&mut self.fleet, Fleet::new(self.plan, self.folder));
        self.faults.extend(fleet.stop().await);
        let mut findings = Findings::default();
        findings.judge(&accepted, &fates);
        findings.hear(&testimony, &fates);
        match self.stored().await {
            Ok(stored) => findings.inspect(&stored, &accepted, self.plan.seed),
            Err(why) => self.faults.push(why),
        }
        let plan = self.plan;
        let mut figures = self.figures(findings, &testimony);
        if let (Store::Postgres { url, schema, .. }, false, None) = (&plan.store, plan.keep, figures.verdict()) {
            figures.faults.extend(server::remove(url, schema).await.err());
        }
        Ok(figures)
    }

    /// The jobs as they are stored, read without a gateway.
    async fn stored(&mut self) -> Result<Vec<Stored>, String> {
        match &self.plan.store {
            Store::Sqlite => {
                self.check_files();
                files::jobs(&self.folder.data())
            }
            Store::Postgres { url, schema, .. } => server::jobs(url, schema).await,
        }
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
            store: self.plan.store.kind().as_str(),
            processes: self.plan.processes,
            durability: self.plan.durability,
            seed: self.plan.seed,
            seconds: in_ms(self.began.elapsed()).round() / 1e3,
            re_executions_max: (lives + self.stalls) * CONCURRENCY,
            stalls: self.stalls,
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
            ready_ms: Percentiles::of(&self.lookout.ready),
            recovery_ms: Percentiles::of(&self.lookout.recovery),
            recoveries_unseen: lives.saturating_sub(self.lookout.recovery.len()),
            recovery_max_ms: in_ms(self.plan.recovery_max),
            recovery_is_late: self.lookout.recovery.value_at_quantile(0.99) > recovery_max,
            integrity_checks: self.integrity_checks,
            faults,
        }
    }
}

fn ended_by_itself(folder: &Folder, status: ExitStatus) -> CliError {
    let log = folder.log().display().to_string();
    CliError::Failed(format!("a gateway ended by itself ({status}); what it said is in {log}"))
}
