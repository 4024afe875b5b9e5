//! `groupcast bench`: how fast a gateway is here, and whether it keeps its word meanwhile.
//!
//! Reading order: this file (what may be asked for), `run` (the course of a measurement), `stamp` (what a message
//! carries), `publish` (one sender), `receive` (the readers), `ledger` (what one reader got and what it did not),
//! `window` (how far the senders may be ahead), `report` (what is printed); `jobs` is another measurement.

mod answer;
mod clock;
mod connect;
mod frames;
mod jobs;
mod ledger;
mod pace;
mod process;
mod progress;
mod publish;
mod receive;
mod report;
mod run;
mod spawn;
mod stamp;
mod window;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use groupcast_protocol::GroupName;

use self::connect::Door;
use self::spawn::Spawned;
use super::client::Target;
use super::{CliError, block_on, output};
use crate::config::units::Time;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  groupcast bench jobs                               # deferred work on this disk: accepted, picked up
  groupcast bench --spawn                            # a gateway of its own for the run, on a free port
  groupcast bench --connections 1000 --in-flight 1   # the delay of one message to 1,000 readers, nothing batched
  groupcast bench --connections 1000 --publishers 8 --in-flight 16
  groupcast bench --connections 2000 --groups 500 --rate 2000
  groupcast bench --flood --json                     # overload: what is lost has to be told

Messages are published over HTTP and read over WebSockets. Without --rate the next message goes out when an earlier one
is answered and with all its readers; with --flood when it is answered; with --rate when it is due, and then its delays
count from that moment. Readers check every message: lost, told missing (by a `gap`), duplicated, reordered.

Exit codes: 0 fine; 1 when anything was lost, duplicated, reordered or misrouted, or a connection failed."
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Subscribers, each on a WebSocket of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    connections: u32,
    /// Groups; the connections are spread over them, and each publisher takes them in turn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    groups: u32,
    /// Senders, each on an HTTP connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    publishers: u32,
    /// Messages of each publisher that may be on their way at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Messages per second of all publishers together; 0 for as many as go through.
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    rate: f64,
    /// Sends as fast as answers come, whether or not the readers keep up.
    #[arg(long, conflicts_with = "rate")]
    flood: bool,
    /// Bytes of each message, a JSON object.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(stamp::SIZE_MIN as i64..=1 << 20))]
    size: u32,
    /// How long is measured.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Time,
    /// How long the same is done before that, unmeasured but checked.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    warmup: Time,
    /// What the groups' names begin with; a [[group]] of the gateway's configuration can match it.
    #[arg(long, value_name = "NAME", default_value = "bench")]
    group_prefix: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Starts a gateway of this very binary on a free port for the run, in place of --url.
    #[arg(long)]
    spawn: bool,
    /// Loads a gateway on another machine, too. Only yours.
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    target: Target,
}

/// What else than messages can be measured.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// How fast work is accepted and picked up on this disk.
    Jobs(jobs::JobsArgs),
}

/// A run that makes sense.
#[derive(Debug, Clone)]
struct Plan {
    connections: u32,
    groups: Vec<GroupName>,
    publishers: u32,
    in_flight: u32,
    pace: Pace,
    size: usize,
    duration: Duration,
    warmup: Duration,
}

/// When a publisher sends its next message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// When an earlier one is answered and with its readers.
    Delivered,
    /// When an earlier one is answered.
    Answered,
    /// So many times a second, all publishers together.
    Rate(f64),
}

/// Measures, and prints what was measured.
///
/// # Errors
/// When the run cannot begin, or the gateway did not keep its word.
pub fn bench(args: BenchArgs) -> Result<(), CliError> {
    if let Some(What::Jobs(args)) = &args.what {
        return jobs::jobs(args);
    }
    let plan = args.plan(&format!("{:08x}", crate::clock::random() as u32))?;
    room_for_files(u64::from(plan.connections) + u64::from(plan.publishers))?;
    let spawned = if args.spawn { Some(Spawned::start(plan.connections)?) } else { None };
    let target = match &spawned {
        Some(gateway) => Target { url: gateway.url(), token: None },
        None => args.target.clone(),
    };
    let address = address(&target, args.remote)?;
    let door = Door::new(&target, address)?;
    let figures = block_on_result(run::run(&plan, door))?;
    drop(spawned);
    if args.json {
        output::line(&figures.json())?;
    } else {
        output::line(&figures.table())?;
    }
    match figures.verdict() {
        None => Ok(()),
        Some(why) => Err(CliError::Failed(why)),
    }
}

impl BenchArgs {
    fn plan(&self, run: &str) -> Result<Plan, CliError> {
        let pace = match (self.flood, self.rate) {
            (true, _) => Pace::Answered,
            (false, 0.0) => Pace::Delivered,
            (false, rate) if rate > 0.0 && rate <= 10e6 => Pace::Rate(rate),
            (false, rate) => {
                return Err(CliError::Usage(format!("a rate of {rate} is not possible; name 0 to 10000000")));
            }
        };
        let name = |n: u32| GroupName::parse(&format!("{}.{run}.{n}", self.group_prefix));
        let groups: Result<Vec<_>, _> = (0..self.groups).map(name).collect();
        Ok(Plan {
            connections: self.connections,
            groups: groups.map_err(|e| CliError::Usage(format!("--group-prefix: {e}")))?,
            publishers: self.publishers,
            in_flight: self.in_flight,
            pace,
            size: self.size as usize,
            duration: self.duration.0,
            warmup: self.warmup.0,
        })
    }
}

impl Plan {
    /// The group that a connection is in.
    fn group_of(&self, connection: u32) -> u32 {
        connection % self.groups.len() as u32
    }
}

/// Where the gateway is. Anything but this machine has to be meant.
fn address(target: &Target, remote: bool) -> Result<SocketAddr, CliError> {
    let url = target.base()?;
    let host = url.host_str().expect("an http URL has a host").trim_matches(['[', ']']);
    let port = url.port_or_known_default().expect("http has a port of its own");
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|e| CliError::Failed(format!("the address of `{host}` cannot be found: {e}; check --url")))?
        .collect();
    let away = found.iter().find(|address| !address.ip().is_loopback());
    if let (Some(away), false) = (away, remote) {
        return Err(CliError::Usage(format!(
            "{} is on another machine ({}), and a load test of a gateway that is not yours is an attack; \
             add --remote if it is yours and may be loaded",
            target.url,
            away.ip(),
        )));
    }
    found.first().copied().ok_or_else(|| CliError::Failed(format!("`{host}` has no address; check --url")))
}

/// Raises the soft limit of open files as far as this run needs it.
fn room_for_files(sockets: u64) -> Result<(), CliError> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // Standard streams, runtimes, /proc, the spawned gateway's output.
    let needed = sockets + 64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(max) = limit.maximum.filter(|max| *max < needed) {
        let why = format!("{sockets} sockets need {needed} open files, and only {max} are allowed; raise `ulimit -Hn`");
        return Err(CliError::Failed(why));
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit)
        .map_err(|e| CliError::Failed(format!("the limit of open files cannot be raised to {needed}: {e}")))
}

fn block_on_result<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let mut result = None;
    block_on(async {
        result = Some(future.await?);
        Ok(())
    })?;
    Ok(result.expect("the future has ended well"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> BenchArgs {
        let cli = Cli::try_parse_from(format!("groupcast bench {line}").split_whitespace()).expect(line);
        match cli.command {
            Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pace_follows_from_rate_and_flood() {
        let pace = |line: &str| args(line).plan("r").expect("a plan").pace;
        assert_eq!(pace(""), Pace::Delivered);
        assert_eq!(pace("--flood"), Pace::Answered);
        assert_eq!(pace("--rate 2.5"), Pace::Rate(2.5));
        assert!(matches!(args("--rate nan").plan("r"), Err(CliError::Usage(_))));
    }

    #[test]
    fn groups_are_of_this_run_and_have_valid_names() {
        let plan = args("--groups 3 --group-prefix room").plan("0a").expect("a plan");
        assert_eq!(plan.groups[2].as_str(), "room.0a.2");
        assert_eq!([0, 1, 2, 3].map(|n| plan.group_of(n)), [0, 1, 2, 0]);
        assert!(matches!(args("--group-prefix a/b").plan("r"), Err(CliError::Usage(_))));
    }

    #[test]
    fn only_this_machine_is_loaded_unless_another_is_meant() {
        let target = |url: &str| Target { url: url.to_owned(), token: None };
        for url in ["http://127.0.0.1:8000", "http://[::1]:9", "http://127.9.9.9"] {
            assert!(address(&target(url), false).is_ok(), "{url}");
        }
        let away = target("http://192.0.2.1:8000");
        assert!(matches!(address(&away, false), Err(CliError::Usage(why)) if why.contains("--remote")));
        assert_eq!(address(&away, true).expect("it is meant").port(), 8000);
    }
}
