//! How full the buckets are that this node empties: for metrics, and for the log before Django drops something.

use super::leases::Collected;
use super::{BUCKETS, Dialect, Foreign};

/// The part of a bucket's capacity beyond which the log says so.
const DEEP: f64 = 0.8;

/// How many frames wait in buckets.
#[derive(Default)]
pub(super) struct Depths {
    waiting: [usize; BUCKETS],
    /// Of which the log has said that they are nearly full.
    is_told: [bool; BUCKETS],
}

impl Depths {
    /// Notes what was found in buckets, of those that were looked at.
    pub(super) fn note(&mut self, foreign: &Foreign, looked_at: &[usize], found: &[Collected]) {
        for bucket in looked_at {
            self.waiting[*bucket] = 0;
        }
        for Collected { bucket, left, parked } in found {
            // Those that were parked have just been in the bucket; a full list leaves the rest there.
            let depth = left.map_or(0, |left| left + parked.len());
            self.waiting[*bucket] = depth;
            let is_deep =
                foreign.config.dialect == Dialect::Core && depth as f64 >= foreign.config.capacity as f64 * DEEP;
            if is_deep && !self.is_told[*bucket] {
                tracing::warn!(
                    bucket,
                    depth,
                    capacity = foreign.config.capacity,
                    "a bucket is nearly full; at its capacity Django drops what it sends there: raise `capacity` or \
                     `channel_capacity = {{\"groupcast.*\": …}}` in CHANNEL_LAYERS"
                );
            }
            self.is_told[*bucket] = is_deep || (self.is_told[*bucket] && depth > foreign.config.capacity / 2);
        }
        foreign.counters.depth_max.set(self.waiting.iter().max().map_or(0, |depth| *depth as u64));
    }
}
