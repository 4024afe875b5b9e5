//! `Client`: where somebody asks from, as the limits count it.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::Network;

/// Addresses that a request may say it has come by. More are nobody's proxies.
const HOPS_MAX: usize = 32;

/// Somebody at an address. Cheap to copy: every connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    key: u64,
    exempt: bool,
}

impl Client {
    /// Nobody at an address: the gateway itself, and programs that embed it.
    pub const NOWHERE: Self = Self { key: 0, exempt: true };

    pub(super) fn new(key: u64, exempt: bool) -> Self {
        Self { key, exempt }
    }

    pub(super) fn key(self) -> u64 {
        self.key
    }

    /// Whether the limits of addresses pass it over.
    pub(super) fn is_exempt(self) -> bool {
        self.exempt
    }
}

/// Whom an address counts for. An IPv6 network of 64 bits is the least that anybody is given, and so is one client; and
/// IPv4 is IPv4, though it come through an IPv6 socket.
pub(crate) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // One machine, and no network.
        loopback if loopback.is_loopback() => loopback,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who is in front of our proxies: the last address of `X-Forwarded-For` that is none of them. `None` when nothing is said that
/// can be believed: the peer is no proxy of ours, or one of ours says nothing, or no address.
///
/// Read from its end: each proxy adds whom it sees, and what stands before that anybody may have written.
pub(crate) fn forwarded<'a>(
    peer: IpAddr,
    proxies: &[Network],
    values: impl DoubleEndedIterator<Item = &'a str>,
) -> Option<IpAddr> {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address.to_canonical()));
    if !is_proxy(peer) {
        return None;
    }
    let mut last = None;
    for text in values.rev().flat_map(|value| value.rsplit(',')).take(HOPS_MAX) {
        let Some(address) = read(text.trim()) else { return last };
        last = Some(address);
        if !is_proxy(address) {
            return last;
        }
    }
    last
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn read(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let address = text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
    Some(IpAddr::V6(address).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_mapped_ipv4_is_ipv4() {
        let counted = |text: &str| counted_as(address(text)).to_string();
        assert_eq!(counted("2001:db8:1:2:a:b:c:d"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!((counted("127.0.0.1"), counted("::1")), ("127.0.0.1".to_owned(), "::1".to_owned()));
    }

    fn check(peer: &str, values: &[&str], expected: Option<&str>) {
        let proxies: Vec<Network> =
            ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().expect("a network")).collect();
        let found = forwarded(address(peer), &proxies, values.iter().copied());
        assert_eq!(found, expected.map(address), "{peer} {values:?}");
    }

    #[test]
    fn only_our_proxies_are_believed() {
        check("192.0.2.1", &["198.51.100.7"], None);
        check("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        check("::ffff:10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        check("fd00::1", &["2001:db8::7"], Some("2001:db8::7"));
        check("10.0.0.1", &[], None);
    }

    #[test]
    fn what_a_client_wrote_itself_is_passed_over() {
        check("10.0.0.1", &["1.1.1.1, 198.51.100.7"], Some("198.51.100.7"));
        check("10.0.0.1", &["1.1.1.1", "198.51.100.7, 10.2.3.4"], Some("198.51.100.7"));
        check("10.0.0.1", &["10.9.9.9, 10.2.3.4"], Some("10.9.9.9"));
        check("10.0.0.1", &["junk, 198.51.100.7"], Some("198.51.100.7"));
        check("10.0.0.1", &["198.51.100.7, junk"], None);
        check("10.0.0.1", &["198.51.100.7, junk, 10.2.3.4"], Some("10.2.3.4"));
        let many = "10.0.0.2, ".repeat(100) + "10.0.0.3";
        check("10.0.0.1", &[&many], Some("10.0.0.2"));
    }

    #[test]
    fn addresses_as_proxies_write_them() {
        for text in ["198.51.100.7:4711", " 198.51.100.7 ", "::ffff:198.51.100.7"] {
            check("10.0.0.1", &[text], Some("198.51.100.7"));
        }
        for text in ["[2001:db8::7]:80", "[2001:db8::7]", "2001:db8::7"] {
            check("10.0.0.1", &[text], Some("2001:db8::7"));
        }
        for text in ["", "unknown", "_hidden", "198.51.100.777", "[198.51.100.7]"] {
            check("10.0.0.1", &[text], None);
        }
    }
}
