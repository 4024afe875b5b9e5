//! `groupcast bench jobs`: how fast work is accepted and picked up on this disk, and what the disk alone can do.
//!
//! Reading order: this file (what may be asked for, and the course), `client` (one HTTP connection), `disk` (the disk's
//! own rate), `report` (what is printed).

mod client;
mod disk;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::client::Client;
use self::report::Figures;
use super::block_on_result;
use crate::cli::delays::{Percentiles, histogram};
use crate::cli::sandbox::{Folder, Life};
use crate::cli::{CliError, output};
use crate::config::consumer::Durability;
use crate::config::units::Time;

/// Arguments of `bench jobs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast bench jobs                        # durability disk, 32 clients
  groupcast bench jobs --durability os --data-dir /mnt/disk

It starts a gateway of this very binary with its data in a fresh folder. First the disk alone: blocks of 4 KiB, each
appended and synced. Then each client asks for one job after the other, not due for an hour, and counts what is accepted.
Then one job is asked for every --every, with nothing else to do, and the record says when it was picked up. Every job
has to be stored, and every one that was due to have succeeded at its first attempt.

Exit codes: 0 fine, 1 when not.")]
pub(super) struct JobsArgs {
    /// What the jobs are to survive: memory, os or disk.
    #[arg(long, value_name = "LEVEL", default_value = "disk", value_parser = crate::cli::torture::durability)]
    durability: Durability,
    /// Clients that ask for jobs, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long each of the three parts takes.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    duration: Time,
    /// How often a job is asked for while it is measured how soon it is picked up.
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    every: Time,
    /// Where the fresh folder is made; name a place on the disk that is meant.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints what was measured.
///
/// # Errors
/// When the run cannot be carried through, or the gateway did not keep its word.
pub(super) fn jobs(args: &JobsArgs) -> Result<(), CliError> {
    if args.every.0.is_zero() || args.duration.0.is_zero() {
        return Err(CliError::Usage("--every and --duration must be more than nothing".to_owned()));
    }
    super::room_for_files(u64::from(args.clients))?;
    let folder = Folder::new(&args.data_dir, "groupcast-bench", &config(args.durability))?;
    let disk = disk::measure(folder.path(), args.duration.0)?;
    let figures = block_on_result(measure(args, &folder, disk))?;
    output::line(&if args.json { figures.json() } else { figures.table() })?;
    figures.verdict().map_or(Ok(()), |why| Err(CliError::Failed(why)))
}

async fn measure(args: &JobsArgs, folder: &Folder, disk: disk::Rate) -> Result<Figures, CliError> {
    let mut life = Life::start(folder, &[])?;
    let listening = life.listening();
    let figures = async {
        let address = listening.await?;
        let figures = Figures { durability: args.durability, clients: args.clients, disk, ..Figures::default() };
        // The first ones pay for files that grow and statements that are prepared.
        enqueue(address, args.clients, args.duration.0.min(WARMUP)).await.map_err(CliError::Failed)?;
        let enqueued = enqueue(address, args.clients, args.duration.0).await.map_err(CliError::Failed)?;
        let picked_up = pick_up(address, args.duration.0, args.every.0).await.map_err(CliError::Failed)?;
        Ok(Figures {
            accepted: enqueued.accepted,
            seconds: enqueued.took.as_secs_f64(),
            answer_ms: Percentiles::of(&enqueued.answers),
            due: picked_up.due,
            succeeded_at_once: picked_up.succeeded,
            due_answer_ms: Percentiles::of(&picked_up.answers),
            pickup_ms: Percentiles::of(&picked_up.delays),
            ..figures
        })
    };
    let figures = tokio::select! {
        figures = figures => figures,
        status = life.ended() => Err(CliError::Failed(format!("the gateway ended by itself: {status}"))),
    }?;
    life.stop().await.map_err(CliError::Failed)?;
    Ok(figures)
}

const WARMUP: Duration = Duration::from_secs(1);

/// What clients saw of the enqueues of one part.
struct Enqueued {
    accepted: u64,
    took: Duration,
    answers: Histogram<u64>,
}

/// Each client asks for one job after the other, none of them due.
async fn enqueue(address: std::net::SocketAddr, clients: u32, time: Duration) -> Result<Enqueued, String> {
    let message = r#"{"type":"bench","query":"one","delay_ms":3600000}"#;
    let (began, mut asking) = (Instant::now(), JoinSet::new());
    for _ in 0..clients {
        asking.spawn(async move {
            let (mut client, mut answers) = (Client::connect(address).await?, histogram());
            while began.elapsed() < time {
                let asked = Instant::now();
                client.enqueue(message).await?;
                answers.saturating_record(nanos(asked.elapsed()));
            }
            Ok::<_, String>(answers)
        });
    }
    let mut answers = histogram();
    for one in asking.join_all().await {
        answers.add(one?).expect("both have the same bounds");
    }
    Ok(Enqueued { accepted: answers.len(), took: began.elapsed(), answers })
}

/// What became of jobs that were due.
struct PickedUp {
    due: u64,
    succeeded: u64,
    answers: Histogram<u64>,
    /// From stored to begun, as their records say, to the millisecond.
    delays: Histogram<u64>,
}

/// Asks for one job after the other at an even pace, and reads when each was begun.
async fn pick_up(address: std::net::SocketAddr, time: Duration, every: Duration) -> Result<PickedUp, String> {
    let mut client = Client::connect(address).await?;
    let (began, mut turns, mut ids) = (Instant::now(), interval(every), Vec::new());
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = histogram();
    while began.elapsed() < time {
        turns.tick().await;
        let asked = Instant::now();
        ids.push(client.enqueue(r#"{"type":"bench","query":"one"}"#).await?);
        answers.saturating_record(nanos(asked.elapsed()));
    }
    let mut seen = PickedUp { due: ids.len() as u64, succeeded: 0, answers, delays: histogram() };
    for id in ids {
        let record = client.get(&format!("/v1/jobs/{id}?wait=10")).await?;
        seen.succeeded += u64::from(record["state"] == "succeeded" && record["attempt"] == 1);
        if let (Some(stored), Some(begun)) = (unix_ms(&record["enqueued_at"]), unix_ms(&record["started_at"])) {
            seen.delays.saturating_record(begun.saturating_sub(stored) * 1_000_000);
        }
    }
    Ok(seen)
}

fn unix_ms(time: &Value) -> Option<u64> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn config(durability: Durability) -> String {
    let durability = crate::cli::torture::level(durability);
    format!(
        r#"[server]
listen = "127.0.0.1:0"
data_dir = "data"
log = "warn"

[jobs]
max_queued = 100000000

[limits]
connections_per_address = 20000
connections = 20000

[source.none]
kind = "sqlite"
path = "source.db"

[[query]]
id = 1
name = "one"
source = "none"
sql = "select 1 as one"

[[consumer]]
name = "bench"
group = "bench"
type = "bench"
run = "query"
durability = "{durability}"
"#
    )
}
