//! `groupcast demo --once`: one round trip by itself through real sockets, with its transcript.
//!
//! The client here is an ordinary one: it knows the address and the protocol, and nothing of the gateway's insides.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::cli::{CliError, output, table};

/// For each step; the longest is the report.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Rows of the result that are shown.
const ROWS_SHOWN: usize = 5;
const GROUP: &str = "my_group";

/// Subscribes, sends, has a query run and a report made, and prints what goes over the wire.
///
/// # Errors
/// With the first step that did not go as it should.
pub async fn run(address: SocketAddr) -> Result<(), CliError> {
    let mut client = Client::connect(address).await?;
    greet(&mut client).await?;
    let job = deferred_query(&mut client).await?;
    record(&client, &job).await?;
    report(&mut client).await?;
    output::line("\nDone: every step went as it should.")
}

async fn greet(client: &mut Client) -> Result<(), CliError> {
    step("A client opens a WebSocket and subscribes to a group")?;
    client.expect("welcome").await?;
    client.say(r#"{"type":"subscribe","id":1,"group":"my_group"}"#).await?;
    client.expect("subscribed").await?;
    step("Another service sends to the group over HTTP, and the client has it")?;
    client.post(r#"{"type":"chat.message","text":"hello, group"}"#).await?;
    let push = client.expect("message").await?;
    ensure(push["message"]["text"] == "hello, group", "the message came through unchanged")
}

/// The line that it all began with.
async fn deferred_query(client: &mut Client) -> Result<String, CliError> {
    step("The mission's line: a query runs off the request path, and the group has its rows")?;
    let accepted = client.post(r#"{"type":"execute_query","queryset_id":7}"#).await?;
    let job = accepted["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
    ensure(accepted["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1), "one job was made")?;
    let event = client.expect_event("job.result", &job).await?;
    let result = &event["result"];
    let columns: Vec<String> = serde_json::from_value(result["columns"].clone()).map_err(malformed)?;
    let rows: Vec<Vec<Value>> = serde_json::from_value(result["rows"].clone()).map_err(malformed)?;
    ensure(!rows.is_empty(), "the result has rows")?;
    output::line(&indent(&table::render(&columns, &rows[..rows.len().min(ROWS_SHOWN)])))?;
    output::line(&format!("    … {} rows in {} ms", rows.len(), event["elapsed_ms"]))?;
    Ok(job)
}

async fn record(client: &Client, job: &str) -> Result<(), CliError> {
    step("The job's record is the truth; the events are hints")?;
    let record = client.get_json(&format!("/v1/jobs/{job}")).await?;
    ensure(record["state"] == "succeeded", "the job has succeeded")?;
    ensure(record["attempt"] == 1, "it was run once")
}

async fn report(client: &mut Client) -> Result<(), CliError> {
    step("A report is made on threads of its own; its file is behind a URL")?;
    let accepted = client.post(r#"{"type":"generate_report","queryset_id":7,"format":"csv"}"#).await?;
    let job = accepted["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
    let event = client.expect_event("job.result", &job).await?;
    let url = event["url"].as_str().unwrap_or_default().to_owned();
    let csv = client.get_text(&url).await?;
    let lines: Vec<&str> = csv.lines().take(ROWS_SHOWN).collect();
    ensure(lines.len() > 1, "the report has lines")?;
    output::line(&indent(&lines.join("\n")))
}

struct Client {
    base: String,
    http: reqwest::Client,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self, CliError> {
        let url = format!("ws://{address}/ws");
        output::line(&format!("The gateway listens on http://{address}"))?;
        let connecting =
            timeout(STEP_TIMEOUT, connect_async(&url)).await.map_err(|_| late("the WebSocket handshake"))?;
        let (socket, _) = connecting.map_err(|error| CliError::Failed(format!("{url} cannot be opened: {error}")))?;
        let http = reqwest::Client::builder().timeout(STEP_TIMEOUT).build().map_err(http_failed)?;
        Ok(Self { base: format!("http://{address}"), http, socket })
    }

    async fn say(&mut self, frame: &str) -> Result<(), CliError> {
        output::line(&format!("  client  → {frame}"))?;
        let sending = timeout(STEP_TIMEOUT, self.socket.send(Message::text(frame))).await;
        sending.map_err(|_| late("a frame to the gateway"))?.map_err(|error| CliError::Failed(error.to_string()))
    }

    /// The next frame, which has to be of this type.
    async fn expect(&mut self, kind: &str) -> Result<Value, CliError> {
        let frame = self.next().await?;
        ensure(frame["type"] == kind, &format!("the next frame is `{kind}`"))?;
        Ok(frame)
    }

    /// The event of a job, with the events on the way to it.
    async fn expect_event(&mut self, kind: &str, job: &str) -> Result<Value, CliError> {
        loop {
            let frame = self.expect("message").await?;
            let event = &frame["message"];
            ensure(event["job"] == job, "the event is the job's")?;
            ensure(event["type"] != "job.failed" && event["type"] != "job.cancelled", "the job does not fail")?;
            if event["type"] == kind {
                return Ok(event.clone());
            }
        }
    }

    async fn next(&mut self) -> Result<Value, CliError> {
        loop {
            let next = timeout(STEP_TIMEOUT, self.socket.next()).await.map_err(|_| late("a frame from the gateway"))?;
            match next {
                Some(Ok(Message::Text(text))) => {
                    output::line(&format!("  client  ← {}", shortened(&text)))?;
                    return serde_json::from_str(&text).map_err(malformed);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return Err(CliError::Failed(format!("the gateway ended the connection: {other:?}"))),
            }
        }
    }

    async fn post(&self, message: &'static str) -> Result<Value, CliError> {
        let path = format!("/v1/groups/{GROUP}/send");
        output::line(&format!("  service → POST {path}  {message}"))?;
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let response = request.body(message).send().await.map_err(http_failed)?;
        let status = response.status();
        let body = response.text().await.map_err(http_failed)?;
        output::line(&format!("  service ← {status}  {body}"))?;
        ensure(status == 202, "the message is accepted")?;
        serde_json::from_str(&body).map_err(malformed)
    }

    async fn get_json(&self, path: &str) -> Result<Value, CliError> {
        let text = self.get_text(path).await?;
        output::line(&format!("  service ← {}", shortened(&text)))?;
        serde_json::from_str(&text).map_err(malformed)
    }

    async fn get_text(&self, path: &str) -> Result<String, CliError> {
        output::line(&format!("  service → GET {path}"))?;
        let response = self.http.get(format!("{}{path}", self.base)).send().await.map_err(http_failed)?;
        ensure(response.status() == 200, "the answer is 200")?;
        response.text().await.map_err(http_failed)
    }
}

fn step(what: &str) -> Result<(), CliError> {
    output::line(&format!("\n# {what}"))
}

fn ensure(holds: bool, what: &str) -> Result<(), CliError> {
    if holds { Ok(()) } else { Err(CliError::Failed(format!("this should hold and does not: {what}"))) }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Frames with many rows are shown by their beginning.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    let end = text.floor_char_boundary(SHOWN);
    if end < text.len() { format!("{}… ({} bytes)", &text[..end], text.len()) } else { text.to_owned() }
}

fn late(what: &str) -> CliError {
    CliError::Failed(format!("{what} took longer than {} s", STEP_TIMEOUT.as_secs()))
}

fn malformed(error: serde_json::Error) -> CliError {
    CliError::Failed(format!("the gateway sent JSON of another shape: {error}"))
}

fn http_failed(error: reqwest::Error) -> CliError {
    CliError::Failed(format!("the request failed: {error}"))
}
