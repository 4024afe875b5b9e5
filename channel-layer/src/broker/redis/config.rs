//! Where Redis is, and how it is spoken to.

use std::fmt;
use std::time::Duration;

use super::foreign::ForeignConfig;
use crate::config::GroupRule;
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

/// Settings of [`super::RedisBroker`]. Printing them shows no address: there may be a password in it.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` with TLS, `unix:///PATH`: at least one.
    pub addresses: Vec<String>,
    /// What the addresses are.
    pub topology: Topology,
    /// What the names of all keys and topics begin with.
    pub prefix: String,
    /// How long a call may take, and how long a server may be silent.
    pub timeout: Duration,
    /// The largest message that is taken in, in bytes.
    pub message_bytes: usize,
    /// Certificates to trust in place of the system's; PEM.
    pub ca: Option<Vec<u8>>,
    /// What this run is known by: no other has the same.
    pub run: String,
    /// What groups keep, as the layer has it.
    pub groups: Vec<GroupRule>,
    /// There when processes of Django are in the same groups.
    pub foreign: Option<ForeignConfig>,
}

/// What several addresses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// Servers of their own, which share the groups. The order counts.
    Servers,
    /// Sentinels that watch the master of this name.
    Sentinels(String),
    /// Servers of one cluster, of Redis 7 or later, any of which may be asked where the others are.
    Cluster,
}

/// An address that cannot be understood. It is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is none.
    #[error("names no Redis server; give its address, as in redis://127.0.0.1:6379/0")]
    None,
    /// One of them is none.
    #[error("address {at} is not that of a Redis server ({why}); write it as in redis://127.0.0.1:6379/0")]
    Invalid {
        /// Which, from 1.
        at: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Where one server is, or how to find it.
#[derive(Clone)]
pub(super) enum Server {
    At(Client),
    /// One of a cluster, which names the others.
    Seed {
        client: Client,
        ca: Option<Vec<u8>>,
    },
    /// Asked in this order. The last part is how the master is spoken to, once its address is known.
    Watched {
        sentinels: Vec<Client>,
        name: String,
        like: ConnectionInfo,
        ca: Option<Vec<u8>>,
    },
}

impl RedisConfig {
    pub(super) fn servers(&self) -> Result<Vec<Server>, AddressError> {
        if self.addresses.is_empty() {
            return Err(AddressError::None);
        }
        let clients = self.addresses.iter().enumerate().map(|(at, address)| self.client(at, address));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        Ok(match &self.topology {
            Topology::Servers => clients.into_iter().map(Server::At).collect(),
            Topology::Cluster => {
                let ca = self.ca.clone();
                clients.into_iter().map(|client| Server::Seed { client, ca: ca.clone() }).collect()
            }
            Topology::Sentinels(name) => {
                let like = clients[0].get_connection_info().clone();
                vec![Server::Watched { sentinels: clients, name: name.clone(), like, ca: self.ca.clone() }]
            }
        })
    }

    fn client(&self, at: usize, address: &str) -> Result<Client, AddressError> {
        // The error of the library does not repeat the address.
        let invalid = |error: redis::RedisError| AddressError::Invalid { at: at + 1, why: error.to_string() };
        let info = address.into_connection_info().map_err(invalid)?;
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(self.timeout);
        // Pushes and answers on one connection.
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
        client(info, self.ca.as_ref()).map_err(invalid)
    }
}

impl Server {
    /// The server that has to be spoken to, or what is the matter.
    pub(super) async fn find(&self, timeout: Duration) -> Result<Client, String> {
        let (sentinels, name, like, ca) = match self {
            Self::At(client) | Self::Seed { client, .. } => return Ok(client.clone()),
            Self::Watched { sentinels, name, like, ca } => (sentinels, name, like, ca),
        };
        let mut why = "no sentinel is named".to_owned();
        for sentinel in sentinels {
            match tokio::time::timeout(timeout, ask(sentinel, name)).await {
                Ok(Ok(Some((host, port)))) => {
                    return client(moved(like, host, port), ca.as_ref()).map_err(|error| error.to_string());
                }
                Ok(Ok(None)) => why = format!("the sentinels know no master `{name}`"),
                Ok(Err(error)) => why = format!("a sentinel cannot be asked: {error}"),
                Err(_elapsed) => why = "a sentinel does not answer".to_owned(),
            }
        }
        Err(why)
    }

    /// Another server that is spoken to as this one is.
    pub(super) fn beside(&self, host: String, port: u16) -> Result<Self, String> {
        let (client, ca) = match self {
            Self::At(client) => (client, None),
            Self::Seed { client, ca } => (client, ca.as_ref()),
            Self::Watched { .. } => return Err("what sentinels watch has no neighbours".to_owned()),
        };
        let info = moved(client.get_connection_info(), host, port);
        self::client(info, ca).map(Self::At).map_err(|error| error.to_string())
    }
}

/// How another server is spoken to.
fn moved(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

async fn ask(sentinel: &Client, name: &str) -> redis::RedisResult<Option<(String, u16)>> {
    let mut connection = sentinel.get_multiplexed_async_connection().await?;
    redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).query_async(&mut connection).await
}

fn client(info: ConnectionInfo, ca: Option<&Vec<u8>>) -> redis::RedisResult<Client> {
    match (info.addr(), ca) {
        (ConnectionAddr::TcpTls { .. }, Some(ca)) => {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) })
        }
        _ => Client::open(info),
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("addresses", &self.addresses.len())
            .field("topology", &self.topology)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}
