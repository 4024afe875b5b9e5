//! Whose address it is: `X-Forwarded-For` behind proxies, and which addresses backends may have.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use groupcast::config::Network;
use groupcast::fuzzing::{counted_as, forwarded, is_public};
use groupcast_fuzz::{head, text};
use libfuzzer_sys::fuzz_target;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: &str = "198.51.100.7";

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<16>() {
        addresses(Ipv6Addr::from(*bytes));
    }
    let (first, second) = head(data);
    let (Some(first), Some(second)) = (text(first), text(second)) else { return };
    let proxies: Vec<Network> =
        ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().expect("a network")).collect();
    let find = |values: &[&str]| forwarded(PROXY, &proxies, values);
    let client: IpAddr = CLIENT.parse().expect("an address");
    // Whatever a client writes itself, our proxy adds whom it sees, and that is believed.
    assert_eq!(find(&[first, second, CLIENT]), Some(client));
    assert_eq!(find(&[first, &format!("{second},{CLIENT}, 10.2.3.4")]), Some(client));
    // Who is no proxy of ours is not believed.
    assert_eq!(forwarded(client, &proxies, &[first, second]), None);
    // Two headers are one with a comma.
    assert_eq!(find(&[first, second]), find(&[&format!("{first},{second}")]));
});

fn addresses(v6: Ipv6Addr) {
    let address = IpAddr::V6(v6);
    let counted = counted_as(address);
    assert_eq!(counted_as(counted), counted);
    if let Some(v4) = v6.to_ipv4_mapped() {
        assert!(!is_public(address), "an address within an address");
        assert_eq!(counted, counted_as(IpAddr::V4(v4)));
    }
    let [a, b, .., c, d] = v6.octets();
    let v4 = Ipv4Addr::new(a, b, c, d);
    if is_public(IpAddr::V4(v4)) {
        let is_ours =
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast();
        assert!(!is_ours && !v4.is_unspecified() && !v4.is_documentation(), "{v4}");
    }
    if is_public(address) {
        assert!(!(v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unique_local()), "{v6}");
        assert!(!v6.is_unicast_link_local(), "{v6}");
    }
}
