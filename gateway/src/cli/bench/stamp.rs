//! What each message of a run carries, at fixed places, so that a reader finds it without reading JSON.
//!
//! ```text
//! {"type":"bench.message","data":"~gb~0003.000017.0000000042.m.000001234567890xxxx…"}
//!                                     publisher  sequence  measured  sent, in ns
//!                                          group
//! ```

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Who sent it.
    pub(super) publisher: u32,
    /// To which group.
    pub(super) group: u32,
    /// Counted from 0 for each publisher and group.
    pub(super) sequence: u64,
    /// Not of the warm-up.
    pub(super) measured: bool,
    /// When it was sent, by the run's clock.
    pub(super) sent: u64,
}

const MARK: &[u8] = b"~gb~";
const HEAD: &str = r#"{"type":"bench.message","data":""#;
const TAIL: &str = r#""}"#;
/// The mark and the five fields.
const STAMP_LEN: usize = 4 + 4 + 1 + 6 + 1 + 10 + 1 + 1 + 1 + 15;

/// The shortest message.
pub(super) const SIZE_MIN: usize = HEAD.len() + STAMP_LEN + TAIL.len();

impl Stamp {
    /// Appends a message of `size` bytes.
    pub(super) fn write(&self, size: usize, out: &mut Vec<u8>) {
        let Self { publisher, group, sequence, sent, .. } = self;
        let phase = if self.measured { 'm' } else { 'w' };
        let begin = out.len();
        out.extend_from_slice(HEAD.as_bytes());
        out.extend_from_slice(MARK);
        out.extend_from_slice(format!("{publisher:04}.{group:06}.{sequence:010}.{phase}.{sent:015}").as_bytes());
        out.resize((begin + size).max(out.len() + TAIL.len()) - TAIL.len(), b'x');
        out.extend_from_slice(TAIL.as_bytes());
    }

    /// Finds the stamp in a frame. It is at the same place in every frame of a group, so the place of the last one is
    /// looked at first.
    pub(super) fn find(frame: &[u8], hint: &mut usize) -> Option<Self> {
        if !frame.get(*hint..).is_some_and(|rest| rest.starts_with(MARK)) {
            *hint = frame.windows(MARK.len()).position(|window| window == MARK)?;
        }
        Self::read(frame.get(*hint..*hint + STAMP_LEN)?)
    }

    fn read(text: &[u8]) -> Option<Self> {
        Some(Self {
            publisher: u32::try_from(number(&text[4..8])?).ok()?,
            group: u32::try_from(number(&text[9..15])?).ok()?,
            sequence: number(&text[16..26])?,
            measured: text[27] == b'm',
            sent: number(&text[29..44])?,
        })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit <= 9).then(|| number * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { publisher: 3, group: 17, sequence: 42, measured: true, sent: 1_234_567_890 };

    fn message(stamp: Stamp, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        stamp.write(size, &mut out);
        out
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for_and_is_one() {
        for size in [SIZE_MIN, 128, 4096] {
            let text = message(STAMP, size);
            assert_eq!(text.len(), size);
            groupcast_protocol::Message::parse(text.into()).expect("a message");
        }
    }

    #[test]
    fn what_was_written_is_found_wherever_it_stands() {
        let mut hint = 0;
        for before in ["", r#"{"type":"message","group":"g","message":"#, r#"{"offset":7,"message":"#] {
            let frame = [before.as_bytes(), &message(STAMP, 128), b"}"].concat();
            assert_eq!(Stamp::find(&frame, &mut hint), Some(STAMP));
        }
        let warm = Stamp { measured: false, publisher: 0, group: 0, sequence: 9_999_999_999, sent: 0 };
        assert_eq!(Stamp::find(&message(warm, 0), &mut hint), Some(warm));
    }

    #[test]
    fn other_frames_have_none() {
        for frame in [&b""[..], b"~gb~", br#"{"type":"pong"}"#, b"~gb~000x.000000.0000000000.m.000000000000000"] {
            assert_eq!(Stamp::find(frame, &mut 1000), None);
        }
    }
}
