//! The client by which services of the team are called: consumers with `run = "http"`, and hooks.
//!
//! Reading order: this file (the client and a request), `resolver` (which addresses it goes to), `signature` and `tls` (who is
//! who), `body` (what is read of an answer). What an answer means is decided by who asked.
//!
//! - Public addresses only, unless private ones are allowed; redirects are never followed, and proxies of the environment not
//!   used.
//! - Nothing here bounds the time of a call but the making of its connection: who calls does.

mod body;
mod resolver;
mod signature;
mod step;
mod tls;

use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Url, redirect};
use rustls::ClientConfig;

pub(crate) use self::body::{ReadError, is_json, read};
use self::resolver::CheckedResolver;
pub(crate) use self::resolver::RefusedAddress;
use self::signature::Signer;
pub(crate) use self::step::Step;
use crate::clock;
use crate::config::Secret;
use crate::config::backend::backend_url;

/// How long a connection may take to be made, its name looked up and TLS agreed on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that nobody uses is kept. Shorter than what common servers grant (5 s), so that they are not
/// written to while they hang up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Where a service is, and how it is called.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) url: &'a str,
    pub(crate) allow_private: bool,
    /// What signs requests.
    pub(crate) secret: Option<&'a Secret>,
    /// Whether a variable or a file is named for the secret.
    pub(crate) secret_is_named: bool,
    /// The certificates that are trusted alone.
    pub(crate) ca: Option<&'a Path>,
    /// Connections that are kept.
    pub(crate) connections: usize,
}

/// A service that can be called.
pub(crate) struct Backend {
    client: Client,
    url: Url,
    signer: Signer,
}

impl Backend {
    /// Makes the client. Connects to nothing.
    ///
    /// # Errors
    /// The last part of a key, and what is wrong with it: the address, the secret or the certificates cannot be used.
    pub(crate) fn new(place: &Place<'_>) -> Result<Self, (&'static str, String)> {
        let url = backend_url(place.url, place.allow_private).map_err(|message| ("url", message))?;
        Self::at(url, place)
    }

    /// The same for an address that has been looked at.
    ///
    /// # Errors
    /// As [`Backend::new`].
    pub(crate) fn at(url: Url, place: &Place<'_>) -> Result<Self, (&'static str, String)> {
        let keys = match place.secret {
            Some(secret) => secret.keys().map_err(|error| ("secret", error.to_string()))?,
            None if place.secret_is_named => {
                return Err(("secret_env", "was not read; load the configuration with `Config::load`".into()));
            }
            None => Vec::new(),
        };
        let tls = tls::client_config(&url, place.ca).map_err(|message| ("ca", message))?;
        let resolver = CheckedResolver { allow_private: place.allow_private };
        let client = client(tls, resolver, place.connections).map_err(|error| ("url", with_causes(&error)))?;
        Ok(Self { client, url, signer: Signer::new(&keys) })
    }

    /// Whether requests are signed.
    pub(crate) fn signs(&self) -> bool {
        self.signer.has_keys()
    }

    /// Begins to record a call, if it is part of a trace that is.
    pub(crate) fn step(&self) -> Option<Step> {
        Step::post(&self.url)
    }

    /// A request with this JSON, signed as of now. `id` is the same for each repeat.
    pub(crate) fn post(&self, id: &str, body: Vec<u8>) -> RequestBuilder {
        let at = clock::now_ms() / 1000;
        let json = HeaderValue::from_static("application/json");
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, json.clone())
            .header(ACCEPT, json)
            // What is counted against a bound is what is read.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header("webhook-id", id)
            .header("webhook-timestamp", at);
        if let Some(signature) = self.signer.sign(id, at, &body) {
            request = request.header("webhook-signature", signature);
        }
        request.body(body)
    }
}

/// A client for an address that an operator chose, wherever that is.
///
/// # Errors
/// When the system's certificates cannot be read.
#[cfg(feature = "otel")]
pub(crate) fn client_of(url: &Url, connections: usize) -> Result<Client, String> {
    let tls = tls::client_config(url, None)?;
    client(tls, CheckedResolver { allow_private: true }, connections).map_err(|error| with_causes(&error))
}

fn client(tls: ClientConfig, resolver: CheckedResolver, connections: usize) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(connections)
        .user_agent(concat!("groupcast/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// An error and all that led to it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error).map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// All that led to an error.
pub(crate) fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| cause.source())
}
