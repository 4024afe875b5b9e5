//! HTTP/2 by hand (RFC 9113), for frames that no library would send.

use std::net::SocketAddr;

use groupcast_tests::wait::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// What the other end has sent until it hung up.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The code of the last GOAWAY.
    pub(super) goaway: Option<u32>,
    /// Streams that were reset.
    pub(super) resets: usize,
    /// Blocks of headers, which are answers.
    pub(super) answers: usize,
    /// The body of all answers, one behind the other.
    pub(super) body: Vec<u8>,
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame of a test is small");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as HPACK has them when nothing is indexed and nothing compressed (RFC 7541, section 6.2.2).
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields of a request without a body.
pub(super) fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[])
}

/// The fields of a request.
pub(super) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
    fields(&[&pseudo, more].concat())
}

/// An integer behind a prefix of 7 bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else {
        block.push(value as u8);
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// A connection that has said hello.
pub(super) struct Connection {
    pub(super) sends: OwnedWriteHalf,
    pub(super) receives: OwnedReadHalf,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the gateway listens");
        let (receives, mut sends) = stream.into_split();
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        sends.write_all(&hello).await.expect("there is room for a hello");
        Self { sends, receives }
    }

    /// Sends bytes; whether they were taken.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        within("writing", self.sends.write_all(bytes)).await.is_ok()
    }

    /// Reads until the other end hangs up.
    pub(super) async fn hung_up(mut self) -> Heard {
        let heard = heard(&mut self.receives).await;
        drop(self.sends);
        heard
    }
}

/// Reads frames until the other end hangs up.
pub(super) async fn heard(receives: &mut OwnedReadHalf) -> Heard {
    let mut heard = Heard::default();
    loop {
        let mut head = [0; 9];
        if within("a frame or the end", receives.read_exact(&mut head)).await.is_err() {
            return heard;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if within("a whole frame", receives.read_exact(&mut payload)).await.is_err() {
            return heard;
        }
        match head[3] {
            GOAWAY => heard.goaway = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four"))),
            RST_STREAM => heard.resets += 1,
            HEADERS => heard.answers += 1,
            DATA => heard.body.extend(payload),
            _ => {}
        }
    }
}
