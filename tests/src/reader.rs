//! `Reader`: a client of one group with history, over a WebSocket or an event stream, that keeps a [`Book`].

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::book::{Book, Counts};
use crate::events::Events;
use crate::socket::Socket;

/// A client that may vanish and come back.
#[derive(Debug)]
pub struct Reader {
    address: SocketAddr,
    group: String,
    way: Way,
    line: Option<Line>,
    /// What it has got so far.
    pub book: Book,
    /// Where the event stream was.
    last_id: String,
}

/// How a reader says where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In the address of a WebSocket.
    Address,
    /// By a command of a WebSocket.
    Command,
    /// As a browser's `EventSource` does.
    Events,
}

#[derive(Debug)]
enum Line {
    Socket(Box<Socket>),
    Events(Box<Events>),
}

impl Reader {
    /// Subscribes for the first time.
    pub async fn join(address: SocketAddr, group: &str, way: Way) -> Self {
        let (line, subscribed) = match way {
            Way::Address => opened(address, &format!("/ws?group={group}")).await,
            Way::Command => commanded(address, json!({"type": "subscribe", "group": group})).await,
            Way::Events => streamed(address, group, "").await,
        };
        let book = Book::open(&subscribed);
        Self { address, group: group.to_owned(), way, line: Some(line), book, last_id: String::new() }
    }

    /// Comes back where its book ends; whether it could go on there.
    pub async fn rejoin(&mut self) -> bool {
        let (epoch, offset) = self.book.position();
        let (line, subscribed) = match self.way {
            Way::Address => {
                opened(self.address, &format!("/ws?group={}&after={}", self.group, self.book.after())).await
            }
            Way::Command => {
                let after = json!({"epoch": epoch, "offset": offset});
                commanded(self.address, json!({"type": "subscribe", "group": self.group, "after": after})).await
            }
            Way::Events => streamed(self.address, &self.group, &self.last_id).await,
        };
        self.line = Some(line);
        self.book.came_back(&subscribed)
    }

    /// Reads one frame into its book. Dropped, it has read nothing.
    pub async fn read(&mut self) {
        match self.line.as_mut().expect("it is there") {
            Line::Socket(socket) => {
                let frame = socket.next_text().await.expect("the gateway keeps it open");
                self.book.take(&frame);
            }
            Line::Events(events) => {
                let event = events.next().await.expect("the gateway keeps it open");
                self.book.take(&event.data.to_string());
            }
        }
    }

    /// Reads until it has got all up to an offset.
    pub async fn read_to(&mut self, offset: u64) {
        while self.book.position().1 < offset {
            self.read().await;
        }
    }

    /// Vanishes, with or without a reset, and never with a goodbye.
    pub fn vanish(&mut self, reset: bool) {
        match self.line.take().expect("it is there") {
            Line::Socket(socket) => socket.vanish(reset),
            Line::Events(events) => self.last_id = events.last_id().to_owned(),
        }
    }

    /// What happened to it.
    pub fn counts(&self) -> Counts {
        self.book.counts
    }
}

async fn opened(address: SocketAddr, path: &str) -> (Line, Value) {
    let mut socket = dial(address, path).await;
    let subscribed = socket.expect("subscribed").await;
    (Line::Socket(socket), subscribed)
}

async fn commanded(address: SocketAddr, command: Value) -> (Line, Value) {
    let mut socket = dial(address, "/ws").await;
    let subscribed = socket.command(command).await;
    assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
    (Line::Socket(socket), subscribed)
}

async fn dial(address: SocketAddr, path: &str) -> Box<Socket> {
    let opened = Socket::dial(address, path, &[], None).await;
    Box::new(opened.unwrap_or_else(|reply| panic!("{path}: {}: {}", reply.status, reply.text())))
}

async fn streamed(address: SocketAddr, group: &str, last_id: &str) -> (Line, Value) {
    let headers = [("Last-Event-ID", last_id)];
    let headers = if last_id.is_empty() { &[][..] } else { &headers };
    let opened = Events::dial(address, &format!("group={group}"), headers, None).await;
    let mut events = opened.unwrap_or_else(|reply| panic!("{}: {}", reply.status, reply.text()));
    let subscribed = events.expect("subscribed", "subscribed").await;
    (Line::Events(Box::new(events)), subscribed)
}
