//! `CheckedResolver`: looks names up, and lets a connection be made to public addresses only.
//!
//! The addresses that were checked are the ones that are connected to: there is no second look-up in which a name could
//! mean another machine.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use crate::address::is_public;

/// Looks up the name of a backend. (An address in its place is checked with the configuration.)
pub(super) struct CheckedResolver {
    pub(super) allow_private: bool,
}

/// A name leads to no public address.
#[derive(Debug, thiserror::Error)]
#[error("the backend's name leads to an address that is not public; set `allow_private = true` if that is meant")]
pub(crate) struct RefusedAddress;

impl Resolve for CheckedResolver {
    /// The connection's deadline bounds it.
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(checked(found.collect(), allow_private)?.into_iter()) as Addrs)
        })
    }
}

/// What may be connected to; of several addresses the public ones.
fn checked(found: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, RefusedAddress> {
    if allow_private {
        return Ok(found);
    }
    let public: Vec<_> = found.into_iter().filter(|address| is_public(address.ip())).collect();
    if public.is_empty() { Err(RefusedAddress) } else { Ok(public) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_connected_to() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let mixed = addresses(&["127.0.0.1:0", "1.1.1.1:0", "[::1]:0", "[2606:4700:4700::1111]:0", "10.0.0.1:0"]);
        assert_eq!(checked(mixed.clone(), true).expect("all"), mixed);
        assert_eq!(checked(mixed, false).expect("some"), addresses(&["1.1.1.1:0", "[2606:4700:4700::1111]:0"]));
        assert!(checked(addresses(&["127.0.0.1:0", "[fd00::1]:0"]), false).is_err());
    }
}
