//! `groupcast jobs [list|get|cancel|dead|redrive]`.

use std::time::Duration;

use groupcast_protocol::JobId;
use reqwest::Method;
use serde_json::{Map, Value};

use super::client::{Client, Target};
use super::{CliError, output, table};

/// Arguments of `jobs`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "\
Examples:
  groupcast jobs                                # the newest jobs
  groupcast jobs list --state dead --consumer reports
  groupcast jobs get 01JD8ZJ4M5E8RAX0V4C9QW2N7K --wait 10
  groupcast jobs cancel 01JD8ZJ4M5E8RAX0V4C9QW2N7K
  groupcast jobs dead                           # why jobs are dead
  groupcast jobs list --state dead --reason timeout
  groupcast jobs redrive --consumer reports --dry-run"
)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: Option<JobsCommand>,
    /// Prints the gateway's JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum JobsCommand {
    /// Lists jobs, newest first.
    List(ListArgs),
    /// Shows one job.
    Get {
        /// The job's id.
        id: JobId,
        /// Waits up to so many seconds for its end.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=60))]
        wait: Option<u64>,
    },
    /// Cancels one job.
    Cancel {
        /// The job's id.
        id: JobId,
    },
    /// Says why jobs are dead: how many for each reason.
    Dead,
    /// Makes dead jobs ready again.
    Redrive(RedriveArgs),
}

#[derive(Debug, Default, clap::Args)]
struct ListArgs {
    /// Only jobs in this state.
    #[arg(long, value_parser = ["scheduled", "ready", "running", "succeeded", "dead", "cancelled"])]
    state: Option<String>,
    /// Only jobs of this consumer.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only jobs whose error has this code or class.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only what comes after this job: the `next` of an earlier list.
    #[arg(long, value_name = "ID")]
    after: Option<JobId>,
}

#[derive(Debug, clap::Args)]
struct RedriveArgs {
    /// Only jobs of this consumer.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only jobs whose error has this code or class.
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Counts them, and changes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Carries out one of the commands about jobs.
///
/// # Errors
/// When the gateway refuses.
pub async fn jobs(args: JobsArgs) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    match args.command.unwrap_or(JobsCommand::List(ListArgs::default())) {
        JobsCommand::List(list) => print_list(&client, list, args.json).await,
        JobsCommand::Get { id, wait } => {
            let ask = client.ask(Method::GET, &["v1", "jobs", &id.to_string()])?.query("wait", wait);
            let record = client.send(ask.wait(Duration::from_secs(wait.unwrap_or(0)))).await?.json()?;
            output::line(&if args.json { record.to_string() } else { describe(&record) })
        }
        JobsCommand::Cancel { id } => {
            let answer = client.send(client.ask(Method::DELETE, &["v1", "jobs", &id.to_string()])?).await?;
            if args.json {
                output::line(&answer.json()?.to_string())
            } else {
                output::line(&format!("{id} is being cancelled"))
            }
        }
        JobsCommand::Dead => print_reasons(&client, args.json).await,
        JobsCommand::Redrive(redrive) => print_redriven(&client, redrive, args.json).await,
    }
}

async fn print_list(client: &Client, list: ListArgs, json: bool) -> Result<(), CliError> {
    let ask = client
        .ask(Method::GET, &["v1", "jobs"])?
        .query("state", list.state)
        .query("consumer", list.consumer)
        .query("reason", list.reason)
        .query("limit", list.limit)
        .query("after", list.after);
    let answer = client.send(ask).await?.json()?;
    if json {
        return output::line(&answer.to_string());
    }
    let columns = ["id", "state", "consumer", "type", "attempt", "enqueued_at", "error"].map(str::to_owned);
    let row = |job: &Value| -> Vec<Value> {
        let field = |name: &str| match name {
            "error" => job.pointer("/error/code").cloned(),
            name => job.get(name).cloned(),
        };
        columns.iter().map(|name| field(name).unwrap_or_default()).collect()
    };
    let rows: Vec<Vec<Value>> = answer.get("jobs").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    output::line(&table::render(&columns, &rows))?;
    if let Some(next) = answer.get("next").and_then(Value::as_str) {
        output::note(&format!("there are more: --after {next}"));
    }
    Ok(())
}

async fn print_reasons(client: &Client, json: bool) -> Result<(), CliError> {
    let answer = client.send(client.ask(Method::GET, &["v1", "jobs", "dead"])?).await?.json()?;
    if json {
        return output::line(&answer.to_string());
    }
    let columns = ["consumer", "code", "class", "jobs", "oldest", "newest"];
    output::line(&table::of_objects(&columns, &answer["reasons"]))
}

async fn print_redriven(client: &Client, redrive: RedriveArgs, json: bool) -> Result<(), CliError> {
    let mut body = Map::new();
    body.extend(redrive.consumer.map(|name| ("consumer".to_owned(), name.into())));
    body.extend(redrive.reason.map(|code| ("reason".to_owned(), code.into())));
    body.extend(redrive.limit.map(|limit| ("limit".to_owned(), limit.into())));
    body.insert("dry_run".to_owned(), redrive.dry_run.into());
    let ask = client.ask(Method::POST, &["v1", "jobs", "redrive"])?.json(Value::Object(body).to_string());
    let answer = client.send(ask).await?.json()?;
    if json {
        return output::line(&answer.to_string());
    }
    let count = answer.get("redriven").and_then(Value::as_u64).unwrap_or(0);
    let verb = if redrive.dry_run { "would be ready again" } else { "are ready again" };
    output::line(&format!("{count} dead jobs {verb}"))
}

/// A record as lines of key and value; what is `null` is left out.
fn describe(record: &Value) -> String {
    let fields = record.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name:<14}{}", output::printable(text)),
        other => format!("{name:<14}{}", output::printable(&other.to_string())),
    };
    fields.map(line).collect::<Vec<_>>().join("\n")
}
