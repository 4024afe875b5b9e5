//! `[server]`: addresses, data and the name of this process.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::network::Network;

/// `[server]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where HTTP and WebSocket are served. Default `127.0.0.1:8000`; only a loopback address without `[auth]`.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where operators are served, apart from clients: `/metrics`, `/healthz` and `/readyz`. Whoever reaches this
    /// address may read `/metrics`. Default none: `listen` serves them, to services that may do everything.
    #[serde(deserialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    pub ops_listen: Option<SocketAddr>,
    /// The folder of jobs and results, relative to the working directory. Default `groupcast-data`.
    pub data_dir: PathBuf,
    /// Origins that browsers may come from, as in `https://example.org`. Default none: the same origin only.
    pub origins: Vec<String>,
    /// Networks of the proxies in front, as in `10.0.0.0/8`: what they say in `X-Forwarded-For` is believed, and whom they bring
    /// is counted and shown by his own address. Default none.
    pub trusted_proxies: Vec<Network>,
    /// What this process does. Default `all`.
    pub role: Role,
    /// The name of this process in channel names, as in `specific.gw1!c12`. Default `gw1`.
    pub node: String,
    /// Threads that own connections. Default 0: half of the cores, at least 1; consumers, the kernel and whoever talks
    /// to the gateway on this machine need the rest.
    pub shards: usize,
    /// Whether WebSocket messages may be compressed (`permessage-deflate`) for clients that offer it. Default false: it
    /// costs CPU and memory for each connection.
    pub compression: bool,
    /// What is logged, as a filter of `tracing`: `info`, `warn,groupcast=debug`. Default `info`.
    pub log: String,
    /// How it is logged: `human`, or `json` with one object a line. Default `human`.
    pub log_format: LogFormat,
    /// Certificate and key. Default none: plain HTTP, for loopback or behind a proxy that ends TLS.
    pub tls: Option<TlsConfig>,
}

/// `[server.tls]`: what TLS is served with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain, PEM; relative to the file that names it.
    pub cert: PathBuf,
    /// The private key, PEM; relative to the file that names it.
    pub key: PathBuf,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            ops_listen: None,
            data_dir: "groupcast-data".into(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            role: Role::All,
            node: "gw1".to_owned(),
            shards: 0,
            compression: false,
            log: "info".to_owned(),
            log_format: LogFormat::Human,
            tls: None,
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for a person.
    Human,
    /// A JSON object a line.
    Json,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    All,
    /// Connections only.
    Gateway,
    /// Jobs only.
    Consumer,
}

/// Reads `IP:PORT`, or `localhost:PORT` for the IPv4 loopback address.
///
/// # Errors
/// With a sentence, when the text is neither.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let ip = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let refused = || format!("`{text}` is not an address; write IP:PORT, as in 127.0.0.1:8000 or [::1]:8000");
    ip.as_deref().unwrap_or(text).parse().map_err(|_| refused())
}

fn address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn some_address<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    address(d).map(Some)
}
