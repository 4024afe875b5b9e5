//! `Raw`: bytes to and from a gateway, for what no well-behaved client would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::Reply;
use crate::socket::End;
use crate::wait::within;

/// The key of RFC 6455's example; its answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A TCP connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the gateway listens");
        Self { stream, read: Vec::new() }
    }

    /// Connects with a small kernel buffer for what comes in.
    pub async fn narrow(address: SocketAddr, receive_bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("there is a socket left");
        socket.set_recv_buffer_size(receive_bytes).expect("the kernel takes a size");
        let stream = within("connecting", socket.connect(address)).await.expect("the gateway listens");
        Self { stream, read: Vec::new() }
    }

    /// Connects and opens a WebSocket by hand; the welcome is taken.
    pub async fn websocket(address: SocketAddr) -> Self {
        Self::connect(address).await.upgraded(address).await
    }

    /// Opens a WebSocket by hand on this connection; the welcome is taken.
    pub async fn upgraded(mut self, address: SocketAddr) -> Self {
        let raw = &mut self;
        let head = handshake_head(address, &[]);
        raw.write(head.as_bytes()).await;
        let reply = raw.head().await;
        assert_eq!(reply.status, 101, "{reply:?}");
        assert_eq!(reply.header("sec-websocket-accept"), Some(ANSWER));
        let (opcode, welcome) = raw.frame().await.expect("a welcome comes");
        assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&welcome));
        self
    }

    /// This end's address.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().expect("it is connected")
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("it is connected");
    }

    /// Vanishes with a reset, as the connections of a killed program's machine do.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("any TCP socket takes it");
    }

    /// Sends as much of this as the kernels take now; says how much that was.
    pub fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.try_write(bytes).unwrap_or(0)
    }

    /// Sends bytes. That the other end has hung up is seen when reading.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = within("writing", self.stream.write_all(bytes)).await;
    }

    /// Sends a WebSocket frame with any first byte, masked with zeros or not at all.
    pub async fn send_frame(&mut self, first: u8, masked: bool, payload: &[u8]) {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(mask | len as u8),
            len @ 126..=0xFFFF => {
                frame.push(mask | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(mask | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([0; 4]);
        }
        frame.extend(payload);
        self.write(&frame).await;
    }

    /// One answer of HTTP, with the body that `content-length` announces.
    pub async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer comes whole")
    }

    /// The same; `None` when the other end hangs up before or within.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        let mut reply = self.try_head().await?;
        let length = reply.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        self.fill(length).await?;
        reply.body = self.read.drain(..length).collect();
        Some(reply)
    }

    /// The next WebSocket frame: opcode and payload; `None` when the other end has hung up.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.fill(2).await?;
        let (head, length) = match self.read[1] & 0x7F {
            126 => {
                self.fill(4).await?;
                (4, usize::from(u16::from_be_bytes([self.read[2], self.read[3]])))
            }
            127 => panic!("no test makes the gateway send so much"),
            short => (2, usize::from(short)),
        };
        self.fill(head + length).await?;
        let opcode = self.read[0] & 0x0F;
        let payload = self.read.drain(..head + length).skip(head).collect();
        Some((opcode, payload))
    }

    /// Reads frames until the socket is closed.
    pub async fn end(&mut self) -> End {
        while let Some((opcode, payload)) = self.frame().await {
            if opcode == 8 {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return code.map_or(End::Unclean, End::Closed);
            }
        }
        End::Unclean
    }

    /// Reads on until the other end hangs up.
    pub async fn hung_up(&mut self) {
        loop {
            self.read.clear();
            if self.fill(1).await.is_none() {
                return;
            }
        }
    }

    async fn head(&mut self) -> Reply {
        self.try_head().await.expect("an answer comes whole")
    }

    async fn try_head(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.fill(self.read.len() + 1).await?;
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let status = status.expect("an answer has a status");
        Some(Reply { status, headers: lines.filter_map(pair).collect(), body: vec![] })
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.read.len() < length {
            let read = within("bytes come", self.stream.read_buf(&mut self.read)).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(())
    }
}

/// The head of a good WebSocket handshake; `(name, None)` leaves a header out, `(name, Some)` replaces it.
pub fn handshake_head(address: SocketAddr, changes: &[(&str, Option<&str>)]) -> String {
    let host = address.to_string();
    let mut headers = vec![
        ("Host", host.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    for (name, value) in changes {
        headers.retain(|(known, _)| known != name);
        headers.extend(value.map(|value| (*name, value)));
    }
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET /ws HTTP/1.1\r\n{lines}\r\n")
}
