//! `Address`: where a server is and how it is talked to.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, TlsError, Trust};

/// How long a connection may take to come about.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// A parsed `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. It has no `Debug`: there is a password in it.
#[derive(Clone)]
pub(crate) struct Address {
    config: Config,
    trust: Trust,
}

/// A text that is not an address. It may hold a password, so nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// Not a URL, or one with an option that is not known.
    #[error(
        "is not an address of PostgreSQL; write postgres://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded"
    )]
    Malformed,
    /// `sslmode` is none of the known ones.
    #[error("has an unknown sslmode; use disable, prefer, require, verify-ca or verify-full")]
    SslMode,
}

impl Address {
    /// `host:port/database`, for logs.
    pub(crate) fn shown(&self) -> String {
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let ports = self.config.get_ports();
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => folder.display().to_string(),
            }
        });
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
    }

    /// What the driver needs: settings with every deadline set, and TLS as `sslmode` wants it.
    ///
    /// # Errors
    /// When the certificates to be trusted cannot be read.
    pub(crate) fn connector(&self) -> Result<(Config, MakeRustlsConnect), TlsError> {
        Ok((self.config.clone(), MakeRustlsConnect::new(tls::client(&self.trust)?)))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(AddressError::Malformed);
        }
        let (address, options) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut root, mut others) = ("prefer", None, Vec::new());
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = value,
                Some(("sslrootcert", path)) => root = Some(PathBuf::from(path.replace("%2F", "/"))),
                Some(_) => others.push(option),
                None => return Err(AddressError::Malformed),
            }
        }
        let root = root.filter(|path| path.as_os_str() != "system");
        let (mode, trust) = match mode {
            "disable" => (SslMode::Disable, Trust::Anybody),
            "prefer" => (SslMode::Prefer, Trust::Anybody),
            "require" => (SslMode::Require, Trust::Anybody),
            // The name is checked too, which is more than `verify-ca` asks for.
            "verify-ca" | "verify-full" => (SslMode::Require, root.map_or(Trust::System, Trust::File)),
            _ => return Err(AddressError::SslMode),
        };
        let address = format!("{address}?{}", others.join("&"));
        let mut config: Config = address.trim_end_matches('?').parse().map_err(|_| AddressError::Malformed)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(AddressError::Malformed);
        }
        config.ssl_mode(mode).connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(USER_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("groupcast");
        }
        Ok(Self { config, trust })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address: Address = "postgres://me:secret@db.example:5433/jobs?sslmode=verify-full".parse().expect("good");
        assert_eq!(address.shown(), "db.example:5433/jobs");
        assert_eq!(address.trust, Trust::System);
        let local: Address = "postgresql://postgres@%2Fvar%2Frun%2Fpostgresql/x".parse().expect("good");
        assert_eq!(local.shown(), "/var/run/postgresql/x");
        assert_eq!(local.config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        let refused = |text: &str| text.parse::<Address>().err();
        for text in ["", "jobs", "host=x password=secret", "mysql://x", "postgres://u:pa?ss@h/d", "postgres:///d"] {
            assert_eq!(refused(text), Some(AddressError::Malformed), "{text}");
        }
        assert_eq!(refused("postgres://h/d?sslmode=maybe"), Some(AddressError::SslMode));
    }

    #[test]
    fn sslmode_and_root_certificate_are_taken_out_of_the_address() {
        let address: Address =
            "postgres://h/d?sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-ca&connect_timeout=2".parse().expect("good");
        assert_eq!(address.trust, Trust::File("/etc/ca.pem".into()));
        assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
        assert!(address.connector().is_err(), "the file is not there");
        let system: Address = "postgres://h/d?sslmode=verify-full&sslrootcert=system".parse().expect("good");
        assert_eq!(system.trust, Trust::System);
    }
}
