//! How many connections there may be, in all and from one address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use http::Version;

use crate::config::LimitsConfig;

/// Counts connections. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: usize,
    max_per_address: usize,
    all: AtomicUsize,
    per_address: DashMap<IpAddr, usize>,
}

/// A place for one connection; given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    counts: Arc<Counts>,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many connections as there may be.
    Full,
    /// As many from this address.
    FullForAddress,
}

impl Admission {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self(Arc::new(Counts {
            max: limits.connections,
            max_per_address: limits.connections_per_address,
            all: AtomicUsize::new(0),
            per_address: DashMap::new(),
        }))
    }

    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Refused> {
        let (counts, address) = (&self.0, counted_as(address));
        if counts.all.load(Ordering::Relaxed) >= counts.max {
            return Err(Refused::Full);
        }
        let mut of_address = counts.per_address.entry(address).or_insert(0);
        if *of_address >= counts.max_per_address {
            return Err(Refused::FullForAddress);
        }
        *of_address += 1;
        drop(of_address);
        counts.all.fetch_add(1, Ordering::Relaxed);
        Ok(Place(Arc::new(Counted { counts: counts.clone(), address })))
    }
}

impl Place {
    /// The place of a WebSocket or event stream: that of its socket, but an HTTP/2 connection may carry many, and each
    /// has a place of its own.
    pub(crate) fn of_stream(&self, version: Version) -> Result<Self, Refused> {
        if version < Version::HTTP_2 {
            return Ok(self.clone());
        }
        Admission(self.0.counts.clone()).enter(self.0.address)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut count) = self.counts.per_address.get_mut(&self.address) {
            *count -= 1;
        }
        // Of the addresses without connections none is kept.
        self.counts.per_address.remove_if(&self.address, |_, count| *count == 0);
    }
}

/// Whom an address counts for. An IPv6 network of 64 bits is the least that anybody is given, and so is one client; and
/// IPv4 is IPv4, though it come through an IPv6 socket.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_mapped_ipv4_is_ipv4() {
        let counted = |text: &str| counted_as(text.parse().expect("an address")).to_string();
        assert_eq!(counted("2001:db8:1:2:a:b:c:d"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("127.0.0.1"), "127.0.0.1");
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = LimitsConfig { connections: 3, connections_per_address: 2, ..LimitsConfig::default() };
        let admission = Admission::new(&limits);
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.enter(one).expect("there is room");
        let _second = admission.enter(one).expect("there is room");
        assert_eq!(admission.enter(one).err(), Some(Refused::FullForAddress));
        assert_eq!(first.of_stream(Version::HTTP_2).err(), Some(Refused::FullForAddress));
        assert!(first.of_stream(Version::HTTP_11).is_ok());
        let third = admission.enter(other).expect("there is room");
        assert_eq!(admission.enter(other).err(), Some(Refused::Full));
        drop((first, third));
        assert!(admission.enter(one).is_ok());
        assert_eq!(admission.0.per_address.len(), 1);
    }
}
