//! Frames of a server, out of the bytes as they come: unmasked, whole, and not copied unless a read cuts one in two.

use bytes::Buf;

/// Longer frames are not ours.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// A frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

/// Finds frames in what is read. Keeps the beginning of one that is not complete.
#[derive(Debug, Default)]
pub(super) struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Takes what was read, and hands over each complete frame.
    pub(super) fn feed(&mut self, read: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = walk(read, &mut each)?;
            self.rest.extend_from_slice(&read[used..]);
            return Ok(());
        }
        self.rest.extend_from_slice(read);
        let used = walk(&self.rest, &mut each)?;
        if used == self.rest.len() {
            // An idle connection keeps no buffer.
            self.rest = Vec::new();
        } else {
            self.rest.drain(..used);
        }
        Ok(())
    }
}

fn walk(bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> Result<usize, String> {
    let mut at = 0;
    while let Some((opcode, payload)) = split(&bytes[at..])? {
        at += payload.end;
        let payload = &bytes[at - payload.len()..at];
        each(match opcode {
            0x1 => Frame::Text(payload),
            0x8 => Frame::Close(payload),
            0x9 => Frame::Ping(payload),
            0xA => Frame::Pong,
            other => return Err(format!("sent a frame with opcode {other}, which groupcast.v1 has not")),
        });
    }
    Ok(at)
}

/// The opcode of the first frame and where its payload is; `None` when it is not complete.
fn split(bytes: &[u8]) -> Result<Option<(u8, std::ops::Range<usize>)>, String> {
    let [first, second, ref rest @ ..] = *bytes else { return Ok(None) };
    if first & 0xF0 != 0x80 {
        return Err("sent a fragmented or compressed frame, which this client did not ask for".to_owned());
    }
    if second & 0x80 != 0 {
        return Err("sent a masked frame, which a server never does".to_owned());
    }
    let (header, len) = match (second, rest) {
        (126, [_, _, ..]) => (4, u64::from((&rest[..2]).get_u16())),
        (127, [_, _, _, _, _, _, _, _, ..]) => (10, (&rest[..8]).get_u64()),
        (126 | 127, _) => return Ok(None),
        (len, _) => (2, u64::from(len)),
    };
    if len > FRAME_BYTES_MAX {
        return Err(format!("sent a frame of {len} bytes"));
    }
    let end = header + len as usize;
    Ok((bytes.len() >= end).then_some((first & 0xF, header..end)))
}

/// A frame of a client. Its mask is zero: it is there for proxies on the way, and a load test needs no secret from them.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8A, 0x80 | payload.len().min(125) as u8, 0, 0, 0, 0];
    frame.extend_from_slice(&payload[..payload.len().min(125)]);
    frame
}

/// Code and reason of a close frame.
pub(super) fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason)).trim_end().to_owned()
        }
        _ => "no code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use groupcast_protocol::{CloseCode, websocket};

    use super::*;

    fn told(frames: &mut Frames, bytes: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        let each = |frame: Frame<'_>| {
            told.push(match frame {
                Frame::Text(text) => format!("text {}", text.len()),
                Frame::Ping(payload) => format!("ping {}", payload.len()),
                Frame::Pong => "pong".to_owned(),
                Frame::Close(payload) => close_reason(payload),
            });
        };
        frames.feed(bytes, each).expect("good frames");
        told
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let stream = [
            &websocket::text(&[b'x'; 5])[..],
            &websocket::ping(b"7"),
            &websocket::text(&[b'x'; 300]),
            &websocket::pong(b""),
            &websocket::text(&[b'x'; 70_000]),
            &websocket::close(CloseCode::Timeout, "too slow"),
        ]
        .concat();
        let whole = ["text 5", "ping 1", "text 300", "pong", "text 70000", "3008 too slow"];
        assert_eq!(told(&mut Frames::default(), &stream), whole);
        for step in [1, 2, 3, 7, 1000, 65_536] {
            let mut frames = Frames::default();
            let found: Vec<String> = stream.chunks(step).flat_map(|chunk| told(&mut frames, chunk)).collect();
            assert_eq!(found, whole, "in steps of {step}");
            assert!(frames.rest.is_empty());
        }
    }

    #[test]
    fn what_no_server_of_ours_sends_is_refused() {
        for bytes in
            [&[0x01, 0][..], &[0xC1, 0], &[0x81, 0x80, 0, 0, 0, 0], &[0x83, 0], &[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert!(Frames::default().feed(bytes, |_| ()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_pong_is_masked_and_short() {
        assert_eq!(pong(b"ab"), [0x8A, 0x82, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(pong(&[0; 200]).len(), 6 + 125);
        assert_eq!(close_reason(&[]), "no code");
    }
}
