//! A frame of channels_redis: random bytes, then the message, perhaps encrypted.
//!
//! ```text
//! core    [12 random bytes][message or token]   what makes equal messages different members of a sorted set
//! pubsub  [message or token]
//! ```

use bytes::Bytes;
use groupcast_protocol::{Message, MessageError};

use super::{CHANNEL_KEY, Keys, json, msgpack};

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serializer {
    /// MessagePack, the default of channels_redis.
    Msgpack,
    /// JSON text.
    Json,
}

/// Whom a frame names.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    /// Nobody: a message in a channel that any process may read.
    Nobody,
    /// One channel: `send`.
    One(&'a str),
    /// Channels of one process: `group_send`.
    Several(&'a [&'a str]),
}

/// Reads and writes frames.
#[derive(Debug, Clone)]
pub struct Codec {
    /// How messages are written.
    pub serializer: Serializer,
    /// The keys, if they are encrypted.
    pub keys: Keys,
    /// Random bytes before each; 12 in channels_redis, unless it is told otherwise.
    pub prefix_bytes: usize,
    /// How old an encrypted one may be, in seconds; `expiry + 10` in `core`.
    pub max_age_secs: Option<u64>,
    /// The largest message that is taken, in bytes.
    pub message_bytes: usize,
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes before it: no two frames have the same.
    pub id: Bytes,
    /// The message.
    pub message: Message,
    /// The channels that it names.
    pub channels: Vec<String>,
}

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// It is shorter than its random bytes.
    #[error("a frame has fewer bytes than `random_prefix_length` says")]
    Short,
    /// It cannot be decrypted.
    #[error("a frame cannot be decrypted: {0}")]
    Fernet(#[from] super::fernet::FernetError),
    /// It is no MessagePack.
    #[error("a frame is no message in MessagePack: {0}")]
    Msgpack(#[from] msgpack::MsgpackError),
    /// It is no JSON.
    #[error("a frame is no message in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// What it has is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Codec {
    /// Reads a frame.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn decode(&self, frame: &[u8], now_secs: u64) -> Result<Frame, CodecError> {
        let (id, payload) = frame.split_at_checked(self.prefix_bytes).ok_or(CodecError::Short)?;
        let plain = match self.keys.is_empty() {
            true => None,
            false => Some(self.keys.decrypt(payload, now_secs, self.max_age_secs)?),
        };
        let payload = plain.as_deref().unwrap_or(payload);
        let decoded = match self.serializer {
            Serializer::Msgpack => msgpack::decode(payload)?,
            Serializer::Json => json::decode(payload)?,
        };
        let message = Message::parse_within(decoded.json.into(), self.message_bytes)?;
        Ok(Frame { id: Bytes::copy_from_slice(id), message, channels: decoded.channels })
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When the message has the key that names channels, or there is no randomness.
    pub fn encode(&self, message: &Message, to: &To<'_>, now_secs: u64) -> Result<Vec<u8>, CodecError> {
        let payload = match self.serializer {
            Serializer::Msgpack => msgpack::encode(message.raw(), to)?,
            Serializer::Json => json::encode(message.raw(), to)?,
        };
        let payload = if self.keys.is_empty() { payload } else { self.keys.encrypt(&payload, now_secs)? };
        let mut frame = vec![0; self.prefix_bytes];
        aws_lc_rs::rand::fill(&mut frame).map_err(|_| super::fernet::FernetError)?;
        frame.extend_from_slice(&payload);
        Ok(frame)
    }
}

impl To<'_> {
    /// Writes key and value; says whether there is something to write.
    pub(super) fn write_msgpack(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Nobody => return false,
            Self::One(name) => {
                msgpack::write_text(out, CHANNEL_KEY);
                msgpack::write_text(out, name);
            }
            Self::Several(names) => {
                msgpack::write_text(out, CHANNEL_KEY);
                msgpack::write_array(out, names.len());
                names.iter().for_each(|name| msgpack::write_text(out, name));
            }
        }
        true
    }

    pub(super) fn as_json(&self) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::One(name) => serde_json::to_string(name).ok(),
            Self::Several(names) => serde_json::to_string(names).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let message =
            Message::parse(Bytes::from_static(br#"{"type":"execute_query","queryset_id":7}"#)).expect("valid");
        for serializer in [Serializer::Msgpack, Serializer::Json] {
            for keys in [Keys::default(), Keys::new(&["s3cret"])] {
                for prefix_bytes in [0, 12] {
                    let codec = Codec {
                        serializer,
                        keys: keys.clone(),
                        prefix_bytes,
                        max_age_secs: Some(70),
                        message_bytes: 1000,
                    };
                    let bytes = codec.encode(&message, &To::Several(&["a!b"]), 1000).expect("it can be written");
                    let frame = codec.decode(&bytes, 1010).expect("it is ours");
                    assert_eq!(
                        (frame.id.len(), &frame.message, &frame.channels[..]),
                        (prefix_bytes, &message, &["a!b".to_owned()][..])
                    );
                    assert!(codec.decode(&bytes[..prefix_bytes], 1010).is_err());
                }
            }
        }
    }

    #[test]
    fn bounds_hold() {
        let codec = Codec {
            serializer: Serializer::Json,
            keys: Keys::default(),
            prefix_bytes: 2,
            max_age_secs: None,
            message_bytes: 12,
        };
        assert!(matches!(codec.decode(b"x", 0), Err(CodecError::Short)));
        assert!(codec.decode(br#"xx{"type":"a"}"#, 0).is_ok());
        assert!(matches!(codec.decode(br#"xx{"type":"ab"}"#, 0), Err(CodecError::Message(_))));
        assert!(matches!(codec.decode(br#"xx{"kind":"a"}"#, 0), Err(CodecError::Message(_))));
    }
}
