//! `groupcast send GROUP JSON`.

use std::io::Read;

use groupcast_protocol::{GroupName, Message};
use reqwest::Method;

use super::client::{Client, Target};
use super::{CliError, output};

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast send my_group '{\"type\":\"chat\",\"text\":\"hello\"}'
  groupcast send my_group '{\"type\":\"execute_query\",\"queryset_id\":7}'
  jq -c . message.json | groupcast send my_group -

Prints the answer: the message's id, how many subscribers the group has, and the jobs that consumers made of it.")]
pub struct SendArgs {
    /// The group.
    group: String,
    /// The message, a JSON object with a `type`; `-` reads it from standard input.
    #[arg(value_name = "JSON")]
    message: String,
    /// A repeat with the same key does nothing again.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Sends the message and prints the answer.
///
/// # Errors
/// When group or message are not valid, or the gateway refuses.
pub async fn send(args: SendArgs) -> Result<(), CliError> {
    let usage = |e: &dyn std::error::Error| CliError::Usage(e.to_string());
    let group = GroupName::parse(&args.group).map_err(|e| usage(&e))?;
    let text = if args.message == "-" { standard_input()? } else { args.message };
    let message = Message::parse(text.into()).map_err(|e| usage(&e))?;
    let client = Client::new(&args.target)?;
    let mut ask = client.ask(Method::POST, &["v1", "groups", group.as_str(), "send"])?.json(message.raw().to_vec());
    if let Some(key) = args.idempotency_key {
        ask = ask.header("idempotency-key", key);
    }
    let answer = client.send(ask).await?;
    output::line(&answer.json()?.to_string())
}

fn standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map(|_| text).map_err(|e| CliError::Failed(format!("standard input cannot be read: {e}")))
}
