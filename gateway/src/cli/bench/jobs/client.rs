//! One HTTP connection that is kept alive, with one request on its way at a time.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::answer;

/// How long an answer may take, a long poll included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A client of a gateway on this machine.
pub(super) struct Client {
    stream: TcpStream,
    host: SocketAddr,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = timeout(ANSWER_DEADLINE, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| "the gateway takes no connection")?.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, host: address, read: Vec::with_capacity(4 << 10) })
    }

    /// Asks for work that has to become one job; its id.
    pub(super) async fn enqueue(&mut self, message: &str) -> Result<String, String> {
        let (status, body) = self.ask("POST", "/v1/groups/bench/send", message).await?;
        let id = body["jobs"][0]["id"].as_str().filter(|_| status == 202);
        id.map(str::to_owned).ok_or_else(|| format!("a job was refused with {status}: {body}"))
    }

    /// Reads something that has to be there.
    pub(super) async fn get(&mut self, path: &str) -> Result<Value, String> {
        let (status, body) = self.ask("GET", path, "").await?;
        if status == 200 { Ok(body) } else { Err(format!("{path} was answered with {status}: {body}")) }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Value), String> {
        let (host, len) = (self.host, body.len());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{kind}Content-Length: {len}\r\n\r\n{body}");
        let answered = timeout(ANSWER_DEADLINE, self.exchange(request.as_bytes())).await;
        answered.map_err(|_| "the gateway does not answer")?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, Value), String> {
        let broken = |error: std::io::Error| format!("the connection broke: {error}");
        self.stream.write_all(request).await.map_err(broken)?;
        loop {
            if let Some(answer) = answer::read(&self.read)? {
                let body = serde_json::from_slice(&self.read[answer.body.clone()]).unwrap_or_default();
                self.read.drain(..answer.body.end);
                return Ok((answer.status, body));
            }
            if self.stream.read_buf(&mut self.read).await.map_err(broken)? == 0 {
                return Err("the gateway closed the connection".to_owned());
            }
        }
    }
}
