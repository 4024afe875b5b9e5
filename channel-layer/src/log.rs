//! The log of a group on one shard: ready frames, encoded once, until every cursor has passed them.
//!
//! Positions are byte offsets from the log's first frame ever and always lie on a frame's border. What a cursor is
//! and who owns one is the shard's.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Frames at least this long are kept as they came, shared with the other shards; shorter ones are copied together,
/// so that many of them are one slice for the kernel.
const SHARE_BYTES_MIN: usize = 4096;
/// Size of the first block that frames are copied to; later ones double, up to the maximum.
const BLOCK_BYTES_MIN: usize = 1024;
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Frames in order, each byte once.
#[derive(Debug, Default)]
pub struct FrameLog {
    /// Position of the oldest byte that is kept.
    start: u64,
    /// Blocks that are complete, oldest first, each with its position.
    sealed: VecDeque<(u64, Bytes)>,
    /// Position of the tail's first byte.
    tail_start: u64,
    tail: BytesMut,
    /// Where each kept frame ends.
    ends: VecDeque<u64>,
}

impl FrameLog {
    /// The position of the oldest frame that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position behind the newest frame.
    pub fn end(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    /// The position of the newest frame.
    pub fn newest(&self) -> u64 {
        self.ends.len().checked_sub(2).map_or(self.start, |before| self.ends[before])
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        (self.end() - self.start) as usize
    }

    /// Adds a frame at the end.
    pub fn append(&mut self, frame: &Bytes) {
        if frame.len() >= SHARE_BYTES_MIN {
            self.seal();
            self.sealed.push_back((self.tail_start, frame.clone()));
            self.tail_start += frame.len() as u64;
        } else {
            if self.tail.capacity() - self.tail.len() < frame.len() {
                self.grow(frame.len());
            }
            self.tail.extend_from_slice(frame);
        }
        self.ends.push_back(self.end());
    }

    /// Adds what lies at or behind `from` to a vectored write, as far as there are free slots; says how many bytes.
    pub fn slices<'a>(&'a self, from: u64, out: &mut Vec<IoSlice<'a>>, slots: usize) -> usize {
        let mut bytes = 0;
        let first = self.sealed.partition_point(|(start, block)| start + block.len() as u64 <= from);
        for (start, block) in self.sealed.range(first..) {
            if out.len() >= slots {
                return bytes;
            }
            let skip = from.saturating_sub(*start) as usize;
            out.push(IoSlice::new(&block[skip..]));
            bytes += block.len() - skip;
        }
        let skip = from.saturating_sub(self.tail_start) as usize;
        if skip < self.tail.len() && out.len() < slots {
            out.push(IoSlice::new(&self.tail[skip..]));
            bytes += self.tail.len() - skip;
        }
        bytes
    }

    /// The end of the frame that the byte before `position` belongs to: `position` itself on a border.
    pub fn border_at_or_after(&self, position: u64) -> u64 {
        let at = self.ends.partition_point(|end| *end < position);
        self.ends.get(at).copied().unwrap_or_else(|| self.end())
    }

    /// How many frames end within `(from, to]`.
    pub fn frames_between(&self, from: u64, to: u64) -> u64 {
        let upto = |position| self.ends.partition_point(|end| *end <= position);
        (upto(to) - upto(from)) as u64
    }

    /// A counted slice of a part of one frame, which outlives every cut.
    pub fn share(&mut self, range: Range<u64>) -> Bytes {
        if range.end > self.tail_start {
            self.seal();
        }
        let at = self.sealed.partition_point(|(start, _)| *start <= range.start) - 1;
        let (start, block) = &self.sealed[at];
        block.slice((range.start - start) as usize..(range.end - start) as usize)
    }

    /// Forgets everything before a border.
    pub fn cut(&mut self, to: u64) {
        if to > self.tail_start {
            self.seal();
        }
        while self.sealed.front().is_some_and(|(start, block)| start + block.len() as u64 <= to) {
            self.sealed.pop_front();
        }
        if let Some((start, block)) = self.sealed.front_mut()
            && *start < to
        {
            *block = block.slice((to - *start) as usize..);
            *start = to;
        }
        self.ends.drain(..self.ends.partition_point(|end| *end <= to));
        self.start = to;
    }

    /// Forgets everything: a quiet group costs a few words.
    pub fn clear(&mut self) {
        let end = self.end();
        *self = Self { start: end, tail_start: end, ..Self::default() };
    }

    /// Makes the tail a block that can be shared. Copies nothing: the rest of the allocation stays the tail.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let block = self.tail.split().freeze();
            let start = self.tail_start;
            self.tail_start += block.len() as u64;
            self.sealed.push_back((start, block));
        }
    }

    fn grow(&mut self, frame_bytes: usize) {
        self.seal();
        let size = self.bytes().next_power_of_two().clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        self.tail = BytesMut::with_capacity(size.max(frame_bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(log: &FrameLog, from: u64) -> Vec<u8> {
        let mut slices = Vec::new();
        log.slices(from, &mut slices, usize::MAX);
        slices.concat_bytes()
    }

    trait ConcatBytes {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl ConcatBytes for Vec<IoSlice<'_>> {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|slice| slice.iter().copied()).collect()
        }
    }

    #[test]
    fn an_empty_log_keeps_nothing() {
        let mut log = FrameLog::default();
        log.append(&Bytes::from_static(b"abc"));
        log.clear();
        assert_eq!((log.start(), log.end(), log.bytes()), (3, 3, 0));
        log.append(&Bytes::from_static(b"de"));
        assert_eq!(read(&log, 3), b"de");
    }

    #[test]
    fn a_large_frame_is_shared_and_not_copied() {
        let mut log = FrameLog::default();
        let large = Bytes::from(vec![7; SHARE_BYTES_MIN]);
        log.append(&Bytes::from_static(b"abc"));
        log.append(&large);
        assert_eq!(log.share(3..3 + large.len() as u64).as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_shared_slice_outlives_a_cut() {
        let mut log = FrameLog::default();
        log.append(&Bytes::from_static(b"abcdef"));
        log.append(&Bytes::from_static(b"ghi"));
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
                log.append(&Bytes::from(frame.clone()));
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
                prop_assert_eq!(log.frames_between(border(&frames, kept_from), from), (at - kept_from) as u64);
                prop_assert_eq!(log.border_at_or_after(from), from);
                if at < frames.len() {
                    prop_assert_eq!(log.border_at_or_after(from + 1), border(&frames, at + 1));
                }
                prop_assert_eq!(log.bytes(), frames[kept_from..].concat().len());
            }
        }
    }
}
