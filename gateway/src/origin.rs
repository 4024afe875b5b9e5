//! Which web pages may talk to the gateway. One rule for HTTP and WebSocket.
//!
//! A browser lets any page open a WebSocket to this machine, or send it a POST, and only tells where the page came from;
//! so a foreign page has to be refused here. A program that is no browser sends no `Origin` and is let in: what it may
//! do is decided by who it is, not by where it comes from.

use std::net::IpAddr;

use groupcast_protocol::{ErrorCode, Refusal};
use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN, USER_AGENT};
use http::uri::Authority;

/// Sent by browsers alone.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks where a request comes from.
///
/// # Errors
/// `forbidden` for a page that is neither of this gateway nor among `allowed`, and for a browser that calls the gateway
/// by a foreign name: a page whose own name was made to point to this machine (DNS rebinding) would pass for ours.
pub(crate) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(&HOST).unwrap_or_default();
    let ours = is_own_name(host) || allowed.iter().any(|origin| authority(origin).eq_ignore_ascii_case(host));
    let mut origins = headers.get_all(ORIGIN).into_iter();
    if let Some(value) = origins.next() {
        // A browser sends one. With two, somebody between us might go by the other.
        let origin = if origins.next().is_some() { "several origins" } else { value.to_str().unwrap_or("?") };
        let same = ours && authority(origin).eq_ignore_ascii_case(host);
        let listed = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        if same || listed {
            return Ok(());
        }
        let why = format!("pages of `{origin}` may not use this gateway; add it to [server] origins if they should");
        return Err(Refusal::new(ErrorCode::Forbidden, why));
    }
    let browser =
        headers.contains_key(SEC_FETCH_SITE) || text(&USER_AGENT).is_some_and(|ua| ua.starts_with("Mozilla/"));
    if browser && !ours {
        let why =
            format!("`{host}` is not a name of this gateway; use its address, or add the page to [server] origins");
        return Err(Refusal::new(ErrorCode::Forbidden, why));
    }
    Ok(())
}

/// Checks that a request comes from a page of its own origin, or from no page: what a cookie lets pass, no other page may
/// send, not even one that `[server] origins` names or that stands at another port of this host.
///
/// # Errors
/// `forbidden`; also where `has_to_tell` and the request does not say which page sends it, as every browser does that
/// changes something.
pub(crate) fn check_own(headers: &HeaderMap, has_to_tell: bool) -> Result<(), Refusal> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(&HOST).unwrap_or_default();
    let own = match (text(&SEC_FETCH_SITE), text(&ORIGIN)) {
        // `none`: typed into the address bar, which changes nothing.
        (Some(site), _) => site == "same-origin" || (site == "none" && !has_to_tell),
        // Browsers leave the first one out where there is neither TLS nor loopback.
        // Of `null` nothing is left, and that is no name of ours.
        (None, Some(origin)) => !host.is_empty() && authority(origin).eq_ignore_ascii_case(host),
        (None, None) => !has_to_tell,
    };
    if own {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::Forbidden, "this is for the page of this gateway alone; no other page may send it"))
}

/// Host and port of an origin.
fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, authority)| authority)
}

/// Whether nobody else can make a name mean this gateway: an address, or `localhost`.
fn is_own_name(host: &str) -> bool {
    // Nothing but a name and a port is a host: no path, and nobody before an `@`.
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = if host.contains('@') { "" } else { authority.host() };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn let_in(lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, value.parse().expect("a valid value"));
        }
        check(&headers, &["https://app.example".to_owned()]).is_ok()
    }

    #[test]
    fn programs_are_let_in_whatever_they_call_us() {
        assert!(let_in(&[("host", "127.0.0.1:8000")]));
        assert!(let_in(&[("host", "gateway.internal"), ("user-agent", "python-httpx/0.28")]));
    }

    #[test]
    fn our_own_pages_and_the_listed_ones_are_let_in() {
        for host in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"] {
            assert!(let_in(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
        }
        assert!(let_in(&[("host", "127.0.0.1:8000"), ("origin", "https://app.example")]));
        assert!(let_in(&[("host", "app.example"), ("user-agent", "Mozilla/5.0")]));
    }

    #[test]
    fn foreign_pages_are_refused() {
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9999", "https://app.example.evil.example"] {
            assert!(!let_in(&[("host", "127.0.0.1:8000"), ("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn what_a_cookie_lets_pass_is_sent_by_our_own_page_alone() {
        let own = |lines: &[(&'static str, &'static str)], has_to_tell| {
            let mut headers = HeaderMap::new();
            headers.insert("host", "127.0.0.1:8000".parse().expect("a valid value"));
            for (name, value) in lines {
                headers.insert(*name, value.parse().expect("a valid value"));
            }
            check_own(&headers, has_to_tell).is_ok()
        };
        let (site, origin) = ("sec-fetch-site", "origin");
        for (lines, reads, changes) in [
            (&[(site, "same-origin")][..], true, true),
            (&[(site, "same-origin"), (origin, "http://127.0.0.1:8000")], true, true),
            (&[(origin, "http://127.0.0.1:8000")], true, true),
            (&[(site, "none")], true, false),
            (&[], true, false),
            (&[(site, "same-site")], false, false),
            (&[(site, "cross-site")], false, false),
            (&[(site, "cross-site"), (origin, "http://127.0.0.1:8000")], false, false),
            (&[(origin, "http://127.0.0.1:9999")], false, false),
            (&[(origin, "https://app.example")], false, false),
            (&[(origin, "null")], false, false),
        ] {
            assert_eq!((own(lines, false), own(lines, true)), (reads, changes), "{lines:?}");
        }
    }

    #[test]
    fn a_page_without_a_name_is_not_that_of_a_gateway_without_one() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "null".parse().expect("a valid value"));
        assert!(check_own(&headers, true).is_err());
        headers.insert(HOST, "".parse().expect("a valid value"));
        assert!(check_own(&headers, true).is_err() && check_own(&headers, false).is_err());
    }

    #[test]
    fn who_says_two_origins_is_refused_even_if_both_are_ours() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "127.0.0.1:8000".parse().expect("a valid value"));
        for _ in 0..2 {
            headers.append(ORIGIN, "http://127.0.0.1:8000".parse().expect("a valid value"));
        }
        assert!(check(&headers, &[]).is_err());
    }

    #[test]
    fn a_rebound_name_is_refused() {
        assert!(!let_in(&[("host", "evil.example:8000"), ("origin", "http://evil.example:8000")]));
        assert!(!let_in(&[("host", "evil.example:8000"), ("user-agent", "Mozilla/5.0")]));
        assert!(!let_in(&[("host", "evil.example:8000"), ("sec-fetch-site", "same-origin")]));
        for host in ["evil@127.0.0.1:8000", "localhost:8000/x", "http://localhost/", "/", ""] {
            assert!(!let_in(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
        }
    }
}
