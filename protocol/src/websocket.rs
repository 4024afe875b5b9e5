//! The bytes of WebSocket: frames written here and read by [`reader`], and the checks of a handshake that need no
//! crypto.
//!
//! What a server sends is never masked and never fragmented, so a frame is a short header and the payload
//! (RFC 6455, section 5.2).

pub mod deflate;
pub mod reader;

use bytes::{BufMut, Bytes, BytesMut};

use crate::close::CloseCode;

/// The longest header that [`text`] writes: two bytes and a 64-bit length.
pub const HEADER_MAX: usize = 10;

/// The most payload a control frame may have (RFC 6455, section 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// The subprotocol of Groupcast.
pub const SUBPROTOCOL: &str = "groupcast.v1";

/// What a subprotocol that carries a client's token begins with.
pub const TOKEN_SUBPROTOCOL: &str = "groupcast.token.";

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FINAL: u8 = 0x80;
/// RSV1, the bit of permessage-deflate.
const DEFLATED: u8 = 0x40;

/// A whole text message: header and payload. The payload must be UTF-8.
pub fn text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// A whole text message whose payload lies in parts. All together must be UTF-8.
pub fn text_of(parts: &[&[u8]]) -> Bytes {
    frame_of(TEXT, parts)
}

/// A whole text message whose payload has been compressed.
pub fn deflated_text(payload: &[u8]) -> Bytes {
    frame(DEFLATED | TEXT, payload)
}

/// A whole binary message.
pub fn binary(payload: &[u8]) -> Bytes {
    frame(BINARY, payload)
}

/// The payload of a frame that was made here.
///
/// # Panics
/// When the bytes do not begin with a header of ours.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    &frame[header..]
}

/// A ping. Of a payload longer than [`CONTROL_PAYLOAD_MAX`] the beginning is sent.
pub fn ping(payload: &[u8]) -> Bytes {
    control(PING, payload)
}

/// The answer to a ping, with that ping's payload.
pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

/// A close frame. The reason is cut, between characters, to the 123 bytes there is room for.
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    let end = reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2);
    let mut payload = Vec::with_capacity(2 + end);
    payload.put_u16(code.as_u16());
    payload.put_slice(&reason.as_bytes()[..end]);
    frame(CLOSE, &payload)
}

/// The answer to a close frame: the same code, or none if it had none.
pub fn close_reply(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => frame(CLOSE, &code.to_be_bytes()),
        None => frame(CLOSE, b""),
    }
}

/// Whether a `Sec-WebSocket-Key` is what RFC 6455, section 4.1, asks for: 16 bytes in base64.
pub fn is_key(key: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key.as_bytes() {
        // The last digit before the padding carries two bits; the other four are zero.
        [digits @ .., last, b'=', b'='] => {
            digits.len() == 21 && digits.iter().copied().all(base64) && matches!(last, b'A' | b'Q' | b'g' | b'w')
        }
        _ => false,
    }
}

/// What a client's `Sec-WebSocket-Protocol` offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer<'a> {
    /// Nothing: the connection speaks `groupcast.v1` without saying so.
    Nothing,
    /// `groupcast.v1`, perhaps with a token beside it. The answer names [`SUBPROTOCOL`] alone.
    Ours {
        /// The JWT of `groupcast.token.<jwt>`.
        token: Option<&'a str>,
    },
    /// Only protocols that are not spoken here: the handshake is refused.
    Others,
    /// Several tokens, of which nobody can say whose connection it is to be: the handshake is refused.
    SeveralTokens,
}

/// Reads the values of all `Sec-WebSocket-Protocol` headers of a request.
pub fn offer<'a>(headers: impl IntoIterator<Item = &'a str>) -> Offer<'a> {
    let (mut ours, mut any, mut several, mut token) = (false, false, false, None);
    for name in headers.into_iter().flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()) {
        any = true;
        ours |= name == SUBPROTOCOL;
        let another = name.strip_prefix(TOKEN_SUBPROTOCOL);
        several |= token.is_some() && another.is_some();
        token = token.or(another);
    }
    match (any, ours) {
        (false, _) => Offer::Nothing,
        (true, _) if several => Offer::SeveralTokens,
        (true, true) => Offer::Ours { token },
        (true, false) => Offer::Others,
    }
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    frame(opcode, &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)])
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    frame_of(opcode, &[payload])
}

fn frame_of(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let header = match len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => HEADER_MAX,
    };
    // As much as it takes and no more: so nothing but this is allocated for it.
    let mut out = BytesMut::with_capacity(header + len);
    out.put_u8(FINAL | opcode);
    match header {
        2 => out.put_u8(len as u8),
        4 => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a text frame of `len` bytes, which must be followed by exactly the payload.
    fn header(len: usize) -> Vec<u8> {
        let payload = vec![b'x'; len];
        let framed = text(&payload);
        let (header, rest) = framed.split_at(framed.len() - len);
        assert_eq!(rest, payload);
        assert_eq!(super::payload(&framed), payload);
        assert_eq!(text_of(&[&payload[..len / 2], &payload[len / 2..]]), framed);
        assert!(header.len() <= HEADER_MAX);
        header.to_vec()
    }

    #[test]
    fn the_length_takes_7_16_or_64_bits() {
        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(65_535), [0x81, 126, 0xFF, 0xFF]);
        assert_eq!(header(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(&ping(b"7")[..], [0x89, 1, b'7']);
        assert_eq!(&pong(b"")[..], [0x8A, 0]);
        assert_eq!(ping(&[0; 200]).len(), 2 + 125);
        assert_eq!(&close(CloseCode::Timeout, "no")[..], [0x88, 4, 0x0B, 0xC0, b'n', b'o']);
    }

    #[test]
    fn a_close_is_answered_by_its_own_code() {
        assert_eq!(&close_reply(Some(3999))[..], [0x88, 2, 0x0F, 0x9F]);
        assert_eq!(&close_reply(None)[..], [0x88, 0]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let framed = close(CloseCode::Policy, &"é".repeat(100));
        assert_eq!(framed.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&framed[4..]).is_ok());
    }

    #[test]
    fn a_key_is_16_bytes_of_base64() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for key in ["", "abc", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25j ZQ==", "é"]
        {
            assert!(!is_key(key), "{key:?}");
        }
    }

    #[test]
    fn who_offers_protocols_must_offer_ours() {
        assert_eq!(offer([]), Offer::Nothing);
        assert_eq!(offer(["graphql-ws, groupcast.v1"]), Offer::Ours { token: None });
        assert_eq!(offer(["groupcast.v1", "groupcast.token.a.b.c"]), Offer::Ours { token: Some("a.b.c") });
        assert_eq!(offer(["groupcast.v2,groupcast.token.x"]), Offer::Others);
        assert_eq!(offer(["groupcast.v1,groupcast.token.x", "groupcast.token.x"]), Offer::SeveralTokens);
    }
}
