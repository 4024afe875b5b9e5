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
    ends: VecDeque<End>,
    /// The number before the oldest frame that is kept.
    base: u64,
}

/// The end of a frame.
#[derive(Debug, Clone, Copy)]
struct End {
    position: u64,
    /// The newest number up to here. A frame without a number repeats the one before it.
    seq: u64,
}

/// Slices for one vectored write, as many as are worth it; without an allocation while they are few.
#[derive(Debug)]
pub struct Slices<'a> {
    few: [IoSlice<'a>; SLICES_FEW],
    /// All of them, when they are more.
    many: Vec<IoSlice<'a>>,
    len: usize,
    bytes: usize,
}

/// Slices of one write. More gain nothing: a log is one slice for each 64 KiB.
pub const SLICES_MAX: usize = 64;
/// So many are enough for most writes; an array for all would cost each of them its initialisation.
const SLICES_FEW: usize = 8;

impl<'a> Slices<'a> {
    /// No slices.
    #[inline]
    pub fn new() -> Self {
        Self { few: [IoSlice::new(&[]); SLICES_FEW], many: Vec::new(), len: 0, bytes: 0 }
    }

    /// Adds a slice.
    #[inline]
    pub fn push(&mut self, slice: &'a [u8]) {
        match self.few.get_mut(self.len) {
            Some(place) => *place = IoSlice::new(slice),
            None => self.push_to_many(slice),
        }
        self.len += 1;
        self.bytes += slice.len();
    }

    /// Whether another one is not worth it.
    pub fn is_full(&self) -> bool {
        self.len >= SLICES_MAX
    }

    /// How many bytes all of them have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slices.
    pub fn as_slice(&self) -> &[IoSlice<'a>] {
        if self.many.is_empty() { &self.few[..self.len] } else { &self.many }
    }

    #[cold]
    fn push_to_many(&mut self, slice: &'a [u8]) {
        if self.many.is_empty() {
            self.many.reserve_exact(SLICES_MAX);
            self.many.extend_from_slice(&self.few);
        }
        self.many.push(IoSlice::new(slice));
    }
}

impl Default for Slices<'_> {
    fn default() -> Self {
        Self::new()
    }
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
        self.ends.len().checked_sub(2).map_or(self.start, |before| self.ends[before].position)
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        (self.end() - self.start) as usize
    }

    /// Adds a frame at the end. Who has read it has read everything up to number `seq`; who has not, everything up to
    /// number `before`, which is the same for a frame without a number.
    pub fn append(&mut self, frame: &Bytes, before: u64, seq: u64) {
        if self.ends.is_empty() {
            self.base = before;
        }
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
        self.ends.push_back(End { position: self.end(), seq });
    }

    /// Adds what lies at or behind `from` to a vectored write, as far as there is room.
    pub fn slices<'a>(&'a self, from: u64, out: &mut Slices<'a>) {
        let first = self.sealed.partition_point(|(start, block)| start + block.len() as u64 <= from);
        for (start, block) in self.sealed.range(first..) {
            if out.is_full() {
                return;
            }
            let skip = from.saturating_sub(*start) as usize;
            out.push(&block[skip..]);
        }
        let skip = from.saturating_sub(self.tail_start) as usize;
        if skip < self.tail.len() && !out.is_full() {
            out.push(&self.tail[skip..]);
        }
    }

    /// A copy of what lies at or behind `from`.
    pub fn copy(&self, from: u64) -> Bytes {
        let mut copy = BytesMut::with_capacity((self.end() - from) as usize);
        let tail = [(self.tail_start, &self.tail[..])];
        for (start, block) in self.sealed.iter().map(|(start, block)| (*start, &block[..])).chain(tail) {
            let skip = (from.saturating_sub(start) as usize).min(block.len());
            copy.extend_from_slice(&block[skip..]);
        }
        copy.freeze()
    }

    /// The end of the frame that the byte before `position` belongs to: `position` itself on a border.
    pub fn border_at_or_after(&self, position: u64) -> u64 {
        let at = self.ends.partition_point(|end| end.position < position);
        self.ends.get(at).map_or_else(|| self.end(), |end| end.position)
    }

    /// How many frames end within `(from, to]`.
    pub fn frames_between(&self, from: u64, to: u64) -> u64 {
        let upto = |position| self.ends.partition_point(|end| end.position <= position);
        (upto(to) - upto(from)) as u64
    }

    /// The number that has been read at a border.
    pub fn seq_at(&self, border: u64) -> u64 {
        let upto = self.ends.partition_point(|end| end.position <= border);
        upto.checked_sub(1).map_or(self.base, |newest| self.ends[newest].seq)
    }

    /// The border before the frame with number `seq`; `None` when that frame is not kept.
    pub fn border_before(&self, seq: u64) -> Option<u64> {
        if seq <= self.base || self.ends.back().is_none_or(|newest| newest.seq < seq) {
            return None;
        }
        let before = self.ends.partition_point(|end| end.seq < seq);
        Some(before.checked_sub(1).map_or(self.start, |before| self.ends[before].position))
    }

    /// A part of one frame, which outlives every cut. Of a block that many frames share it is a copy: a socket that stalls
    /// in the middle of a small frame must not keep the whole block.
    pub fn share(&self, range: Range<u64>) -> Bytes {
        let part = |start: u64| (range.start - start) as usize..(range.end - start) as usize;
        let at = self.sealed.partition_point(|(start, _)| *start <= range.start);
        match at.checked_sub(1).map(|at| &self.sealed[at]).filter(|_| range.start < self.tail_start) {
            Some((start, block)) if part(*start).len() >= SHARE_BYTES_MIN => block.slice(part(*start)),
            Some((start, block)) => Bytes::copy_from_slice(&block[part(*start)]),
            None => Bytes::copy_from_slice(&self.tail[part(self.tail_start)]),
        }
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
        let mut gone = self.ends.drain(..self.ends.partition_point(|end| end.position <= to));
        self.base = gone.next_back().map_or(self.base, |end| end.seq);
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
}
