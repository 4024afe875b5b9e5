//! One WebSocket connection of `subscribe`, from the handshake to its end.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::super::client::{CONNECT_TIMEOUT, Target, describe};
use super::super::{CliError, output};
use super::follow::{Follow, Step};

/// After so long without a frame the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to answer that, or to take what we write.
const ANSWER: Duration = Duration::from_secs(15);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection ended.
pub(super) enum Lost {
    /// A new one may do better, after this time.
    ForNow { why: String, after: Duration },
    /// A new one would end the same way.
    ForGood(CliError),
}

impl Lost {
    fn for_now(why: impl Into<String>) -> Self {
        Self::ForNow { why: why.into(), after: Duration::ZERO }
    }

    fn for_good(why: impl Into<String>) -> Self {
        Self::ForGood(CliError::Failed(why.into()))
    }
}

impl From<CliError> for Lost {
    fn from(error: CliError) -> Self {
        Self::ForGood(error)
    }
}

/// The handshake's request.
pub(super) fn request(target: &Target) -> Result<Request<()>, CliError> {
    let mut url = target.url(&["ws"])?;
    url.set_scheme("ws").expect("http and ws are both special schemes");
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|e| CliError::Usage(format!("the gateway's address `{}` cannot be used: {e}", target.url)))?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", http::HeaderValue::from_static("groupcast.v1"));
    headers.extend(target.authorization()?.map(|value| (http::header::AUTHORIZATION, value)));
    Ok(request)
}

/// Connects, subscribes and prints, until the count is reached (`Ok`) or the connection is lost.
pub(super) async fn run(request: &Request<()>, follow: &mut Follow) -> Result<(), Lost> {
    let mut socket = connect(request).await?;
    for command in follow.commands() {
        write(&mut socket, Message::text(command)).await?;
    }
    let mut pause = Duration::ZERO;
    loop {
        let frame = match next(&mut socket).await? {
            Message::Text(text) => text,
            Message::Close(frame) => return Err(closed(frame.as_ref(), pause)),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => continue,
        };
        match follow.step(&frame) {
            Step::Ignore => {}
            Step::Print => output::line(&frame)?,
            Step::Note(text) => output::note(&text),
            Step::Leaving(after) => pause = after,
            Step::Again(why) => return Err(Lost::for_now(why)),
            Step::Fail(why) => return Err(Lost::for_good(why)),
        }
        if follow.is_done() {
            // The server learns of the end either way; politeness must not hold up the command.
            drop(timeout(Duration::from_secs(1), socket.close(None)).await);
            return Ok(());
        }
    }
}

async fn connect(request: &Request<()>) -> Result<Socket, Lost> {
    let connecting = timeout(CONNECT_TIMEOUT, connect_async(request.clone())).await;
    let error = match connecting {
        Ok(Ok((socket, _))) => return Ok(socket),
        Ok(Err(error)) => error,
        Err(_) => return Err(Lost::for_now("no answer in time")),
    };
    let Error::Http(answer) = error else {
        return Err(Lost::for_now(format!("cannot be reached ({error}); is it running, and is --url right?")));
    };
    let status = answer.status();
    let told = describe(status.as_u16(), answer.body().as_deref().unwrap_or_default());
    // Too slow, too many, or a gateway that is just starting or stopping: the same request may succeed later.
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
        return Err(Lost::for_now(told));
    }
    Err(Lost::for_good(told))
}

/// The next message. Silence is answered with a ping, and more silence means that the connection is dead.
async fn next(socket: &mut Socket) -> Result<Message, Lost> {
    let received = match timeout(SILENCE, socket.next()).await {
        Ok(received) => received,
        Err(_) => {
            write(socket, Message::Ping(Bytes::new())).await?;
            timeout(ANSWER, socket.next()).await.map_err(|_| Lost::for_now("the gateway is silent"))?
        }
    };
    match received {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(Lost::for_now(format!("the connection broke ({error})"))),
        None => Err(Lost::for_now("the connection ended")),
    }
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), Lost> {
    match timeout(ANSWER, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Lost::for_now(format!("the connection broke ({error})"))),
        Err(_) => Err(Lost::for_now("the gateway takes nothing any more")),
    }
}

/// Codes that the contract names for a reconnect; after any other the same would happen again.
fn closed(frame: Option<&CloseFrame>, after: Duration) -> Lost {
    let Some(frame) = frame else { return Lost::for_now("the gateway closed the connection") };
    let code = u16::from(frame.code);
    let why = match frame.reason.as_str() {
        "" => format!("the gateway closed the connection ({code})"),
        reason => format!("the gateway closed the connection ({code}: {reason})"),
    };
    match code {
        1001 | 1011 | 1012 | 1013 | 3008 => Lost::ForNow { why, after },
        3000 => Lost::for_good(format!("{why}; show a valid token with --token")),
        _ => Lost::for_good(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back(code: u16) -> bool {
        let frame = CloseFrame { code: code.into(), reason: "x".into() };
        matches!(closed(Some(&frame), Duration::ZERO), Lost::ForNow { .. })
    }

    #[test]
    fn the_contracts_codes_lead_to_a_reconnect() {
        assert!([1001, 1011, 1012, 1013, 3008].into_iter().all(comes_back));
        assert!(![1000, 1002, 1003, 1007, 1008, 1009, 3000, 3003].into_iter().any(comes_back));
    }

    #[test]
    fn the_token_goes_along_and_the_scheme_is_changed() {
        let target = Target { url: "http://h:1/gw".to_owned(), token: Some("s".to_owned()) };
        let request = request(&target).expect("a good address");
        assert_eq!(request.uri().to_string(), "ws://h:1/gw/ws");
        assert_eq!(request.headers()["authorization"], "Bearer s");
    }
}
