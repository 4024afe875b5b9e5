//! The tests' own brokers are what they say: they start, answer, die, come back, and leave nothing behind.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use groupcast_tests::daemon::{free_port, until};
use groupcast_tests::nats::{self, Talk};
use groupcast_tests::redis;
use groupcast_tests::replicated::{Cluster, Replicated};
use groupcast_tests::resp::{Answer, Resp};
use groupcast_tests::wait::within;
use groupcast_tests::{Certificate, Nats, Redis};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[test]
fn a_durable_redis_keeps_what_it_has_over_a_kill_and_another_one_does_not() {
    let mut durable = Redis::start(&redis::DURABLE);
    let mut forgetful = Redis::start(&[]);
    for server in [&mut durable, &mut forgetful] {
        assert_eq!(server.command(&["SET", "a", "7"]), "OK");
        let port = server.port();
        server.kill();
        assert_eq!(Resp::connect(port).expect_err("it is dead").kind(), ErrorKind::ConnectionRefused);
        server.restart();
        assert_eq!(server.port(), port);
    }
    assert_eq!(durable.ask(&["GET", "a"]), Answer::Bytes(b"7".to_vec()));
    assert_eq!(forgetful.ask(&["GET", "a"]), Answer::Nil);
}

#[test]
fn a_redis_is_watched_subscribed_to_and_stopped() {
    let server = Redis::start(&[]);
    let mut subscriber = server.connect();
    let confirmed = subscriber.command(&["SUBSCRIBE", "news"]).expect("it answers");
    assert_eq!(confirmed.lines(), "subscribe\nnews\n1");
    let monitor = server.monitor();
    assert_eq!(server.ask(&[&b"PUBLISH"[..], b"news", b"\r\n\0\xff"]).number(), 1);
    let arrived = subscriber.answer().expect("it arrives");
    assert_eq!(arrived.list()[2], Answer::Bytes(b"\r\n\0\xff".to_vec()));
    assert!(monitor.end().contains(r#""PUBLISH" "news" "\r\n\x00\xff""#));
    server.stop();
    let mut unanswered = server.connect();
    unanswered.patience(Duration::from_millis(100)).expect("it can be set");
    let silence = unanswered.command(&["PING"]).expect_err("a stopped server says nothing");
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    server.cont();
    assert_eq!(server.command(&["PING"]), "PONG");
}

#[test]
fn a_user_of_redis_has_the_rights_that_he_was_given() {
    let server = Redis::start(&[]);
    server.add_user("gc", "s3cret", "~gc:* +@all -@admin");
    let mut connection = server.connect();
    let mut ask = |words: &[&str]| connection.command(words).expect("it answers").text();
    assert!(ask(&["AUTH", "gc", "wrong"]).starts_with("WRONGPASS"));
    assert_eq!(ask(&["AUTH", "gc", "s3cret"]), "OK");
    assert_eq!(ask(&["SET", "gc:a", "1"]), "OK");
    assert!(ask(&["SET", "other", "1"]).starts_with("NOPERM"));
    assert!(ask(&["CONFIG", "GET", "*"]).starts_with("NOPERM"));
}

#[tokio::test]
async fn redis_talks_tls_to_whom_trusts_its_certificate() {
    let shown = Certificate::new();
    let server = Redis::start_secure(&shown.certificate, &shown.key, &[]);
    let address = server.secure_address().strip_prefix("rediss://").expect("its scheme").to_owned();
    let ask = async |trusted: &Certificate| {
        let stream = TcpStream::connect(&address).await?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(trusting(trusted))).connect(name, stream).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.map(|_| answer)
    };
    let answer = within("an answer over TLS", ask(&shown)).await.expect("the certificate is trusted");
    assert_eq!(&answer, b"+PONG\r\n");
    within("a refusal", ask(&Certificate::new())).await.expect_err("another one is not");
}

#[test]
fn sentinels_make_the_replica_the_master() {
    let mut servers = Replicated::start();
    assert_eq!(servers.master.command(&["SET", "a", "7"]), "OK");
    assert_eq!(servers.master.ask(&["WAIT", "1", "5000"]).number(), 1);
    assert_eq!(servers.master_port(), servers.master.port());
    servers.master.kill();
    until("the sentinels have decided", || servers.master_port() == servers.replica.port());
    servers.replica.eventually(&["ROLE"], "master");
    assert_eq!(servers.replica.command(&["GET", "a"]), "7");
}

#[test]
fn a_cluster_shares_the_keys_and_notices_a_death() {
    let mut cluster = Cluster::start();
    for key in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(cluster.node_of(key).command(&["SET", key, "1"]), "OK");
    }
    let owners = cluster.nodes.iter().filter(|node| node.ask(&["DBSIZE"]).number() > 0).count();
    assert!(owners > 1, "the keys are shared");
    let [first, second, _] = &mut cluster.nodes;
    first.kill();
    let alive = second.port();
    let state = || Resp::connect(alive).and_then(|mut node| node.command(&["CLUSTER", "INFO"]));
    until("a death is noticed", || state().is_ok_and(|said| said.lines().contains("cluster_state:fail")));
    first.restart();
    until("the cluster is whole again", || state().is_ok_and(|said| said.lines().contains("cluster_state:ok")));
}

#[test]
fn a_valkey_answers_as_redis_does() {
    let mut server = Redis::start_valkey(&redis::DURABLE);
    assert!(server.command(&["INFO", "server"]).contains("valkey_version"));
    assert_eq!(server.command(&["SET", "a", "7"]), "OK");
    server.kill();
    server.restart();
    assert_eq!(server.command(&["GET", "a"]), "7");
}

#[test]
fn nats_carries_messages_to_all_and_to_one_of_a_queue_group() {
    let server = Nats::start("");
    let mut readers = [server.connect(), server.connect(), server.connect()];
    readers[0].subscribe("news.*", None).expect("it subscribes");
    readers[1].subscribe("news.*", Some("q")).expect("it subscribes");
    readers[2].subscribe("news.*", Some("q")).expect("it subscribes");
    for n in 0..20 {
        server.connect().publish("news.today", format!("{n}\r\n").as_bytes()).expect("it publishes");
    }
    for n in 0..20 {
        let message = readers[0].message().expect("it comes");
        assert_eq!(message, ("news.today".to_owned(), format!("{n}\r\n").into_bytes()));
    }
    assert!(server.monitoring("/subsz").contains("\"num_subscriptions\": "));
    server.stop();
    server.cont();
    server.connect().publish("news.later", b"x").expect("it goes on");
    assert_eq!(readers[0].message().expect("it comes").0, "news.later");
}

#[test]
fn jetstream_keeps_its_streams_over_a_kill() {
    let mut server = Nats::start_jetstream(nats::DURABLE);
    let mut talk = server.connect();
    let mut request = |subject: &str, payload: &[u8]| {
        // The answer goes to a subject that the request names; a subscription of its own for each.
        let mut answers = server.connect();
        answers.subscribe("answers", None).expect("it subscribes");
        talk.publish(&format!("{subject} answers"), payload).expect("it publishes");
        String::from_utf8(answers.message().expect("it answers").1).expect("JSON")
    };
    let made = request("$JS.API.STREAM.CREATE.S", br#"{"name":"S","subjects":["kept.*"],"storage":"file"}"#);
    assert!(made.contains("\"did_create\":true") && !made.contains("error"), "{made}");
    assert!(request("kept.a", b"7").contains("\"seq\":1"));
    server.kill();
    server.restart();
    assert!(server.monitoring("/jsz?streams=1").contains("\"messages\": 1"), "{}", server.monitoring("/jsz?streams=1"));
}

#[test]
fn nats_lets_in_whom_it_knows() {
    let server = Nats::start_with_user("gc", "s3cret");
    let enter = |password: &str| Talk::open(server.port(), &format!(r#"{{"user":"gc","pass":"{password}"}}"#));
    enter("s3cret").expect("he is known").publish("a", b"").expect("it publishes");
    assert!(enter("wrong").expect_err("he is not").to_string().contains("Authorization Violation"));
    assert_eq!(server.address_of("gc", "s3cret"), format!("nats://gc:s3cret@127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn nats_talks_tls_only_when_it_has_a_certificate() {
    let shown = Certificate::new();
    let server = Nats::start_secure(&shown.certificate, &shown.key);
    let address = server.secure_address().strip_prefix("tls://").expect("its scheme").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    // It greets before it talks TLS.
    let mut byte = [0];
    while byte != *b"\n" {
        within("the greeting", stream.read_exact(&mut byte)).await.expect("it greets");
    }
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connecting = TlsConnector::from(Arc::new(trusting(&shown))).connect(name, stream);
    let mut stream = within("the handshake", connecting).await.expect("the certificate is trusted");
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.expect("it is open");
    let mut answer = [0; 6];
    within("an answer over TLS", stream.read_exact(&mut answer)).await.expect("it answers");
    assert_eq!(&answer, b"PONG\r\n");
    Talk::open(server.port(), "{}").expect_err("without TLS there is no entrance");
}

#[test]
fn a_server_dies_with_the_process_that_started_it() {
    // A test binary that runs this same file again is the process that is killed.
    if let Ok(file) = std::env::var(ORPHAN) {
        let server = Redis::start(&[]);
        std::fs::write(file, server.port().to_string()).expect("the folder can be written");
        // Until it is killed; should nobody do it, it does not stay for ever.
        std::thread::park_timeout(Duration::from_secs(60));
        panic!("nobody has killed me");
    }
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    let file = folder.path().join("port");
    let mut process = Command::new(std::env::current_exe().expect("a running program has a path"));
    process.args(["--exact", "brokers::a_server_dies_with_the_process_that_started_it"]).env(ORPHAN, &file);
    let mut process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started");
    let port = || std::fs::read_to_string(&file).ok()?.parse::<u16>().ok();
    until("the server is there", || port().is_some());
    let port = port().expect("it was there");
    Resp::connect(port).expect("it runs");
    process.kill().and_then(|()| process.wait()).expect("it is a child of ours");
    until("the server is gone", || Resp::connect(port).is_err());
}

#[test]
fn no_port_is_given_twice() {
    let mut ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
}

/// Names the file in which the process that is to be killed tells its server's port.
const ORPHAN: &str = "GROUPCAST_TEST_ORPHAN";

fn trusting(certificate: &Certificate) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let parsed = CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).expect("it is PEM");
    roots.add(parsed).expect("it can be trusted");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    config.expect("the provider has them").with_root_certificates(roots).with_no_client_auth()
}
