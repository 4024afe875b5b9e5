//! permessage-deflate (RFC 7692): what is agreed on in the handshake.
//!
//! Without context takeover on either side: every message stands for itself, so that one compressed message serves all who
//! are to have it, and no connection keeps a window. Compressing is left to the channel layer.

/// The answer to an offer that is taken.
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Reads the values of all `Sec-WebSocket-Extensions` headers of a request, and answers the first offer that can be kept.
///
/// An offer to limit our window is declined, because that of our compressor is fixed.
pub fn negotiate<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<String> {
    headers.into_iter().flat_map(|value| value.split(',')).find_map(answer)
}

fn answer(offer: &str) -> Option<String> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let (mut seen, mut answer) = (Vec::new(), ANSWER.to_owned());
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        };
        let good = match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => true,
            ("client_max_window_bits", Some(bits)) => {
                matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
            }
            ("server_max_window_bits", Some("15")) => {
                answer += "; server_max_window_bits=15";
                true
            }
            _ => false,
        };
        if !good || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_that_can_be_kept_are_answered() {
        let plain = Some(ANSWER.to_owned());
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=10 ; server_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ] {
            assert_eq!(negotiate([offer]), plain, "{offer}");
        }
        let bits = negotiate(["permessage-deflate; server_max_window_bits=15"]);
        assert_eq!(bits, Some(format!("{ANSWER}; server_max_window_bits=15")));
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; unknown",
        ] {
            assert_eq!(negotiate([offer]), None, "{offer}");
        }
    }
}
