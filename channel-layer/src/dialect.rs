//! How Django Channels writes its messages: what channels_redis 4.3 puts into Redis, read and written byte for byte.
//!
//! Pure: bytes in, bytes out. Reading order: [`codec`] (a whole frame), [`msgpack`], [`json`], [`fernet`] (its layers), [`mark`].
//! Who is spoken to, and when, is the broker's.
//!
//! # What becomes of values
//!
//! | JSON here | MessagePack | and back |
//! |---|---|---|
//! | text | str | the same; half of a surrogate pair, which Python refuses to send, is U+FFFD |
//! | whole number within 64 bits | the shortest int, as Python writes it | the same |
//! | whole number beyond them | refused: no reader could take it | |
//! | number with `.` or an exponent | float64 | the same value; a float32 is widened |
//! | (none) | float that is not finite | `null`, as `JSON.stringify` has it |
//! | `{"$bytes":"AP8="}`: this key alone, with base64 | bin | the same |
//! | object | map; a key that is there twice is there twice | the same; in Python the last one counts |
//! | (none) | a map's key that is no text, extension types | refused |
//!
//! The serializer `json` of channels_redis writes `NaN`, `Infinity` and `-Infinity`, which JSON has not: they are read as
//! `null`. Bytes have no form of their own there.

pub mod codec;
pub mod fernet;
pub mod json;
mod jsontext;
pub mod mark;
pub mod msgpack;
#[cfg(test)]
mod tests;

pub use codec::{Codec, CodecError, Decoded, Frame, Serializer, To};
pub use fernet::Keys;

/// The key under which a frame names the channels that it is for. Nobody may send it: it would reach channels that its
/// sender may not send to.
pub(crate) const CHANNEL_KEY: &str = "__asgi_channel__";
