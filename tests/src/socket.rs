//! `Socket`: a client of `groupcast.v1` that knows what should come next, and says so when something else does.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::gateway::Gateway;
use crate::http::Reply;
use crate::wait::within;

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The name of its channel.
    pub channel: String,
    /// The subprotocol that the gateway chose.
    pub subprotocol: Option<String>,
    next_id: u64,
    /// Came before the answer that was waited for.
    early: VecDeque<Value>,
}

/// How a socket ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a close frame of this code.
    Closed(u16),
    /// Without.
    Unclean,
}

impl Socket {
    /// Opens `/ws` and takes the welcome.
    pub async fn open(gateway: &Gateway) -> Self {
        Self::open_at(gateway, "/ws", &[]).await
    }

    /// Opens a socket that is subscribed to groups.
    pub async fn subscribed(gateway: &Gateway, groups: &[&str]) -> Self {
        let mut socket = Self::open(gateway).await;
        for group in groups {
            socket.subscribe(group).await;
        }
        socket
    }

    /// Opens a path with headers and takes the welcome.
    pub async fn open_at(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Self {
        let opened = Self::dial(gateway.address(), path, headers, None).await;
        opened.unwrap_or_else(|reply| panic!("refused with {}: {}", reply.status, reply.text()))
    }

    /// Opens a socket whose kernel buffer for what comes in is small.
    pub async fn narrow(gateway: &Gateway, receive_bytes: u32) -> Self {
        let opened = Self::dial(gateway.address(), "/ws", &[], Some(receive_bytes)).await;
        opened.expect("a socket with a small buffer opens like any other")
    }

    /// Opens a path with headers, or tells how the handshake was refused.
    ///
    /// # Errors
    /// With the answer that was no 101.
    pub async fn dial(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        receive_bytes: Option<u32>,
    ) -> Result<Self, Box<Reply>> {
        let stream = within("connecting", connect(address, receive_bytes)).await;
        let request = handshake(address, path, headers);
        match within("the handshake", client_async(request, stream)).await {
            Ok((stream, response)) => {
                let chosen = response.headers().get("sec-websocket-protocol");
                let subprotocol = chosen.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
                let channel = String::new();
                let mut socket = Self { stream, channel, subprotocol, next_id: 1, early: VecDeque::new() };
                let welcome = socket.expect("welcome").await;
                socket.channel = welcome["channel"].as_str().expect("a welcome names the channel").to_owned();
                Ok(socket)
            }
            Err(Error::Http(response)) => Err(Box::new(refusal(*response))),
            Err(error) => panic!("the handshake broke: {error}"),
        }
    }

    /// Sends a frame of the protocol.
    pub async fn send(&mut self, frame: &Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    /// Sends any message.
    pub async fn send_raw(&mut self, message: Message) {
        within("sending", self.stream.send(message)).await.expect("the socket is open");
    }

    /// The next frame.
    pub async fn next(&mut self) -> Value {
        if let Some(frame) = self.early.pop_front() {
            return frame;
        }
        self.read().await
    }

    /// The next frame, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["type"], kind, "expected `{kind}`, got {frame}");
        frame
    }

    /// The next push, which has to be a message; the message.
    pub async fn message(&mut self) -> Value {
        self.expect("message").await["message"].take()
    }

    /// The next push, which has to be a message of this type; the message.
    pub async fn message_of(&mut self, kind: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["type"], kind, "expected a message `{kind}`, got {message}");
        message
    }

    /// Passes over messages until one of this type comes.
    pub async fn skip_to(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends a command with an id and gives its answer; what comes before it is kept for [`Self::next`].
    pub async fn command(&mut self, mut command: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        self.send(&command).await;
        loop {
            let frame = self.read().await;
            if frame["id"] == id {
                return frame;
            }
            self.early.push_back(frame);
        }
    }

    /// Sends a command that has to be refused with this code; the connection has to live on.
    pub async fn refused(&mut self, command: Value, code: &str) -> Value {
        let error = self.command(command.clone()).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{command} got {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        assert!(error["retriable"].is_boolean(), "{error}");
        error
    }

    /// Subscribes to a group.
    pub async fn subscribe(&mut self, group: &str) {
        let answer = self.command(json!({"type": "subscribe", "group": group})).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        assert_eq!(answer["group"], group, "{answer}");
    }

    /// Everything that the gateway has sent before the answer to a ping.
    pub async fn pending(&mut self) -> Vec<Value> {
        // The first answer may overtake what was queued in its turn; the second cannot.
        for _ in 0..2 {
            let pong = self.command(json!({"type": "ping"})).await;
            assert_eq!(pong["type"], "pong", "{pong}");
        }
        self.early.drain(..).collect()
    }

    /// Reads to the end, passing over frames.
    pub async fn end(&mut self) -> End {
        loop {
            match within("the socket ends", self.stream.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => return End::Closed(frame.code.into()),
                Some(Ok(Message::Close(None))) | Some(Err(_)) | None => return End::Unclean,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Closes with 1000 and waits for the end.
    pub async fn close(mut self) -> End {
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        within("closing", self.stream.close(Some(normal))).await.expect("the socket is open");
        self.end().await
    }

    /// Vanishes without a close frame: with a reset, or as if the program had ended.
    pub fn vanish(mut self, reset: bool) {
        if reset {
            self.stream.get_mut().set_zero_linger().expect("any TCP socket takes it");
        }
    }

    /// The next text as it came; `None` at the end of the socket.
    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            match within("a frame comes", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return None,
                Some(Ok(other)) => panic!("no text: {other:?}"),
            }
        }
    }

    /// The next text as it came, or how the socket ended.
    ///
    /// # Errors
    /// With the end.
    pub async fn last_words(&mut self) -> Result<String, End> {
        loop {
            match within("a frame comes", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(End::Closed(frame.code.into())),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(End::Unclean),
                Some(Ok(_)) => {}
            }
        }
    }

    /// The stream below, for what the helper does not know.
    pub fn stream(&mut self) -> &mut WebSocketStream<TcpStream> {
        &mut self.stream
    }

    async fn read(&mut self) -> Value {
        let text = self.next_text().await.expect("the socket is open");
        let frame: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
        assert!(frame["type"].is_string(), "a frame has a type: {text}");
        frame
    }
}

async fn connect(address: SocketAddr, receive_bytes: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("there is a socket left");
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).expect("the kernel takes a size");
    }
    socket.connect(address).await.expect("the gateway listens")
}

fn handshake(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a path of the tests is a URL");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header of the tests has a good name");
        request.headers_mut().append(name, HeaderValue::from_str(value).expect("and a good value"));
    }
    request
}

fn refusal(response: tokio_tungstenite::tungstenite::http::Response<Option<Vec<u8>>>) -> Reply {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Reply { status: response.status().as_u16(), headers, body: response.into_body().unwrap_or_default() }
}
