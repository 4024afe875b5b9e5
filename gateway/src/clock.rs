//! The wall clock and fresh ids: the one place that asks the system for the time of day and for randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use groupcast_protocol::Id;

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A time as RFC 3339, UTC, with milliseconds: `2026-11-22T17:00:34.120Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

/// A fresh id for a message or a job.
pub fn new_id() -> Id {
    Id::new(now_ms(), random())
}

/// 128 random bits from the operating system.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system's random source works or nothing does");
    u128::from_le_bytes(bytes)
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
    fn fractions_stay_below_one() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_fraction())));
    }
}
