//! The command line: what `groupcast` can be asked, and how the answer is told.
//!
//! Reading order: [`Cli`] and [`Command`], one module a command, [`client`] (HTTP) and [`table`] (printing).
//! `main` parses the arguments, gathers the environment and turns [`CliError`] into an exit code.

pub mod bench;
pub mod check;
pub mod client;
pub mod consumers;
mod delays;
pub mod error;
pub mod health;
pub mod invalidate;
pub mod jobs;
pub mod key;
mod log;
pub mod output;
pub mod query;
mod sandbox;
pub mod schedules;
pub mod send;
pub mod serve;
pub mod subscribe;
pub mod table;
pub mod token;
pub mod torture;

use clap::{Parser, Subcommand};

pub use error::CliError;

/// An async gateway with a channel layer: groups, sockets and deferred work in one process.
#[derive(Debug, Parser)]
#[command(name = "groupcast", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Try it:
  groupcast demo                                             # then open http://127.0.0.1:8000/
  groupcast subscribe my_group                               # in a second terminal
  groupcast send my_group '{\"type\":\"chat\",\"text\":\"hello\"}'   # in a third
  groupcast query worst_routes origin=JFK

Exit codes: 0 fine, 1 failed, 2 bad usage or bad configuration.";

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the gateway.
    Serve(serve::ServeArgs),
    /// Runs the gateway with real flight data, named queries, reports and a live page.
    Demo(serve::DemoArgs),
    /// Checks the configuration and prepares every named query against its source.
    Check(check::CheckArgs),
    /// Sends a message to a group.
    Send(send::SendArgs),
    /// Subscribes to groups, or to a live query, and prints one line of JSON for each push.
    Subscribe(subscribe::SubscribeArgs),
    /// Has live queries asked again, because data have changed.
    Invalidate(invalidate::InvalidateArgs),
    /// Runs a named query, waits, and prints its rows.
    Query(query::QueryArgs),
    /// Lists, shows, cancels and redrives jobs; says why some are dead.
    Jobs(jobs::JobsArgs),
    /// Lists, pauses and resumes consumers.
    Consumers(consumers::ConsumersArgs),
    /// Lists when messages are sent by the clock.
    Schedules(schedules::SchedulesArgs),
    /// Says whether a gateway is ready, by its exit code.
    Health(health::HealthArgs),
    /// Makes an API key for a service.
    Key(key::KeyArgs),
    /// Makes a token of a client, signed with the configured secret.
    Token(token::TokenArgs),
    /// Loads a gateway, checks every delivery, and prints what it costs.
    Bench(bench::BenchArgs),
    /// Kills a gateway again and again, and checks that nothing it accepted is lost.
    Torture(torture::TortureArgs),
}

impl Command {
    /// Carries out the command, on a runtime of its own.
    ///
    /// # Errors
    /// With what a person is told and the exit code it means.
    pub fn run(self, environment: Vec<(String, String)>) -> Result<(), CliError> {
        // The client of these commands takes the process-wide one. A second call finds the first one's, which is the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        match self {
            Self::Serve(args) => serve::serve(args, environment),
            Self::Demo(args) => serve::demo(args, environment),
            Self::Check(args) => check::check(args, environment),
            Self::Send(args) => block_on(send::send(args)),
            Self::Subscribe(args) => block_on(subscribe::subscribe(args)),
            Self::Invalidate(args) => block_on(invalidate::invalidate(args)),
            Self::Query(args) => block_on(query::query(args)),
            Self::Jobs(args) => block_on(jobs::jobs(args)),
            Self::Consumers(args) => block_on(consumers::consumers(args)),
            Self::Schedules(args) => block_on(schedules::schedules(args)),
            Self::Health(args) => block_on(health::health(args)),
            Self::Key(args) => key::key(args),
            Self::Token(args) => token::token(args, environment),
            Self::Bench(args) => bench::bench(args),
            Self::Torture(args) => torture::torture(args),
        }
    }
}

fn block_on(future: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| CliError::Failed(format!("the runtime cannot be started: {e}")))?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contracts_lines_are_understood() {
        for line in [
            "groupcast serve",
            "groupcast serve --config groupcast.toml --listen 127.0.0.1:0 --role all",
            "groupcast demo --once",
            "groupcast demo --listen 127.0.0.1:0 --full a.tar.gz",
            "groupcast check --config groupcast.toml --print",
            "groupcast send my_group {}",
            "groupcast subscribe a b --url http://x --token y",
            "groupcast subscribe --query worst_routes origin=JFK --count 1",
            "groupcast subscribe --query worst_routes",
            "groupcast invalidate flights delays --url http://x",
            "groupcast query worst_routes origin=JFK --csv",
            "groupcast jobs",
            "groupcast jobs list --state dead --json",
            "groupcast jobs get 01JD8ZJ4M5E8RAX0V4C9QW2N7K --wait 5",
            "groupcast jobs cancel 01JD8ZJ4M5E8RAX0V4C9QW2N7K",
            "groupcast jobs redrive --consumer queries --dry-run",
            "groupcast jobs dead --json",
            "groupcast consumers",
            "groupcast consumers pause queries --url http://x",
            "groupcast schedules --json",
            "groupcast health --live --url http://x",
            "groupcast bench",
            "groupcast bench --connections 10 --groups 2 --publishers 2 --in-flight 1 --duration 1s --json --url http://x",
            "groupcast torture",
            "groupcast torture --kills 20 --jobs 1000 --durability os --data-dir . --seconds-max 60 --seed 7 --keep --json --kill-point all --store postgres --url x --processes 2 --lease 2s",
            "groupcast bench jobs --durability os --clients 4 --duration 1s --every 5ms --data-dir . --json",
            "groupcast bench --spawn --rate 100 --size 1024 --warmup 0s --group-prefix room",
        ] {
            Cli::try_parse_from(line.split(' ')).expect(line);
        }
        for line in [
            "groupcast",
            "groupcast send g",
            "groupcast subscribe",
            "groupcast subscribe --query q --after x:1",
            "groupcast invalidate",
            "groupcast query x --json --csv",
            "groupcast bench --size 7",
        ] {
            Cli::try_parse_from(line.split(' ')).expect_err(line);
        }
    }
}
