//! Something that speaks as much of the contract as `bench` needs, and has one fault: what a checker must not overlook.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// What the fake does to its sixth message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It is taken and never delivered.
    Drop,
    /// It is delivered twice.
    Duplicate,
    /// It is delivered after the next one of its group.
    Swap,
    /// It is delivered to every group.
    Stray,
    /// It is not delivered, and readers are told.
    Gap,
    /// It is refused.
    Refuse,
    /// Readers are hung up on.
    Hangup,
}

const FAULTY: usize = 5;

/// A listening fake. It ends with its owner.
#[derive(Debug)]
pub(super) struct Fake {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Fake {
    pub(super) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let field = Field { fault, taken: Arc::default(), pushes: broadcast::channel(65_536).0 };
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(field.clone().serve(stream));
            }
        });
        Self { address, accepting }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Debug, Clone)]
enum Push {
    /// To the readers of a group; of all groups without one.
    Text {
        to: Option<String>,
        text: String,
    },
    Hangup,
}

#[derive(Clone)]
struct Field {
    fault: Fault,
    taken: Arc<Mutex<Taken>>,
    pushes: broadcast::Sender<Push>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// A message, with its group, that has to wait for the next one.
    held: Option<(String, Push)>,
}

impl Field {
    async fn serve(self, stream: TcpStream) {
        let mut first = [0; 3];
        match stream.peek(&mut first).await {
            Ok(3) if &first == b"GET" => self.push_to(stream).await,
            // A connection without a request looks whether anybody is there.
            Ok(_) => self.take_from(stream).await,
            Err(_) => {}
        }
    }

    /// A reader.
    async fn push_to(self, stream: TcpStream) {
        let mut pushes = self.pushes.subscribe();
        let mut group = String::new();
        // The signature is the library's.
        #[allow(clippy::result_large_err)]
        let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            group = request.uri().query().and_then(|q| q.strip_prefix("group=")).expect("a group is named").to_owned();
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
        let subscribed = format!(r#"{{"type":"subscribed","group":"{group}"}}"#);
        for hello in [r#"{"type":"welcome"}"#, &subscribed] {
            if socket.send(Message::text(hello)).await.is_err() {
                return;
            }
        }
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Ok(Push::Text { to, text }) if to.as_ref().is_none_or(|to| *to == group) => {
                        if socket.send(Message::text(text)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Push::Text { .. }) => {}
                    Ok(Push::Hangup) | Err(_) => return,
                },
                read = socket.next() => if !matches!(read, Some(Ok(_))) { return },
            }
        }
    }

    /// A publisher.
    async fn take_from(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            while let Some((group, body, end)) = request(&read) {
                let taken = self.take(&group, &body);
                read.drain(..end);
                let answer = match taken {
                    true => "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}",
                    false => "HTTP/1.1 503 Busy\r\ncontent-length: 21\r\n\r\n{\"code\":\"overloaded\"}",
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Delivers a message as faithfully as the fault allows. Says whether it is accepted.
    fn take(&self, group: &str, body: &str) -> bool {
        let mut state = self.taken.lock().expect("no holder panics");
        let faulty = state.count == FAULTY;
        state.count += 1;
        let to = Some(group.to_owned());
        let push = Push::Text { to, text: format!(r#"{{"type":"message","group":"{group}","message":{body}}}"#) };
        let gap = format!(r#"{{"type":"gap","group":"{group}","missed":1,"reason":"slow_consumer"}}"#);
        let pushes = match (faulty, self.fault) {
            (true, Fault::Drop | Fault::Refuse) => vec![],
            (true, Fault::Duplicate) => vec![push.clone(), push],
            (true, Fault::Swap) => {
                state.held = Some((group.to_owned(), push));
                vec![]
            }
            (true, Fault::Stray) => match push {
                Push::Text { text, .. } => vec![Push::Text { to: None, text }],
                Push::Hangup => vec![],
            },
            (true, Fault::Gap) => vec![Push::Text { to: Some(group.to_owned()), text: gap }],
            (true, Fault::Hangup) => vec![push, Push::Hangup],
            (true, Fault::None) | (false, _) => {
                let held = state.held.take_if(|(of, _)| of == group);
                [push].into_iter().chain(held.map(|(_, held)| held)).collect()
            }
        };
        for push in pushes {
            // Nobody may be left to read it.
            let _ = self.pushes.send(push);
        }
        !(faulty && self.fault == Fault::Refuse)
    }
}

/// Group and body of the first request, and where it ends; `None` when it is not complete.
fn request(read: &[u8]) -> Option<(String, String, usize)> {
    let text = std::str::from_utf8(read).ok()?;
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let group = head.strip_prefix("POST /v1/groups/")?.split_once("/send ")?.0.to_owned();
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned))?;
    let length: usize = length.parse().ok()?;
    Some((group, rest.get(..length)?.to_owned(), head.len() + 4 + length))
}
