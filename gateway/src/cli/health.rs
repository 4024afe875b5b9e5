//! `groupcast health`: whether a gateway is ready, as an exit code. For probes where nothing else speaks HTTP, as in an
//! image without a shell.

use reqwest::Method;

use super::client::{Client, Target};
use super::{CliError, output};

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast health                              # GET /readyz: whether it and all it needs can work
  groupcast health --live                       # GET /healthz: whether the process answers

Exits with 0 when it is, and with 1 when it is not; then it says which part is not.")]
pub struct HealthArgs {
    /// Asks only whether the process lives, not what it needs.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    target: Target,
}

/// Asks a gateway how it is, and prints the answer.
///
/// # Errors
/// When it cannot be reached, or is not ready.
pub async fn health(args: HealthArgs) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let path = if args.live { "healthz" } else { "readyz" };
    output::line(&client.send(client.ask(Method::GET, &[path])?).await?.json()?.to_string())
}
