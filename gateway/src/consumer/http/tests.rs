//! Jobs posted to backends that do everything a backend can do wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Calls, HttpConsumer};
use crate::backend::{Backend as Client, Place};
use crate::config::{ConsumerConfig, JobsConfig};
use crate::consumer::context::{JobContext, Stop};
use crate::consumer::cpu::CpuPool;
use crate::consumer::testing::claimed;
use crate::consumer::work::{Consumer, Failure, Outcome};
use crate::fake_backend::{Backend, read_request};
use crate::jobs::ErrorClass;
use crate::lag::LoopLag;

const STEP: Duration = Duration::from_secs(20);
const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn a_job_is_posted_signed_and_the_answer_is_its_result() {
    let backend = Backend::start().await;
    let consumer = consumer_of(&backend, "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"");
    let (told, request) = tokio::join!(run(&consumer), backend.answer(ok("{\"a\": [1]}")));
    assert_eq!(told, Ok(Outcome::Json("{\"a\": [1]}".into())));
    let id = claimed().lease.id.to_string();
    assert!(request.head.starts_with("post /jobs?x=1 http/1.1\r\n"), "{}", request.head);
    for name in ["webhook-id", "idempotency-key", "groupcast-job"] {
        assert_eq!(request.header(name), id.to_ascii_lowercase(), "{name}");
    }
    assert_eq!((request.header("groupcast-attempt"), request.header("accept-encoding")), ("1", "identity"));
    assert_eq!((request.header("content-type"), request.header("accept")), ("application/json", "application/json"));
    assert!(request.header("webhook-signature").starts_with("v1,"));
    assert!(request.header("webhook-timestamp").parse::<u64>().is_ok_and(|at| at > 1_700_000_000));
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let timeout_ms = body["timeout_ms"].as_u64().expect("a number");
    assert!((1..=60_000).contains(&timeout_ms), "{timeout_ms}");
    let message = json!({"type": "execute_query", "queryset_id": 7});
    let expected = json!({"job": id, "consumer": "queries", "attempt": 1, "max_attempts": 100,
        "timeout_ms": timeout_ms, "message": message});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let backend = Backend::start().await;
    let consumer = consumer_of(&backend, "");
    let (told, request) = tokio::join!(run(&consumer), backend.answer(ok("1")));
    assert_eq!(told, Ok(Outcome::Json("1".into())));
    assert!(!request.head.contains("webhook-signature"), "{}", request.head);
}

#[tokio::test]
async fn every_status_has_its_class() {
    let transient = |code| (ErrorClass::Transient, code);
    let permanent = |code| (ErrorClass::Permanent, code);
    for (status, expected) in [
        ("400 Bad Request", permanent("backend_refused")),
        ("401 Unauthorized", permanent("backend_refused")),
        ("404 Not Found", permanent("backend_refused")),
        ("410 Gone", permanent("backend_refused")),
        ("301 Moved Permanently", permanent("redirect_refused")),
        ("307 Temporary Redirect", permanent("redirect_refused")),
        ("408 Request Timeout", transient("backend_failed")),
        ("425 Too Early", transient("backend_failed")),
        ("429 Too Many Requests", transient("backend_busy")),
        ("500 Internal Server Error", transient("backend_failed")),
        ("503 Service Unavailable", transient("backend_failed")),
        ("599 Strange", transient("backend_failed")),
    ] {
        let failure = failed_with(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!((failure.class, failure.code.as_str()), expected, "{status}");
        assert!(failure.message.contains(&status[..3]), "{}", failure.message);
    }
}

#[tokio::test]
async fn what_a_backend_says_is_told() {
    let body = r#"{"type":"about:blank","code":"unknown_queryset","detail":"there is no queryset 7"}"#;
    let head =
        format!("HTTP/1.1 422 x\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n", body.len());
    let failure = failed_with(&format!("{head}{body}")).await;
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Permanent, "unknown_queryset"));
    assert!(failure.message.ends_with("(unknown_queryset): there is no queryset 7"), "{}", failure.message);
    let page = "<h1>secrets of the framework</h1>";
    let head = format!("HTTP/1.1 500 x\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
    let failure = failed_with(&format!("{head}{page}")).await;
    assert!(!failure.message.contains("secrets"), "{}", failure.message);
}

#[tokio::test]
async fn a_wish_for_later_is_kept_within_an_hour() {
    for (status, header, seconds) in [
        ("429", "retry-after: 7\r\n", Some(7)),
        ("503", "Retry-After: 999999\r\n", Some(3600)),
        ("503", "retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n", Some(0)),
        ("500", "retry-after: soon\r\n", None),
        ("500", "", None),
    ] {
        let failure = failed_with(&format!("HTTP/1.1 {status} x\r\n{header}content-length: 0\r\n\r\n")).await;
        assert_eq!(failure.retry_after, seconds.map(Duration::from_secs), "{header}");
    }
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    let consumer = consumer_of(&backend, "");
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", other.url());
    let (told, _) = tokio::join!(run(&consumer), backend.answer(redirect));
    assert_eq!(told.expect_err("no result").code, "redirect_refused");
    assert!(other.nobody_came().await);
}

#[tokio::test]
async fn an_empty_answer_is_null() {
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
    ] {
        assert_eq!(told_with(answer).await, Ok(Outcome::Json("null".into())), "{answer}");
    }
}

#[tokio::test]
async fn an_old_server_is_understood() {
    let answer = format!("HTTP/1.0 200 OK\r\n{JSON}\r\n[1,2]");
    assert_eq!(told_with(&answer).await, Ok(Outcome::Json("[1,2]".into())));
}

#[tokio::test]
async fn what_is_no_json_is_no_result() {
    for head in ["content-type: text/html\r\n", "", "content-type: application/json\r\ncontent-encoding: gzip\r\n"] {
        let failure = failed_with(&format!("HTTP/1.1 200 OK\r\n{head}content-length: 2\r\n\r\n{{}}")).await;
        assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Permanent, "bad_result"), "{head}");
    }
}

#[tokio::test]
async fn too_much_is_not_read() {
    let big = "x".repeat(3000);
    for answer in [ok(&format!("\"{big}\"")), format!("HTTP/1.1 200 OK\r\n{JSON}\r\n\"{big}")] {
        let failure = failed_with(&answer).await;
        assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Permanent, "too_large"));
    }
    assert!(told_with(&ok(&format!("\"{}\"", "x".repeat(2046)))).await.is_ok(), "just so much");
}

#[tokio::test]
async fn an_endless_answer_is_hung_up_on() {
    for status in ["200 OK", "500 Internal Server Error"] {
        let backend = Backend::start().await;
        let consumer = consumer_of(&backend, "");
        let endless = async {
            let mut stream = backend.accept().await;
            read_request(&mut stream).await;
            let head = format!("HTTP/1.1 {status}\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("taken");
            let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        };
        let (told, ()) =
            tokio::join!(run(&consumer), async { timeout(STEP, endless).await.expect("it is hung up on") });
        let code = told.expect_err("no result").code;
        assert_eq!(code, if status == "200 OK" { "too_large" } else { "backend_failed" });
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_or_leaves_is_asked_again() {
    let gone = Backend::start().await;
    let consumer = consumer_of(&gone, "");
    drop(gone);
    let failure = run(&consumer).await.expect_err("nobody is there");
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Transient, "backend_unreachable"));
    for answer in
        ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "SSH-2.0-OpenSSH\r\n\r\n"]
    {
        let failure = failed_with(answer).await;
        assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Transient, "backend_unreachable"), "{answer}");
        assert!(!failure.message.contains("127.0.0.1"), "the address is the operator's: {}", failure.message);
    }
}

#[tokio::test]
async fn who_gives_up_hangs_up() {
    let backend = Backend::start().await;
    let consumer = consumer_of(&backend, "");
    let calls = consumer.calls.clone();
    let asked = tokio::spawn(async move { run(&consumer).await });
    let mut stream = backend.accept().await;
    read_request(&mut stream).await;
    asked.abort();
    let mut rest = Vec::new();
    let read = timeout(STEP, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(matches!(read, Ok(0) | Err(_)) && rest.is_empty());
    let mut registry = prometheus_client::registry::Registry::default();
    calls.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(text.contains("backend_requests_total{consumer=\"queries\",outcome=\"dropped\"} 1"), "{text}");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let backend = Backend::start().await;
    let consumer = consumer_of(&backend, "");
    let one_after_the_other = async {
        for n in ["1", "2"] {
            assert_eq!(run(&consumer).await, Ok(Outcome::Json(n.into())));
        }
    };
    let both = async {
        let mut stream = backend.accept().await;
        for n in ["1", "2"] {
            read_request(&mut stream).await;
            stream.write_all(ok(n).as_bytes()).await.expect("taken");
        }
    };
    timeout(STEP, async { tokio::join!(one_after_the_other, both) }).await.expect("one connection serves both");
}

#[tokio::test]
async fn a_name_that_leads_home_is_refused_where_it_is_connected_to() {
    let backend = Backend::start().await;
    let mut consumer = consumer(&format!("http://localhost:{}/", backend.port()), "");
    let url = format!("http://localhost:{}/", backend.port()).parse().expect("a URL");
    consumer.backend = Client::at(url, &Place { url: "", ..place_of(None) }).expect("a client");
    let failure = run(&consumer).await.expect_err("refused");
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Permanent, "address_refused"));
    assert!(backend.nobody_came().await);
}

#[tokio::test]
async fn a_certificate_has_to_be_trusted() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name is all it needs");
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pair.cert.pem()).expect("written");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .expect("they belong together");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let backend = Backend::start().await;
    let url = format!("https://localhost:{}/", backend.port());
    let serve = async || {
        let Ok(mut stream) = acceptor.accept(backend.accept().await).await else { return };
        read_request(&mut stream).await;
        stream.write_all(ok("7").as_bytes()).await.expect("taken");
        let _ = stream.shutdown().await;
    };
    let trusting = consumer(&url, &format!("ca = {:?}", ca.display().to_string()));
    let (told, ()) = tokio::join!(run(&trusting), serve());
    assert_eq!(told, Ok(Outcome::Json("7".into())));
    let provider = dir.path().join("none.pem");
    std::fs::write(&provider, "nothing").expect("written");
    let mut other = consumer(&url, "");
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name is all it needs");
    std::fs::write(&ca, stranger.cert.pem()).expect("written");
    let place = Place { url: &url, allow_private: true, ..place_of(Some(&ca)) };
    other.backend = Client::new(&place).expect("readable");
    let (told, ()) = tokio::join!(run(&other), serve());
    assert_eq!(told.expect_err("not trusted").code, "backend_unreachable");
    let told = Client::new(&Place { ca: Some(&provider), ..place }).err().expect("refused");
    assert!(told.0 == "ca" && told.1.contains("no certificate"), "{told:?}");
}

fn place_of(ca: Option<&Path>) -> Place<'_> {
    Place { url: "", allow_private: false, secret: None, secret_is_named: false, ca, connections: 1 }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{JSON}content-length: {}\r\n\r\n{body}", body.len())
}

fn consumer_of(backend: &Backend, more: &str) -> HttpConsumer {
    consumer(&backend.url(), more)
}

fn consumer(url: &str, more: &str) -> HttpConsumer {
    let text = format!(
        "name = \"queries\"\ngroup = \"g\"\ntype = \"t\"\nrun = \"http\"\nurl = {url:?}\nallow_private = true\nmax_bytes = 2048\n{more}"
    );
    let config: ConsumerConfig = toml::from_str(&text).expect("a good consumer");
    HttpConsumer::new(&config, Calls::default()).expect("usable")
}

async fn run(consumer: &HttpConsumer) -> Result<Outcome, Failure> {
    let cpu = Arc::new(CpuPool::start(&JobsConfig::default(), LoopLag::default()).expect("threads"));
    let job = JobContext::new(claimed(), Stop::after(Duration::from_secs(60)), watch::channel(None).0, cpu);
    timeout(STEP, consumer.run(&job)).await.expect("it ends")
}

async fn told_with(answer: &str) -> Result<Outcome, Failure> {
    let backend = Backend::start().await;
    let consumer = consumer_of(&backend, "");
    tokio::join!(run(&consumer), backend.answer(answer)).0
}

async fn failed_with(answer: &str) -> Failure {
    told_with(answer).await.expect_err("no result")
}
