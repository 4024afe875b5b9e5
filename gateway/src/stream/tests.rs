use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn tcp_carries_bytes_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    check(Stream::Tcp(server), client, 3_000_000).await;
}

#[tokio::test]
async fn a_stream_of_tiny_buffers_carries_bytes_both_ways() {
    for buffer in [1, 7, 300] {
        let (server, client) = duplex(buffer);
        check(Stream::other(server), client, 5_000).await;
    }
}

#[tokio::test]
async fn a_stream_that_takes_one_slice_at_a_time_is_given_them_together() {
    let (server, client) = duplex(50_000);
    check(Stream::other(OneSlice(server)), client, 200_000).await;
}

#[tokio::test]
async fn tls_carries_bytes_both_ways() {
    for buffer in [100, 70_000] {
        let (server, client) = duplex(buffer);
        let (server, client) = tls(server, client).await;
        check(Stream::other(server), client, 200_000).await;
    }
}

/// What is taken has to leave by itself: nobody writes again after the last message.
#[tokio::test]
async fn a_flush_is_finished_by_waiting_for_writability() {
    let (server, client) = duplex(16);
    let (server, mut client) = tls(server, client).await;
    let stream = Stream::other(server);
    assert_eq!(stream.try_write_vectored(&[IoSlice::new(b"only this")]).unwrap(), 9);
    assert!(stream.is_flushing());
    assert_eq!(stream.try_write_vectored(&[IoSlice::new(b"more")]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut got = [0; 9];
    let read = async { client.read_exact(&mut got).await.unwrap() };
    let flush = async {
        while stream.is_flushing() {
            stream.writable().await.unwrap();
        }
    };
    timeout(DEADLINE, async { tokio::join!(read, flush) }).await.expect("it leaves");
    assert_eq!(&got, b"only this");
}

/// A task is woken for many reasons; a writer that is full is no reason to spin.
#[tokio::test]
async fn a_full_stream_is_not_writable_before_it_has_room() {
    let (server, mut client) = duplex(4);
    let stream = Stream::other(server);
    assert_eq!(stream.try_write_vectored(&[IoSlice::new(b"abcdef")]).unwrap(), 4);
    assert_eq!(stream.try_write_vectored(&[IoSlice::new(b"ef")]).unwrap_err().kind(), ErrorKind::WouldBlock);
    for _ in 0..3 {
        let polled = poll_fn(|cx| Poll::Ready(stream.poll_writable(cx).is_ready())).await;
        assert!(!polled, "nobody has read");
    }
    client.read_exact(&mut [0; 4]).await.unwrap();
    timeout(DEADLINE, stream.writable()).await.expect("there is room").unwrap();
}

#[tokio::test]
async fn waiting_to_read_may_be_dropped() {
    let (server, mut client) = duplex(64);
    let stream = Stream::other(server);
    assert_eq!(stream.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.write_all(b"hello").await.unwrap();
    for _ in 0..3 {
        // What this takes out of the stream is kept when it is dropped.
        stream.readable().await.unwrap();
    }
    let mut buffer = [0; 3];
    assert_eq!(stream.try_read(&mut buffer).unwrap(), 3);
    assert_eq!(&buffer, b"hel");
    assert_eq!(stream.try_read(&mut buffer).unwrap(), 2);
    drop(client);
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut buffer).unwrap(), 0, "the end stays the end");
    assert_eq!(stream.try_read(&mut buffer).unwrap(), 0, "the end stays the end");
}

/// Sends and receives `bytes` at once, then ends cleanly on both sides.
async fn check(stream: Stream, client: impl AsyncRead + AsyncWrite + Unpin, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let client_sends = async {
        to_server.write_all(&sent).await.unwrap();
        to_server.flush().await.unwrap();
    };
    let client_reads = async {
        let mut got = vec![0; bytes];
        from_server.read_exact(&mut got).await.unwrap();
        got
    };
    let server = async { tokio::join!(read_all(&stream, bytes), write_all(&stream, &sent)).0 };
    let all = async { tokio::join!(client_sends, client_reads, server) };
    let ((), at_client, at_server) = timeout(DEADLINE, all).await.expect("nothing waits for ever");
    assert!(at_client == sent && at_server == sent, "bytes were lost or changed");
    let client_ends = async {
        assert_eq!(from_server.read(&mut [0; 8]).await.unwrap(), 0);
        to_server.shutdown().await.unwrap();
    };
    let ends = async { tokio::join!(stream.shutdown_and_linger(), client_ends) };
    timeout(DEADLINE, ends).await.expect("both ends end");
}

async fn read_all(stream: &Stream, bytes: usize) -> Vec<u8> {
    let (mut got, mut scratch) = (Vec::new(), [0; 1000]);
    while got.len() < bytes {
        match stream.try_read(&mut scratch) {
            Ok(0) => break,
            Ok(read) => got.extend_from_slice(&scratch[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.readable().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    got
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() || stream.is_flushing() {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        match stream.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn tls(
    server: DuplexStream,
    client: DuplexStream,
) -> (tokio_rustls::server::TlsStream<DuplexStream>, tokio_rustls::client::TlsStream<DuplexStream>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certificate = made.cert.der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut accepts = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    // The handshake ends for the client before these are through, and in a small buffer nobody reads them then.
    accepts.send_tls13_tickets = 0;
    let connects = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(accepts));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(connects));
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = async { tokio::join!(acceptor.accept(server), connector.connect(name, client)) };
    let (server, client) = timeout(DEADLINE, handshake).await.expect("a handshake");
    (server.unwrap(), client.unwrap())
}

/// A stream without vectored writes.
struct OneSlice(DuplexStream);

impl AsyncRead for OneSlice {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for OneSlice {
    fn poll_write(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
