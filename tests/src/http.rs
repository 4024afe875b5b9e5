//! `Http`: requests of one gateway, and answers that can be asserted on.

use std::net::SocketAddr;

use reqwest::{Certificate, Client, Method};
use serde_json::Value;

use crate::wait::STEP;

/// A client of one gateway. Clones share connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    address: SocketAddr,
    base: String,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, in order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Http {
    /// A client of the gateway at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { client: client([]), address, base: format!("http://{address}") }
    }

    /// A client of the gateway at an address that shows this certificate (PEM).
    pub fn secure(address: SocketAddr, certificate: &str) -> Self {
        let certificate = Certificate::from_pem(certificate.as_bytes()).expect("a certificate of the tests is good");
        Self { client: client([certificate]), address, base: format!("https://{address}") }
    }

    /// Where it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Any request.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let what = format!("{method} {path}");
        self.try_request(method, path, headers, body).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// Any request; an error is one of the connection.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, reqwest::Error> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method of the tests is a token");
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Reply { status: response.status().as_u16(), headers, body: response.bytes().await?.to_vec() })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], Vec::new()).await
    }

    /// `GET` of something that may not be there yet.
    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        self.try_request("GET", path, &[], Vec::new()).await.ok()
    }

    /// `GET` with `Accept`.
    pub async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.request("GET", path, &[("accept", accept)], Vec::new()).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    /// `PUT` without a body.
    pub async fn put(&self, path: &str) -> Reply {
        self.request("PUT", path, &[], Vec::new()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[], Vec::new()).await
    }

    /// `group_send` that has to be accepted; the answer.
    pub async fn group_send(&self, group: &str, message: &Value) -> Value {
        self.post(&format!("/v1/groups/{group}/send"), message).await.expect(202)
    }

    /// `group_send` that has to become exactly one job; its id.
    pub async fn job(&self, group: &str, message: &Value) -> String {
        let accepted = self.group_send(group, message).await;
        let jobs = accepted["jobs"].as_array().expect("jobs are a list");
        assert_eq!(jobs.len(), 1, "{accepted}");
        jobs[0]["id"].as_str().expect("a job has an id").to_owned()
    }

    /// A job's record once it has ended.
    pub async fn ended(&self, job: &str) -> Value {
        let record = self.get(&format!("/v1/jobs/{job}?wait=20")).await.expect(200);
        let state = record["state"].as_str().expect("a record has a state");
        assert!(matches!(state, "succeeded" | "dead" | "cancelled"), "the job has not ended: {record}");
        record
    }
}

fn client(trusted: impl IntoIterator<Item = Certificate>) -> Client {
    // One for the process, and every test of it may be the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = Client::builder().no_proxy().tls_certs_only(trusted).timeout(2 * STEP);
    builder.build().expect("the client has all it needs")
}

impl Reply {
    /// Asserts the status; the body as JSON (`null` when it is empty).
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts that a query was taken; its record. It may have ended already: then the status is 200.
    #[track_caller]
    pub fn record(&self) -> Value {
        if self.status == 200 { self.expect(200) } else { self.expect(202) }
    }

    /// Asserts that it is a problem of this status and code, as RFC 9457 wants it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        let body = self.json();
        assert_eq!(body["code"], code, "{text}");
        assert_eq!(body["status"], status, "{text}");
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "`{member}` is missing: {text}");
        }
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
