//! Where NATS is, and how it is spoken to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr};
use groupcast_protocol::NodeId;

use crate::broker::INBOX;

/// How often the connection is asked whether it lives; twice without an answer, and it is made anew.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The longest wait between attempts to connect.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Settings of [`super::NatsBroker`]. Printing them shows no address: there may be a password in it.
#[derive(Clone)]
pub struct NatsConfig {
    /// `nats://USER:PASSWORD@HOST:PORT`, `nats://TOKEN@HOST:PORT`, `tls://…`: one server, or several of one cluster.
    pub addresses: Vec<String>,
    /// What the names of all subjects and streams begin with: letters, digits, `-` and `_`.
    pub prefix: String,
    /// How long a call may take.
    pub timeout: Duration,
    /// The largest message that is taken in, in bytes.
    pub message_bytes: usize,
    /// Certificates to trust in place of the system's; a PEM file.
    pub ca_file: Option<PathBuf>,
    /// How much the group with the longest history keeps.
    pub history: crate::HistoryRule,
    /// On how many servers of a cluster each message is: 1, 3 or 5.
    pub replicas: usize,
    /// Whether groups without history go to the disk, too. Nobody reads them there: it is for who may answer only what a
    /// disk has.
    pub all_on_disk: bool,
    /// `HOST:PORT` of the server's monitoring, where it says whether it waits for the disk. Without it that is not known.
    pub monitoring: Option<String>,
    /// There when Django's processes are in the same groups.
    pub django: Option<super::DjangoConfig>,
}

/// Settings that cannot be used. No address is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no address.
    #[error("names no NATS server; give its address, as in nats://127.0.0.1:4222")]
    NoAddress,
    /// One of the addresses is none.
    #[error("address {at} is not that of a NATS server ({why}); write it as in nats://127.0.0.1:4222")]
    Address {
        /// Which, from 1.
        at: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The prefix cannot be part of a stream's name.
    #[error("prefix `{0}` cannot name a stream; use letters, digits, `-` and `_`")]
    Prefix(String),
}

impl NatsConfig {
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, SettingsError> {
        if self.addresses.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if self.prefix.is_empty() || !self.prefix.bytes().all(allowed) {
            return Err(SettingsError::Prefix(self.prefix.clone()));
        }
        let read = |(at, address): (usize, &String)| {
            // The error of the library does not repeat the address.
            address
                .parse()
                .map_err(|error: std::io::Error| SettingsError::Address { at: at + 1, why: error.to_string() })
        };
        self.addresses.iter().enumerate().map(read).collect()
    }

    pub(super) fn options(
        &self,
        servers: &[ServerAddr],
        node: &NodeId,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> ConnectOptions {
        let options = ConnectOptions::new()
            .name(format!("groupcast {node}"))
            .retry_on_initial_connect()
            .ping_interval(PING_EVERY)
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            // What does not fit is lost, and told by an event: the bound of a group's messages that nobody takes.
            .subscription_capacity(INBOX)
            .reconnect_delay_callback(|attempts| match attempts {
                0 | 1 => Duration::ZERO,
                attempts => (Duration::from_millis(25) * (1 << attempts.min(6))).min(RETRY_MAX),
            })
            .event_callback(move |event| {
                on_event(event);
                std::future::ready(())
            });
        let options = match &self.ca_file {
            Some(path) => options.add_root_certificates(path.clone()),
            None => options,
        };
        // The library reads addresses, but not who is named in them.
        let named = servers.iter().find_map(|server| Some((server.username()?, server.password())));
        match named {
            Some((user, Some(password))) => options.user_and_password(plain(user), plain(password)),
            Some((token, None)) => options.token(plain(token)),
            None => options,
        }
    }
}

/// The servers without who is named in their addresses: the library writes whole addresses to its log, and takes the name
/// from its options.
pub(super) fn nameless(servers: Vec<ServerAddr>) -> Vec<ServerAddr> {
    let nameless = |server: &ServerAddr| {
        let mut url = server.clone().into_inner();
        url.set_password(None).and_then(|()| url.set_username("")).ok()?;
        ServerAddr::from_url(url).ok()
    };
    // An address that has no place for a name has none.
    servers.into_iter().map(|server| nameless(&server).unwrap_or(server)).collect()
}

/// What stands in an address with `%XX` for characters that mean something there.
fn plain(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = if *first == b'%' { tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()) } else { None };
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("addresses", &self.addresses.len())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_prints_addresses_gets_none_with_a_password() {
        let servers = ["nats://u:canary@127.0.0.1:4222", "tls://canary@nats.example", "127.0.0.1"];
        let servers = servers.iter().map(|text| text.parse().expect("an address")).collect();
        let nameless = nameless(servers);
        assert!(!format!("{nameless:?}").contains("canary"), "{nameless:?}");
        let urls: Vec<String> = nameless.into_iter().map(|server| server.into_inner().to_string()).collect();
        assert_eq!(urls, ["nats://127.0.0.1:4222", "tls://nats.example", "nats://127.0.0.1"]);
    }

    #[test]
    fn characters_of_addresses_can_be_in_passwords() {
        for (text, password) in [("a", "a"), ("a%40b%3A", "a@b:"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA")] {
            assert_eq!(plain(text), password);
        }
    }
}
