//! `groupcast schedules`: when messages are sent by the clock.

use reqwest::Method;
use serde_json::Value;

use super::client::{Client, Target};
use super::{CliError, output, table};

/// Arguments of `schedules`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast schedules
  groupcast schedules --json")]
pub struct SchedulesArgs {
    /// Prints the gateway's JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Prints the schedules of a gateway.
///
/// # Errors
/// When the gateway refuses.
pub async fn schedules(args: SchedulesArgs) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let answer = client.send(client.ask(Method::GET, &["v1", "schedules"])?).await?.json()?;
    if args.json {
        return output::line(&answer.to_string());
    }
    let columns = ["name", "cron", "timezone", "group", "next", "last"].map(str::to_owned);
    let row = |schedule: &Value| columns.iter().map(|name| schedule.get(name).cloned().unwrap_or_default()).collect();
    let schedules = answer.get("schedules").and_then(Value::as_array);
    let rows: Vec<Vec<Value>> = schedules.into_iter().flatten().map(row).collect();
    output::line(&table::render(&columns, &rows))
}
