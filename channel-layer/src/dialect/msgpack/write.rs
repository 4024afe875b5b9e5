//! From JSON text to msgpack.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;

use super::BYTES_KEY;
use crate::dialect::jsontext::{self, Token, Tokens};
use crate::dialect::{CHANNEL_KEY, CodecError, To};

/// How much of a refused number is shown.
const SHOWN: usize = 40;

pub(super) fn message(text: &str, to: &To<'_>) -> Result<Vec<u8>, CodecError> {
    let extra = u32::from(!matches!(to, To::Nobody));
    let mut writer = Writer { out: Vec::with_capacity(text.len() + 64), sizes: jsontext::sizes(text).into_iter() };
    writer.values(text, extra)?;
    writer.channels(to);
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    /// Of the objects and arrays that are still to come.
    sizes: std::vec::IntoIter<u32>,
}

/// An object or array that is being written.
struct Open {
    is_object: bool,
    /// Values written so far, keys among them.
    written: u32,
}

impl Writer {
    /// Writes the whole text, with room for `extra` more members in the outermost object.
    fn values(&mut self, text: &str, extra: u32) -> Result<(), CodecError> {
        let (mut tokens, mut open) = (Tokens::new(text), Vec::<Open>::new());
        while let Some(token) = tokens.next() {
            if token == Token::Close {
                open.pop();
                continue;
            }
            if is_reserved(token, &open) {
                return Err(CodecError::Reserved);
            }
            let is_outermost = open.is_empty();
            if let Some(outer) = open.last_mut() {
                outer.written += 1;
            }
            match token {
                Token::Object => {
                    let members = self.sizes.next().unwrap_or(0) / 2;
                    if let Some((bytes, behind)) = bytes_behind(&tokens).filter(|_| members == 1 && !is_outermost) {
                        self.bin(&bytes);
                        tokens = behind;
                        continue;
                    }
                    self.map(members + if is_outermost { extra } else { 0 });
                    open.push(Open { is_object: true, written: 0 });
                }
                Token::Array => {
                    let size = self.sizes.next().unwrap_or(0);
                    self.array(size);
                    open.push(Open { is_object: false, written: 0 });
                }
                Token::Text(raw) => self.text(&jsontext::unescape(raw)),
                Token::Number(text) => self.number(text)?,
                Token::True => self.out.put_u8(0xc3),
                Token::False => self.out.put_u8(0xc2),
                Token::Null => self.out.put_u8(0xc0),
                Token::Close => {}
            }
        }
        Ok(())
    }

    fn channels(&mut self, to: &To<'_>) {
        match to {
            To::Nobody => {}
            To::One(name) => {
                self.text(CHANNEL_KEY);
                self.text(name);
            }
            To::Several(names) => {
                self.text(CHANNEL_KEY);
                self.array(length(names.len()));
                names.iter().for_each(|name| self.text(name));
            }
        }
    }

    fn number(&mut self, text: &str) -> Result<(), CodecError> {
        if text.contains(['.', 'e', 'E']) {
            self.out.put_u8(0xcb);
            // What is too large is infinite, as Python reads it.
            self.out.put_f64(text.parse().unwrap_or(f64::INFINITY));
        } else if let Ok(number) = text.parse::<u64>() {
            self.uint(number);
        } else if let Ok(number) = text.parse::<i64>() {
            self.int(number);
        } else {
            return Err(CodecError::NumberTooLarge { text: text.chars().take(SHOWN).collect() });
        }
        Ok(())
    }

    fn uint(&mut self, number: u64) {
        match number {
            0..=0x7f => self.out.put_u8(number as u8),
            0x80..=0xff => self.out.put_slice(&[0xcc, number as u8]),
            0x100..=0xffff => {
                self.out.put_u8(0xcd);
                self.out.put_u16(number as u16);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.put_u8(0xce);
                self.out.put_u32(number as u32);
            }
            _ => {
                self.out.put_u8(0xcf);
                self.out.put_u64(number);
            }
        }
    }

    fn int(&mut self, number: i64) {
        match number {
            0.. => self.uint(number.unsigned_abs()),
            -0x20..=-1 => self.out.put_i8(number as i8),
            -0x80..=-0x21 => {
                self.out.put_u8(0xd0);
                self.out.put_i8(number as i8);
            }
            -0x8000..=-0x81 => {
                self.out.put_u8(0xd1);
                self.out.put_i16(number as i16);
            }
            -0x8000_0000..=-0x8001 => {
                self.out.put_u8(0xd2);
                self.out.put_i32(number as i32);
            }
            _ => {
                self.out.put_u8(0xd3);
                self.out.put_i64(number);
            }
        }
    }

    fn text(&mut self, text: &str) {
        match length(text.len()) {
            len @ 0..=31 => self.out.put_u8(0xa0 | len as u8),
            len @ 32..=0xff => self.out.put_slice(&[0xd9, len as u8]),
            len => self.long(len, 0xda, 0xdb),
        }
        self.out.put_slice(text.as_bytes());
    }

    fn bin(&mut self, bytes: &[u8]) {
        match length(bytes.len()) {
            len @ 0..=0xff => self.out.put_slice(&[0xc4, len as u8]),
            len => self.long(len, 0xc5, 0xc6),
        }
        self.out.put_slice(bytes);
    }

    fn array(&mut self, len: u32) {
        match len {
            0..=15 => self.out.put_u8(0x90 | len as u8),
            _ => self.long(len, 0xdc, 0xdd),
        }
    }

    fn map(&mut self, members: u32) {
        match members {
            0..=15 => self.out.put_u8(0x80 | members as u8),
            _ => self.long(members, 0xde, 0xdf),
        }
    }

    /// A length of two bytes or of four, each behind its type byte.
    fn long(&mut self, len: u32, two: u8, four: u8) {
        match u16::try_from(len) {
            Ok(len) => {
                self.out.put_u8(two);
                self.out.put_u16(len);
            }
            Err(_) => {
                self.out.put_u8(four);
                self.out.put_u32(len);
            }
        }
    }
}

/// Whether a token is the key of the channels in the outermost object.
fn is_reserved(token: Token<'_>, open: &[Open]) -> bool {
    match (token, open) {
        (Token::Text(raw), [Open { is_object: true, written }]) => {
            written % 2 == 0 && jsontext::unescape(raw) == CHANNEL_KEY
        }
        _ => false,
    }
}

/// The bytes that an object stands for which has just begun, and what is behind it.
fn bytes_behind<'a>(tokens: &Tokens<'a>) -> Option<(Vec<u8>, Tokens<'a>)> {
    let mut ahead = tokens.clone();
    let (Some(Token::Text(key)), Some(Token::Text(value))) = (ahead.next(), ahead.next()) else { return None };
    if jsontext::unescape(key) != BYTES_KEY {
        return None;
    }
    let bytes = STANDARD.decode(jsontext::unescape(value).as_bytes()).ok()?;
    (ahead.next() == Some(Token::Close)).then_some((bytes, ahead))
}

/// A message has at most 4 GiB.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
