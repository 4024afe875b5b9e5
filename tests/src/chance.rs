//! `Chance`: random numbers that a failed test can be run with again.

use std::env;
use std::time::Duration;

/// Repeats a run: `GROUPCAST_TEST_SEED`.
const SEED_VARIABLE: &str = "GROUPCAST_TEST_SEED";

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// A seed from the environment, or a new one. It is printed.
    pub fn new() -> Self {
        let fresh = || {
            u64::from(std::process::id()) << 20
                | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.subsec_micros()))
        };
        let seed = env::var(SEED_VARIABLE).ok().map_or_else(fresh, |text| text.parse().expect("a seed is a number"));
        eprintln!("run again with {SEED_VARIABLE}={seed}");
        Self(seed)
    }

    /// A stream of its own for one of many.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// The next number (splitmix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of two.
    pub fn coin(&mut self) -> bool {
        self.number().is_multiple_of(2)
    }

    /// A time between two, to the millisecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64 + 1;
        least + Duration::from_millis(self.number() % span)
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
