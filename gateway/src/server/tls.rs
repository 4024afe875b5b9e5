//! TLS: the handshake, and a certificate that is read again when its file changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What ALPN offers, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate that connections are accepted with. A cheap handle; clones share what was read last.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: TlsConfig,
    current: Arc<RwLock<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// What it was made from, to see whether the files have changed.
    source: Source,
}

/// The contents of both files.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` has no usable {what} in PEM; it should begin with `-----BEGIN`", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// They do not belong together, or use what is not known here.
    #[error("the certificate in `{}` and the key in `{}` cannot be served together", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl TlsError {
    /// The setting that is to blame.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Pem { what: KEY, .. } => "server.tls.key",
            Self::Read { .. } | Self::Pem { .. } | Self::Pair { .. } => "server.tls.cert",
        }
    }
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";

impl Tls {
    /// Reads certificate and key. Blocks for two small files.
    ///
    /// # Errors
    /// When they cannot be served.
    pub(crate) fn load(files: &TlsConfig) -> Result<Self, TlsError> {
        let source = Source::read(files)?;
        let config = source.config(files)?;
        Ok(Self { files: files.clone(), current: Arc::new(RwLock::new(Current { config, source })) })
    }

    /// Reads the files again; says whether there was something new. With an error all stays as it was.
    ///
    /// # Errors
    /// When what is new cannot be served.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let source = Source::read(&self.files)?;
        if self.current.read().source == source {
            return Ok(false);
        }
        let config = source.config(&self.files)?;
        *self.current.write() = Current { config, source };
        Ok(true)
    }

    /// Looks at the files now and then until stopped, or at once when `asked`. Connections keep what they began with.
    pub(super) async fn follow(self, asked: Arc<tokio::sync::Notify>, stop: CancellationToken) {
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                // A repeated error is told again to someone who asks.
                () = asked.notified() => told = None,
                () = stop.cancelled() => return,
            }
            let tls = self.clone();
            // A file may lie on something slow.
            let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await else { continue };
            match outcome {
                Ok(true) => tracing::info!(cert = %self.files.cert.display(), "the certificate was read again"),
                Ok(false) => told = None,
                Err(error) => {
                    let text = with_cause(&error);
                    if told.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the new certificate cannot be used; the old one is kept");
                        told = Some(text);
                    }
                }
            }
        }
    }

    /// The handshake of one connection, and whether it speaks HTTP/2. `None`: there was none in time.
    pub(super) async fn accept(&self, stream: TcpStream, at_most: Duration) -> Option<(TlsStream<TcpStream>, bool)> {
        let config = self.current.read().config.clone();
        match timeout(at_most, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
                Some((stream, is_http2))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

impl Source {
    fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)? })
    }

    fn config(&self, files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
        let not = |path: &Path, what| {
            let path = path.to_owned();
            move |source| TlsError::Pem { path, what, source }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(not(&files.cert, CERTIFICATE))?;
        if chain.is_empty() {
            return Err(not(&files.cert, CERTIFICATE)(pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(not(&files.key, KEY))?;
        let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(pair)?;
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }
}

/// An error and why, in one line.
fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, cert: &str, key: &str) -> TlsConfig {
        let files = TlsConfig { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.cert, cert).expect("the folder is writable");
        std::fs::write(&files.key, key).expect("the folder is writable");
        files
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_broken_new_certificate_keeps_the_old_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cert, key) = pair();
        let tls = Tls::load(&write(folder.path(), &cert, &key)).expect("a good pair");
        let first = tls.current.read().config.clone();
        assert!(!tls.reload().expect("nothing is new"));
        let (other, other_key) = pair();
        write(folder.path(), &other, &key);
        assert!(matches!(tls.reload(), Err(TlsError::Pair { .. })));
        write(folder.path(), "nonsense", &other_key);
        assert!(matches!(tls.reload(), Err(TlsError::Pem { what: CERTIFICATE, .. })));
        assert!(Arc::ptr_eq(&first, &tls.current.read().config));
        write(folder.path(), &other, &other_key);
        assert!(tls.reload().expect("a good pair"));
        assert!(!Arc::ptr_eq(&first, &tls.current.read().config));
    }

    #[test]
    fn what_is_wrong_names_its_setting() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cert, key) = pair();
        let error = Tls::load(&write(folder.path(), &cert, "")).expect_err("there is no key");
        assert_eq!(error.setting(), "server.tls.key");
        let error = Tls::load(&write(folder.path(), "", &key)).expect_err("there is no certificate");
        assert_eq!(error.setting(), "server.tls.cert");
    }
}
