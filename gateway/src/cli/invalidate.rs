//! `groupcast invalidate TAG…`.

use reqwest::Method;
use serde_json::json;

use super::client::{Client, Target};
use super::{CliError, output};

/// Arguments of `invalidate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast invalidate flights
  groupcast invalidate flights delays

Prints the answer: how many queries have one of the tags, and how many live ones are asked again.")]
pub struct InvalidateArgs {
    /// What the changed data are called in the `tags` of queries.
    #[arg(required = true, value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    target: Target,
}

/// Says that data have changed, and prints the answer.
///
/// # Errors
/// When the gateway cannot be reached, or refuses.
pub async fn invalidate(args: InvalidateArgs) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let ask = client.ask(Method::POST, &["v1", "invalidate"])?.json(json!({"tags": args.tags}).to_string());
    output::line(&client.send(ask).await?.json()?.to_string())
}
