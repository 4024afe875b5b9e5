//! What a registrar has in hand.

use aws_lc_rs::digest;

/// An entry of the list of parked frames: `TIME SCORE FRAME`.
pub(super) struct Parked<'a> {
    /// When it was parked, in seconds: what waits here long does not become too old to be decrypted.
    pub(super) at: u64,
    /// What it is known by. A key has a frame once, and what is sent once more has another score: so no two have the same,
    /// whatever `random_prefix_length` is.
    pub(super) id: [u8; 16],
    pub(super) frame: &'a [u8],
}

impl<'a> Parked<'a> {
    /// Reads an entry; what is none has an empty frame, which nobody can read.
    pub(super) fn of(entry: &'a [u8]) -> Self {
        let at = entry.iter().position(|byte| *byte == b' ').unwrap_or(entry.len());
        let (time, sent) = (&entry[..at], entry.get(at + 1..).unwrap_or_default());
        let frame = sent.iter().position(|byte| *byte == b' ').map_or(&[][..], |at| &sent[at + 1..]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest::digest(&digest::SHA256, sent).as_ref()[..16]);
        let at = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()).unwrap_or(0);
        Self { at, id, frame }
    }
}

/// The time, identity and frame of an entry.
#[cfg(feature = "fuzzing")]
pub fn unpark(entry: &[u8]) -> (u64, [u8; 16], &[u8]) {
    let Parked { at, id, frame } = Parked::of(entry);
    (at, id, frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_time_and_a_frame_and_is_known_by_all_but_the_time() {
        let entry = Parked::of(b"1795357762 1795357762.7962244 \x01 x \xff");
        assert_eq!((entry.at, entry.frame), (1_795_357_762, &b"\x01 x \xff"[..]));
        assert_eq!(entry.id, Parked::of(b"7 1795357762.7962244 \x01 x \xff").id);
        assert_ne!(entry.id, Parked::of(b"1795357762 1795357762.7962245 \x01 x \xff").id);
        for none in [&b""[..], b" ", b"7", b"7 8", b"\xff \xff"] {
            assert_eq!(Parked::of(none).frame, b"");
        }
    }
}
