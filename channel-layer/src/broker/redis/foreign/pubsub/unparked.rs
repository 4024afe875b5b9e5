//! Frames that have come, and that no registrar is known to have parked.

use std::collections::VecDeque;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use groupcast_protocol::GroupName;
use tokio::time::Instant;

use crate::broker::redis::foreign::BUCKETS;

/// Frames of one server that are kept. Of more, the newest are lost, and counted: a registrar is far behind then.
const FRAMES_MAX: usize = 10_000;
/// And their bytes.
const BYTES_MAX: usize = 32 << 20;
/// What is parked of a bucket in one step, in bytes, unless a single frame has more.
const TURN_BYTES: usize = 1 << 20;

/// What a frame is known by between gateways, until it is parked. Equal frames have the same, and are told apart by how many
/// there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash([u8; Hash::BYTES]);

impl Hash {
    const BYTES: usize = 16;

    pub(super) fn of(group: &GroupName, frame: &[u8]) -> Self {
        let mut hash = digest::Context::new(&SHA256);
        hash.update(group.as_str().as_bytes());
        hash.update(b" ");
        hash.update(frame);
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(&hash.finish().as_ref()[..Self::BYTES]);
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A frame that waits.
pub(super) struct Waiting {
    pub(super) hash: Hash,
    pub(super) group: GroupName,
    pub(super) frame: Bytes,
    pub(super) since: Instant,
}

/// What has come by one server.
#[derive(Default)]
pub(super) struct Unparked {
    buckets: [Bucket; BUCKETS],
    frames: usize,
    bytes: usize,
}

#[derive(Default)]
struct Bucket {
    waiting: VecDeque<Waiting>,
    /// The last time that somebody parked something of the bucket, as far as it was heard of.
    heard: u64,
    /// That of this node, which it may not have heard of yet.
    asked: u64,
}

/// What a node is about to park of a bucket.
pub(super) struct Part {
    /// Holds only if nobody has parked anything behind this time.
    pub(super) behind: u64,
    pub(super) frames: Vec<(Hash, GroupName, Bytes)>,
}

impl Unparked {
    /// Keeps a frame; says how many are lost by it: what is too old, or this one where there is no room.
    pub(super) fn push(&mut self, bucket: usize, waiting: Waiting, expiry: Duration) -> u64 {
        let mut lost = 0;
        while self.buckets[bucket].waiting.front().is_some_and(|first| first.since.elapsed() > expiry) {
            self.remove(bucket, 0);
            lost += 1;
        }
        if self.frames >= FRAMES_MAX || self.bytes + waiting.frame.len() > BYTES_MAX {
            return lost + 1;
        }
        self.frames += 1;
        self.bytes += waiting.frame.len();
        self.buckets[bucket].waiting.push_back(waiting);
        lost
    }

    /// Takes down what somebody, perhaps this node, has told: `BUCKET TIME` and the hashes of what is parked. Says whether it
    /// was that.
    pub(super) fn parked(&mut self, told: &[u8]) -> bool {
        let mut parts = told.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        let (Some(bucket), Some(time)) = (number().and_then(|at| usize::try_from(at).ok()), number()) else {
            return false;
        };
        if bucket < BUCKETS {
            self.hear(bucket, time);
            for hash in parts.next().unwrap_or_default().chunks_exact(Hash::BYTES) {
                if let Some(at) = self.buckets[bucket].waiting.iter().position(|waiting| waiting.hash.0 == hash) {
                    self.remove(bucket, at);
                }
            }
        }
        bucket < BUCKETS
    }

    /// Redis itself says how often something has been parked, and all that was told of it before has been taken down.
    pub(super) fn know(&mut self, bucket: usize, times: u64) {
        let Bucket { heard, asked, .. } = &mut self.buckets[bucket];
        (*heard, *asked) = (times, times);
    }

    fn hear(&mut self, bucket: usize, times: u64) {
        let heard = &mut self.buckets[bucket].heard;
        *heard = times.max(*heard);
    }

    /// Buckets in which something waits for so long that whoever parks it is slow, or dead.
    pub(super) fn late(&self, after: Duration) -> Vec<usize> {
        let first = |bucket: usize| self.buckets[bucket].waiting.front();
        (0..BUCKETS).filter(|bucket| first(*bucket).is_some_and(|first| first.since.elapsed() > after)).collect()
    }

    /// What is to be parked of a bucket, a bounded part. Nothing while the node has not heard of what it parked last.
    pub(super) fn part(&mut self, bucket: usize, limit: usize) -> Part {
        let Bucket { waiting, heard, asked } = &mut self.buckets[bucket];
        let frames = if *asked > *heard { Vec::new() } else { first(waiting, limit) };
        if !frames.is_empty() {
            // Anybody may have told the largest time there is; Redis puts it right.
            *asked = heard.saturating_add(1);
        }
        Part { behind: *heard, frames }
    }

    /// Nothing was parked, or nobody knows: it is tried again, and holds only if it was not.
    pub(super) fn forget(&mut self, bucket: usize) {
        let Bucket { heard, asked, .. } = &mut self.buckets[bucket];
        *asked = *heard;
    }

    /// Gives all up; says how much that was.
    pub(super) fn clear(&mut self) -> u64 {
        let lost = self.frames as u64;
        *self = Self::default();
        lost
    }

    fn remove(&mut self, bucket: usize, at: usize) {
        if let Some(gone) = self.buckets[bucket].waiting.remove(at) {
            self.frames -= 1;
            self.bytes -= gone.frame.len();
        }
    }
}

fn first(queue: &VecDeque<Waiting>, limit: usize) -> Vec<(Hash, GroupName, Bytes)> {
    let mut bytes = 0;
    let fits = |waiting: &&Waiting| {
        let is_first = bytes == 0;
        bytes += waiting.frame.len();
        is_first || bytes <= TURN_BYTES
    };
    let part = queue.iter().take(limit).take_while(fits);
    part.map(|waiting| (waiting.hash, waiting.group.clone(), waiting.frame.clone())).collect()
}

/// What a node that has one frame in bucket 3 does about what others tell: whether it is understood, and how many frames it goes on
/// to park of that bucket, before and after Redis has said how it is.
#[cfg(feature = "fuzzing")]
pub fn told(telling: &[u8]) -> (bool, [usize; 2]) {
    let mut own = Unparked::default();
    let group = GroupName::parse("g").expect("a name");
    let waiting =
        Waiting { hash: Hash::of(&group, b"frame"), group, frame: Bytes::from_static(b"frame"), since: Instant::now() };
    own.push(3, waiting, Duration::from_secs(3600));
    let is_understood = own.parked(telling);
    let before = own.part(3, 10).frames.len();
    own.know(3, 7);
    (is_understood, [before, own.part(3, 10).frames.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(60);

    fn waiting(text: &str) -> Waiting {
        let (group, frame) = (GroupName::parse("g").expect("a name"), Bytes::copy_from_slice(text.as_bytes()));
        Waiting { hash: Hash::of(&group, &frame), group, frame, since: Instant::now() }
    }

    fn told(bucket: usize, time: u64, frames: &[&str]) -> Vec<u8> {
        let mut told = format!("{bucket} {time} ").into_bytes();
        frames.iter().for_each(|text| told.extend(waiting(text).hash.bytes()));
        told
    }

    fn texts(part: &Part) -> Vec<&[u8]> {
        part.frames.iter().map(|(_, _, frame)| &frame[..]).collect()
    }

    #[tokio::test]
    async fn a_standby_has_what_was_not_parked_in_its_order() {
        let mut standby = Unparked::default();
        for text in ["a", "b", "a", "c"] {
            assert_eq!(standby.push(3, waiting(text), EXPIRY), 0);
        }
        standby.parked(&told(3, 7, &["a", "b", "unseen"]));
        let part = standby.part(3, 100);
        assert_eq!((part.behind, texts(&part)), (7, vec![&b"a"[..], b"c"]));
        assert!(standby.part(2, 100).frames.is_empty());
    }

    #[tokio::test]
    async fn garbage_is_not_believed() {
        let mut own = Unparked::default();
        own.push(3, waiting("a"), EXPIRY);
        for garbage in [&b""[..], b"3", b"3 x ", b"-1 3 ", b"16 1 ", b"99999999999999999999 1 ", b"3 0 short"] {
            assert!(!own.parked(garbage) || garbage == b"3 0 short");
        }
        let part = own.part(3, 100);
        assert_eq!((part.behind, texts(&part)), (0, vec![&b"a"[..]]));
    }

    #[tokio::test]
    async fn a_time_that_never_was_is_put_right() {
        let mut own = Unparked::default();
        own.push(3, waiting("a"), EXPIRY);
        assert!(own.parked(&told(3, 99_999_999_999, &[])));
        assert_eq!(own.part(3, 100).behind, 99_999_999_999);
        own.know(3, 7);
        let part = own.part(3, 100);
        assert_eq!((part.behind, texts(&part)), (7, vec![&b"a"[..]]));
        assert!(own.parked(&told(3, u64::MAX, &[])));
        assert_eq!(own.part(3, 100).behind, u64::MAX);
    }

    #[tokio::test]
    async fn nothing_is_parked_again_before_the_last_time_was_heard_of() {
        let mut own = Unparked::default();
        own.push(0, waiting("a"), EXPIRY);
        assert_eq!(texts(&own.part(0, 100)), [b"a"]);
        own.push(0, waiting("b"), EXPIRY);
        assert!(own.part(0, 100).frames.is_empty());
        own.parked(&told(0, 1, &["a"]));
        let part = own.part(0, 100);
        assert_eq!((part.behind, texts(&part)), (1, vec![&b"b"[..]]));
        own.forget(0);
        assert_eq!(texts(&own.part(0, 100)), [b"b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_long_is_noticed() {
        let mut own = Unparked::default();
        own.push(5, waiting("a"), EXPIRY);
        assert!(own.late(EXPIRY).is_empty());
        tokio::time::advance(2 * EXPIRY).await;
        assert_eq!(own.late(EXPIRY), [5]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_bound_and_what_is_beyond_it_is_counted() {
        let mut full = Unparked::default();
        let lost: u64 = (0..FRAMES_MAX + 5).map(|n| full.push(1, waiting(&n.to_string()), EXPIRY)).sum();
        assert_eq!(lost, 5);
        tokio::time::advance(2 * EXPIRY).await;
        assert_eq!(full.push(1, waiting("x"), EXPIRY), FRAMES_MAX as u64, "all the others are too old");
        assert_eq!((full.clear(), full.bytes), (1, 0));
    }

    #[tokio::test]
    async fn a_part_has_a_bound() {
        let mut large = Unparked::default();
        let text = "x".repeat(TURN_BYTES - 1);
        for _ in 0..3 {
            large.push(0, waiting(&text), EXPIRY);
        }
        for n in 0..200 {
            large.push(1, waiting(&n.to_string()), EXPIRY);
        }
        assert_eq!([0, 1].map(|bucket| large.part(bucket, 100).frames.len()), [1, 100]);
    }
}
