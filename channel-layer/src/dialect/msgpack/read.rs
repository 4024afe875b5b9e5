//! From msgpack to JSON text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groupcast_protocol::message::DEPTH_MAX;

use super::{BYTES_KEY, MsgpackError};
use crate::dialect::jsontext::quote;
use crate::dialect::{CHANNEL_KEY, CodecError};

/// The JSON text of a map, without whom it is for.
pub(super) fn message(payload: &[u8], max: usize) -> Result<(String, Vec<String>), CodecError> {
    let mut reader = Reader { rest: payload, json: String::with_capacity(payload.len().min(max) * 2), max };
    let channels = reader.outermost()?;
    match reader.rest.len() {
        0 => Ok((reader.json, channels)),
        _ => Err(MsgpackError::Rest.into()),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    json: String,
    max: usize,
}

impl<'a> Reader<'a> {
    fn outermost(&mut self) -> Result<Vec<String>, CodecError> {
        let members = match self.byte()? {
            byte @ 0x80..=0x8f => u32::from(byte & 0x0f),
            0xde => u32::from(u16::from_be_bytes(self.array()?)),
            0xdf => u32::from_be_bytes(self.array()?),
            _ => return Err(MsgpackError::NotAMap.into()),
        };
        let (mut channels, mut is_first) = (None, true);
        self.json.push('{');
        for _ in 0..members {
            let key = self.text()?;
            if key == CHANNEL_KEY {
                if channels.replace(self.channels()?).is_some() {
                    return Err(CodecError::Channels);
                }
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.json.push(',');
            }
            self.member(key, 1)?;
        }
        self.json.push('}');
        self.check()?;
        Ok(channels.unwrap_or_default())
    }

    fn channels(&mut self) -> Result<Vec<String>, CodecError> {
        let names = match self.peek()? {
            byte @ 0x90..=0x9f => {
                self.byte()?;
                u32::from(byte & 0x0f)
            }
            0xdc => {
                self.byte()?;
                u32::from(u16::from_be_bytes(self.array()?))
            }
            0xdd => {
                self.byte()?;
                u32::from_be_bytes(self.array()?)
            }
            _ => return Ok(vec![self.name()?]),
        };
        (0..names).map(|_| self.name()).collect()
    }

    fn name(&mut self) -> Result<String, CodecError> {
        match self.text() {
            Ok(name) => Ok(name.to_owned()),
            Err(MsgpackError::Key) => Err(CodecError::Channels),
            Err(error) => Err(error.into()),
        }
    }

    fn member(&mut self, key: &str, depth: usize) -> Result<(), CodecError> {
        quote(key, &mut self.json);
        self.json.push(':');
        self.value(depth)
    }

    fn value(&mut self, depth: usize) -> Result<(), CodecError> {
        let byte = self.byte()?;
        match byte {
            0x00..=0x7f => self.put(byte),
            0x80..=0x8f => self.map(u32::from(byte & 0x0f), depth)?,
            0x90..=0x9f => self.list(u32::from(byte & 0x0f), depth)?,
            0xa0..=0xbf => self.string(usize::from(byte & 0x1f))?,
            0xc0 => self.json.push_str("null"),
            0xc2 => self.json.push_str("false"),
            0xc3 => self.json.push_str("true"),
            0xc4..=0xc6 => {
                let len = self.length(byte - 0xc4)?;
                self.bin(len)?;
            }
            0xca => {
                let float = f32::from_be_bytes(self.array()?);
                self.float(f64::from(float));
            }
            0xcb => {
                let float = f64::from_be_bytes(self.array()?);
                self.float(float);
            }
            0xcc => self.number(|[byte]| byte)?,
            0xcd => self.number(u16::from_be_bytes)?,
            0xce => self.number(u32::from_be_bytes)?,
            0xcf => self.number(u64::from_be_bytes)?,
            0xd0 => self.number(i8::from_be_bytes)?,
            0xd1 => self.number(i16::from_be_bytes)?,
            0xd2 => self.number(i32::from_be_bytes)?,
            0xd3 => self.number(i64::from_be_bytes)?,
            0xd9..=0xdb => {
                let len = self.length(byte - 0xd9)?;
                self.string(len)?;
            }
            0xdc | 0xdd => {
                let len = self.length(byte - 0xdb)?;
                self.list(len as u32, depth)?;
            }
            0xde | 0xdf => {
                let len = self.length(byte - 0xdd)?;
                self.map(len as u32, depth)?;
            }
            0xe0..=0xff => self.put(byte as i8),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(MsgpackError::Type.into()),
        }
        self.check()
    }

    fn map(&mut self, members: u32, depth: usize) -> Result<(), CodecError> {
        let depth = deeper(depth)?;
        self.json.push('{');
        for at in 0..members {
            if at > 0 {
                self.json.push(',');
            }
            let key = self.text()?;
            self.member(key, depth)?;
        }
        self.json.push('}');
        Ok(())
    }

    fn list(&mut self, len: u32, depth: usize) -> Result<(), CodecError> {
        let depth = deeper(depth)?;
        self.json.push('[');
        for at in 0..len {
            if at > 0 {
                self.json.push(',');
            }
            self.value(depth)?;
        }
        self.json.push(']');
        Ok(())
    }

    /// A text where nothing else may be.
    fn text(&mut self) -> Result<&'a str, MsgpackError> {
        let byte = self.byte()?;
        let len = match byte {
            0xa0..=0xbf => usize::from(byte & 0x1f),
            0xd9..=0xdb => self.length(byte - 0xd9)?,
            _ => return Err(MsgpackError::Key),
        };
        self.utf8(len)
    }

    fn string(&mut self, len: usize) -> Result<(), CodecError> {
        let text = self.utf8(len)?;
        quote(text, &mut self.json);
        Ok(())
    }

    fn bin(&mut self, len: usize) -> Result<(), CodecError> {
        let bytes = self.take(len)?;
        self.json.push_str("{\"");
        self.json.push_str(BYTES_KEY);
        self.json.push_str("\":\"");
        STANDARD.encode_string(bytes, &mut self.json);
        self.json.push_str("\"}");
        Ok(())
    }

    fn float(&mut self, float: f64) {
        if float.is_finite() {
            // With `.` or an exponent always, so that it stays a float; the shortest text that is read as the same.
            self.json.push_str(&format!("{float:?}"));
        } else {
            self.json.push_str("null");
        }
    }

    fn number<T: std::fmt::Display, const N: usize>(&mut self, read: fn([u8; N]) -> T) -> Result<(), CodecError> {
        let number = read(self.array()?);
        self.put(number);
        Ok(())
    }

    fn put(&mut self, number: impl std::fmt::Display) {
        self.json.push_str(&number.to_string());
    }

    /// A length of one, two or four bytes: the `kind` is 0, 1 or 2.
    fn length(&mut self, kind: u8) -> Result<usize, MsgpackError> {
        Ok(match kind {
            0 => usize::from(self.byte()?),
            1 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn utf8(&mut self, len: usize) -> Result<&'a str, MsgpackError> {
        std::str::from_utf8(self.take(len)?).map_err(|_| MsgpackError::Utf8)
    }

    fn peek(&self) -> Result<u8, MsgpackError> {
        self.rest.first().copied().ok_or(MsgpackError::Short)
    }

    fn byte(&mut self) -> Result<u8, MsgpackError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(MsgpackError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MsgpackError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn check(&self) -> Result<(), CodecError> {
        if self.json.len() > self.max { Err(CodecError::TooLarge { max: self.max }) } else { Ok(()) }
    }
}

/// One level more.
fn deeper(depth: usize) -> Result<usize, MsgpackError> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(MsgpackError::Depth) }
}
