//! The accept loop: takes connections, and gives each to the thread that will own it before its first byte is read.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Place, Refused};
use super::shard::Arrival;

/// Connections that the kernel has completed and that wait to be accepted.
const BACKLOG: i32 = 4096;
/// After an error that more of the same will not cure, such as a lack of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A connection on its way to its shard.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
}

/// Who is at the other end of a request; an extension of every request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The way to the owner of this socket, for a request that becomes more than a request.
    pub(crate) shard: mpsc::Sender<Arrival>,
    /// Kept as long as the connection, in whatever form.
    pub(crate) place: Place,
}

/// Listens on an address; says which one it became. Within a runtime.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted gateway must not wait for the old connections' last packets to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts until told to stop. Sockets go to the shards in turn; a shard that has no room makes accepting wait, and
/// the kernel's backlog with it.
pub(crate) async fn accept(
    listener: TcpListener,
    shards: Vec<mpsc::Sender<Accepted>>,
    admission: Admission,
    stop: CancellationToken,
) {
    let mut turn = 0;
    loop {
        let Some(accepted) = stop.run_until_cancelled(next(&listener)).await else { return };
        match accepted {
            Ok((stream, address)) => match admission.enter(address.ip()) {
                Ok(place) => {
                    turn = (turn + 1) % shards.len();
                    let accepted = Accepted { stream, address, place };
                    match stop.run_until_cancelled(shards[turn].send(accepted)).await {
                        Some(Ok(())) => {}
                        Some(Err(_)) | None => return,
                    }
                }
                Err(refused) => refuse(stream, refused),
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted at the moment");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

async fn next(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Small frames go out at once; what belongs together is written together.
    stream.set_nodelay(true)?;
    // Taken from this thread's reactor: the shard registers it with its own.
    Ok((stream.into_std()?, address))
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}

/// Says why and hangs up, without waiting: whoever floods us gets no more attention than that.
fn refuse(mut stream: TcpStream, refused: Refused) {
    let (status, code, detail) = match refused {
        Refused::Full => ("503 Service Unavailable", "overloaded", "as many connections as are allowed are open"),
        Refused::FullForAddress => {
            ("429 Too Many Requests", "rate_limited", "as many connections as are allowed from one address are open")
        }
    };
    let (number, title) = status.split_once(' ').expect("a status has a number and a name");
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}; try again later","code":"{code}"}}"#
    );
    // An empty socket buffer takes this at once; if not, the client learns it by the hang-up.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}
