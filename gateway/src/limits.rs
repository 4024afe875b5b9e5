//! How much somebody may do: token buckets, and numbers of connections.
//!
//! Every front door asks here: who connects (`Limits::connect`), who asks ([`Limits::charge`]), who sends to a group
//! (`Limits::charge_group`), whose connection becomes one that lasts (`Limits::seat`). Reading order: this file (which
//! bucket counts for whom), `client` (where somebody asks from), `bucket` and `store` (one limit, many keys), `seats`
//! (connections at once), `refused` (what is told and counted), `memory` (how short it is, for all together).
//!
//! # Contract
//!
//! - **Nothing waits here**, and nothing is queued: a thing is done at once, or refused with the time at which it may be tried again.
//! - **Who is over a limit of his own uses up no other one**: buckets are asked from the narrowest to the widest, and one that
//!   refuses ends it.
//! - **A bucket never allows more than its burst and its rate together.** Keys that nobody uses are forgotten when they are
//!   full again; beside that at most `store::KEYS_MAX` are kept, and which one goes then is said there.
//! - **All of it can be replaced while it is in use** ([`Limits::replace`]): a rate that stays the same keeps its buckets.

mod bucket;
mod client;
pub(crate) mod memory;
mod refused;
mod seats;
mod store;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock, MonotonicClock};
use groupcast_protocol::{GroupName, Refusal};
use parking_lot::RwLock;

use self::bucket::Bucket;
pub use self::client::Client;
pub(crate) use self::client::{counted_as, forwarded};
use self::memory::Memory;
pub(crate) use self::refused::{Limit, Limited, Refused};
pub(crate) use self::seats::Seat;
use self::seats::Seats;
use crate::auth::Caller;
use crate::config::{LimitsConfig, Network};

/// The limits of a gateway. A cheap handle.
#[derive(Clone)]
pub struct Limits(Arc<Shared<MonotonicClock>>);

struct Shared<C: Clock> {
    /// Keys of buckets: a name of any length is one number, and whoever chooses names does not know which.
    keys: RandomState,
    clock: C,
    rates: RwLock<Rates<C>>,
    connections: Arc<AtomicUsize>,
    connections_max: AtomicUsize,
    addresses: Arc<Seats>,
    users: Arc<Seats>,
    memory: Memory,
    refused: Refused,
}

/// What [`Limits::replace`] replaces.
struct Rates<C: Clock> {
    exempt: Vec<Network>,
    connection: Bucket<C>,
    address: Bucket<C>,
    user: Bucket<C>,
    key: Bucket<C>,
    group: Bucket<C>,
}

impl Limits {
    /// What a configuration says.
    pub fn new(config: &LimitsConfig) -> Self {
        Self(Arc::new(Shared::new(config, MonotonicClock)))
    }

    /// Goes on with another configuration: its rates, its numbers of connections, its memory, and whose address is exempt. Who is
    /// connected stays, also where fewer are allowed than there are.
    pub fn replace(&self, config: &LimitsConfig) {
        self.0.replace(config);
    }

    /// Somebody at an address, as the limits count him.
    pub fn client(&self, address: IpAddr) -> Client {
        self.0.client(address)
    }

    /// Counts a new connection of a client's.
    ///
    /// # Errors
    /// [`Limit::ConnectionRate`].
    pub(crate) fn connect(&self, client: Client) -> Result<(), Limited> {
        self.0.connect(client)
    }

    /// Counts a request or command.
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub fn charge(&self, caller: &Caller, client: Client) -> Result<(), Refusal> {
        Ok(self.0.charge(caller, client)?)
    }

    /// Counts a request whose credential is not valid, for its address.
    ///
    /// # Errors
    /// As [`Limits::charge`].
    pub(crate) fn charge_unknown(&self, client: Client) -> Result<(), Refusal> {
        Ok(self.0.charge_address(client)?)
    }

    /// Counts a message that is sent to a group.
    ///
    /// # Errors
    /// As [`Limits::charge`].
    pub fn charge_group(&self, caller: &Caller, client: Client, group: &GroupName) -> Result<(), Refusal> {
        Ok(self.0.charge_group(caller, client, group)?)
    }

    /// Takes a place among all connections; given back by [`Limits::leave`].
    ///
    /// # Errors
    /// [`Limit::Connections`].
    pub(crate) fn enter(&self) -> Result<(), Limited> {
        let shared = &self.0;
        if shared.connections.load(Ordering::Relaxed) >= shared.connections_max.load(Ordering::Relaxed) {
            return Err(shared.refused.limited(Limit::Connections));
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives a place among all connections back.
    pub(crate) fn leave(&self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes a place among those of an address.
    ///
    /// # Errors
    /// [`Limit::ConnectionsPerAddress`].
    pub(crate) fn seat_at(&self, client: Client) -> Result<Seat, Limited> {
        let seat = Seats::take(&self.0.addresses, client.key());
        seat.ok_or_else(|| self.0.refused.limited(Limit::ConnectionsPerAddress))
    }

    /// Takes a place among the connections of a user; nobody else needs one.
    ///
    /// # Errors
    /// `rate_limited`: he has as many as he may have.
    pub(crate) fn seat(&self, caller: &Caller) -> Result<Option<Seat>, Refusal> {
        let Some(key) = self.0.key_of_user(caller) else { return Ok(None) };
        let seat = Seats::take(&self.0.users, key);
        Ok(Some(seat.ok_or_else(|| self.0.refused.limited(Limit::ConnectionsPerUser))?))
    }

    /// How short memory is.
    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Forgets whose buckets are full.
    pub(crate) fn sweep(&self) {
        self.0.rates.read().all().into_iter().for_each(|(_, bucket)| bucket.sweep());
    }

    /// What was refused.
    pub(crate) fn refused(&self) -> &Refused {
        &self.0.refused
    }

    /// How many keys each limit keeps.
    pub(crate) fn keys(&self) -> Vec<(Limit, usize)> {
        self.0.rates.read().all().into_iter().map(|(limit, bucket)| (limit, bucket.len())).collect()
    }
}

impl<C: Clock + Clone> Shared<C> {
    fn new(config: &LimitsConfig, clock: C) -> Self {
        Self {
            keys: RandomState::new(),
            rates: RwLock::new(Rates::new(config, &clock)),
            clock,
            connections: Arc::default(),
            connections_max: AtomicUsize::new(config.connections),
            addresses: Arc::new(Seats::new(config.connections_per_address)),
            users: Arc::new(Seats::new(config.connections_per_user)),
            memory: Memory::new(memory::budget_bytes(config.memory)),
            refused: Refused::default(),
        }
    }

    fn replace(&self, config: &LimitsConfig) {
        self.connections_max.store(config.connections, Ordering::Relaxed);
        self.addresses.allow(config.connections_per_address);
        self.users.allow(config.connections_per_user);
        self.memory.allow(memory::budget_bytes(config.memory));
        let mut next = Rates::new(config, &self.clock);
        let mut rates = self.rates.write();
        // Whoever is at his limit stays there.
        for (new, old) in next.all_mut().into_iter().zip(rates.all_mut()) {
            if new.rate() == old.rate() {
                std::mem::swap(new, old);
            }
        }
        *rates = next;
    }

    fn client(&self, address: IpAddr) -> Client {
        let counted = client::counted_as(address);
        let exempt = self.rates.read().exempt.iter().any(|network| network.contains(counted));
        Client::new(self.key(counted), exempt)
    }

    fn connect(&self, client: Client) -> Result<(), Limited> {
        if client.is_exempt() {
            return Ok(());
        }
        self.take(Limit::ConnectionRate, client.key(), |rates| &rates.connection)
    }

    fn charge(&self, caller: &Caller, client: Client) -> Result<(), Limited> {
        match caller {
            // A program of the team is bounded as such, wherever it runs.
            Caller::Service(service) => self.take(Limit::KeyRate, self.key(&service.name), |rates| &rates.key),
            Caller::User(_) => {
                let key = self.key_of_user(caller).unwrap_or_default();
                self.take(Limit::UserRate, key, |rates| &rates.user)?;
                self.charge_address(client)
            }
            Caller::Everybody | Caller::Anonymous(_) => self.charge_address(client),
        }
    }

    fn charge_address(&self, client: Client) -> Result<(), Limited> {
        if client.is_exempt() {
            return Ok(());
        }
        self.take(Limit::AddressRate, client.key(), |rates| &rates.address)
    }

    fn charge_group(&self, caller: &Caller, client: Client, group: &GroupName) -> Result<(), Limited> {
        let is_counted = match caller {
            Caller::Service(_) => false,
            Caller::User(_) => true,
            Caller::Everybody | Caller::Anonymous(_) => !client.is_exempt(),
        };
        if !is_counted {
            return Ok(());
        }
        self.take(Limit::GroupRate, self.key(group.as_str()), |rates| &rates.group)
    }

    /// Users of the same name in two tenants are two.
    fn key_of_user(&self, caller: &Caller) -> Option<u64> {
        match caller {
            Caller::User(user) => Some(self.key(user.identity())),
            Caller::Everybody | Caller::Anonymous(_) | Caller::Service(_) => None,
        }
    }

    fn take(&self, limit: Limit, key: u64, bucket: impl Fn(&Rates<C>) -> &Bucket<C>) -> Result<(), Limited> {
        let rates = self.rates.read();
        let bucket = bucket(&rates);
        bucket.take(key).map_err(|wait| self.refused.rate(limit, bucket.rate(), wait))
    }

    fn key(&self, of: impl Hash) -> u64 {
        self.keys.hash_one(of)
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn new(config: &LimitsConfig, clock: &C) -> Self {
        let bucket = |rate| Bucket::new(rate, store::KEYS_MAX, clock.clone());
        Self {
            exempt: config.exempt_addresses.clone(),
            connection: bucket(config.connection_rate),
            address: bucket(config.address_rate),
            user: bucket(config.user_rate),
            key: bucket(config.key_rate),
            group: bucket(config.group_rate),
        }
    }

    fn all(&self) -> [(Limit, &Bucket<C>); 5] {
        [
            (Limit::ConnectionRate, &self.connection),
            (Limit::AddressRate, &self.address),
            (Limit::UserRate, &self.user),
            (Limit::KeyRate, &self.key),
            (Limit::GroupRate, &self.group),
        ]
    }

    fn all_mut(&mut self) -> [&mut Bucket<C>; 5] {
        [&mut self.connection, &mut self.address, &mut self.user, &mut self.key, &mut self.group]
    }
}
