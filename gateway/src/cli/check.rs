//! `groupcast check`: is the configuration right, and can every query be prepared?

use std::path::{Path, PathBuf};

use super::serve::with_causes;
use super::{CliError, output};
use crate::clock;
use crate::config::consumer::Durability;
use crate::config::{Config, Loaded, Problems, Run, ScheduleConfig, Setting, Sources, StoreKind};
use crate::consumer;
use crate::jobs::Jobs;
use crate::schedule::Timetable;
use crate::server::layer;
use crate::server::tls::Tls;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast check
  groupcast check --config deploy/groupcast.toml
  groupcast check --print                       # every setting with its default, as TOML

Each problem is one line: where it was said, the key, and what to do. Exit code 2 if there is any.")]
pub struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Prints the effective configuration, with every default.
    #[arg(long)]
    print: bool,
}

/// Which file is read.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigFile {
    /// The configuration; without it `groupcast.toml` of the working directory, if there is one.
    #[arg(long, env = "GROUPCAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Ticks of a schedule that are printed, so that a person sees whether they are the ones that he meant.
const TICKS_SHOWN: usize = 3;

const FILE: &str = "groupcast.toml";

impl ConfigFile {
    /// Reads file, environment and flags, and checks what this binary can know.
    ///
    /// # Errors
    /// With every problem found.
    pub fn load(self, environment: Vec<(String, String)>, flags: Vec<Setting>) -> Result<Loaded, CliError> {
        let file = self.config.or_else(|| Path::new(FILE).exists().then(|| FILE.into()));
        let loaded = Config::load(&Sources { file, text: None, environment, flags })?;
        refuse_embedded(&loaded)?;
        Ok(loaded)
    }
}

/// The binary has no code of its own to run: that is for programs that embed the library.
fn refuse_embedded(loaded: &Loaded) -> Result<(), Problems> {
    let embedded = loaded.config.consumer.iter().enumerate().filter(|(_, consumer)| consumer.run == Run::Embedded);
    let told = embedded.map(|(at, consumer)| {
        let message = format!(
            "nothing is registered under `{}` in this binary; use \"query\", \"report\" or \"http\", or embed the library",
            consumer.name
        );
        loaded.origins.problem(&format!("consumer[{at}].run"), message)
    });
    let problems: Vec<_> = told.collect();
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Prepares every query against its source: what only the source can know.
fn prepare(loaded: &Loaded) -> Result<(), Problems> {
    let config = &loaded.config;
    // Paths of sources have been made relative to the working directory by `load`.
    let found = consumer::check(&config.source, &config.query, &config.consumer, Path::new("."));
    let problems: Vec<_> = found.into_iter().map(|p| loaded.origins.problem(&p.key, p.message)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Whether the server that jobs are to be kept on is there, and keeps them as is promised.
fn look_at_store(loaded: &Loaded) -> Result<(), Problems> {
    let config = &loaded.config;
    if config.durability() == Durability::Memory {
        return Ok(());
    }
    let folder = &config.server.data_dir;
    if config.jobs.store == StoreKind::Sqlite && folder.exists() && !folder.is_dir() {
        let message = format!("`{}` is no directory, and jobs are kept in one; name another", folder.display());
        return Err(Problems(vec![loaded.origins.problem("server.data_dir", message)]));
    }
    let Err(error) = Jobs::check(&config.jobs, config.durability()) else { return Ok(()) };
    Err(Problems(vec![loaded.origins.problem("jobs.store", with_causes(&error))]))
}

/// Whether the broker's addresses are such, and what belongs to them can be read. It is not asked for an answer: it may come later.
fn look_at_layer(loaded: &Loaded) -> Result<(), Problems> {
    let Err(why) = layer::check(&loaded.config) else { return Ok(()) };
    Err(Problems(vec![loaded.origins.problem("layer.url", why)]))
}

/// Whether certificate and key are there, and belong together.
fn load_certificate(loaded: &Loaded) -> Result<(), Problems> {
    let Some(files) = &loaded.config.server.tls else { return Ok(()) };
    let Err(error) = Tls::load(files) else { return Ok(()) };
    Err(Problems(vec![loaded.origins.problem(error.setting(), with_causes(&error))]))
}

/// When a schedule ticks next.
fn ticks(schedule: &ScheduleConfig) -> String {
    let now = clock::now_ms();
    let times = Timetable::parse(&schedule.cron, &schedule.timezone, now).ok();
    let next = |after: &u64| times.as_ref().and_then(|times| times.next(*after));
    let next = std::iter::successors(next(&now), next).take(TICKS_SHOWN).map(clock::rfc3339);
    format!("schedule `{}` ticks at {}", schedule.name, next.collect::<Vec<_>>().join(", "))
}

/// Checks, and prints what was found.
///
/// # Errors
/// With every problem found.
pub fn check(args: CheckArgs, environment: Vec<(String, String)>) -> Result<(), CliError> {
    let loaded = args.file.load(environment, Vec::new())?;
    prepare(&loaded)?;
    look_at_layer(&loaded)?;
    look_at_store(&loaded)?;
    load_certificate(&loaded)?;
    if args.print {
        return output::bytes(loaded.config.print().as_bytes());
    }
    for schedule in &loaded.config.schedule {
        output::line(&ticks(schedule))?;
    }
    let (queries, consumers) = (loaded.config.query.len(), loaded.config.consumer.len());
    output::line(&format!(
        "fine: {queries} queries, {consumers} consumers, listening on {}",
        loaded.config.server.listen
    ))
}
