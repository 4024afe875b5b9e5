//! Doors to parsers that are private, for `fuzz/`.

use std::net::IpAddr;
use std::time::Duration;

use groupcast_protocol::{GroupName, Message, Position};
use http::{HeaderMap, Request, Uri};

pub use crate::http::fuzzing::{Batched, QueryString};

/// Whether pages that a request may come from may use the gateway.
pub fn is_origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    crate::origin::check(headers, allowed).is_ok()
}

/// Whether a request comes from a page of its own origin, or from none.
pub fn is_own_origin(headers: &HeaderMap, has_to_tell: bool) -> bool {
    crate::origin::check_own(headers, has_to_tell).is_ok()
}

/// Who is in front of our proxies.
pub fn forwarded(peer: IpAddr, proxies: &[crate::config::Network], values: &[&str]) -> Option<IpAddr> {
    crate::limits::forwarded(peer, proxies, values.iter().copied())
}

/// The client that an address counts for.
pub fn counted_as(address: IpAddr) -> IpAddr {
    crate::limits::counted_as(address)
}

/// Whether an address is out in the world.
pub fn is_public(address: IpAddr) -> bool {
    crate::address::is_public(address)
}

/// The head of a WebSocket's handshake that is answered without hyper, and how long it is.
pub fn read_head(bytes: &[u8]) -> Option<(usize, Request<()>)> {
    crate::server::read_head(bytes)
}

/// Groups with where to go on, and queries with their parameters.
pub type Asked = (Vec<(GroupName, Option<Position>)>, Vec<(String, Vec<(String, String)>)>);

/// What an event stream is asked for.
///
/// # Errors
/// The status of the refusal.
pub fn asked(uri: &Uri, headers: &HeaderMap, groups_max: usize) -> Result<Asked, u16> {
    crate::http::events::asked(uri, headers, groups_max)
}

/// The parameters of a query string and of headers that say how a request is to be answered.
///
/// # Errors
/// The status of the refusal.
pub fn query_string(uri: &Uri, headers: &HeaderMap) -> Result<QueryString, u16> {
    crate::http::fuzzing::query_string(uri, headers)
}

/// The body of a request with many messages; each is taken or refused by itself.
///
/// # Errors
/// The status of the refusal.
pub fn batch(body: &[u8]) -> Result<Vec<Option<Batched>>, u16> {
    crate::http::fuzzing::batch(body)
}

/// SQL with numbers for names, the names, and whether something follows a semicolon.
#[cfg(feature = "postgres")]
pub fn number(sql: &str) -> (String, Vec<String>, bool) {
    crate::consumer::fuzzing::number(sql)
}

/// How long a backend wants to be left alone.
pub fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    crate::consumer::fuzzing::retry_after(text, now_ms)
}

/// Binds JSON to parameters of every type; their canonical text.
pub fn bind(given: &str) -> Option<String> {
    crate::consumer::fuzzing::bind(given)
}

/// Reads a hint between processes that share a store, and writes it again.
#[cfg(feature = "postgres")]
pub fn hint(payload: &str) -> Option<String> {
    crate::jobs::postgres::reread_hint(payload)
}

/// Reads an event that is carried to a process, and says which message it is.
#[cfg(feature = "postgres")]
pub fn carried(payload: &str, node: &str) -> Option<Message> {
    crate::jobs::postgres::read_carried(payload, node)
}
