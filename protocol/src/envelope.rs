//! What travels between nodes, and where in a group's sequence a message stands.

use std::fmt;
use std::str::FromStr;

use crate::id::MessageId;
use crate::message::Message;

/// The most characters an epoch may have; ours have far fewer.
pub const EPOCH_LEN_MAX: usize = 64;

/// A message of a group with its place in the group's sequence. The same for every recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id that the sender was told.
    pub id: MessageId,
    /// Which run of the sequence `offset` belongs to.
    pub epoch: Box<str>,
    /// The place in the sequence, from 1 without holes.
    pub offset: u64,
    /// The message itself.
    pub message: Message,
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
    fn other_texts_are_refused() {
        let long = format!("{}:1", "x".repeat(EPOCH_LEN_MAX + 1));
        for text in
            ["", "x7", ":", "x7:", ":40", "x7:+4", "x7:-4", "x7:4 ", "x:7:4", "é:1", "x7:18446744073709551616", &long]
        {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
