//! HTTP/2 on the same port: requests, WebSockets inside of it, limits and the drain.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes_of_h2::Bytes;
use groupcast_tests::Gateway;
use groupcast_tests::home::BARE;
use groupcast_tests::wait::{within, within_time};
use h2::client::{self, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::http::{Method, Request, Response};

/// h2 takes and gives bytes of the type that tungstenite names.
mod bytes_of_h2 {
    pub(super) use tokio_tungstenite::tungstenite::Bytes;
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let gateway = Gateway::start(BARE).await;
    let http2 = Http2::connect(gateway.address()).await;
    let mut asked = Vec::new();
    for n in 0..50 {
        let body = json!({"type": "x", "n": n}).to_string();
        asked.push(http2.ask("POST", "/v1/groups/g/send", body).await);
    }
    for answer in asked {
        let (status, body) = whole(answer.await.expect("an answer")).await;
        assert_eq!(status, 202, "{body}");
    }
    let (status, body) = http2.get("/openapi.json").await;
    assert_eq!((status, body["openapi"].as_str()), (200, Some("3.1.0")), "a long answer comes whole");
    let (status, body) = http2.get("/nowhere").await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
    let (status, body) = http2.get("/ws").await;
    assert_eq!((status, body["code"].as_str()), (426, Some("upgrade_required")));
}

#[tokio::test]
async fn a_websocket_lives_inside_of_http2() {
    let gateway = Gateway::start(BARE).await;
    let http2 = Http2::connect(gateway.address()).await;
    let (mut one, mut other) = (http2.websocket("/ws?group=g").await, http2.websocket("/ws?group=g").await);
    for socket in [&mut one, &mut other] {
        assert_eq!(socket.next().await["type"], "welcome");
        assert_eq!(socket.next().await["type"], "subscribed");
    }
    // Read as they come: this client takes many small frames that nobody reads for an attack.
    for n in 0..100 {
        gateway.http().group_send("g", &json!({"type": "x", "n": n})).await;
        for socket in [&mut one, &mut other] {
            assert_eq!(socket.next().await["message"]["n"], n);
        }
    }
    one.send(&json!({"type": "ping", "id": 1})).await;
    assert_eq!(one.next().await["type"], "pong");
    let (status, _) = http2.get("/healthz").await;
    assert_eq!(status, 200, "beside its WebSockets a connection serves requests");

    gateway.terminate();
    for socket in [&mut one, &mut other] {
        while let Some(frame) = socket.frame().await {
            if frame.0 == 8 {
                assert_eq!(frame.1[..2], 1012_u16.to_be_bytes());
                break;
            }
        }
    }
    drop((one, other));
    within("the connection ends", http2.connection).await.expect("its task ends");
    assert_eq!(gateway.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_websocket_inside_of_http2_passes_the_same_checks() {
    let gateway = Gateway::start(BARE).await;
    let http2 = Http2::connect(gateway.address()).await;
    for (path, header, status, code) in [
        ("/ws", ("origin", "http://evil.example"), 403, "forbidden"),
        ("/ws?group=a%20b", ("x", "y"), 422, "invalid_name"),
        ("/ws", ("sec-websocket-version", "12"), 426, "upgrade_required"),
        ("/ws", ("sec-websocket-protocol", "graphql-ws"), 400, "bad_request"),
        ("/healthz", ("x", "y"), 405, "method_not_allowed"),
    ] {
        let request = http2.handshake(path, header);
        let (answer, _stream) = http2.sender().await.send_request(request, false).expect("the connection is open");
        let answer = within("an answer", answer).await.expect("an answer");
        let (told, body) = whole(answer).await;
        assert_eq!((told, body["code"].as_str()), (status, Some(code)), "{path} {header:?}: {body}");
    }
}

#[tokio::test]
async fn who_asks_nothing_over_http2_is_hung_up_on() {
    let gateway =
        Gateway::start(&format!("{BARE}\n[limits]\nheader_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n")).await;
    let silent = Http2::connect(gateway.address()).await;
    within_time(Duration::from_secs(8), "silence from the beginning", silent.connection).await.expect("its task ends");
    let idle = Http2::connect(gateway.address()).await;
    assert_eq!(idle.get("/healthz").await.0, 200);
    within_time(Duration::from_secs(8), "silence after an answer", idle.connection).await.expect("its task ends");
    let busy = Http2::connect(gateway.address()).await;
    let mut socket = busy.websocket("/ws").await;
    assert_eq!(socket.next().await["type"], "welcome");
    tokio::time::timeout(Duration::from_secs(2), socket.frame()).await.expect_err("an open WebSocket is not idle");
}

#[tokio::test]
async fn a_stream_whose_client_opens_no_window_is_reset() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nidle_timeout = \"2s\"\n")).await;
    let http2 = Http2::connect_with(gateway.address(), client::Builder::new().initial_window_size(0)).await;
    let answer = http2.ask("GET", "/openapi.json", String::new()).await;
    let mut stalled = within("an answer", answer).await.expect("an answer").into_body();
    let reset = within_time(Duration::from_secs(8), "an end", stalled.data()).await.expect("not a good end");
    assert!(reset.expect_err("nothing was sent").is_reset());
    within_time(Duration::from_secs(10), "the end of the connection", http2.connection).await.expect("its task ends");
}

/// A connection by prior knowledge.
struct Http2 {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    connection: JoinHandle<()>,
}

impl Http2 {
    async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &client::Builder::new()).await
    }

    async fn connect_with(address: SocketAddr, builder: &client::Builder) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the gateway listens");
        let (sender, connection) = within("the preface", builder.handshake(stream)).await.expect("HTTP/2 is spoken");
        // However it ends: the test looks at what it asked.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender, address, connection }
    }

    async fn sender(&self) -> SendRequest<Bytes> {
        within("room for a stream", self.sender.clone().ready()).await.expect("the connection is open")
    }

    async fn ask(&self, method: &str, path: &str, body: String) -> client::ResponseFuture {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let request = request.body(()).expect("a good request");
        let (answer, mut stream) =
            self.sender().await.send_request(request, body.is_empty()).expect("the connection is open");
        if !body.is_empty() {
            stream.send_data(body.into(), true).expect("the stream is open");
        }
        answer
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.ask("GET", path, String::new()).await;
        whole(within("an answer", answer).await.expect("an answer")).await
    }

    /// RFC 8441: `CONNECT` with a `:protocol`.
    fn handshake(&self, path: &str, header: (&str, &str)) -> Request<()> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{}{path}", self.address))
            .extension(Protocol::from("websocket"));
        if header.0 != "sec-websocket-version" {
            request = request.header("sec-websocket-version", "13");
        }
        request.header(header.0, header.1).body(()).expect("a good request")
    }

    async fn websocket(&self, path: &str) -> Socket {
        let request = self.handshake(path, ("sec-websocket-protocol", "groupcast.v1"));
        let (answer, sends) = self.sender().await.send_request(request, false).expect("the connection is open");
        let answer = within("an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "groupcast.v1");
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        Socket { sends, receives: answer.into_body(), read: VecDeque::new() }
    }
}

/// A WebSocket on a stream.
struct Socket {
    sends: SendStream<Bytes>,
    receives: RecvStream,
    read: VecDeque<u8>,
}

impl Socket {
    async fn send(&mut self, frame: &Value) {
        let text = frame.to_string();
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short frame");
        let mut bytes = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        bytes.extend(text.as_bytes());
        self.sends.send_data(bytes.into(), false).expect("the stream is open");
    }

    async fn next(&mut self) -> Value {
        let (opcode, payload) = self.frame().await.expect("a frame comes");
        assert_eq!(opcode, 1);
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// Opcode and payload; `None` at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.fill(2).await?;
        let length = usize::from(self.read[1]);
        let (head, length) = match length {
            126 => {
                self.fill(4).await?;
                (4, usize::from(u16::from_be_bytes([self.read[2], self.read[3]])))
            }
            _ => (2, length),
        };
        self.fill(head + length).await?;
        let opcode = self.read[0] & 0x0F;
        Some((opcode, self.read.drain(..head + length).skip(head).collect()))
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.read.len() < length {
            let data = within("bytes come", self.receives.data()).await?.ok()?;
            self.receives.flow_control().release_capacity(data.len()).expect("what came may come again");
            self.read.extend(&data);
        }
        Some(())
    }
}

async fn whole(answer: Response<RecvStream>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let (mut body, mut stream) = (Vec::new(), answer.into_body());
    while let Some(data) = within("a body", stream.data()).await {
        let data = data.expect("the stream is whole");
        stream.flow_control().release_capacity(data.len()).expect("what came may come again");
        body.extend(data);
    }
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
