//! The wall clock and fresh ids: the one place that asks the system for the time of day and for randomness.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use groupcast_protocol::Id;

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The same in nanoseconds, which last until 2554.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// A time as RFC 3339, UTC, with milliseconds: `2026-11-22T17:00:34.120Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

/// A fresh id for a message or a job. Of two that are asked for one after the other the second is greater, unless the clock
/// was put back.
pub fn new_id() -> Id {
    id_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), random())
}

/// An id with the time to a quarter of a microsecond (RFC 9562, section 6.2, method 3), so that what is made in one
/// millisecond has an order, too. 62 bits of it are random.
fn id_at(since_1970: Duration, random: u128) -> Id {
    let part_of_ms = u128::from(since_1970.subsec_nanos() % 1_000_000) * (1 << 12) / 1_000_000;
    Id::new(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX), random & !0xFFF | part_of_ms)
}

/// 128 random bits from the operating system. Each thread asks for many at a time: a message's id is not worth a system
/// call.
pub fn random() -> u128 {
    thread_local! {
        static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; POOL_BYTES], left: 0 }) };
    }
    DRAWN.with_borrow_mut(Drawn::next)
}

/// Random bytes that are asked for at once.
const POOL_BYTES: usize = 512;

/// Random bytes of which the first `left` have not been given out.
struct Drawn {
    bytes: [u8; POOL_BYTES],
    left: usize,
}

impl Drawn {
    fn next(&mut self) -> u128 {
        if self.left == 0 {
            getrandom::fill(&mut self.bytes).expect("the operating system's random source works or nothing does");
            self.left = POOL_BYTES;
        }
        let (_, given) = self.bytes[..self.left].split_last_chunk_mut::<16>().expect("the pool is a multiple of 16");
        self.left -= given.len();
        // What was given out is not kept.
        u128::from_le_bytes(std::mem::take(given))
    }
}

/// A number from 0 (inclusive) to 1 (exclusive), for jitter.
pub fn random_fraction() -> f64 {
    (random() as u64 >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_a_z() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_763_830_834_120), "2025-11-22T17:00:34.120Z");
    }

    #[test]
    fn ids_of_one_millisecond_have_an_order() {
        let times = [0, 250, 1_000, 999_750, 1_000_000].map(|ns| Duration::from_millis(7) + Duration::from_nanos(ns));
        let ids = times.map(|time| id_at(time, random()));
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
        assert_eq!(ids.map(Id::unix_ms), [7, 7, 7, 7, 8]);
        assert_ne!(id_at(times[0], random()), id_at(times[0], random()));
    }

    #[test]
    fn random_numbers_do_not_repeat() {
        let drawn: std::collections::HashSet<_> = (0..1000).map(|_| random()).collect();
        assert_eq!(drawn.len(), 1000);
    }

    #[test]
    fn fractions_stay_below_one() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_fraction())));
    }
}
