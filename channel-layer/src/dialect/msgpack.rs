//! MessagePack and JSON, each made of the other without a tree between them; as Python's `msgpack` writes it.
//!
//! Written is the shortest form of each number, text and container, as Python does. Read is with every bound that the bytes
//! of strangers need: depth, size, and no room for what a head only claims.

mod read;
mod write;

use groupcast_protocol::Message;
use groupcast_protocol::message::DEPTH_MAX;

use super::codec::{CodecError, Decoded, To};

/// The key of an object that stands for bytes.
pub const BYTES_KEY: &str = "$bytes";

/// Bytes that are no MessagePack, or that a message cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// It ends before it should.
    #[error("it ends before it should")]
    Short,
    /// Something is behind it.
    #[error("something is behind its end")]
    Rest,
    /// A message is a map.
    #[error("it is not a map")]
    NotAMap,
    /// A key is no text.
    #[error("a key is not a text")]
    Key,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// It nests too deeply.
    #[error("it nests deeper than {DEPTH_MAX} levels")]
    Depth,
    /// An extension type, or a byte that begins nothing.
    #[error("it has a type that JSON has not")]
    Type,
}

/// Writes a message as a map. Whom it is for comes last, as in Python.
///
/// # Errors
/// When the message has a number that no reader could take, or the key of the channels.
pub fn encode(message: &Message, to: &To<'_>) -> Result<Vec<u8>, CodecError> {
    write::message(message.as_str(), to)
}

/// Reads a map; at most `max` bytes of JSON come of it.
///
/// # Errors
/// When it is no map, or not one that can be a message.
pub fn decode(payload: &[u8], max: usize) -> Result<Decoded, CodecError> {
    let (json, channels) = read::message(payload, max)?;
    Ok(Decoded { message: Message::parse(json.into())?, channels })
}
