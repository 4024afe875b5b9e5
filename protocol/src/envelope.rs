//! What travels between nodes, and where in a group's sequence a message stands.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{Message, MessageError};
use crate::trace::{Trace, TraceContext};

/// The most characters an epoch may have; ours have far fewer.
pub const EPOCH_LEN_MAX: usize = 64;

/// The largest offset that is taken from outside: JSON's readers, and brokers that count in floating point, know none beyond.
pub const OFFSET_MAX: u64 = 1 << 53;

/// What an envelope begins with: the name of its form, so that another form can be told from it.
const FORM: &str = "gc1";

/// What stands before a trace.
const TRACE: &str = "trace=";

/// A message of a group with its place in the group's sequence, as it travels between nodes. The same for every recipient.
///
/// ```text
/// gc1 x7 40 - {"type":"chat.message","text":"hello"}
///     |  |  |  the message, as it was sent
///     |  |  what travels with it: `-` for nothing
///     |  offset
///     epoch
/// gc1 x7 40 trace=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 {"type":"chat.message","text":"hello"}
/// ```
///
/// What travels with a message is its trace, as [`TraceContext`] is written, with tabs for spaces. Anything else there is
/// passed over.
///
/// A broker that numbers messages itself puts epoch and offset between [`Envelope::HEAD`] and [`Envelope::tail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its place in the sequence: offsets begin at 1 and have no holes.
    pub position: Position,
    /// The message itself.
    pub message: Message,
}

/// Bytes that are not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It does not begin as one.
    #[error("this is no envelope of the form `gc1 EPOCH OFFSET - MESSAGE`")]
    Form,
    /// Epoch and offset are none.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The message is none.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Envelope {
    /// What stands before the epoch.
    pub const HEAD: &'static str = "gc1 ";

    /// What stands behind the offset.
    pub fn tail(message: &Message) -> Bytes {
        let mut tail = BytesMut::with_capacity(message.raw().len() + 3);
        match message.trace() {
            None => tail.put_slice(b" - "),
            Some(trace) => tail.put_slice(format!(" {} ", meta(trace)).as_bytes()),
        }
        tail.put_slice(message.raw());
        tail.freeze()
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let Position { epoch, offset } = &self.position;
        [format!("{FORM} {epoch} {offset}").as_bytes(), &Self::tail(&self.message)].concat().into()
    }

    /// Reads what came from outside; the message may have at most `max` bytes.
    ///
    /// # Errors
    /// When it is not an envelope, or what it carries is not a message.
    pub fn decode(bytes: &Bytes, max: usize) -> Result<Self, EnvelopeError> {
        let mut parts = bytes.splitn(5, |byte| *byte == b' ');
        let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        if text() != Some(FORM) {
            return Err(EnvelopeError::Form);
        }
        let (Some(epoch), Some(offset), Some(meta)) = (text(), text(), text()) else { return Err(EnvelopeError::Form) };
        let message = parts.next().ok_or(EnvelopeError::Form)?;
        let position: Position = format!("{epoch}:{offset}").parse()?;
        if position.offset == 0 || position.offset > OFFSET_MAX {
            return Err(EnvelopeError::Form);
        }
        let message = Message::parse_within(bytes.slice_ref(message), max)?;
        Ok(Self { position, message: message.with_trace(trace(meta)) })
    }
}

/// Spaces are what parts an envelope, and a trace has no tabs.
fn meta(trace: &TraceContext) -> String {
    format!("{TRACE}{trace}").replace(' ', "\t")
}

fn trace(meta: &str) -> Trace {
    let trace = meta.strip_prefix(TRACE)?;
    TraceContext::from_text(&trace.replace('\t', " ")).map(Arc::new)
}

/// A place in a group's sequence: everything up to and including `offset` has been seen.
///
/// ```text
/// x7:40                       in a URL
/// {"epoch":"x7","offset":40}  in a frame
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Position {
    /// Which run of the sequence: offsets of different epochs cannot be compared. 1 to [`EPOCH_LEN_MAX`] of ASCII
    /// letters, digits, `-`, `_` and `.`.
    pub epoch: Box<str>,
    /// The last offset that was seen; 0 before the first message.
    pub offset: u64,
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position; give epoch and offset as the server told them, as in `x7:40`")]
pub struct PositionError(String);

impl Position {
    /// Checks an epoch that came from outside.
    ///
    /// # Errors
    /// When the epoch is empty, too long or has a character outside of the allowed set.
    pub fn new(epoch: &str, offset: u64) -> Result<Self, PositionError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if epoch.is_empty() || epoch.len() > EPOCH_LEN_MAX || !epoch.bytes().all(allowed) {
            return Err(PositionError(shown(&format!("{epoch}:{offset}"))));
        }
        Ok(Self { epoch: epoch.into(), offset })
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let refused = || PositionError(shown(text));
        let (epoch, offset) = text.split_once(':').ok_or_else(refused)?;
        // `u64::from_str` takes a leading `+`, which no position has.
        if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        Self::new(epoch, offset.parse().map_err(|_| refused())?)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

fn shown(text: &str) -> String {
    text.chars().take(EPOCH_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let position: Position = "x7:40".parse().expect("valid");
        assert_eq!((&*position.epoch, position.offset), ("x7", 40));
        assert_eq!(position.to_string(), "x7:40");
    }

    #[test]
    fn an_envelope_and_back() {
        let message = Message::parse(Bytes::from_static(br#"{"type":"a","text":"b c"}"#)).expect("valid");
        let envelope = Envelope { position: "x7:40".parse().expect("valid"), message };
        let bytes = envelope.encode();
        assert_eq!(&bytes[..], br#"gc1 x7 40 - {"type":"a","text":"b c"}"#);
        assert_eq!(Envelope::decode(&bytes, 100).expect("valid"), envelope);
        let tail = Envelope::tail(&envelope.message);
        assert_eq!(bytes, [Envelope::HEAD.as_bytes(), b"x7 40", &tail].concat());
    }

    #[test]
    fn a_trace_travels_with_its_message() {
        let message = Message::parse(Bytes::from_static(br#"{"type":"a"}"#)).expect("valid");
        let trace = TraceContext::from_text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 a=b c,d=e");
        let position: Position = "x7:40".parse().expect("valid");
        let envelope = Envelope { position, message: message.with_trace(trace.map(Arc::new)) };
        let bytes = envelope.encode();
        let text =
            "gc1 x7 40 trace=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\ta=b\tc,d=e {\"type\":\"a\"}";
        assert_eq!(bytes, text);
        assert_eq!(Envelope::decode(&bytes, 100).expect("valid"), envelope);
    }

    #[test]
    fn what_else_travels_is_passed_over() {
        let message = r#"{"type":"a"}"#;
        let long = format!("trace={}", "0".repeat(100_000));
        for meta in ["-", "", "later", "trace=", "trace=00-ab", "trace=\t", &long] {
            let bytes = Bytes::from(format!("gc1 x7 40 {meta} {message}"));
            let read = Envelope::decode(&bytes, 100).expect("it is an envelope").message;
            assert_eq!((read.as_str(), read.trace()), (message, &None), "{meta:.20}");
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let decode = |text: &'static str| Envelope::decode(&Bytes::from_static(text.as_bytes()), 20);
        for text in [
            "",
            "gc1",
            "gc1 x7 40",
            "gc1 x7 40 -",
            "gc2 x7 40 - {}",
            r#"gc1 x7 0 - {"type":"a"}"#,
            r#"gc1 x7 9007199254740993 - {"type":"a"}"#,
        ] {
            assert!(matches!(decode(text), Err(EnvelopeError::Form)), "{text}");
        }
        for text in [r#"gc1  40 - {"type":"a"}"#, r#"gc1 x7 -4 - {"type":"a"}"#] {
            assert!(matches!(decode(text), Err(EnvelopeError::Position(_))), "{text}");
        }
        for text in ["gc1 x7 40 - {}", "gc1 x7 40 - ", r#"gc1 x7 40 - {"type":"aaaaaaaaaa"}"#] {
            assert!(matches!(decode(text), Err(EnvelopeError::Message(_))), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = format!("{}:1", "x".repeat(EPOCH_LEN_MAX + 1));
        for text in
            ["", "x7", ":", "x7:", ":40", "x7:+4", "x7:-4", "x7:4 ", "x:7:4", "é:1", "x7:18446744073709551616", &long]
        {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
