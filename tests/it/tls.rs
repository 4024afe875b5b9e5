//! TLS: both versions of HTTP, WebSockets, certificates that change under way, and handshakes that never end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use groupcast_tests::gateway::{Process, groupcast, run};
use groupcast_tests::home::BARE;
use groupcast_tests::wait::{eventually, within, within_time};
use groupcast_tests::{Home, Raw};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use futures_util::{SinkExt, StreamExt};

const TLS: &str = "\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";

#[tokio::test]
async fn https_and_websockets_are_served() {
    let (pair, home) = prepared("");
    let (_gateway, address) = start(&home).await;
    let mut stream = connect(address, &pair, &[b"http/1.1"]).await.expect("the certificate is trusted");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = get(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let stream = connect(address, &pair, &[]).await.expect("ALPN is not obligatory");
    let opened = client_async(format!("wss://localhost:{}/ws?group=g", address.port()), stream);
    let (mut socket, _) = within("the handshake", opened).await.expect("the handshake is good");
    let mut next = async || -> Value {
        let message = within("a message", socket.next()).await.expect("the socket is open").expect("a message");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    };
    assert_eq!(next().await["type"], "welcome");
    assert_eq!(next().await["type"], "subscribed");
    let mut sender = connect(address, &pair, &[b"http/1.1"]).await.expect("the certificate is trusted");
    let large = json!({"type": "x", "filling": "x".repeat(100_000)}).to_string();
    let post =
        format!("POST /v1/groups/g/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    for n in 0..20 {
        sender.write_all(post.as_bytes()).await.expect("the connection is open");
        let answer = read_head(&mut sender).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{n}: {answer}");
        assert_eq!(next().await["message"]["filling"].as_str().map(str::len), Some(100_000), "{n}");
    }
    socket.send(Message::text(json!({"type": "ping", "id": 1}).to_string())).await.expect("the socket is open");
    let pong = within("a pong", socket.next()).await.expect("the socket is open").expect("a message");
    assert!(pong.to_text().expect("text").contains("pong"), "{pong}");
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let (old, home) = prepared("");
    let (gateway, address) = start(&home).await;
    let mut open = connect(address, &old, &[b"http/1.1"]).await.expect("the certificate is trusted");

    let new = Pair::new();
    home.write("key.pem", "no key");
    gateway.signal(Signal::HUP);
    let told = || async { gateway.printed().contains("key.pem").then_some(()) };
    eventually("the broken key is told", told).await;
    connect(address, &old, &[]).await.expect("the old certificate is served");

    new.write(&home);
    let served = || async { connect(address, &new, &[]).await };
    eventually("the new certificate is served", served).await;
    assert!(connect(address, &old, &[]).await.is_none(), "the old certificate is served no longer");
    let answer = get(&mut open).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "what is open stays open: {answer}");
}

#[tokio::test]
async fn who_does_not_shake_hands_is_hung_up_on_and_counted_until_then() {
    let (pair, home) = prepared("\n[limits]\nhandshake_timeout = \"500ms\"\nconnections = 2\n");
    let (_gateway, address) = start(&home).await;
    let mut silent = Raw::connect(address).await;
    let mut halting = Raw::connect(address).await;
    halting.write(&[0x16, 0x03, 0x01]).await;
    let second = Duration::from_secs(5);
    assert!(connect(address, &pair, &[]).await.is_none(), "two handshakes are two connections");
    within_time(second, "the silent one", silent.hung_up()).await;
    within_time(second, "the halting one", halting.hung_up()).await;
    eventually("there is room again", || connect(address, &pair, &[])).await;
    let mut plain = Raw::connect(address).await;
    plain.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within_time(second, "plain HTTP", plain.hung_up()).await;
}

#[tokio::test]
async fn check_and_serve_refuse_a_pair_that_does_not_belong_together() {
    let (_, home) = prepared("");
    let config = home.config();
    let check = |home: &Home| groupcast(home, &["check", "--config", &config.to_string_lossy()]);
    let fine = run(check(&home)).await;
    assert_eq!(fine.status.code(), Some(0), "{}", String::from_utf8_lossy(&fine.stderr));
    home.write("key.pem", &Pair::new().key);
    let refused = run(check(&home)).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("server.tls.cert") && told.contains("key.pem"), "{told}");
    let serve = groupcast(&home, &["serve", "--config", &config.to_string_lossy()]);
    let served = run(serve).await;
    assert_ne!(served.status.code(), Some(0), "{}", String::from_utf8_lossy(&served.stderr));
}

struct Pair {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    }

    fn write(&self, home: &Home) {
        home.write("cert.pem", &self.cert);
        home.write("key.pem", &self.key);
    }
}

fn prepared(more: &str) -> (Pair, Home) {
    let home = Home::new(&format!("{BARE}{TLS}{more}"));
    let pair = Pair::new();
    pair.write(&home);
    (pair, home)
}

async fn start(home: &Home) -> (Process, SocketAddr) {
    let config = home.config();
    let mut process = Process::spawn(groupcast(home, &["serve", "--config", &config.to_string_lossy()]));
    let address = process.address().await;
    assert!(process.printed().contains("https://"), "{}", process.printed());
    (process, address)
}

/// A connection to the owner of this certificate and nobody else.
async fn connect(address: SocketAddr, pair: &Pair, protocols: &[&[u8]]) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.der.clone()).expect("the certificate is good");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("the default versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = within("connecting", TcpStream::connect(address)).await.ok()?;
    let name = ServerName::try_from("localhost").expect("a name");
    within("the TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await.ok()
}

async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the connection is open");
    read_head(stream).await
}

/// An answer up to the end of its body, as it comes in one piece.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        let more = within("an answer", stream.read_buf(&mut read)).await.expect("the connection is open");
        assert!(more > 0, "the connection ended: {}", String::from_utf8_lossy(&read));
    }
    String::from_utf8_lossy(&read).into_owned()
}
