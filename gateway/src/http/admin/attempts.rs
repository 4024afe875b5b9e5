//! `Attempts`: how often somebody may show a wrong key. A key cannot be guessed; trying shall not be free either.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::counted_as;

/// Wrong keys from one address in a [`WINDOW`].
const FAILURES_MAX: u32 = 10;
/// What they are counted in.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered. While as many fail, an address that has not failed yet has to wait, too.
const ADDRESSES_MAX: usize = 1024;

/// Who has shown wrong keys of late.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Failed>>);

#[derive(Debug)]
struct Failed {
    since: Instant,
    times: u32,
}

impl Attempts {
    /// Whether an address may try again.
    pub(super) fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let mut failed = self.0.lock();
        if failed.len() >= ADDRESSES_MAX {
            failed.retain(|_, failed| failed.is_counted(now));
        }
        match failed.get(&counted_as(address)) {
            Some(failed) if failed.is_counted(now) => failed.times < FAILURES_MAX,
            Some(_) => true,
            None => failed.len() < ADDRESSES_MAX,
        }
    }

    /// Notes a wrong key.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let mut all = self.0.lock();
        let failed = all.entry(counted_as(address)).or_insert(Failed { since: now, times: 0 });
        if !failed.is_counted(now) {
            *failed = Failed { since: now, times: 0 };
        }
        failed.times += 1;
    }
}

impl Failed {
    fn is_counted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_too_often_waits_and_nobody_else_does() {
        let (attempts, began) = (Attempts::default(), Instant::now());
        let [one, other] = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| text.parse().expect("an address"));
        let neighbour = "2001:db8::2".parse().expect("an address");
        for _ in 0..FAILURES_MAX {
            assert!(attempts.may_try(one, began));
            attempts.failed(one, began);
        }
        assert!(!attempts.may_try(one, began) && !attempts.may_try(neighbour, began));
        assert!(attempts.may_try(other, began));
        assert!(attempts.may_try(one, began + WINDOW));
        attempts.failed(one, began + WINDOW);
        assert!(attempts.may_try(one, began + WINDOW), "counted anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (attempts, began) = (Attempts::default(), Instant::now());
        let address = |n: usize| IpAddr::from(u32::try_from(n).expect("few").to_be_bytes());
        for n in 0..ADDRESSES_MAX {
            assert!(attempts.may_try(address(n), began));
            attempts.failed(address(n), began);
        }
        assert!(!attempts.may_try(address(ADDRESSES_MAX), began));
        assert!(attempts.may_try(address(ADDRESSES_MAX), began + WINDOW));
        assert!(attempts.0.lock().is_empty());
    }
}
