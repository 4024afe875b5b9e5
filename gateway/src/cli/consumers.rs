//! `groupcast consumers [list|pause|resume]`.

use reqwest::Method;
use serde_json::Value;

use super::client::{Client, Target};
use super::{CliError, output, table};

/// Arguments of `consumers`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "\
Examples:
  groupcast consumers                           # each with what it has to do
  groupcast consumers pause reports             # it claims nothing, also after a restart; what runs, ends
  groupcast consumers resume reports"
)]
pub struct ConsumersArgs {
    #[command(subcommand)]
    command: Option<ConsumersCommand>,
    /// Prints the gateway's JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum ConsumersCommand {
    /// Lists the consumers with what they have to do.
    List,
    /// Lets a consumer claim nothing until it is resumed.
    Pause {
        /// The consumer's name.
        name: String,
    },
    /// Lets a consumer claim again.
    Resume {
        /// The consumer's name.
        name: String,
    },
}

/// Carries out one of the commands about consumers.
///
/// # Errors
/// When the gateway refuses.
pub async fn consumers(args: ConsumersArgs) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let ask = match &args.command {
        None | Some(ConsumersCommand::List) => client.ask(Method::GET, &["v1", "consumers"])?,
        Some(ConsumersCommand::Pause { name }) => client.ask(Method::POST, &["v1", "consumers", name, "pause"])?,
        Some(ConsumersCommand::Resume { name }) => client.ask(Method::POST, &["v1", "consumers", name, "resume"])?,
    };
    let answer = client.send(ask).await?.json()?;
    if args.json {
        return output::line(&answer.to_string());
    }
    output::line(&match args.command {
        None | Some(ConsumersCommand::List) => list(&answer),
        Some(ConsumersCommand::Pause { name }) => format!("{name} is paused"),
        Some(ConsumersCommand::Resume { name }) => format!("{name} claims again"),
    })
}

fn list(answer: &Value) -> String {
    let fields = ["name", "run", "group", "type", "rate", "paused", "ready", "running", "scheduled", "dead"];
    table::of_objects(&fields, &answer["consumers"])
}
