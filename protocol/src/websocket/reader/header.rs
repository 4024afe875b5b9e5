//! A frame's header (RFC 6455, section 5.2).

use super::Broken;
use crate::websocket::CONTROL_PAYLOAD_MAX;

/// Two bytes, a 64-bit length and a mask.
pub(super) const BYTES_MAX: usize = 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// The bit that permessage-deflate uses.
    pub(super) rsv1: bool,
    pub(super) opcode: Opcode,
    pub(super) len: u64,
    pub(super) mask: [u8; 4],
}

/// Reads a header and says how many bytes it has. `None` when it is not all there; what is wrong with its first bytes
/// is told as soon as these are.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Broken> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let opcode = Opcode::read(first & 0x0F)?;
    if first & 0x30 != 0 {
        return Err(Broken::protocol("a reserved bit is set, and no extension was agreed on"));
    }
    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Broken::protocol("a client's frame has to be masked"));
    }
    let Some((len, rest)) = length(second & 0x7F, rest) else { return Ok(None) };
    if len >> 63 != 0 {
        return Err(Broken::protocol("the highest bit of a length is set"));
    }
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let header = Header { fin: first & 0x80 != 0, rsv1: first & 0x40 != 0, opcode, len, mask: *mask };
    Ok(Some((header, bytes.len() - rest.len())))
}

fn length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        126 => rest.split_first_chunk().map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest)),
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
        len => Some((len.into(), rest)),
    }
}

impl Header {
    /// Checks what does not depend on the frames before.
    pub(super) fn check(&self, deflate: bool) -> Result<(), Broken> {
        let begins = matches!(self.opcode, Opcode::Text | Opcode::Binary);
        if self.rsv1 && !(deflate && begins) {
            return Err(Broken::protocol("a reserved bit is set, and no extension gives it a meaning here"));
        }
        if self.opcode.is_control() && !self.fin {
            return Err(Broken::protocol("a control frame may not be fragmented"));
        }
        if self.opcode.is_control() && self.len > CONTROL_PAYLOAD_MAX as u64 {
            return Err(Broken::protocol("a control frame may have 125 bytes at most"));
        }
        Ok(())
    }
}

impl Opcode {
    fn read(bits: u8) -> Result<Self, Broken> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(Broken::protocol("a reserved opcode")),
        }
    }

    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}
