//! `Proxy`: a wire between two programs that a test cuts, slows down, or makes swallow what goes over it.
//!
//! It stands on a port of its own, before a server. Faults are switched while it runs: for all connections, or only for
//! those that come. It belongs to the runtime of the test, and ends with its owner.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::daemon::free_port;

/// Pieces on their way in one direction of one connection; the sender waits when there are more.
const ON_THE_WAY: usize = 256;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They arrive.
    None,
    /// They arrive so much later, in order, both ways.
    Delay(Duration),
    /// They are swallowed, as is the end of the connection; nobody is told. Whoever is healed from this has lost bytes.
    Silence(Way),
    /// They arrive a few at a time, both ways.
    Trickle {
        /// So many…
        bytes: usize,
        /// …each time.
        every: Duration,
    },
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the client says.
    ToServer,
    /// What the server says.
    ToClient,
    /// All that is said.
    Both,
}

/// A proxy before a server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    /// What connections to come suffer from.
    fault: Mutex<Fault>,
    connections: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    fault: watch::Sender<Fault>,
    end: watch::Sender<Option<End>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Cut,
    Reset,
}

impl Proxy {
    /// Starts a proxy before a port of loopback.
    pub async fn start(port: u16) -> Self {
        let shared = Shared {
            upstream: ([127, 0, 0, 1], port).into(),
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
        };
        let address = ([127, 0, 0, 1], free_port()).into();
        let mut proxy = Self { address, shared: Arc::new(shared), accepting: None };
        proxy.accept().await;
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections go through it.
    pub fn connections(&self) -> usize {
        let connections = self.shared.connections.lock().expect("nobody panics");
        connections.iter().filter(|connection| !connection.task.is_finished()).count()
    }

    /// Lets all connections suffer from a fault, those to come as well.
    pub fn inflict(&self, fault: Fault) {
        self.inflict_on_new(fault);
        for connection in self.shared.connections.lock().expect("nobody panics").iter() {
            connection.fault.send_replace(fault);
        }
    }

    /// Lets only connections to come suffer from a fault.
    pub fn inflict_on_new(&self, fault: Fault) {
        *self.shared.fault.lock().expect("nobody panics") = fault;
    }

    /// Everything arrives again, at once.
    pub fn heal(&self) {
        self.inflict(Fault::None);
    }

    /// Closes all connections, both ways; what comes after is accepted. They are closed when this returns.
    pub async fn cut(&self) {
        self.end(End::Cut).await;
    }

    /// As [`Proxy::cut`], but both ends are told that the connection is broken (RST).
    pub async fn reset(&self) {
        self.end(End::Reset).await;
    }

    /// Refuses connections that come, as a port does on which nobody listens. Those that are there stay.
    pub async fn refuse(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        accepting.abort();
        // The listener is closed when its task has ended.
        let _ = accepting.await;
    }

    /// Accepts connections again after [`Proxy::refuse`].
    pub async fn accept(&mut self) {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.address).await.expect("the port is its own");
            self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        }
    }

    async fn end(&self, end: End) {
        let connections = std::mem::take(&mut *self.shared.connections.lock().expect("nobody panics"));
        for connection in &connections {
            connection.end.send_replace(Some(end));
        }
        for connection in connections {
            let _ = connection.task.await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        for connection in self.shared.connections.lock().into_iter().flat_map(|mut all| std::mem::take(&mut *all)) {
            connection.task.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut connections = shared.connections.lock().expect("nobody panics");
        connections.retain(|connection| !connection.task.is_finished());
        let (fault, suffered) = watch::channel(*shared.fault.lock().expect("nobody panics"));
        let (end, ended) = watch::channel(None);
        let task = tokio::spawn(connect(client, shared.upstream, suffered, ended));
        connections.push(Connection { fault, end, task });
    }
}

async fn connect(
    mut client: TcpStream,
    upstream: SocketAddr,
    fault: watch::Receiver<Fault>,
    mut end: watch::Receiver<Option<End>>,
) {
    // A client whose server is not there is hung up on.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let both = [&client, &server].into_iter().all(|stream| stream.set_nodelay(true).is_ok());
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = carry(Way::ToServer, from_client, to_server, &fault);
    let back = carry(Way::ToClient, from_server, to_client, &fault);
    let ended = tokio::select! {
        _ = async { tokio::join!(there, back) }, if both => None,
        ended = end.wait_for(Option::is_some) => ended.ok().and_then(|end| *end),
    };
    for stream in [&mut client, &mut server] {
        match ended {
            Some(End::Reset) => drop(stream.set_zero_linger()),
            Some(End::Cut) | None => drop(stream.shutdown().await),
        }
    }
}

/// Carries bytes one way until their end.
async fn carry(way: Way, from: ReadHalf<'_>, to: WriteHalf<'_>, fault: &watch::Receiver<Fault>) {
    let (sender, arriving) = mpsc::channel(ON_THE_WAY);
    tokio::join!(take(way, from, sender, fault.clone()), give(to, arriving, fault.clone()));
}

/// Reads, and says when what was read is due.
async fn take(
    way: Way,
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    mut fault: watch::Receiver<Fault>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *fault.borrow();
        let due = match now {
            Fault::Silence(silent) if swallows(silent, way) => continue,
            Fault::Delay(delay) => Instant::now() + delay,
            Fault::Silence(_) | Fault::Trickle { .. } | Fault::None => Instant::now(),
        };
        if sender.send((due, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
    // In silence the end is not heard of, either.
    let _ = fault.wait_for(|now| !matches!(now, Fault::Silence(silent) if swallows(*silent, way))).await;
}

/// Writes what is due, and in the end tells the end.
async fn give(mut to: WriteHalf<'_>, mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>, fault: watch::Receiver<Fault>) {
    while let Some((due, bytes)) = arriving.recv().await {
        sleep_until(due).await;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let now = *fault.borrow();
            let piece = match now {
                Fault::Trickle { bytes, every } => {
                    sleep(every).await;
                    bytes.clamp(1, rest.len())
                }
                Fault::None | Fault::Delay(_) | Fault::Silence(_) => rest.len(),
            };
            if to.write_all(&rest[..piece]).await.is_err() {
                return;
            }
            rest = &rest[piece..];
        }
    }
    let _ = to.shutdown().await;
}

fn swallows(silent: Way, way: Way) -> bool {
    silent == Way::Both || silent == way
}
