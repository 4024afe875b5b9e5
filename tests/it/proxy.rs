//! The tests' own proxy does to a connection what it is asked to, and nothing else.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use groupcast_tests::proxy::{Fault, Proxy, Way};
use groupcast_tests::wait::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough that what is not there by then is not on its way.
const QUIET: Duration = Duration::from_millis(150);

#[tokio::test]
async fn bytes_go_both_ways_and_so_does_the_end() {
    let (proxy, mut client, mut server) = pair().await;
    let large = vec![7; 1_000_000];
    let (sent, got) = tokio::join!(client.write_all(&large), read(&mut server, large.len()));
    sent.expect("it takes them");
    assert_eq!(got, large);
    say(&mut server, &mut client, b"back").await;
    assert_eq!(proxy.connections(), 1);
    drop(client);
    assert_eq!(within("the end", server.read(&mut [0])).await.expect("no error"), 0);
}

#[tokio::test]
async fn a_delay_holds_each_way_and_is_no_throttle() {
    let (proxy, mut client, mut server) = pair().await;
    let delay = Duration::from_millis(120);
    proxy.inflict(Fault::Delay(delay));
    let began = Instant::now();
    for _ in 0..20 {
        client.write_all(b"x").await.expect("it takes it");
        tokio::task::yield_now().await;
    }
    read(&mut server, 20).await;
    assert!((delay..5 * delay).contains(&began.elapsed()), "{:?}", began.elapsed());
    proxy.heal();
    say(&mut server, &mut client, b"at once").await;
}

#[tokio::test]
async fn silence_swallows_one_way_and_tells_nobody() {
    let (proxy, mut client, mut server) = pair().await;
    proxy.inflict(Fault::Silence(Way::ToServer));
    client.write_all(b"lost").await.expect("nobody is told");
    nothing(&mut server).await;
    say(&mut server, &mut client, b"heard").await;
    proxy.inflict(Fault::Silence(Way::Both));
    server.write_all(b"lost").await.expect("nobody is told");
    drop(server);
    nothing(&mut client).await;
}

#[tokio::test]
async fn only_new_connections_suffer_if_so_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port left");
    let proxy = Proxy::start(listener.local_addr().expect("it is bound").port()).await;
    let (mut old, mut server_of_old) = connected(&proxy, &listener).await;
    proxy.inflict_on_new(Fault::Silence(Way::Both));
    let (mut new, mut server_of_new) = connected(&proxy, &listener).await;
    new.write_all(b"lost").await.expect("nobody is told");
    nothing(&mut server_of_new).await;
    say(&mut old, &mut server_of_old, b"heard").await;
}

#[tokio::test]
async fn a_cut_ends_both_ways_in_good_order() {
    let (proxy, mut client, mut server) = pair().await;
    proxy.cut().await;
    assert_eq!(within("the end", client.read(&mut [0])).await.expect("no error"), 0);
    assert_eq!(within("the end", server.read(&mut [0])).await.expect("no error"), 0);
    assert_eq!(proxy.connections(), 0);
    TcpStream::connect(proxy.address()).await.expect("the next one is accepted");
}

#[tokio::test]
async fn a_reset_breaks_both_ways() {
    let (proxy, mut client, mut server) = pair().await;
    proxy.reset().await;
    for end in [&mut client, &mut server] {
        let broken = within("the break", end.read(&mut [0])).await.expect_err("it is no end");
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn who_is_refused_finds_nobody_and_who_is_there_stays() {
    let (mut proxy, mut client, mut server) = pair().await;
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    say(&mut client, &mut server, b"heard").await;
    proxy.accept().await;
    TcpStream::connect(proxy.address()).await.expect("it listens again");
}

#[tokio::test]
async fn a_trickle_comes_a_few_bytes_at_a_time() {
    let (proxy, mut client, mut server) = pair().await;
    let every = Duration::from_millis(20);
    proxy.inflict(Fault::Trickle { bytes: 3, every });
    let began = Instant::now();
    client.write_all(&[7; 30]).await.expect("it takes them");
    let mut first = [0; 30];
    let read_at_once = within("the first bytes", server.read(&mut first)).await.expect("no error");
    assert!(read_at_once < 30, "all at once");
    read(&mut server, 30 - read_at_once).await;
    assert!(began.elapsed() >= 9 * every, "{:?}", began.elapsed());
}

async fn pair() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port left");
    let proxy = Proxy::start(listener.local_addr().expect("it is bound").port()).await;
    let (client, server) = connected(&proxy, &listener).await;
    (proxy, client, server)
}

async fn connected(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.expect("it listens");
    let (server, _) = within("the proxy connects", listener.accept()).await.expect("it listens");
    (client, server)
}

async fn say(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.expect("it is open");
    assert_eq!(read(to, bytes.len()).await, bytes);
}

async fn read(from: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within("bytes", from.read_exact(&mut bytes)).await.expect("they come");
    bytes
}

async fn nothing(from: &mut TcpStream) {
    timeout(QUIET, from.read(&mut [0])).await.expect_err("neither bytes nor the end");
}
