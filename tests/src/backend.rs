//! `Backend`: the other end of a consumer with `run = "http"`. It takes requests one by one and answers what a test says.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wait::within;

/// A server that answers nothing by itself.
#[derive(Debug)]
pub struct Backend {
    listener: TcpListener,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Call {
    stream: TcpStream,
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Value,
}

impl Backend {
    /// Listens on a free port of loopback.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("there is a port left") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// The next request, on a connection of its own: every answer ends its connection.
    pub async fn call(&self) -> Call {
        within("a request to the backend", async {
            let (mut stream, _) = self.listener.accept().await.expect("it listens");
            let mut bytes = Vec::new();
            let end = loop {
                match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None => assert_ne!(stream.read_buf(&mut bytes).await.expect("readable"), 0, "a whole head"),
                }
            };
            let mut body = bytes.split_off(end);
            let head = String::from_utf8(bytes).expect("a head is ASCII");
            let length: usize = header(&head, "content-length").expect("a length").parse().expect("a number");
            while body.len() < length {
                assert_ne!(stream.read_buf(&mut body).await.expect("readable"), 0, "a whole body");
            }
            Call { stream, head, body: serde_json::from_slice(&body).expect("the body is JSON") }
        })
        .await
    }
}

impl Call {
    /// A header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Answers with a status, headers (each with its line's end) and a body, and hangs up.
    pub async fn answer(mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
        let whole = head + body;
        within("the answer is taken", self.stream.write_all(whole.as_bytes())).await.expect("the gateway reads");
    }

    /// Answers with JSON.
    pub async fn json(self, body: &Value) {
        self.answer(200, "content-type: application/json\r\n", &body.to_string()).await;
    }

    /// Waits until the gateway hangs up.
    pub async fn hung_up(mut self) {
        let mut rest = Vec::new();
        let read = within("the gateway hangs up", self.stream.read_to_end(&mut rest)).await;
        assert!(read.is_err() || rest.is_empty(), "{rest:?}");
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
