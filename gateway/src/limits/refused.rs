//! What is told to who is over a limit, and how often that was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groupcast_protocol::{ErrorCode, Refusal};

use crate::config::Rate;

/// When to try again where it is not known: other connections have to end.
const AGAIN: Duration = Duration::from_secs(1);

/// A limit that somebody was over. Few: each is a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections of all.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// Connections of one user.
    ConnectionsPerUser,
    /// New connections of one address.
    ConnectionRate,
    /// Commands of one connection.
    CommandsPerSecond,
    /// Groups that one connection is in.
    SubscriptionsPerConnection,
    /// Requests and commands of one address.
    AddressRate,
    /// Those of one user.
    UserRate,
    /// Those of one service.
    KeyRate,
    /// Messages to one group.
    GroupRate,
}

/// Somebody is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) limit: Limit,
    rate: Option<Rate>,
    wait: Duration,
}

/// How often each limit has refused something.
#[derive(Debug, Default)]
pub(crate) struct Refused([AtomicU64; Limit::ALL.len()]);

impl Limit {
    /// Every limit.
    pub(crate) const ALL: [Self; 10] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::ConnectionsPerUser,
        Self::ConnectionRate,
        Self::CommandsPerSecond,
        Self::SubscriptionsPerConnection,
        Self::AddressRate,
        Self::UserRate,
        Self::KeyRate,
        Self::GroupRate,
    ];

    /// Its key in `[limits]`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::ConnectionRate => "connection_rate",
            Self::CommandsPerSecond => "commands_per_second",
            Self::SubscriptionsPerConnection => "subscriptions_per_connection",
            Self::AddressRate => "address_rate",
            Self::UserRate => "user_rate",
            Self::KeyRate => "key_rate",
            Self::GroupRate => "group_rate",
        }
    }
}

impl Refused {
    pub(super) fn limited(&self, limit: Limit) -> Limited {
        self.add(limit, 1);
        Limited { limit, rate: None, wait: AGAIN }
    }

    pub(super) fn rate(&self, limit: Limit, rate: Rate, wait: Duration) -> Limited {
        self.add(limit, 1);
        Limited { limit, rate: Some(rate), wait }
    }

    /// Counts what was refused elsewhere.
    pub(crate) fn add(&self, limit: Limit, times: u64) {
        self.0[limit as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// How often each limit has refused something.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::ALL.into_iter().map(|limit| (limit, self.0[limit as usize].load(Ordering::Relaxed)))
    }
}

impl From<Limited> for Refusal {
    fn from(Limited { limit, rate, wait }: Limited) -> Self {
        let rate = rate.map(|rate| rate.to_string()).unwrap_or_default();
        let (code, message) = match limit {
            Limit::Connections => {
                (ErrorCode::Overloaded, "as many connections as are allowed are open; try again later".to_owned())
            }
            Limit::ConnectionsPerAddress => (
                ErrorCode::RateLimited,
                "as many connections as are allowed from one address are open; close one, or try again later"
                    .to_owned(),
            ),
            Limit::ConnectionsPerUser => (
                ErrorCode::RateLimited,
                "this user has as many connections as are allowed; close one, or try again later".to_owned(),
            ),
            Limit::ConnectionRate => {
                (ErrorCode::RateLimited, format!("more than {rate} new connections from one address; slow down"))
            }
            Limit::CommandsPerSecond => {
                (ErrorCode::RateLimited, "more commands than a connection may send; slow down".to_owned())
            }
            Limit::SubscriptionsPerConnection => (
                ErrorCode::LimitExceeded,
                "this connection has as many subscriptions as are allowed; leave a group first".to_owned(),
            ),
            Limit::AddressRate => {
                (ErrorCode::RateLimited, format!("more than {rate} requests and commands from one address; slow down"))
            }
            Limit::UserRate => {
                (ErrorCode::RateLimited, format!("more than {rate} requests and commands of one user; slow down"))
            }
            Limit::KeyRate => {
                (ErrorCode::RateLimited, format!("more than {rate} requests and commands of one service; slow down"))
            }
            Limit::GroupRate => {
                let why =
                    format!("more than {rate} messages of clients to this group, whoever sends them; send it later");
                (ErrorCode::RateLimited, why)
            }
        };
        Self::new(code, message).again_in(wait)
    }
}
