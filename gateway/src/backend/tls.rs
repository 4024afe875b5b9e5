//! How a backend proves who it is.

use std::path::Path;
use std::sync::Arc;

use reqwest::Url;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// TLS for the address of a backend: trusted is what the system trusts, or the certificates of a PEM file alone.
pub(super) fn client_config(url: &Url, ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        // Without TLS nothing is trusted, and nothing of the system is needed.
        None if url.scheme() != "https" => builder.with_root_certificates(RootCertStore::empty()),
        None => {
            let unreadable = |error| format!("the system's certificates cannot be read: {error}; name some with `ca`");
            let verifier = Verifier::new(provider).map_err(unreadable)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let unreadable =
        |error: &dyn std::fmt::Display| format!("`{}` cannot be read: {error}; name a PEM file", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(roots) }
}
