//! The servers that are there, and which of them has a name.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::link::Link;
use super::shard;
use super::slot::slot;
use super::up::Up;
use crate::broker::{BrokerError, Level};

/// The servers, by their number.
#[derive(Debug)]
pub(super) struct Fleet {
    links: Vec<Link>,
    /// The server of each slot, in a cluster.
    slots: Option<Slots>,
}

/// The number of the server that has each slot.
pub(super) struct Slots(pub(super) Box<[u16]>);

/// The servers, as far as they are known; otherwise why they are not. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<Mutex<Result<Arc<Fleet>, String>>>);

impl Fleet {
    pub(super) fn new(links: Vec<Link>, slots: Option<Slots>) -> Self {
        Self { links, slots }
    }

    /// The server that has a name, if the link to it is there.
    pub(super) fn of(&self, name: &str) -> Result<Up, BrokerError> {
        self.links[self.index(name)].up()
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    /// The server for what is the same on all.
    pub(super) fn first(&self) -> Result<Up, BrokerError> {
        self.links[0].up()
    }

    /// Things by the server that has them, with their place in the list.
    pub(super) fn sort<T>(&self, things: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<(&Link, Vec<(usize, T)>)> {
        let mut parts: Vec<_> = self.links.iter().map(|link| (link, Vec::new())).collect();
        for (at, thing) in things.into_iter().enumerate() {
            parts[self.index(name(&thing))].1.push((at, thing));
        }
        parts.retain(|(_, part)| !part.is_empty());
        parts
    }

    fn index(&self, name: &str) -> usize {
        match &self.slots {
            Some(Slots(slots)) => usize::from(slots[slot(name)]),
            None => shard::index(name.as_bytes(), self.links.len()),
        }
    }
}

impl Known {
    pub(super) fn not_yet() -> Self {
        Self(Arc::new(Mutex::new(Err("connecting".to_owned()))))
    }

    pub(super) fn set(&self, fleet: Result<Fleet, String>) {
        *self.0.lock() = fleet.map(Arc::new);
    }

    pub(super) fn fleet(&self) -> Result<Arc<Fleet>, BrokerError> {
        self.0.lock().clone().map_err(|why| BrokerError::Unavailable { why })
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        let fleet = self.0.lock().clone()?;
        fleet.links.iter().try_for_each(Link::ready)
    }

    pub(super) fn level(&self) -> Level {
        let levels = self.fleet().map(|fleet| fleet.links.iter().map(Link::level).min());
        levels.ok().flatten().unwrap_or(Level::Broker)
    }

    /// Ends all links.
    pub(super) fn close(&self) {
        let closed = std::mem::replace(&mut *self.0.lock(), Err("the link was closed".to_owned()));
        closed.iter().flat_map(|fleet| &fleet.links).for_each(Link::close);
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots")
    }
}
