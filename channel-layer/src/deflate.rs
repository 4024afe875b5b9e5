//! Compression of WebSocket messages (permessage-deflate, RFC 7692): one at a time, each for itself.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use groupcast_protocol::{CloseCode, websocket};

/// What a sender leaves out behind each message (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// Shorter payloads are sent as they are: they gain next to nothing.
const WORTHWHILE_BYTES: usize = 512;
/// The least room that is made for what is inflated.
const STEP: usize = 4096;

thread_local! {
    /// Large, and the same before each message.
    static DEFLATER: RefCell<Deflater> = RefCell::default();
}

/// Compresses a frame of a text message, where that gains something.
pub(crate) fn deflated(frame: &Bytes) -> Bytes {
    let payload = websocket::payload(frame);
    if payload.len() < WORTHWHILE_BYTES {
        return frame.clone();
    }
    let deflated = DEFLATER.with_borrow_mut(|deflater| deflater.deflate(payload));
    deflated.map_or_else(|| frame.clone(), |payload| websocket::deflated_text(&payload))
}

/// Compresses messages, one after the other. Large: one for a thread.
pub(crate) struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        Self(Compress::new(Compression::fast(), false))
    }
}

impl Deflater {
    /// The payload of a compressed message; `None` when compressing gains nothing.
    fn deflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.0.reset();
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        loop {
            let rest = &payload[self.0.total_in() as usize..];
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).ok()?;
            // Room that is left over means that all is out.
            if out.len() < out.capacity() && self.0.total_in() as usize == payload.len() {
                break;
            }
            if out.len() >= payload.len() + TAIL.len() {
                return None;
            }
            out.reserve(payload.len() / 2 + 64);
        }
        out.truncate(out.strip_suffix(&TAIL)?.len());
        (out.len() < payload.len()).then_some(out)
    }
}

/// Inflates messages, one after the other. Large: one for a thread.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(false))
    }
}

impl Inflater {
    /// The message of a compressed payload, `bytes_max` at most: a few bytes can stand for very many.
    ///
    /// # Errors
    /// The code and reason to close with: it is too large, or no compressed message.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, (CloseCode, String)> {
        self.0.reset(false);
        let mut out = Vec::new();
        for part in [payload, &TAIL] {
            let before = self.0.total_in();
            if self.inflate_part(part, before, &mut out, bytes_max)? == Status::StreamEnd {
                break;
            }
        }
        Ok(out)
    }

    fn inflate_part(
        &mut self,
        part: &[u8],
        before: u64,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Status, (CloseCode, String)> {
        loop {
            // Never more than one byte over the bound.
            out.reserve_exact(out.len().max(STEP).min(bytes_max + 1 - out.len()));
            let rest = &part[(self.0.total_in() - before) as usize..];
            let status = self.0.decompress_vec(rest, out, FlushDecompress::Sync);
            let status = status.map_err(|_| (CloseCode::NotUtf8, "a message cannot be inflated".to_owned()))?;
            if out.len() > bytes_max {
                let reason = format!("the message has more than {bytes_max} bytes when it is inflated");
                return Err((CloseCode::TooBig, reason));
            }
            let used = (self.0.total_in() - before) as usize == part.len();
            if status == Status::StreamEnd || (used && out.len() < out.capacity()) {
                return Ok(status);
            }
            if out.len() < out.capacity() && status == Status::BufError {
                return Err((CloseCode::NotUtf8, "a message cannot be inflated".to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_texts_are_compressed_and_short_ones_are_not() {
        let (short, long) = (websocket::text(b"{}"), websocket::text("tick ".repeat(200).as_bytes()));
        assert_eq!(deflated(&short), short);
        let frame = deflated(&long);
        assert!(frame.len() < 100 && frame[0] == 0xC1, "{frame:?}");
        let payload = Inflater::default().inflate(websocket::payload(&frame), 2000);
        assert_eq!(payload.as_deref(), Ok("tick ".repeat(200).as_bytes()));
    }

    /// RFC 7692, section 7.2.3.
    #[test]
    fn the_examples_of_the_rfc() {
        let mut inflater = Inflater::default();
        for payload in [
            &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
            &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
        ] {
            assert_eq!(inflater.inflate(payload, 100).as_deref(), Ok(&b"Hello"[..]), "{payload:?}");
            // One byte too many, whether the sender says that the stream ends or not.
            assert_eq!(inflater.inflate(payload, 5).as_deref(), Ok(&b"Hello"[..]), "{payload:?}");
            assert_eq!(inflater.inflate(payload, 4).unwrap_err().0, CloseCode::TooBig, "{payload:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_bound() {
        let bomb = Deflater::default().deflate(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 100_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, 65_536).unwrap_err().0, CloseCode::TooBig);
        assert_eq!(inflater.inflate(&bomb, 9_999_999).unwrap_err().0, CloseCode::TooBig);
        assert_eq!(inflater.inflate(&bomb, 10_000_000).map(|out| out.len()), Ok(10_000_000));
    }

    #[test]
    fn what_is_not_compressed_is_refused_and_what_gains_nothing_left() {
        assert_eq!(Inflater::default().inflate(&[0xFF, 0xFF], 100).unwrap_err().0, CloseCode::NotUtf8);
        assert_eq!(Inflater::default().inflate(b"", 100).as_deref(), Ok(&b""[..]));
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        let noise: Vec<u8> = noise.take(2000).collect();
        assert_eq!(Deflater::default().deflate(&noise), None);
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(
            parts in proptest::collection::vec(("[a-z]{1,8}", 1_usize..600), 0..12),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            let mut payload = noise;
            parts.iter().for_each(|(text, times)| payload.extend(text.repeat(*times).bytes()));
            for _ in 0..2 {
                if let Some(deflated) = deflater.deflate(&payload) {
                    prop_assert!(deflated.len() < payload.len());
                    prop_assert_eq!(&inflater.inflate(&deflated, payload.len()).unwrap(), &payload);
                }
            }
        }

        #[test]
        fn anything_inflates_to_something_or_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(out) = Inflater::default().inflate(&bytes, 5_000) {
                prop_assert!(out.len() <= 5_000);
            }
        }
    }
}
