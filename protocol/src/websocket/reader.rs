//! Reads frames: bytes as they come in, messages out.
//!
//! The reader is handed a mutable slice of what was just read and unmasks it in place. A message that lies in the slice
//! whole is lent from there; only what is incomplete is kept, and grows with what arrives, never by what a header
//! declares. A reader of an idle connection is one word.
//!
//! Rules: RFC 6455, section 5, all of it, and two bounds of our own: bytes and fragments of a message.

mod header;
mod mask;
mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::header::{Header, Opcode};
use self::message::Message;
use crate::close::CloseCode;

/// The bounds of what is read.
#[derive(Debug, Clone)]
pub struct ReadLimits {
    /// Bytes of a message; one that declares more is refused at its header, with 1009.
    pub message_bytes_max: usize,
    /// Frames of one message; more are refused with 1008.
    pub fragments_max: usize,
    /// Whether permessage-deflate was agreed on: then the first bit behind FIN marks a compressed message.
    pub deflate: bool,
}

/// What came in. Lent from the slice that was read into, where it lies there whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A compressed message, as it came; only with [`ReadLimits::deflate`].
    Deflated {
        /// Whether it is to be text, which has not been checked.
        text: bool,
        /// The payload, without the four bytes that a sender leaves out.
        payload: Cow<'a, [u8]>,
    },
    /// A frame of a message that has not ended.
    Part {
        /// Whether there was nothing in it.
        empty: bool,
    },
    /// A ping; it is answered by a pong with the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong,
    /// The other end says goodbye. Nothing after it is read.
    Close(Option<u16>, Cow<'a, str>),
    /// The other end broke a rule: close with this code and reason. Nothing after it is read.
    Broken(CloseCode, String),
}

/// Why nothing more can be read.
#[derive(Debug, PartialEq, Eq)]
struct Broken(CloseCode, String);

impl Broken {
    fn protocol(reason: &str) -> Self {
        Self(CloseCode::Protocol, reason.to_owned())
    }
}

/// Reads one connection's frames. See the [module](self).
#[derive(Debug, Default)]
pub struct Reader {
    /// What is incomplete, if anything is.
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header.
    head: ([u8; header::BYTES_MAX], usize),
    /// A frame of which not all has come.
    frame: Option<Frame>,
    /// What has come of a control frame.
    control: Vec<u8>,
    /// A message whose last frame has not ended.
    message: Option<Message>,
}

/// A frame whose header has been read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    header: Header,
    /// Bytes of the payload that have not come.
    left: u64,
    /// The mask of the next byte first.
    mask: [u8; 4],
}

impl Reader {
    /// The next thing in `input`, which is moved on behind it; `None` when all of `input` is used up.
    ///
    /// After [`Incoming::Close`] and [`Incoming::Broken`] it must not be called again: what comes then has no meaning.
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8], limits: &ReadLimits) -> Option<Incoming<'a>> {
        let next = self.read(input, limits);
        if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
            self.partial = None;
        }
        next.unwrap_or_else(|Broken(code, reason)| Some(Incoming::Broken(code, reason)))
    }

    /// Whether a message has begun and not ended, be it in one frame or in several.
    pub fn is_within_message(&self) -> bool {
        self.message().is_some()
    }

    fn read<'a>(&mut self, input: &mut &'a mut [u8], limits: &ReadLimits) -> Result<Option<Incoming<'a>>, Broken> {
        loop {
            let begun = self.partial.as_mut().and_then(|partial| partial.frame.take());
            let Some(mut frame) = (match begun {
                Some(frame) => Some(frame),
                None => self.begin_frame(input, limits)?,
            }) else {
                return Ok(None);
            };
            let here = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
            let payload = take(input, here);
            mask::unmask(payload, frame.mask);
            frame.mask.rotate_left(here % 4);
            frame.left -= here as u64;
            if let Some(incoming) = self.take_payload(frame, payload)? {
                return Ok(Some(incoming));
            }
            if frame.left > 0 {
                self.partial().frame = Some(frame);
                return Ok(None);
            }
        }
    }

    /// Reads a header and checks whether it may come now. `None` when it is not all there.
    fn begin_frame(&mut self, input: &mut &mut [u8], limits: &ReadLimits) -> Result<Option<Frame>, Broken> {
        let Some(header) = self.read_header(input)? else { return Ok(None) };
        header.check(limits.deflate)?;
        if !header.opcode.is_control() {
            self.check_data(&header, limits)?;
        }
        Ok(Some(Frame { header, left: header.len, mask: header.mask }))
    }

    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Broken> {
        let (kept, had) = self.partial.as_ref().map_or_else(Default::default, |partial| partial.head);
        if had == 0
            && let Some((header, used)) = header::read(input)?
        {
            take(input, used);
            return Ok(Some(header));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let mut head = kept;
        let here = input.len().min(header::BYTES_MAX - had);
        head[had..had + here].copy_from_slice(&input[..here]);
        match header::read(&head[..had + here])? {
            Some((header, used)) => {
                self.partial().head = Default::default();
                take(input, used - had);
                Ok(Some(header))
            }
            None => {
                self.partial().head = (head, had + here);
                take(input, here);
                Ok(None)
            }
        }
    }

    /// Checks a data frame against the message it begins or goes on with.
    fn check_data(&mut self, header: &Header, limits: &ReadLimits) -> Result<(), Broken> {
        let before = self.message().map(Message::len);
        match (header.opcode, before) {
            (Opcode::Continuation, None) => return Err(Broken::protocol("a continuation of no message")),
            (Opcode::Continuation, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(Broken::protocol("a new message within another")),
        }
        let size = header.len.saturating_add(before.unwrap_or(0) as u64);
        if size > limits.message_bytes_max as u64 {
            let reason = format!("the message has {size} bytes, at most {} are allowed", limits.message_bytes_max);
            return Err(Broken(CloseCode::TooBig, reason));
        }
        if let Some(message) = self.partial.as_mut().and_then(|partial| partial.message.as_mut())
            && message.count_fragment() > limits.fragments_max
        {
            let reason = format!("the message is in more than {} fragments", limits.fragments_max);
            return Err(Broken(CloseCode::Policy, reason));
        }
        Ok(())
    }

    /// Takes what has come of a frame's payload.
    fn take_payload<'a>(&mut self, frame: Frame, payload: &'a [u8]) -> Result<Option<Incoming<'a>>, Broken> {
        let (header, ended) = (frame.header, frame.left == 0);
        if header.opcode.is_control() {
            return self.take_control(header.opcode, payload, ended);
        }
        if ended && header.fin && self.message().is_none() {
            return message::whole(header, Cow::Borrowed(payload)).map(Some);
        }
        let partial = self.partial();
        let message = partial.message.get_or_insert_with(|| Message::begin(&header));
        message.push(payload)?;
        match (ended, header.fin) {
            (false, _) => Ok(None),
            (true, false) => Ok(Some(Incoming::Part { empty: header.len == 0 })),
            (true, true) => partial.message.take().map(Message::finish).transpose(),
        }
    }

    fn take_control<'a>(
        &mut self,
        opcode: Opcode,
        payload: &'a [u8],
        ended: bool,
    ) -> Result<Option<Incoming<'a>>, Broken> {
        let mut payload = Cow::Borrowed(payload);
        if !ended || self.partial.as_ref().is_some_and(|partial| !partial.control.is_empty()) {
            let control = &mut self.partial().control;
            control.extend_from_slice(&payload);
            if !ended {
                return Ok(None);
            }
            payload = Cow::Owned(std::mem::take(control));
        }
        message::control(opcode, payload).map(Some)
    }

    fn message(&self) -> Option<&Message> {
        self.partial.as_ref()?.message.as_ref()
    }

    fn partial(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head.1 == 0 && self.frame.is_none() && self.control.is_empty() && self.message.is_none()
    }
}

/// Takes the first `count` bytes off.
fn take<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let (first, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    first
}
