//! `RequestId`: what one HTTP request is called, in its answer and in the log.

use std::fmt;

use groupcast_protocol::Id;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock;

/// The header that names a request, in both directions.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most characters of a name that is taken from whoever asks: more than any of the usual forms has.
const LEN_MAX: usize = 64;

/// What a request is called: by whoever stands before us, or by us.
#[derive(Debug, Clone)]
pub(crate) enum RequestId {
    /// Short, and of letters, digits and ``-_.:/+=@`` alone: it is written into lines of the log as it is.
    Given(HeaderValue),
    /// Written out only where it is told.
    Made(Id),
}

impl RequestId {
    /// The name that a request brings, if there is one and it can be shown; else a fresh one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(X_REQUEST_ID) {
            Some(given) if is_plain(given.as_bytes()) => Self::Given(given.clone()),
            _ => Self::Made(clock::new_id()),
        }
    }

    /// The header's value.
    pub(crate) fn to_value(&self) -> HeaderValue {
        match self {
            Self::Given(given) => given.clone(),
            Self::Made(id) => HeaderValue::try_from(id.to_string()).expect("digits and letters"),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(given) => f.write_str(given.to_str().unwrap_or_default()),
            Self::Made(id) => id.fmt(f),
        }
    }
}

fn is_plain(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=LEN_MAX).contains(&name.len()) && name.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[u8]) -> String {
        let headers = [(X_REQUEST_ID, HeaderValue::from_bytes(given).expect("a value"))].into_iter().collect();
        let id = RequestId::of(&headers);
        assert_eq!(id.to_value().to_str().expect("ASCII"), id.to_string(), "the log and the answer say the same");
        id.to_string()
    }

    #[test]
    fn a_short_plain_name_is_taken() {
        for name in ["7", "4bf92f35-77b3.4da6:a3ce/929d+0e0e=47@36_b7", &"a".repeat(LEN_MAX)] {
            assert_eq!(of(name.as_bytes()), name);
        }
    }

    #[test]
    fn any_other_is_made() {
        for name in ["", "a b", "a\"b", "a\\b", "a,b", "\u{e9}", &"a".repeat(LEN_MAX + 1)] {
            let id = of(name.as_bytes());
            assert!(id.parse::<Id>().is_ok(), "{name:?}: {id}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).to_string(), RequestId::of(&HeaderMap::new()).to_string());
    }
}
