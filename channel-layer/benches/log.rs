//! What a group's log costs: a frame in, slices out for one subscriber, the old cut off.
//!
//! `cargo bench -p groupcast-channel-layer` (with `-- --quick`: a few seconds).

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use groupcast_channel_layer::log::{FrameLog, Slices};

fn log_of(frames: usize, bytes: usize) -> FrameLog {
    let (mut log, frame) = (FrameLog::default(), Bytes::from(vec![b'x'; bytes]));
    (0..frames as u64).for_each(|n| log.append(&frame, n, n + 1));
    log
}

/// Appended until 1 MiB is there, then forgotten: as a busy group's log lives.
fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_append");
    for bytes in [128, 1024, 8192] {
        let frame = Bytes::from(vec![b'x'; bytes]);
        let (mut log, mut n) = (FrameLog::default(), 0);
        group.bench_function(bytes.to_string(), |b| {
            b.iter(|| {
                if log.bytes() > 1 << 20 {
                    log.clear();
                }
                log.append(black_box(&frame), n, n + 1);
                n += 1;
            });
        });
    }
}

/// What one subscriber costs in a sweep, beside the system call.
fn slices(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_slices");
    for (name, frames, behind) in [("newest", 100, 1), ("8_behind", 100, 8), ("1000_behind", 2000, 1000)] {
        let log = log_of(frames, 128);
        let from = log.end() - behind * 128;
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut out = Slices::new();
                log.slices(black_box(from), &mut out);
                let bytes = out.bytes() as u64;
                let border = log.border_at_or_after(black_box(from) + bytes);
                assert_eq!((bytes, border), (behind * 128, log.end()));
            });
        });
    }
}

/// The older half goes, because somebody is too slow for the bound.
fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_cut");
    for frames in [100, 8000] {
        group.bench_function(frames.to_string(), |b| {
            let to = frames as u64 / 2 * 128;
            b.iter_batched_ref(|| log_of(frames, 128), |log| log.cut(black_box(to)), BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, append, slices, cut);
criterion_main!(benches);
