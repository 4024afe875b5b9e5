//! `Shown`: what the service gets to see of a request. Nothing that is not listed.

use std::net::SocketAddr;

use groupcast_protocol::asgi::{Door, Request, Scope};
use groupcast_protocol::websocket::TOKEN_SUBPROTOCOL;
use http::header::{COOKIE, HOST, SEC_WEBSOCKET_PROTOCOL};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri, Version};

use crate::config::HooksConfig;

/// See the [module](self).
pub(super) struct Shown {
    headers: Vec<HeaderName>,
    cookies: Vec<String>,
    is_secure: bool,
}

impl Shown {
    pub(super) fn new(config: &HooksConfig, is_secure: bool) -> Result<Self, String> {
        let headers = config.headers.iter().map(|name| HeaderName::try_from(name).map_err(|error| error.to_string()));
        Ok(Self { headers: headers.collect::<Result<_, _>>()?, cookies: config.cookies.clone(), is_secure })
    }

    pub(super) fn scope(
        &self,
        door: Door,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Scope {
        Scope::new(Request {
            door,
            is_http2: version == Version::HTTP_2,
            is_secure: self.is_secure,
            path: uri.path().to_owned(),
            query_string: uri.query().unwrap_or_default().to_owned(),
            headers: self.headers(headers),
            client: (peer.ip().to_canonical().to_string(), peer.port()),
            server: server(headers),
            subprotocols: subprotocols(headers),
        })
    }

    fn headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let listed = headers.iter().filter(|(name, _)| self.headers.contains(name) && **name != COOKIE);
        let mut shown: Vec<_> =
            listed.map(|(name, value)| (name.as_str().to_owned(), latin1(value.as_bytes()))).collect();
        shown.extend(self.cookies(headers).map(|cookies| (COOKIE.as_str().to_owned(), cookies)));
        shown
    }

    /// The listed cookies of all `Cookie` headers, as they were sent (RFC 6265, section 4.2.1). Pieces without a name are
    /// nobody's.
    fn cookies(&self, headers: &HeaderMap) -> Option<String> {
        let all: Vec<String> = headers.get_all(COOKIE).iter().map(|value| latin1(value.as_bytes())).collect();
        let pairs = all.iter().flat_map(|text| text.split(';')).map(str::trim);
        let is_listed = |pair: &&str| {
            pair.split_once('=').is_some_and(|(name, _)| self.cookies.iter().any(|known| known == name.trim_end()))
        };
        let listed: Vec<&str> = pairs.filter(is_listed).collect();
        (!listed.is_empty()).then(|| listed.join("; "))
    }
}

/// Each byte as the character of its number, as ASGI's bytes are in JSON.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn server(headers: &HeaderMap) -> Option<(String, Option<u16>)> {
    let host = headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok()?;
    Some((host.host().to_owned(), host.port_u16()))
}

/// Without those that carry a token.
fn subprotocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.filter(|name| !name.starts_with(TOKEN_SUBPROTOCOL)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn shown(cookies: &[&str], headers: &[&str]) -> Shown {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let headers = headers.iter().map(|name| HeaderName::try_from(*name).expect("a name")).collect();
        Shown { headers, cookies: names(cookies), is_secure: false }
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn told(shown: &Shown, lines: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        shown.headers(&headers)
    }

    #[test]
    fn only_listed_cookies_leave() {
        let one = shown(&["sessionid"], &["cookie"]);
        let pair = |value: &str| vec![("cookie".to_owned(), value.to_owned())];
        for (sent, expected) in [
            ("sessionid=a", pair("sessionid=a")),
            ("canary=x; sessionid=a; canary2=sessionid=b", pair("sessionid=a")),
            ("canary=x;sessionid=a=b==;", pair("sessionid=a=b==")),
            ("sessionid=\"a\"; sessionid=b", pair("sessionid=\"a\"; sessionid=b")),
            ("sessionid", vec![]),
            ("sessionid2=a; xsessionid=a; SESSIONID=a; $sessionid=a", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(told(&one, &[("cookie", sent)]), expected, "{sent}");
        }
        let several = [("cookie", "canary=x"), ("cookie", "sessionid=a"), ("cookie", "sessionid=b; canary=y")];
        assert_eq!(told(&one, &several), pair("sessionid=a; sessionid=b"));
        assert!(told(&shown(&[], &[]), &several).is_empty());
    }

    #[test]
    fn only_listed_headers_leave() {
        let sent =
            [("authorization", "Bearer canary"), ("user-agent", "x"), ("x-real-ip", "1.1.1.1"), ("user-agent", "y")];
        let both = [("user-agent".to_owned(), "x".to_owned()), ("user-agent".to_owned(), "y".to_owned())];
        assert_eq!(told(&shown(&[], &["user-agent"]), &sent), both);
        assert!(told(&shown(&["sessionid"], &[]), &sent).is_empty());
    }

    #[test]
    fn a_token_is_no_subprotocol() {
        let headers = map(&[("sec-websocket-protocol", "groupcast.v1, groupcast.token.canary")]);
        assert_eq!(subprotocols(&headers), ["groupcast.v1"]);
        assert!(subprotocols(&HeaderMap::new()).is_empty());
    }

    #[test]
    fn the_server_is_who_was_called() {
        for (host, expected) in
            [("example.org", Some(("example.org", None))), ("[::1]:8000", Some(("[::1]", Some(8000)))), ("a b", None)]
        {
            let expected = expected.map(|(name, port)| (name.to_owned(), port));
            assert_eq!(server(&map(&[("host", host)])), expected, "{host}");
        }
    }

    #[test]
    fn bytes_beyond_ascii_are_characters_of_their_number() {
        assert_eq!(latin1(b"a\xff"), "a\u{ff}");
    }
}
