//! `Events`: a client of Server-Sent Events over bare TCP, with a parser of its own (HTML standard, section 9.2.6).

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::gateway::Gateway;
use crate::http::Reply;
use crate::wait::within;

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    stream: TcpStream,
    /// Came in, and is not yet taken out of its chunks.
    raw: Vec<u8>,
    parser: Parser,
    /// The id of the event that was taken last.
    last_id: String,
    /// The head of the answer.
    pub head: Reply,
    /// How the body ended: `Some(true)` with the last chunk, `Some(false)` without.
    ended: Option<bool>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name; `message` when it has none.
    pub name: String,
    /// Its data.
    pub data: Value,
    /// How many lines the data had.
    pub lines: usize,
    /// The last id up to and with this event.
    pub id: String,
}

impl Events {
    /// Opens `/v1/events?QUERY`.
    pub async fn open(gateway: &Gateway, query: &str) -> Self {
        Self::open_with(gateway, query, &[]).await
    }

    /// Opens it again, where an earlier stream ended.
    pub async fn go_on(gateway: &Gateway, query: &str, last_id: &str) -> Self {
        Self::open_with(gateway, query, &[("Last-Event-ID", last_id)]).await
    }

    /// Opens it with headers.
    pub async fn open_with(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_at(gateway.address(), &format!("/v1/events?{query}"), headers).await
    }

    /// Opens a stream that is served at another address or path.
    pub async fn open_at(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let opened = Self::ask(address, target, headers, None).await;
        opened.unwrap_or_else(|reply| panic!("refused with {}: {}", reply.status, reply.text()))
    }

    /// Opens it with a small kernel buffer for what comes in.
    pub async fn narrow(gateway: &Gateway, query: &str, receive_bytes: u32) -> Self {
        let opened = Self::dial(gateway.address(), query, &[], Some(receive_bytes)).await;
        opened.expect("a stream with a small buffer opens like any other")
    }

    /// Opens it, or tells how it was refused.
    ///
    /// # Errors
    /// With the answer that was no 200.
    pub async fn dial(
        address: SocketAddr,
        query: &str,
        headers: &[(&str, &str)],
        receive_bytes: Option<u32>,
    ) -> Result<Self, Box<Reply>> {
        Self::ask(address, &format!("/v1/events?{query}"), headers, receive_bytes).await
    }

    async fn ask(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
        receive_bytes: Option<u32>,
    ) -> Result<Self, Box<Reply>> {
        let socket = TcpSocket::new_v4().expect("there is a socket left");
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("the kernel takes a size");
        }
        let mut stream = within("connecting", socket.connect(address)).await.expect("the gateway listens");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        within("asking", stream.write_all(head.as_bytes())).await.expect("the socket is open");
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let read = within("the head comes", stream.read_buf(&mut raw)).await.expect("the socket is open");
            assert!(read > 0, "the gateway hung up within the head");
        };
        let head = parse_head(&String::from_utf8_lossy(&raw[..end]));
        raw.drain(..end);
        let mut events = Self { stream, raw, parser: Parser::default(), last_id: String::new(), head, ended: None };
        if events.head.status == 200 {
            assert_eq!(events.head.header("transfer-encoding"), Some("chunked"), "{:?}", events.head);
            events.unchunk();
            return Ok(events);
        }
        let length = events.head.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while events.raw.len() < length {
            events.fill().await;
        }
        events.head.body = std::mem::take(&mut events.raw);
        Err(Box::new(events.head))
    }

    /// The stream's own channel.
    pub fn channel(&self) -> String {
        self.head.header("groupcast-channel").expect("the answer names its channel").to_owned()
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                self.last_id.clone_from(&event.id);
                return Some(event);
            }
            if self.ended.is_some() {
                return None;
            }
            self.fill().await;
        }
    }

    /// The next event, which has to be of this name and type; its data.
    pub async fn expect(&mut self, name: &str, kind: &str) -> Value {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!((event.name.as_str(), &event.data["type"]), (name, &Value::from(kind)), "{event:?}");
        event.data
    }

    /// The next event, which has to be a message; the message.
    pub async fn message(&mut self) -> Value {
        self.expect("message", "message").await["message"].take()
    }

    /// The id that a browser would come back with, had it seen no more than has been taken here.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The time that a browser would wait before it comes back.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    /// Waits for so many comments in all.
    pub async fn comments(&mut self, count: usize) {
        while self.parser.comments < count {
            assert_eq!(self.ended, None, "the stream goes on");
            self.fill().await;
        }
    }

    /// Reads to the end, passing over events; whether it ended as it should.
    pub async fn end(&mut self) -> bool {
        while self.next().await.is_some() {}
        self.ended == Some(true)
    }

    async fn fill(&mut self) {
        let read = within("bytes come", self.stream.read_buf(&mut self.raw)).await.unwrap_or(0);
        if read == 0 {
            self.ended = Some(false);
        } else if self.head.status == 200 {
            self.unchunk();
        }
    }

    /// Takes whole chunks out (RFC 9112, section 7.1).
    fn unchunk(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") {
            let size =
                std::str::from_utf8(&self.raw[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let size = size.expect("a chunk begins with its size");
            if self.raw.len() < line + 2 + size + 2 {
                return;
            }
            assert_eq!(&self.raw[line + 2 + size..line + 4 + size], b"\r\n", "a chunk ends with its line");
            if size == 0 {
                self.ended = Some(true);
                return;
            }
            let chunk: Vec<u8> = self.raw.drain(..line + 4 + size).skip(line + 2).take(size).collect();
            self.parser.take(&chunk);
        }
    }
}

#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: Vec<String>,
    id: String,
    last_id: String,
    retry: Option<u64>,
    comments: usize,
    events: VecDeque<Event>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
                    let line = String::from_utf8(line).unwrap_or_else(|_| panic!("no UTF-8: {shown}"));
                    self.line(&line);
                }
                other => {
                    self.after_return = false;
                    self.line.push(*other);
                }
            }
        }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => self.name = value.to_owned(),
            "data" => self.data.push(value.to_owned()),
            "id" => self.id = value.to_owned(),
            "retry" => self.retry = Some(value.parse().expect("a time to wait is digits")),
            other => panic!("the gateway sends a field `{other}` that no browser knows"),
        }
    }

    fn dispatch(&mut self) {
        self.last_id.clone_from(&self.id);
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.is_empty() {
            return;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        let text = data.join("\n");
        let parsed = serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
        self.events.push_back(Event { name, data: parsed, lines: data.len(), id: self.last_id.clone() });
    }
}

fn parse_head(text: &str) -> Reply {
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Reply { status: status.expect("an answer has a status"), headers: lines.filter_map(pair).collect(), body: vec![] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Parser;

    #[test]
    fn what_the_standard_allows_is_understood() {
        let mut parser = Parser::default();
        for byte in b": hello\n\ndata: [1,\ndata:2]\r\nid: a\n\nevent: x\rdata: 3\r\rid: b\n\nretry: 5\n\nid: c" {
            parser.take(&[*byte]);
        }
        let shown: Vec<_> = parser.events.iter().map(|e| (e.name.as_str(), e.data.clone(), e.id.as_str())).collect();
        assert_eq!(shown, [("message", json!([1, 2]), "a"), ("x", json!(3), "a")]);
        assert_eq!((parser.last_id.as_str(), parser.comments, parser.retry), ("b", 1, Some(5)));
    }
}
