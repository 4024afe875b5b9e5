//! A gateway whose consumers behave as badly as they can: what the tests of isolation are run against.
//!
//! ```text
//! cargo run --example hostile_jobs -- groupcast.toml
//! ```
//!
//! The configuration may have consumers with `run = "embedded"` of these names:
//!
//! ```text
//! burner    {"ms":200}   computes for so many milliseconds of an undisturbed core
//! aborter   {}           aborts the process
//! deaf      {}           says how far it is, for ever, and does not ask whether to stop
//! mute      {}           never comes back, and gives no sign of life
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use groupcast::Groupcast;
use groupcast::config::{Config, Sources};
use groupcast::consumer::{BoxFuture, Consumer, Failure, JobContext, Outcome};

/// Computes for a time that the message says.
struct Burner {
    rounds_per_ms: u64,
}

/// Between two questions whether to stop.
const STEP_MS: u64 = 5;

#[derive(serde::Deserialize)]
struct Ask {
    ms: u64,
}

impl Burner {
    /// Finds out how fast the machine is: the best of several tries, because it may be disturbed.
    fn new() -> Self {
        const ROUNDS: u64 = 2_000_000;
        let time = || {
            let start = Instant::now();
            burn(ROUNDS);
            start.elapsed()
        };
        let best = (0..10).map(|_| time()).min().unwrap_or_default().max(Duration::from_micros(1));
        Self { rounds_per_ms: (ROUNDS as f64 / best.as_secs_f64() / 1000.0) as u64 }
    }
}

impl Consumer for Burner {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let ask: Ask = serde_json::from_slice(job.message().raw())
                .map_err(|error| Failure::permanent("bad_message", error.to_string()))?;
            let rounds = self.rounds_per_ms * STEP_MS;
            let burned = job.compute(move |job| {
                for _ in 0..ask.ms / STEP_MS {
                    if job.is_cancelled() {
                        return;
                    }
                    burn(rounds);
                }
            });
            Outcome::json(&burned.await?)
        })
    }
}

fn burn(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum: u64, n| black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n)))
}

/// Takes the whole process with it.
struct Aborter;

impl Consumer for Aborter {
    fn run<'a>(&'a self, _job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async { std::process::abort() })
    }
}

/// Lives, and does not listen.
struct Deaf;

impl Consumer for Deaf {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        let shout = |job: &JobContext| {
            for said in 0.. {
                job.progress(said, None, "shouts");
                std::thread::park_timeout(Duration::from_millis(20));
            }
        };
        Box::pin(async move { Outcome::json(&job.compute(shout).await?) })
    }
}

/// Hangs.
struct Mute;

impl Consumer for Mute {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        let hang = |_: &JobContext| {
            loop {
                std::thread::park();
            }
        };
        Box::pin(async move { job.compute::<()>(hang).await.and_then(|()| Outcome::json(&())) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args_os().nth(1).context("name a configuration: hostile_jobs groupcast.toml")?;
    let config = Config::load(&Sources::file(file))?.config;
    tracing_subscriber::fmt().with_env_filter(config.server.log.as_str()).with_writer(std::io::stderr).init();
    let gateway = Groupcast::new(config)
        .consumer("burner", Arc::new(Burner::new()))
        .consumer("aborter", Arc::new(Aborter))
        .consumer("deaf", Arc::new(Deaf))
        .consumer("mute", Arc::new(Mute));
    let running = gateway.start().await?;
    writeln(&format!("listens on {}", running.url()))?;
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}

fn writeln(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
