//! `Certificate`: what a server of a test shows, and what its clients trust.

/// A certificate for `127.0.0.1` and `localhost` that nobody but itself has signed.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate (PEM), which is also what a client has to trust.
    pub certificate: String,
    /// Its private key (PEM).
    pub key: String,
}

impl Certificate {
    /// Makes one.
    pub fn new() -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).expect("names are all it needs");
        Self { certificate: pair.cert.pem(), key: pair.signing_key.serialize_pem() }
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}
