//! `groupcast query NAME [k=v…]`.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::client::{Client, Target};
use super::{CliError, output, table};

/// One long-poll waits at most so long.
const POLL_SECONDS_MAX: u64 = 30;

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast query worst_routes
  groupcast query worst_routes origin=JFK at_least=10
  groupcast query worst_routes --csv > routes.csv
  groupcast query worst_routes max_stale_ms=0   # not from the cache of a query that has one

Values that look like JSON numbers, true, false or null are sent as such; quote a text of digits: code='\"007\"'.")]
pub struct QueryArgs {
    /// The name of the query.
    name: String,
    /// Its parameters.
    #[arg(value_name = "K=V")]
    params: Vec<String>,
    /// Prints the result as one JSON document.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Prints the result as CSV.
    #[arg(long)]
    csv: bool,
    /// How many seconds to wait for the result.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    target: Target,
}

/// Runs the query, waits and prints its rows.
///
/// # Errors
/// When the gateway refuses, the job fails, or the time is over.
pub async fn query(args: QueryArgs) -> Result<(), CliError> {
    let params = params(&args.params)?;
    let client = Client::new(&args.target)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let wait = seconds_left(deadline);
    let ask = client
        .ask(Method::POST, &["v1", "queries", &args.name])?
        .header("prefer", format!("wait={wait}"))
        .json(Value::Object(params).to_string())
        .wait(Duration::from_secs(wait));
    let record = client.send(ask).await?.json()?;
    let record = wait_for_end(&client, record, deadline).await?;
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    match (text("/state"), text("/result/url")) {
        (Some("succeeded"), Some(url)) => {
            print_result(&client, url, &args).await?;
            note_age(record.pointer("/result/age_ms").and_then(Value::as_u64))
        }
        (Some(state), _) => {
            let why = text("/error/message").unwrap_or("no more is known");
            Err(CliError::Failed(format!("the query's job is {state}: {why}")))
        }
        (None, _) => Err(CliError::Failed("the answer is not a job; is there a gateway at --url?".to_owned())),
    }
}

async fn wait_for_end(client: &Client, mut record: Value, deadline: Instant) -> Result<Value, CliError> {
    loop {
        let state = record.get("state").and_then(Value::as_str).unwrap_or_default();
        if !matches!(state, "scheduled" | "ready" | "running") {
            return Ok(record);
        }
        let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
        if Instant::now() >= deadline {
            let way_out = format!("look with `groupcast jobs get {id}`, or wait longer with --timeout");
            return Err(CliError::Failed(format!("the query is still {state}; {way_out}")));
        }
        let wait = seconds_left(deadline);
        let ask = client.ask(Method::GET, &["v1", "jobs", id])?.query("wait", Some(wait));
        record = client.send(ask.wait(Duration::from_secs(wait))).await?.json()?;
    }
}

/// Whole seconds, at least one: a wait of 0 would poll as fast as it can.
fn seconds_left(deadline: Instant) -> u64 {
    deadline.saturating_duration_since(Instant::now()).as_secs().clamp(1, POLL_SECONDS_MAX)
}

/// A result as the gateway gives it.
#[derive(Debug, Deserialize)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    truncated: bool,
}

async fn print_result(client: &Client, url: &str, args: &QueryArgs) -> Result<(), CliError> {
    let accept = if args.csv { "text/csv" } else { "application/json" };
    let answer = client.send(client.ask_path(Method::GET, url)?.header("accept", accept)).await?;
    if args.csv {
        return output::bytes(&answer.body);
    }
    if args.json {
        return output::line(String::from_utf8_lossy(&answer.body).trim_end());
    }
    let result: Rows = serde_json::from_slice(&answer.body)
        .map_err(|e| CliError::Failed(format!("the result has no rows that could be shown ({e}); use --json")))?;
    output::line(&table::render(&result.columns, &result.rows))?;
    let cut = if result.truncated { ", cut at a limit of the query" } else { "" };
    output::note(&format!("{} rows{cut}", result.rows.len()));
    Ok(())
}

/// Says that the rows were made for an earlier ask.
fn note_age(age_ms: Option<u64>) -> Result<(), CliError> {
    if let Some(age_ms) = age_ms {
        let seconds = age_ms as f64 / 1000.0;
        output::note(&format!("made {seconds:.1} s before; `max_stale_ms=0` asks for fresh ones"));
    }
    Ok(())
}

/// `name=value` words as parameters.
pub(super) fn params(words: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut params = Map::new();
    for word in words {
        let Some((name, text)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(CliError::Usage(format!("`{word}` is not a parameter; write name=value")));
        };
        if params.insert(name.to_owned(), value(text)).is_some() {
            return Err(CliError::Usage(format!("the parameter `{name}` is given twice")));
        }
    }
    Ok(params)
}

/// A scalar of JSON as what it is, anything else as text.
fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(scalar) => scalar,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_they_look_like() {
        let words = ["a=JFK", "b=7", "c=1.5", "d=true", "e=\"7\"", "f=x=y", "g=", "h=[1]"].map(str::to_owned);
        let expected = json!({"a": "JFK", "b": 7, "c": 1.5, "d": true, "e": "7", "f": "x=y", "g": "", "h": "[1]"});
        assert_eq!(params(&words).map(Value::Object).expect("good words"), expected);
    }

    #[test]
    fn bad_words_are_bad_usage() {
        for words in [vec!["JFK"], vec!["=x"], vec!["a=1", "a=2"]] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert!(matches!(params(&words), Err(CliError::Usage(_))), "{words:?}");
        }
    }
}
