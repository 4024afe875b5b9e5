//! The accept loop: each shard takes connections for itself, from the one listening socket that all share.
//!
//! Whichever thread is free takes the next connection, and keeps it. The socket is bound once and without
//! `SO_REUSEPORT`, so a second gateway on the same address is refused.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::Refusal;
use http::HeaderMap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::admission::{Admission, Place};
use super::shard::Arrival;
use super::watch::{Busy, Watch};
use crate::http::problem::Problem;
use crate::limits::{Client, Limited};

/// Connections that the kernel has completed and that wait to be accepted.
const BACKLOG: i32 = 4096;
/// After an error that more of the same will not cure, such as a lack of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long the other end's kernel may be silent about what was sent, at least: longer than our own deadline, which ends
/// connections with a word.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MIN: Duration = Duration::from_secs(45);
/// Connections that are accepted before those that are there get their turn.
const ACCEPTS_PER_TURN: usize = 16;

/// Who is at the other end of a request; an extension of every request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The way to the owner of this socket, for a request that becomes something longer.
    pub(crate) shard: mpsc::Sender<Arrival>,
    /// Kept as long as the connection, in whatever form.
    pub(crate) place: Place,
    /// What its HTTP is waiting for.
    pub(super) watch: Arc<Watch>,
}

impl Peer {
    /// Who asks: the other end, or whom a proxy of ours says that it brings.
    pub(crate) fn whom(&self, headers: &HeaderMap) -> (IpAddr, Client) {
        self.place.whom(self.address.ip(), headers)
    }

    /// The same with his port; 0 of whom a proxy brings.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> SocketAddr {
        let (address, _) = self.whom(headers);
        SocketAddr::new(address, if address == self.address.ip() { self.address.port() } else { 0 })
    }

    /// Keeps the connection from being idle.
    pub(crate) fn busy(&self) -> Busy {
        self.watch.busy()
    }
}

/// Where connections come in.
pub(crate) struct Door {
    listener: std::net::TcpListener,
    admission: Admission,
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) place: Place,
}

impl Door {
    /// Listens on an address. Our own deadline for a write that stalls is `write_timeout`.
    pub(super) fn open(address: SocketAddr, admission: Admission, write_timeout: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted gateway must not wait for the old connections' last packets to be forgotten.
        socket.set_reuse_address(true)?;
        // Small frames go out at once; what belongs together is written together. Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        // Inherited, too. Who only listens to events and has vanished without a word is not noticed otherwise until the
        // kernel gives up, after a quarter of an hour.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MIN.max(write_timeout.saturating_mul(2))))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { listener: socket.into(), admission })
    }

    /// The address; with the port that was found, when 0 was asked for.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The same door for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { listener: self.listener.try_clone()?, admission: self.admission.clone() })
    }

    /// Accepts for ever; stopped by being dropped, between two connections.
    pub(super) async fn accept(self, serve: impl Fn(Accepted)) -> io::Error {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        let mut starved = false;
        loop {
            for _ in 0..ACCEPTS_PER_TURN {
                match listener.accept().await {
                    Ok((stream, address)) => {
                        starved = false;
                        match self.admission.enter(address.ip()) {
                            Ok(place) => serve(Accepted { stream, address, place }),
                            Err(limited) => refuse(stream, limited),
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // Told once: what waits in the backlog would fill the log.
                        if !std::mem::replace(&mut starved, true) {
                            tracing::warn!(%error, "no connection can be accepted at the moment");
                        }
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl std::os::fd::AsFd for Door {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}

/// Says why and hangs up, without waiting: whoever floods us gets no more attention than that.
fn refuse(stream: TcpStream, limited: Limited) {
    if let Ok(mut stream) = stream.into_std() {
        // An empty socket buffer takes this at once; if not, the client learns it by the hang-up.
        let _ = stream.write_all(&Problem::from(Refusal::from(limited)).into_http1());
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::limits::Limits;

    #[tokio::test]
    async fn the_kernel_notices_who_has_vanished_but_later_than_we_do() {
        for (write_timeout, expected) in [(8, 45), (40, 80)] {
            let config = Config::default();
            let admission = Admission::new(&config, Limits::new(&config.limits));
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let door = Door::open(address, admission, Duration::from_secs(write_timeout)).expect("a free port");
            let _client = std::net::TcpStream::connect(door.address().expect("it listens")).expect("it listens");
            let listener = TcpListener::from_std(door.listener).expect("it listens");
            let (stream, _) = listener.accept().await.expect("somebody has come");
            let told = socket2::SockRef::from(&stream).tcp_user_timeout().expect("Linux tells");
            assert_eq!(told, Some(Duration::from_secs(expected)));
        }
    }
}
