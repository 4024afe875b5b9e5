//! The other end of consumers with `run = "http"`, for tests: a server that says what it is told to say.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(20);

/// A backend that says what it is told to say.
pub(crate) struct Backend {
    listener: TcpListener,
}

impl Backend {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    /// Where jobs are posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/jobs?x=1", self.listener.local_addr().expect("bound"))
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> TcpStream {
        timeout(STEP, self.listener.accept()).await.expect("somebody comes").expect("accepted").0
    }

    /// Answers one request so, hangs up, and tells what was asked.
    pub(crate) async fn answer(&self, answer: impl AsRef<[u8]>) -> Request {
        let mut stream = self.accept().await;
        let request = read_request(&mut stream).await;
        // It may have been read enough before the end.
        let _ = stream.write_all(answer.as_ref()).await;
        request
    }

    /// Nobody has connected: the first to be accepted is who connects now.
    pub(crate) async fn nobody_came(&self) -> bool {
        let probe = TcpStream::connect(self.listener.local_addr().expect("bound")).await.expect("connected");
        self.accept().await.peer_addr().ok() == probe.local_addr().ok()
    }
}

/// What was asked; its head in lower case.
pub(crate) struct Request {
    /// Request line and headers.
    pub(crate) head: String,
    /// As it is.
    pub(crate) body: String,
}

impl Request {
    /// A header's value; empty without it.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Reads a request to its end.
pub(crate) async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Request {
    let read = async {
        let mut bytes = Vec::new();
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&bytes[..end + 2]).to_ascii_lowercase();
                let body = bytes.split_off(end + 4);
                let mut request = Request { head, body: String::new() };
                let length: usize = request.header("content-length").parse().expect("a length");
                let mut whole = body;
                while whole.len() < length {
                    assert_ne!(stream.read_buf(&mut whole).await.expect("readable"), 0, "it is complete");
                }
                request.body = String::from_utf8(whole).expect("UTF-8");
                return request;
            }
            assert_ne!(stream.read_buf(&mut bytes).await.expect("readable"), 0, "it is complete");
        }
    };
    timeout(STEP, read).await.expect("a request")
}
