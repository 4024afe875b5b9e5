//! The log against a plain list of frames, and what it shares.

use proptest::prelude::*;

use super::*;

fn read(log: &FrameLog, from: u64) -> Vec<u8> {
    let (mut slices, mut from, mut all) = (Slices::new(), from, Vec::new());
    log.slices(from, &mut slices);
    while slices.bytes() > 0 {
        from += slices.bytes() as u64;
        all.extend(slices.as_slice().iter().flat_map(|slice| slice.iter().copied()));
        slices = Slices::new();
        log.slices(from, &mut slices);
    }
    all
}

#[test]
fn an_empty_log_keeps_nothing() {
    let mut log = FrameLog::default();
    log.append(&Bytes::from_static(b"abc"), 0, 1);
    log.clear();
    assert_eq!((log.start(), log.end(), log.bytes()), (3, 3, 0));
    log.append(&Bytes::from_static(b"de"), 1, 2);
    assert_eq!(read(&log, 3), b"de");
}

#[test]
fn a_frame_without_a_number_repeats_the_one_before() {
    let mut log = FrameLog::default();
    for (before, seq) in [(7, 7), (7, 8), (8, 8), (8, 9)] {
        log.append(&Bytes::from_static(b"ab"), before, seq);
    }
    assert_eq!([0, 2, 4, 6, 8].map(|border| log.seq_at(border)), [7, 7, 8, 8, 9]);
    assert_eq!([7, 8, 9, 10].map(|seq| log.border_before(seq)), [None, Some(2), Some(6), None]);
    log.cut(6);
    assert_eq!((log.seq_at(6), log.border_before(8), log.border_before(9)), (8, None, Some(6)));
}

#[test]
fn a_large_frame_is_shared_and_not_copied() {
    let mut log = FrameLog::default();
    let large = Bytes::from(vec![7; SHARE_BYTES_MIN]);
    log.append(&Bytes::from_static(b"abc"), 0, 1);
    log.append(&large, 1, 2);
    assert_eq!(log.share(3..3 + large.len() as u64).as_ptr(), large.as_ptr());
}

#[test]
fn a_shared_slice_outlives_a_cut() {
    let mut log = FrameLog::default();
    log.append(&Bytes::from_static(b"abcdef"), 0, 1);
    log.append(&Bytes::from_static(b"ghi"), 1, 2);
    let rest = log.share(2..6);
    log.cut(6);
    assert_eq!((&rest[..], read(&log, 6)), (&b"cdef"[..], b"ghi".to_vec()));
}

proptest! {
    /// The log against a plain list of frames: appends, cuts, reads from every border.
    #[test]
    fn agrees_with_a_list(steps in prop::collection::vec((0usize..6000, 0u8..10), 1..60)) {
        let (mut log, mut frames, mut kept_from) = (FrameLog::default(), Vec::<Vec<u8>>::new(), 0usize);
        let border = |frames: &[Vec<u8>], n: usize| frames[..n].iter().map(|f| f.len() as u64).sum::<u64>();
        for (len, action) in steps {
            let frame = vec![frames.len() as u8; len + 1];
            log.append(&Bytes::from(frame.clone()), frames.len() as u64, frames.len() as u64 + 1);
            frames.push(frame);
            if action == 0 {
                kept_from = (kept_from + frames.len()) / 2;
                log.cut(border(&frames, kept_from));
            }
            if action == 1 && len > 0 {
                let end = border(&frames, frames.len());
                prop_assert_eq!(log.share(end - 1..end).to_vec(), vec![(frames.len() - 1) as u8]);
            }
            let at = (kept_from + frames.len()).div_ceil(2);
            let from = border(&frames, at);
            prop_assert_eq!(read(&log, from), frames[at..].concat());
            prop_assert_eq!(log.copy(from), frames[at..].concat());
            prop_assert_eq!(log.frames_between(border(&frames, kept_from), from), (at - kept_from) as u64);
            prop_assert_eq!(log.border_at_or_after(from), from);
            prop_assert_eq!(log.seq_at(from), at as u64);
            let next = (at < frames.len()).then_some(from);
            prop_assert_eq!(log.border_before(at as u64 + 1), next);
            prop_assert_eq!(log.border_before(kept_from as u64), None);
            if at < frames.len() {
                prop_assert_eq!(log.border_at_or_after(from + 1), border(&frames, at + 1));
            }
            prop_assert_eq!(log.bytes(), frames[kept_from..].concat().len());
        }
    }
}
