//! `groupcast torture`: kills a gateway again and again while it works, and checks that nothing it accepted is lost.
//!
//! Reading order: this file (what may be asked for), `course` (lives and kills), `fleet` (the processes), `work`
//! (the jobs that are asked for, and what has to come of them), `producer` (asks for them), `ledger` (what was
//! accepted), `witness` (what a subscriber was told), `gather` (what became of it), `judge` (whether that is right),
//! `report` (what is printed).
//!
//! Nothing here trusts the gateway: what a job is and what it must answer follows from its number and the seed alone, and
//! the ledger is kept by this process, which is never killed.

mod chance;
mod config;
mod course;
mod door;
mod files;
mod fleet;
mod gather;
mod judge;
mod ledger;
mod lookout;
mod producer;
mod progress;
mod report;
mod server;
mod witness;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use self::config::Store;
use super::sandbox::Folder;
use super::{CliError, block_on, output};
use crate::config::consumer::{Durability, StoreKind};
use crate::config::hidden::Hidden;
use crate::config::units::Time;
use crate::kill_point::KillPoint;

/// Arguments of `torture`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast torture                                  # 200 kills, 10,000 jobs: some minutes
  groupcast torture --kills 20 --data-dir /mnt/disk  # on another disk
  groupcast torture --store postgres                 # several gateways; the server in GROUPCAST_TORTURE_URL
  groupcast torture --durability os                  # survives kill -9, not the loss of power
  groupcast torture --durability memory --kills 3    # has to fail: it shows that losses are seen

It starts gateways of this very binary on a free port of the loopback address, with a data directory in a fresh folder,
and kills each (SIGKILL) 0.2 to 0.7 s after it was ready. Meanwhile four producers ask for jobs whose results are known
beforehand; each job that is answered with 202 goes into a ledger. In the end everything in the ledger must have ended
in exactly one state, with the right result, and the store's files must be whole. A running gateway is never touched.

Exit codes: 0 when all of it holds, 1 when not or when it took too long; then the folder is kept and named.")]
pub struct TortureArgs {
    /// How often the gateway is killed.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: u32,
    /// How many jobs have to be accepted, at least. [default: 50 for each kill]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    jobs: Option<u64>,
    /// Where jobs are kept: sqlite, in the folder, by one gateway; or postgres, by several.
    #[arg(long, value_name = "STORE", default_value = "sqlite", value_parser = ["sqlite", "postgres"])]
    store: String,
    /// With --store postgres: the server, as in [jobs] url. The run has a schema of its own there, and removes it when all
    /// is well.
    #[arg(long, value_name = "URL", env = "GROUPCAST_TORTURE_URL", hide_env_values = true)]
    url: Option<String>,
    /// Gateways that share the store. [default: 1, with postgres 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    processes: Option<u32>,
    /// With --store postgres: how long a job stays with a gateway that is not heard of.
    #[arg(long, value_name = "TIME", default_value = "3s")]
    lease: Time,
    /// What the jobs are to survive: memory, os or disk.
    #[arg(long, value_name = "LEVEL", default_value = "disk", value_parser = durability)]
    durability: Durability,
    /// Where the fresh folder is made; name a place on the disk that is meant.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// Half of the kills come at this named place, in place of a random moment; `all` takes each in turn that the store
    /// has. Needs a build with the feature `kill-points`.
    #[arg(long, value_name = "NAME")]
    kill_point: Vec<String>,
    /// The longest that recovery may take, at the 99th percentile: from the start of a gateway until it has picked up a
    /// job; with several, from a kill until the jobs that ran run elsewhere. [default: 1s; with postgres the lease and 5 s]
    #[arg(long, value_name = "TIME")]
    recovery_max: Option<Time>,
    /// After so many seconds the run is given up, and has failed.
    #[arg(long, value_name = "N", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds_max: u64,
    /// Asks for the same jobs and kills at the same moments as the run that printed it.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keeps the folder, also after a good run.
    #[arg(long)]
    keep: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A run that makes sense.
#[derive(Debug, Clone)]
struct Plan {
    kills: u32,
    jobs: u64,
    store: Store,
    processes: u32,
    durability: Durability,
    kill_points: Vec<KillPoint>,
    recovery_max: Duration,
    time_max: Duration,
    seed: u64,
    keep: bool,
}

/// Tortures, and prints what came of it.
///
/// # Errors
/// When the run cannot be carried through, or the gateway did not keep its word.
pub fn torture(args: TortureArgs) -> Result<(), CliError> {
    let plan = args.plan()?;
    let folder = Folder::new(&args.data_dir, "groupcast-torture", &config::config(&plan))?;
    let mut figures = None;
    let ended = block_on(async {
        figures = Some(course::run(&plan, &folder).await?);
        Ok(())
    });
    let Some(figures) = figures.filter(|_| ended.is_ok()) else {
        output::note(&format!("the data are in {}", folder.keep().display()));
        return ended;
    };
    output::line(&if args.json { figures.json() } else { figures.table() })?;
    let verdict = figures.verdict();
    if verdict.is_some() || args.keep {
        output::note(&format!("the data are in {}", folder.keep().display()));
    }
    verdict.map_or(Ok(()), |why| Err(CliError::Failed(why)))
}

impl TortureArgs {
    fn plan(&self) -> Result<Plan, CliError> {
        let jobs = self.jobs.unwrap_or(u64::from(self.kills) * 50);
        if jobs < u64::from(self.kills) {
            let why = format!("{jobs} jobs are too few for {} kills; name at least as many with --jobs", self.kills);
            return Err(CliError::Usage(why));
        }
        let store = self.store()?;
        let (processes, recovery) = match &store {
            Store::Sqlite => (1, Duration::from_secs(1)),
            Store::Postgres { lease, .. } => (3, *lease + Duration::from_secs(5)),
        };
        let processes = self.processes.unwrap_or(processes);
        if matches!(store, Store::Sqlite) && processes > 1 {
            let why = "files belong to one gateway; take --processes out, or name --store postgres";
            return Err(CliError::Usage(why.to_owned()));
        }
        let kill_points = kill_points(&self.kill_point, store.kind())?;
        Ok(Plan {
            store,
            processes,
            kills: self.kills,
            jobs,
            durability: self.durability,
            kill_points,
            recovery_max: self.recovery_max.map_or(recovery, |time| time.0),
            time_max: Duration::from_secs(self.seconds_max),
            // Short enough to be typed.
            seed: self.seed.unwrap_or_else(|| crate::clock::random() as u64 >> 32),
            keep: self.keep,
        })
    }
}

impl TortureArgs {
    fn store(&self) -> Result<Store, CliError> {
        if self.store == "sqlite" {
            return Ok(Store::Sqlite);
        }
        if !cfg!(feature = "postgres") {
            let why = "--store postgres: this program is built without the feature `postgres`";
            return Err(CliError::Usage(why.to_owned()));
        }
        let Some(url) = &self.url else {
            let why = "--store postgres: name the server with --url, or with GROUPCAST_TORTURE_URL";
            return Err(CliError::Usage(why.to_owned()));
        };
        let schema = format!("torture_{:08x}", crate::clock::random() as u32);
        Ok(Store::Postgres { url: Hidden::new(url.clone()), schema, lease: self.lease.0 })
    }
}

fn kill_points(names: &[String], store: StoreKind) -> Result<Vec<KillPoint>, CliError> {
    if !names.is_empty() && !cfg!(feature = "kill-points") {
        let why = "--kill-point: this program is built without the feature `kill-points`, which is for tests of it";
        return Err(CliError::Usage(why.to_owned()));
    }
    let mut points = Vec::new();
    for name in names {
        if name == "all" {
            points.extend(KillPoint::ALL.into_iter().filter(|point| point.is_in(store)));
            continue;
        }
        let point: KillPoint = name.parse().map_err(CliError::Usage)?;
        if !point.is_in(store) {
            let why = format!("--kill-point: {}", point.is_never_come_to(store));
            return Err(CliError::Usage(why));
        }
        points.push(point);
    }
    Ok(points)
}

/// Reads a level of durability from the command line.
pub(super) fn durability(text: &str) -> Result<Durability, String> {
    let known = [Durability::Memory, Durability::Os, Durability::Disk];
    known.into_iter().find(|known| level(*known) == text).ok_or_else(|| "name memory, os or disk".to_owned())
}

/// A level of durability, as it is written.
pub(super) fn level(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Os => "os",
        Durability::Disk => "disk",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(line: &str) -> Result<Plan, CliError> {
        let cli = Cli::try_parse_from(format!("groupcast torture {line}").split_whitespace()).expect(line);
        match cli.command {
            Command::Torture(args) => args.plan(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_jobs_follow_from_the_kills_unless_they_are_named() {
        let plan = |line| plan(line).expect("a good plan");
        assert_eq!((plan("").kills, plan("").jobs), (200, 10_000));
        assert_eq!(plan("--kills 3").jobs, 150);
        assert_eq!(plan("--kills 3 --jobs 7 --seed 5").seed, 5);
        assert_eq!(plan("--durability os").durability, Durability::Os);
    }

    #[test]
    fn kill_points_are_named_and_need_their_feature() {
        match (plan("--kill-point all --kill-point after_claim"), cfg!(feature = "kill-points")) {
            (Ok(plan), true) => assert_eq!(plan.kill_points.len(), 8),
            (Err(CliError::Usage(why)), false) => assert!(why.contains("kill-points"), "{why}"),
            (outcome, _) => panic!("{outcome:?}"),
        }
        assert!(matches!(plan("--kill-point after_lunch"), Err(CliError::Usage(_))));
    }

    #[cfg(all(feature = "kill-points", feature = "postgres"))]
    #[test]
    fn a_point_that_the_store_has_not_is_refused() {
        const POSTGRES: &str = "--store postgres --url postgres://me@h/d --kill-point";
        let all = plan(&format!("{POSTGRES} all")).expect("a good plan").kill_points;
        assert!(
            all.contains(&KillPoint::AfterCommitBeforeAnswer) && !all.contains(&KillPoint::MidCheckpoint),
            "{all:?}"
        );
        for (line, word) in [
            (format!("{POSTGRES} mid_checkpoint"), "after_commit_before_answer"),
            ("--kill-point after_commit_before_answer".to_owned(), "mid_checkpoint"),
        ] {
            let Err(CliError::Usage(why)) = plan(&line) else { panic!("`{line}` is taken") };
            assert!(why.contains("never comes to") && why.contains(word), "{why}");
        }
    }

    #[test]
    fn several_gateways_need_a_server() {
        assert_eq!(plan("").expect("a good plan").processes, 1);
        assert!(matches!(plan("--processes 2"), Err(CliError::Usage(_))));
        assert!(matches!(plan("--store postgres"), Err(CliError::Usage(_))));
        if cfg!(feature = "postgres") {
            let plan = plan("--store postgres --url postgres://me:secret@h/d --lease 2s").expect("a good plan");
            assert_eq!((plan.processes, plan.recovery_max), (3, Duration::from_secs(7)));
            assert!(!format!("{plan:?}").contains("secret@"), "{plan:?}");
        }
    }

    #[test]
    fn a_kill_without_a_job_shows_nothing() {
        assert!(matches!(plan("--kills 10 --jobs 9"), Err(CliError::Usage(_))));
    }
}
