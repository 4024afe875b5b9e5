//! Ids of messages and jobs: UUIDv7, written as 26 characters of Crockford base32.
//!
//! The time comes first, so ids sort by age as text and as bytes. Clock and randomness are handed in.

use std::fmt;
use std::str::FromStr;

/// A 128-bit UUIDv7 (RFC 9562, section 5.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u128);

/// The id of a job.
pub type JobId = Id;

/// The id of a message that the layer took.
pub type MessageId = Id;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id; an id has 26 characters of Crockford base32, as in `01JD8ZJ4M5E8RAX0V4C9QW2N7K`")]
pub struct IdError(String);

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LEN: usize = 26;

impl Id {
    /// Makes an id from milliseconds since 1970 and random bits, of which 74 are used. The lowest 12 of them come right behind
    /// the time.
    pub fn new(unix_ms: u64, random: u128) -> Self {
        let time = u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80;
        let rand_a = (random & 0xFFF) << 64;
        let rand_b = (random >> 12) & 0x3FFF_FFFF_FFFF_FFFF;
        Self(time | 0x7 << 76 | rand_a | 0b10 << 62 | rand_b)
    }

    /// The id as it is kept in a database, most significant byte first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id that [`Id::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// When the id was made, in milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl FromStr for Id {
    type Err = IdError;

    /// Reads an id. Letters of either case are taken; look-alikes (`O`, `I`, `L`) are not.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError(text.chars().take(40).collect());
        if text.len() != LEN {
            return Err(refused());
        }
        let mut value: u128 = 0;
        for (at, byte) in text.bytes().enumerate() {
            let digit = DIGITS.iter().position(|d| *d == byte.to_ascii_uppercase()).ok_or_else(refused)?;
            // 26 digits hold 130 bits: the first may only use three of its five.
            if at == 0 && digit > 7 {
                return Err(refused());
            }
            value = value << 5 | digit as u128;
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; LEN];
        for (at, slot) in text.iter_mut().enumerate() {
            *slot = DIGITS[(self.0 >> (5 * (LEN - 1 - at)) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).expect("base32 digits are ASCII"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let id = Id::new(1_732_000_000_000, u128::MAX);
        let bytes = id.to_bytes();
        assert_eq!(bytes[6] >> 4, 7);
        assert_eq!(bytes[8] >> 6, 0b10);
        assert_eq!(id.unix_ms(), 1_732_000_000_000);
    }

    #[test]
    fn text_and_back() {
        let id = Id::new(1_732_000_000_000, 0x1234_5678_9ABC_DEF0_1122);
        let text = id.to_string();
        assert_eq!(text.len(), LEN);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_lowercase().parse(), Ok(id));
    }

    #[test]
    fn ids_sort_by_age_as_text() {
        assert!(Id::new(1, u128::MAX).to_string() < Id::new(2, 0).to_string());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "x", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0123456789ABCDEFGHJKMNPQRU", "01JD8ZJ4M5E8RAX0V4C9QW2N7é"]
        {
            assert!(text.parse::<Id>().is_err(), "{text:?}");
        }
    }
}
