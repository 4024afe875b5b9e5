//! The course of a run: connect, warm up, measure, wait for the last messages, count.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::clock::{Clock, nanos};
use super::connect::Door;
use super::process::{Server, Usage};
use super::progress::Progress;
use super::publish::{Phase, Publisher, ToGroup};
use super::receive::{Book, Readers, Shared};
use super::report::{Figures, ServerFigures, round};
use crate::cli::CliError;
use crate::cli::delays::{Percentiles, histogram};

/// How long the last messages may make no progress before they are taken for lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Carries the plan out.
///
/// # Errors
/// When there is no gateway, nobody got in, or it was told to stop twice.
pub(super) async fn run(plan: &Plan, door: Door) -> Result<Figures, CliError> {
    let (stop, stop_at_once) = (CancellationToken::new(), CancellationToken::new());
    // Ends with the runtime; there is nothing to wait for.
    tokio::spawn(listen_for_signals(stop.clone(), stop_at_once.clone()));
    tokio::select! {
        figures = measure(plan, door, stop) => figures,
        () = stop_at_once.cancelled() => Err(CliError::Failed("stopped before there were figures".to_owned())),
    }
}

/// Ctrl-C or SIGTERM ends the run early, with its figures; the second one ends it at once.
async fn listen_for_signals(stop: CancellationToken, stop_at_once: CancellationToken) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    for token in [stop, stop_at_once] {
        tokio::select! {
            heard = ctrl_c() => if heard.is_err() { return },
            _ = terminate.recv() => {}
        }
        token.cancel();
    }
}

async fn measure(plan: &Plan, door: Door, stop: CancellationToken) -> Result<Figures, CliError> {
    drop(door.publisher().await.map_err(|why| unreachable(&door, &why))?);
    let (plan, shared) = (Arc::new(plan.clone()), Arc::new(Shared::new(plan.groups.len())));
    let progress = Progress::stderr();
    let readers = Readers::start(&plan, &door, &shared)?;
    tokio::select! {
        () = all_connected(&shared, plan.connections) => {}
        () = stop.cancelled() => {}
        never = progress.connecting(&shared, plan.connections) => never,
    }
    let opened = shared.opened.load(Relaxed);
    if opened == 0 && plan.connections > 0 {
        let why = readers.finish(&shared).into_iter().flat_map(|book| book.reasons).next();
        let why = why.unwrap_or_else(|| "the run was ended before it began".to_owned());
        return Err(CliError::Failed(format!("no connection was opened; the gateway at {} {why}", door.url())));
    }
    let mut field = Field::new(plan, &door, shared, stop);
    let warmup = field.plan.warmup;
    field.publish("warming up", &progress, false, warmup).await;
    let server = Server::find(door.address());
    let before = server.as_ref().and_then(Server::usage);
    let duration = field.plan.duration;
    let took = field.publish("measuring", &progress, true, duration).await;
    let after = server.as_ref().and_then(Server::usage);
    drop(progress);
    let books = readers.finish(&field.shared);
    let mut figures = field.figures(&books, took);
    figures.url = door.url().to_owned();
    figures.connections = opened;
    figures.server = server.zip(before.zip(after)).map(|(server, usage)| of_server(&server, usage, &figures));
    Ok(figures)
}

fn unreachable(door: &Door, why: &str) -> CliError {
    CliError::Failed(format!(
        "the gateway at {} cannot be reached: it {why}; start one with `groupcast serve`, name another with --url, or let \
         bench start one with --spawn",
        door.url()
    ))
}

async fn all_connected(shared: &Shared, connections: u32) {
    while shared.opened.load(Relaxed) + shared.failed.load(Relaxed) < u64::from(connections) {
        // A change in between has left its permit.
        shared.changed.notified().await;
    }
}

fn of_server(server: &Server, (before, after): (Usage, Usage), figures: &Figures) -> ServerFigures {
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let per_delivery = (figures.deliveries > 0).then(|| round(cpu * 1e6 / figures.deliveries as f64));
    ServerFigures {
        pid: server.pid,
        name: server.name.clone(),
        cpu_us_per_delivery: per_delivery,
        cpu_cores: round(cpu / figures.seconds.max(f64::MIN_POSITIVE)),
        rss_bytes: after.rss_bytes,
    }
}

/// The publishers and what they share.
struct Field {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    publishers: Vec<Publisher>,
    stop: CancellationToken,
    notes: Vec<String>,
    broken: bool,
}

impl Field {
    fn new(plan: Arc<Plan>, door: &Door, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        let publishers = (0..plan.publishers).map(|n| Publisher::new(n, &plan, door, &shared)).collect();
        Self { plan, shared, publishers, stop, notes: Vec::new(), broken: false }
    }

    /// One phase, with what comes after it: says how long it took until the last delivery.
    async fn publish(&mut self, what: &str, progress: &Progress, measured: bool, time: Duration) -> Duration {
        let clock = self.shared.clock;
        let begin = clock.now();
        let phase = Phase { measured, until: begin + nanos(time), stop: self.stop.clone() };
        let shared = self.shared.clone();
        tokio::select! {
            () = self.all_publishers(&phase) => {}
            never = progress.publishing(what, &shared, time) => never,
        }
        let end = last_progress(&shared, clock).await;
        Duration::from_nanos(end - begin)
    }

    async fn all_publishers(&mut self, phase: &Phase) {
        let mut running = JoinSet::new();
        for mut publisher in self.publishers.drain(..) {
            let phase = phase.clone();
            running.spawn(async move {
                let result = publisher.run(&phase).await;
                if result.is_err() {
                    // Without all of them it is another measurement.
                    phase.stop.cancel();
                }
                (publisher, result)
            });
        }
        for (publisher, result) in running.join_all().await {
            self.publishers.push(publisher);
            if let Err(why) = result {
                self.broken = true;
                self.notes.push(why);
            }
        }
        self.publishers.sort_by_key(Publisher::number);
    }

    fn figures(mut self, books: &[Book], took: Duration) -> Figures {
        if self.stop.is_cancelled() {
            self.notes.push("ended before its time".to_owned());
        }
        let mut reasons: Vec<String> = books.iter().flat_map(|book| book.reasons.clone()).collect();
        reasons.dedup();
        self.notes.extend(reasons.into_iter().map(|why| format!("the gateway {why}")));
        let (mut connects, mut answers, mut delays) = (histogram(), histogram(), histogram());
        let mut figures = Figures {
            connections_failed: self.shared.failed.load(Relaxed),
            groups: self.plan.groups.len() as u64,
            publishers: u64::from(self.plan.publishers),
            in_flight: u64::from(self.plan.in_flight),
            size: self.plan.size as u64,
            ..Figures::default()
        };
        for publisher in &self.publishers {
            figures.published += publisher.accepted;
            add(&mut answers, &publisher.delays);
            for (code, count) in &publisher.errors {
                *figures.errors.entry(code.clone()).or_default() += count;
            }
        }
        let to_group = |group: u32| ToGroup(self.publishers.iter().map(|p| &p.sent[group as usize]).collect());
        let mut tally = super::ledger::Tally::default();
        for book in books {
            tally += book.tally(to_group, self.publishers.len());
            figures.bytes += book.bytes;
            figures.misrouted += book.misrouted;
            add(&mut connects, &book.connects);
            add(&mut delays, &book.delays);
        }
        figures.tally(tally);
        figures.deliveries = self.shared.deliveries.load(Relaxed);
        figures.connect_ms = Percentiles::of(&connects);
        figures.answer_ms = Percentiles::of(&answers);
        figures.delivery_ms = Percentiles::of(&delays);
        if figures.published == 0 {
            self.broken = true;
            self.notes.push("nothing was published".to_owned());
        }
        figures.broken = self.broken;
        figures.notes = self.notes;
        figures.took(took);
        figures
    }
}

/// Waits until all deliveries are settled, or none is for too long. When the last one was.
async fn last_progress(shared: &Shared, clock: Clock) -> u64 {
    let mut looks = interval(Duration::from_millis(20));
    let (mut settled, mut at) = (shared.window.settled(), clock.now());
    while nanos(SILENCE_MAX) > clock.now() - at {
        tokio::select! {
            () = shared.window.empty() => return clock.now(),
            _ = looks.tick() => {
                let now_settled = shared.window.settled();
                if now_settled != settled {
                    (settled, at) = (now_settled, clock.now());
                }
            }
        }
    }
    at
}

fn add(sum: &mut hdrhistogram::Histogram<u64>, part: &hdrhistogram::Histogram<u64>) {
    sum.add(part).expect("both have the same bounds");
}
