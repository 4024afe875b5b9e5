//! The ways in: a TCP connection for a publisher, a subscribed WebSocket for a reader.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::answer;
use super::frames::{Frame, Frames, close_reason};
use crate::cli::CliError;
use crate::cli::client::{Target, describe};

/// From the first packet to `subscribed`.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// Where the gateway is and what every request to it begins with.
#[derive(Debug, Clone)]
pub(super) struct Door {
    url: String,
    address: SocketAddr,
    /// Of the URL, without a slash at its end.
    path: String,
    /// `Host`, and `Authorization` if there is a token, each with its line end.
    headers: String,
    key: String,
    accept: String,
}

/// A WebSocket that is subscribed to its group.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    pub(super) frames: Frames,
}

impl Door {
    pub(super) fn new(target: &Target, address: SocketAddr) -> Result<Self, CliError> {
        let url = target.base()?;
        let host = match (url.host_str().expect("an http URL has a host"), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let mut headers = format!("Host: {host}\r\n");
        if let Some(token) = target.authorization()? {
            let token = token.to_str().map_err(|_| CliError::Usage("the token is not ASCII; check it".to_owned()))?;
            headers.push_str(&format!("Authorization: {token}\r\n"));
        }
        let key = generate_key();
        let accept = derive_accept_key(key.as_bytes());
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url: target.url.clone(), address, path, headers, key, accept })
    }

    /// The gateway's address as it was named.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of a publication, up to the value of `Content-Length`.
    pub(super) fn publication(&self, group: &str) -> String {
        let Self { path, headers, .. } = self;
        format!(
            "POST {path}/v1/groups/{group}/send HTTP/1.1\r\n{headers}Content-Type: application/json\r\nContent-Length: "
        )
    }

    /// A connection to publish by.
    pub(super) async fn publisher(&self) -> Result<TcpStream, String> {
        timeout(OPEN_DEADLINE, self.connect()).await.map_err(|_| "did not take the connection in time".to_owned())?
    }

    /// A subscribed WebSocket.
    pub(super) async fn reader(&self, group: &str) -> Result<Reader, String> {
        timeout(OPEN_DEADLINE, self.open(group)).await.map_err(|_| "did not say `subscribed` in time".to_owned())?
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| format!("took no connection: {e}"))?;
        stream.set_nodelay(true).map_err(|e| format!("took no connection: {e}"))?;
        Ok(stream)
    }

    async fn open(&self, group: &str) -> Result<Reader, String> {
        let mut stream = self.connect().await?;
        stream.write_all(self.handshake(group).as_bytes()).await.map_err(|e| format!("broke the connection: {e}"))?;
        let (mut read, mut frames) = (Vec::with_capacity(1024), Frames::default());
        let answer = loop {
            more(&mut stream, &mut read).await?;
            if let Some(answer) = answer::read(&read)? {
                break answer;
            }
        };
        if answer.status != 101 {
            return Err(describe(answer.status, &read[answer.body]));
        }
        if answer.accept.as_deref() != Some(self.accept.as_str()) {
            return Err("answered the handshake with a wrong key; is there a gateway at --url?".to_owned());
        }
        read.drain(..answer.body.end);
        loop {
            if is_subscribed(&mut frames, &read)? {
                return Ok(Reader { stream, frames });
            }
            read.clear();
            more(&mut stream, &mut read).await?;
        }
    }

    fn handshake(&self, group: &str) -> String {
        let Self { path, headers, key, .. } = self;
        format!(
            "GET {path}/ws?group={group} HTTP/1.1\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: groupcast.v1\r\n\r\n"
        )
    }
}

fn is_subscribed(frames: &mut Frames, read: &[u8]) -> Result<bool, String> {
    let (mut subscribed, mut refused) = (false, None);
    frames.feed(read, |frame| match frame {
        Frame::Text(text) if text.starts_with(br#"{"type":"subscribed""#) => subscribed = true,
        Frame::Text(text) if text.starts_with(br#"{"type":"error""#) => {
            refused = Some(format!("refused the subscription: {}", String::from_utf8_lossy(text)));
        }
        Frame::Close(payload) => refused = Some(format!("closed the connection: {}", close_reason(payload))),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong => {}
    })?;
    refused.map_or(Ok(subscribed), Err)
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<(), String> {
    match stream.read_buf(read).await {
        Ok(0) => Err("closed the connection".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("broke the connection: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_host_and_token_go_along() {
        let target = Target { url: "http://localhost:1/gw/".to_owned(), token: Some("s".to_owned()) };
        let door = Door::new(&target, ([127, 0, 0, 1], 1).into()).expect("a good target");
        let head = door.publication("bench.0");
        assert!(head.starts_with("POST /gw/v1/groups/bench.0/send HTTP/1.1\r\nHost: localhost:1\r\n"), "{head}");
        assert!(head.contains("Authorization: Bearer s\r\n") && head.ends_with("Content-Length: "), "{head}");
        assert!(door.handshake("g").starts_with("GET /gw/ws?group=g HTTP/1.1\r\n"));
    }

    #[test]
    fn subscribed_is_waited_for_and_a_refusal_is_told() {
        let text = |json: &str| groupcast_protocol::websocket::text(json.as_bytes());
        let check = |json: &str| is_subscribed(&mut Frames::default(), &text(json));
        assert_eq!(check(r#"{"type":"welcome"}"#), Ok(false));
        assert_eq!(check(r#"{"type":"subscribed","group":"g"}"#), Ok(true));
        assert!(check(r#"{"type":"error","code":"forbidden"}"#).expect_err("refused").contains("forbidden"));
    }
}
