//! `Doors`: the addresses that are listened on, one for clients and perhaps one for operators.

use std::io;
use std::net::SocketAddr;

use super::StartError;
use super::accept::Door;
use super::admission::Admission;
use crate::config::{Config, LimitsConfig};
use crate::limits::Limits;

/// Connections of operators, in all and from one address: a few scrapers and browsers. Their places are their own, so that
/// whoever fills the gateway with clients does not hide what happens.
const OPERATORS_MAX: usize = 64;

/// Where connections come in.
pub(crate) struct Doors {
    pub(super) clients: Door,
    pub(super) operators: Option<Door>,
}

/// Where that is; with the ports that were found, when 0 was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) clients: SocketAddr,
    pub(super) operators: Option<SocketAddr>,
}

impl Doors {
    /// Listens on the addresses of the configuration.
    ///
    /// # Errors
    /// When one cannot be listened on.
    pub(super) fn open(config: &Config, limits: Limits) -> Result<(Self, Addresses), StartError> {
        let (clients, at) = open(config.server.listen, config, limits)?;
        let mut doors = Self { clients, operators: None };
        let mut addresses = Addresses { clients: at, operators: None };
        if let Some(address) = config.server.ops_listen {
            let (connections, connections_per_address) = (OPERATORS_MAX, OPERATORS_MAX);
            let limits = LimitsConfig { connections, connections_per_address, ..config.limits.clone() };
            let (door, at) = open(address, config, Limits::new(&limits))?;
            (doors.operators, addresses.operators) = (Some(door), Some(at));
        }
        Ok((doors, addresses))
    }

    /// Connections that there may be, at all of them.
    pub(super) fn connections_max(&self, limits: &LimitsConfig) -> usize {
        limits.connections + if self.operators.is_some() { OPERATORS_MAX } else { 0 }
    }

    /// The same doors for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let operators = self.operators.as_ref().map(Door::try_clone).transpose()?;
        Ok(Self { clients: self.clients.try_clone()?, operators })
    }
}

fn open(address: SocketAddr, config: &Config, limits: Limits) -> Result<(Door, SocketAddr), StartError> {
    let listen = || {
        let door = Door::open(address, Admission::new(config, limits.clone()), config.limits.write_timeout.0)?;
        let address = door.address()?;
        Ok((door, address))
    };
    listen().map_err(|source| StartError::Listen { address, source })
}
