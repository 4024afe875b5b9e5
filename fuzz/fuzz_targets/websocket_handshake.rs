//! The headers of a WebSocket's handshake: key, subprotocols, extensions.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groupcast_fuzz::{head, text};
use groupcast_protocol::websocket::{Offer, SUBPROTOCOL, TOKEN_SUBPROTOCOL, deflate, is_key, offer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = head(data);
    let (Some(first), Some(second)) = (text(first), text(second)) else { return };
    // Two readers of base64 agree.
    assert_eq!(is_key(first), STANDARD.decode(first).is_ok_and(|key| key.len() == 16), "{first:?}");
    protocols(first, second);
    extensions(first, second);
});

/// Several headers of a name mean the same as one with commas (RFC 9110, section 5.3).
fn protocols(first: &str, second: &str) {
    let joined = format!("{first},{second}");
    let offered = offer([first, second]);
    assert_eq!(offered, offer([joined.as_str()]));
    let names: Vec<&str> = joined.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match offered {
        Offer::Nothing => assert!(names.is_empty()),
        Offer::Others => assert!(!names.is_empty() && !names.contains(&SUBPROTOCOL)),
        Offer::SeveralTokens => {
            let tokens = names.iter().filter(|name| name.starts_with(TOKEN_SUBPROTOCOL)).count();
            assert!(tokens > 1);
        }
        Offer::Ours { token } => {
            assert!(names.contains(&SUBPROTOCOL));
            let told = token.map(|token| format!("{TOKEN_SUBPROTOCOL}{token}"));
            assert!(told.is_none_or(|told| names.contains(&told.as_str())));
        }
    }
}

/// What is answered is what was offered, and nothing else can get into the header.
fn extensions(first: &str, second: &str) {
    let answer = deflate::negotiate([first, second]);
    assert_eq!(answer, deflate::negotiate([format!("{first},{second}").as_str()]));
    let Some(answer) = answer else { return };
    assert!(first.contains("permessage-deflate") || second.contains("permessage-deflate"));
    let mut parts = answer.split("; ");
    assert_eq!(parts.next(), Some("permessage-deflate"));
    for part in parts {
        assert!(
            matches!(part, "server_no_context_takeover" | "client_no_context_takeover" | "server_max_window_bits=15"),
            "{answer}"
        );
    }
}
