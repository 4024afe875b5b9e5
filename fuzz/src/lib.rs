//! What the targets share: how they cut their input up, and readers that have no code in common with what they check.

pub mod event_stream;

/// The text of an input; a target for text has nothing to do with other bytes.
pub fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Cuts an input at its first line feed: a choice or a setting before it, what is to be read behind it.
pub fn head(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// Every beginning of what was accepted has to be refused: where a whole can end must be beyond doubt.
///
/// # Panics
/// When `accepts` takes a beginning of `whole` that is shorter.
pub fn no_beginning_is_accepted(whole: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    // All of a short one; of a long one those that are cut near to its ends, and some between.
    let step = (whole.len() / 64).max(1);
    for end in (0..whole.len()).filter(|end| end % step == 0 || whole.len() - end < 16) {
        assert!(!accepts(&whole[..end]), "the first {end} of {} bytes are accepted as if they were all", whole.len());
    }
}
