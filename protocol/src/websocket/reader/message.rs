//! What payloads are: messages, put together from fragments, and control frames.

use std::borrow::Cow;

use super::header::{Header, Opcode};
use super::{Broken, Incoming};
use crate::close::CloseCode;

/// A message of which not all has come.
#[derive(Debug)]
pub(super) struct Message {
    text: bool,
    deflated: bool,
    bytes: Vec<u8>,
    /// Of a text: how far it is known to be UTF-8.
    valid: usize,
    frames: usize,
}

impl Message {
    pub(super) fn begin(header: &Header) -> Self {
        let text = header.opcode == Opcode::Text;
        Self { text, deflated: header.rsv1, bytes: Vec::new(), valid: 0, frames: 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Counts a further frame.
    pub(super) fn count_fragment(&mut self) -> usize {
        self.frames += 1;
        self.frames
    }

    /// Adds a part, and fails at the first byte that cannot be in a text.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), Broken> {
        self.bytes.extend_from_slice(part);
        if !self.text || self.deflated {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            // The rest of a character may still come.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(not_utf8()),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Incoming<'static>, Broken> {
        read(self.text, self.deflated, Cow::Owned(self.bytes))
    }
}

/// A message that came in one frame.
pub(super) fn whole(header: Header, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Broken> {
    read(header.opcode == Opcode::Text, header.rsv1, payload)
}

fn read(text: bool, deflated: bool, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Broken> {
    match (deflated, text) {
        (true, text) => Ok(Incoming::Deflated { text, payload }),
        (false, false) => Ok(Incoming::Binary(payload)),
        (false, true) => utf8(payload).map(Incoming::Text),
    }
}

/// What a whole control frame says.
pub(super) fn control(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Broken> {
    match opcode {
        Opcode::Ping => Ok(Incoming::Ping(payload)),
        Opcode::Pong => Ok(Incoming::Pong),
        Opcode::Close => close(payload),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => Err(Broken::protocol("no control frame")),
    }
}

/// RFC 6455, section 5.5.1: nothing, or a code and perhaps a reason.
fn close(payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Broken> {
    if payload.is_empty() {
        return Ok(Incoming::Close(None, Cow::Borrowed("")));
    }
    let Some(code) = payload.first_chunk().map(|code| u16::from_be_bytes(*code)) else {
        return Err(Broken::protocol("a close frame with half a code"));
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Broken::protocol("a close code that may not be sent"));
    }
    let reason = match payload {
        Cow::Borrowed(payload) => Cow::Borrowed(&payload[2..]),
        Cow::Owned(payload) => Cow::Owned(payload[2..].to_vec()),
    };
    Ok(Incoming::Close(Some(code), utf8(reason)?))
}

fn utf8(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Broken> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| not_utf8()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| not_utf8()),
    }
}

fn not_utf8() -> Broken {
    Broken(CloseCode::NotUtf8, "a text message is not UTF-8".to_owned())
}
