//! Work that computes does not disturb sockets: echoes while reports are made, on the pool and, as a counter-example, on
//! the threads that serve the sockets.
//!
//! Everything is compared within one run, so that it holds on any machine. Each figure is the median of several rounds, and
//! a round without work stands beside each round with work. A machine that is busy with other things can spoil a whole
//! comparison: it is made again then, three times at most, and every try is printed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Http, Socket};
use serde_json::{Value, json};
use tokio::time::sleep;

/// How long a piece of work computes on an undisturbed core.
const PIECE_MS: u64 = 100;
/// Pieces of work in a round: more than two cores can do while the echoes are counted.
const PIECES: usize = 16;
const ROUNDS: usize = 3;
const ECHOES: usize = 150;
/// Between two echoes of a client.
const PAUSE: Duration = Duration::from_millis(1);
/// An idle machine answers in a fraction of this. What is less is not told apart.
const IDLE_FLOOR: Duration = Duration::from_millis(2);
const TRIES: usize = 3;

/// One test, and not two, because they would disturb each other.
#[tokio::test]
async fn echoes_wait_for_work_that_computes_only_where_it_runs_on_their_threads() {
    until("pool", |figures| !figures.is_disturbed()).await;
    // What no machine can help: an echo that comes while a piece is computed waits for its end.
    until("inline", |figures| figures.is_disturbed() && figures.busy >= figures.piece / 2).await;
}

/// Compares until it is so, at most [`TRIES`] times.
async fn until(mode: &'static str, is_so: impl Fn(&Figures) -> bool) {
    for tried in 1..=TRIES {
        let figures = compare(mode).await;
        eprintln!("try {tried}: {figures}");
        if is_so(&figures) {
            return;
        }
    }
    panic!("`{mode}` is not what it has to be in {TRIES} of {TRIES} tries");
}

/// Medians of rounds.
struct Figures {
    mode: &'static str,
    /// The 99th percentile of echoes without work.
    idle: Duration,
    /// The same with work.
    busy: Duration,
    /// How long a piece of work took.
    piece: Duration,
    /// As the gateway saw it itself.
    lag: Value,
}

impl Figures {
    /// The rule that the pool has to keep and its counter-example has to break.
    fn is_disturbed(&self) -> bool {
        self.busy > 10 * self.idle.max(IDLE_FLOOR)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ratio = self.busy.as_secs_f64() / self.idle.as_secs_f64();
        write!(f, "{}: echo p99 idle {:?}, ", self.mode, self.idle)?;
        write!(f, "with work {:?} ({ratio:.1} times), a piece {:?}, loop lag {}", self.busy, self.piece, self.lag)
    }
}

async fn compare(mode: &'static str) -> Figures {
    let gateway = Gateway::start_example("hostile_jobs", Arc::new(Home::new(&config(mode)))).await;
    let http = gateway.http();
    let mut clients = [Socket::open(&gateway).await, Socket::open(&gateway).await];
    echoes(&mut clients, ECHOES).await;
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.push(p99(echoes(&mut clients, ECHOES).await));
        let jobs = work(&http).await;
        eventually("work has begun", || async { (left(&http).await > 0.0).then_some(()) }).await;
        // As long as there is work: what comes later would be an idle machine's.
        let mut round = Vec::new();
        while round.len() < ECHOES && left(&http).await > 0.0 {
            round.extend(echoes(&mut clients, 10).await);
        }
        assert!(round.len() >= 10, "too few echoes to tell: {}", round.len());
        busy.push(p99(round));
        for job in jobs {
            // It may have ended.
            http.delete(&format!("/v1/jobs/{job}")).await;
        }
        eventually("all work is done", || async { (left(&http).await == 0.0).then_some(()) }).await;
    }
    let text = http.get("/metrics").await.text();
    let pieces = value(&text, "groupcast_cpu_piece_seconds_count");
    let piece = Duration::from_secs_f64(value(&text, "groupcast_cpu_piece_seconds_sum") / pieces);
    Figures { mode, idle: median(idle), busy: median(busy), piece, lag: lag(&text) }
}

/// The times of so many echoes, by several clients at once.
async fn echoes(clients: &mut [Socket; 2], wanted: usize) -> Vec<Duration> {
    async fn some(client: &mut Socket, wanted: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            let start = Instant::now();
            let pong = client.command(json!({"type": "ping"})).await;
            times.push(start.elapsed());
            assert_eq!(pong["type"], "pong");
            // The load that is measured under, not a wait for anything.
            sleep(PAUSE).await;
        }
        times
    }
    let [one, other] = clients;
    let (mut times, more) = tokio::join!(some(one, wanted / 2), some(other, wanted / 2));
    times.extend(more);
    times
}

/// Asks for a round's work; the ids of its jobs.
async fn work(http: &Http) -> Vec<String> {
    let piece = json!({"group": "work", "message": {"type": "burn", "ms": PIECE_MS}});
    let told = http.post("/v1/send", &json!(vec![piece; PIECES])).await.expect(202);
    let results = told["results"].as_array().expect("a list");
    results.iter().map(|result| result["jobs"][0]["id"].as_str().expect("an id").to_owned()).collect()
}

/// Pieces of work that were given to the CPU pool and are not done.
async fn left(http: &Http) -> f64 {
    let text = http.get("/metrics").await.text();
    value(&text, "groupcast_cpu_pool_busy") + value(&text, "groupcast_cpu_pool_queued")
}

#[track_caller]
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no metric `{name}`: {text}"));
    line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a metric has a number")
}

/// How many looks of each runtime were how late: `le` and count.
fn lag(text: &str) -> Value {
    let bucket = |line: &str| {
        let rest = line.strip_prefix("groupcast_loop_lag_seconds_bucket{")?;
        let (labels, count) = rest.split_once("} ")?;
        labels.contains("shard-0").then(|| format!("{} {count}", labels.split('"').nth(1).unwrap_or_default()))
    };
    json!(text.lines().filter_map(bucket).collect::<Vec<_>>().join(", "))
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn config(mode: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"
shards = 1

[limits]
commands_per_second = 1000000

[jobs]
cpu_mode = "{mode}"
cpu_threads = 2

[[consumer]]
name = "burner"
group = "work"
type = "burn"
run = "embedded"
durability = "memory"
concurrency = 16
"#
    )
}
