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

/// A message that was read, without `__asgi_channel__`.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The message.
    pub message: Message,
    /// The channels that the key named: one, several, or none when it was not there. They may be any text: Channels takes
    /// more than we do.
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
    Msgpack(#[from] super::msgpack::MsgpackError),
    /// The key of the channels has something else than names, or is there twice.
    #[error("a frame has no names under `{CHANNEL_KEY}`; it was not written by a channel layer")]
    Channels,
    /// It is larger than the limit.
    #[error("a frame is larger than {max} bytes of JSON")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// It is to be marked, and has too many keys for that.
    #[error("the message has more than 65,535 keys, which cannot be told apart from what Django sends; nest them")]
    TooManyKeys,
    /// What it has is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message to be written has the key of the channels.
    #[error("the message has the key `{CHANNEL_KEY}`, which says whom a frame is for; choose another key")]
    Reserved,
    /// A message to be written has a number that MessagePack cannot have.
    #[error(
        "the number {text} does not fit 64 bits, and other readers of the channel layer could not take it; send it as text"
    )]
    NumberTooLarge {
        /// The number, or its beginning.
        text: String,
    },
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
        let Decoded { message, channels } = self.serializer.decode(payload, self.message_bytes)?;
        Ok(Frame { id: Bytes::copy_from_slice(id), message, channels })
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When the message has the key that names channels or a number that other readers could not take, or there is no
    /// randomness.
    pub fn encode(&self, message: &Message, to: &To<'_>, now_secs: u64) -> Result<Vec<u8>, CodecError> {
        self.wrap(self.serializer.encode(message, to)?, now_secs)
    }

    /// Writes a frame that names nobody, with a [mark](super::mark).
    ///
    /// # Errors
    /// As [`Codec::encode`], and when the message has so many keys that it cannot be marked.
    pub fn encode_marked(&self, message: &Message, now_secs: u64) -> Result<Vec<u8>, CodecError> {
        self.wrap(self.serializer.mark(&self.serializer.encode(message, &To::Nobody)?)?, now_secs)
    }

    /// Whether a frame has a [mark](super::mark). What cannot be read has none.
    pub fn is_marked(&self, frame: &[u8]) -> bool {
        let Some(payload) = frame.get(self.prefix_bytes..) else { return false };
        if self.keys.is_empty() {
            return self.serializer.is_marked(payload);
        }
        self.keys.decrypt(payload, 0, None).is_ok_and(|plain| self.serializer.is_marked(&plain))
    }

    fn wrap(&self, payload: Vec<u8>, now_secs: u64) -> Result<Vec<u8>, CodecError> {
        let payload = if self.keys.is_empty() { payload } else { self.keys.encrypt(&payload, now_secs)? };
        let mut frame = vec![0; self.prefix_bytes];
        aws_lc_rs::rand::fill(&mut frame).map_err(|_| super::fernet::FernetError)?;
        frame.extend_from_slice(&payload);
        Ok(frame)
    }
}

impl Serializer {
    /// Writes a message.
    ///
    /// # Errors
    /// When other readers could not take it, or it has the key of the channels.
    pub fn encode(self, message: &Message, to: &To<'_>) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Msgpack => msgpack::encode(message, to),
            Self::Json => json::encode(message, to),
        }
    }

    /// Reads a message of at most `max` bytes of JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(self, payload: &[u8], max: usize) -> Result<Decoded, CodecError> {
        match self {
            Self::Msgpack => msgpack::decode(payload, max),
            Self::Json => json::decode(payload, max),
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
        assert!(matches!(codec.decode(br#"xx{"type":"ab"}"#, 0), Err(CodecError::TooLarge { max: 12 })));
        let codec = Codec { message_bytes: 20, ..codec };
        assert!(codec.decode(br#"xx{"type":"a","n":null}"#, 0).is_err());
        assert!(matches!(codec.decode(br#"xx{"type":"a","n":NaN}"#, 0), Err(CodecError::TooLarge { max: 20 })));
        assert!(matches!(codec.decode(br#"xx{"kin":"ab"}"#, 0), Err(CodecError::Message(_))));
    }
}
