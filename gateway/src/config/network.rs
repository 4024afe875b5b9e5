//! Networks of IP addresses: `"10.0.0.0/8"`, `"2001:db8::/32"`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

/// A text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a network; write an address, or its first one and how many bits all have in common, as in \"10.0.0.0/8\""
)]
pub struct NetworkError(String);

impl Network {
    /// Whether an address is in it. IPv4 is no part of IPv6, however written: see [`IpAddr::to_canonical`].
    pub fn contains(self, address: IpAddr) -> bool {
        masked(address, self.bits) == Some(self.first)
    }

    /// Whether every address is in it.
    pub(super) fn is_all(self) -> bool {
        self.bits == 0
    }

    fn whole(address: IpAddr) -> u32 {
        if address.is_ipv4() { 32 } else { 128 }
    }
}

/// The address with all but its first bits 0; `None` if it has not so many.
fn masked(address: IpAddr, bits: u32) -> Option<IpAddr> {
    let rest = Network::whole(address).checked_sub(bits)?;
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(rest).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(rest).unwrap_or(0)).into(),
    })
}

impl FromStr for Network {
    type Err = NetworkError;

    /// An address that has bits behind the network's is refused: it is most likely a slip.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let refused = || NetworkError(text.chars().take(60).collect());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.trim().parse().map_err(|_| refused())?;
        let bits = match bits {
            Some(bits) => bits.trim().parse().map_err(|_| refused())?,
            None => Self::whole(first),
        };
        if masked(first, bits) == Some(first) { Ok(Self { first, bits }) } else { Err(refused()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1/128", "::1", "127.0.0.1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let network: Network = text.parse().expect(text);
            assert!(network.contains(inside.parse().expect("an address")), "{text} {inside}");
            assert!(!network.contains(outside.parse().expect("an address")), "{text} {outside}");
            assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "/8", "localhost", "10.0.0.0/-1", "::1/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
