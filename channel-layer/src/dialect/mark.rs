//! How gateways know what one of them has written for Django in `channels_redis.pubsub`, where all hear everything.
//!
//! The mark changes nothing for a reader, and no writer in Python makes it: a map in MessagePack has the long form of its
//! size, which Python takes from 65,536 keys on; JSON begins with a blank.

use super::{CodecError, Serializer};

const MAP32: u8 = 0xdf;
const MAP16: u8 = 0xde;
/// Of the forms with the size in their first byte.
const FIXMAP: std::ops::RangeInclusive<u8> = 0x80..=0x8f;

impl Serializer {
    /// Marks a message that was written.
    pub(super) fn mark(self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        if self == Self::Json {
            return Ok([b" ", payload].concat());
        }
        match payload {
            [size, rest @ ..] if FIXMAP.contains(size) => Ok([&[MAP32, 0, 0, 0, size & 0x0f], rest].concat()),
            [MAP16, high, low, rest @ ..] => Ok([&[MAP32, 0, 0, *high, *low], rest].concat()),
            _ => Err(CodecError::TooManyKeys),
        }
    }

    /// Whether a message was marked.
    pub(super) fn is_marked(self, payload: &[u8]) -> bool {
        match self {
            Self::Json => payload.first() == Some(&b' '),
            Self::Msgpack => payload.starts_with(&[MAP32, 0, 0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use groupcast_protocol::Message;

    use crate::dialect::{Codec, Keys, Serializer, To};

    #[test]
    fn a_mark_is_seen_and_changes_nothing() {
        let keys = (0..20).map(|n| format!(r#","k{n}":{n}"#)).collect::<String>();
        for text in [r#"{"type":"a"}"#.to_owned(), format!(r#"{{"type":"a"{keys}}}"#)] {
            let message = Message::parse(Bytes::from(text)).expect("a message");
            for serializer in [Serializer::Msgpack, Serializer::Json] {
                for keys in [Keys::default(), Keys::new(&["s3cret"])] {
                    let codec = Codec { serializer, keys, prefix_bytes: 0, max_age_secs: None, message_bytes: 1000 };
                    let marked = codec.encode_marked(&message, 1000).expect("it can be written");
                    assert!(codec.is_marked(&marked));
                    assert_eq!(codec.decode(&marked, 1000).expect("it is ours").message, message);
                    let plain = codec.encode(&message, &To::Nobody, 1000).expect("it can be written");
                    assert!(!codec.is_marked(&plain));
                }
            }
        }
    }

    #[test]
    fn garbage_is_not_marked() {
        for serializer in [Serializer::Msgpack, Serializer::Json] {
            for keys in [Keys::default(), Keys::new(&["s3cret"])] {
                let codec = Codec { serializer, keys, prefix_bytes: 0, max_age_secs: None, message_bytes: 1000 };
                for garbage in [&b""[..], b"\x00", b"\xde\x00\x01", b"\xdf\x00\x01\x00\x00"] {
                    assert!(!codec.is_marked(garbage), "{garbage:?}");
                }
            }
        }
    }
}
