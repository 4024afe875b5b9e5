//! The first bytes of a connection: a WebSocket's handshake that is answered without hyper, and whose page it comes from.

#![no_main]

use std::net::IpAddr;

use groupcast::fuzzing::{is_origin_allowed, is_own_origin, read_head};
use groupcast_fuzz::no_beginning_is_accepted;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Version};
use libfuzzer_sys::fuzz_target;

const ALLOWED: &str = "https://app.example";

fuzz_target!(|data: &[u8]| {
    let Some((length, request)) = read_head(data) else { return };
    let head = &data[..length];
    assert!(head.starts_with(b"GET /ws") && head.ends_with(b"\r\n\r\n"));
    assert_eq!((request.method(), request.version(), request.uri().path()), (&Method::GET, Version::HTTP_11, "/ws"));
    // No reader may see other lines than we do: each header is one line that ends with CR and LF.
    let lines = head.windows(2).filter(|pair| *pair == b"\r\n").count();
    assert_eq!(lines, request.headers().len() + 2, "a line of the head is no header");
    assert_eq!(head.iter().filter(|byte| **byte == b'\n').count(), lines);
    no_beginning_is_accepted(head, |part| read_head(part).is_some());
    origins(request.headers());
});

fn origins(headers: &HeaderMap) {
    let allowed = [ALLOWED.to_owned()];
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let (host, origin) = (text(HOST), text(ORIGIN));
    let has_authority = |of: &str| of.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host));
    if headers.contains_key(ORIGIN) && is_origin_allowed(headers, &allowed) {
        let is_listed = origin.eq_ignore_ascii_case(ALLOWED);
        assert!(
            is_listed || (has_authority(origin) && (cannot_be_rebound(host) || has_authority(ALLOWED))),
            "{headers:?}"
        );
        assert_eq!(headers.get_all(ORIGIN).iter().count(), 1);
    }
    // Without a name there is nothing to compare.
    if !host.is_empty() && is_own_origin(headers, true) {
        assert!(is_own_origin(headers, false), "what changes something may also be read");
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        assert!(site == Some(b"same-origin") || (site.is_none() && has_authority(origin)), "{headers:?}");
    }
}

/// An address or `localhost`, perhaps with a port.
fn cannot_be_rebound(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || [name, address, host].iter().any(|text| text.parse::<IpAddr>().is_ok())
}
