//! How Django Channels writes its messages: what channels_redis 4.3 puts into Redis, read and written byte for byte.
//!
//! Pure: bytes in, bytes out. Reading order: [`codec`] (a whole frame), [`msgpack`], [`json`], [`fernet`] (its layers).
//! Who is spoken to, and when, is the broker's.
//!
//! JSON has less than MessagePack: bytes become `{"$bytes":"…base64…"}`, and are made of such an object again; numbers that
//! are not finite become `null`. What Channels could not receive itself (keys that are no text, extension types) is refused.

pub mod codec;
pub mod fernet;
pub mod json;
pub mod msgpack;

pub use codec::{Codec, CodecError, Frame, Serializer, To};
pub use fernet::Keys;

/// The key under which a frame names the channels that it is for.
pub(crate) const CHANNEL_KEY: &str = "__asgi_channel__";
