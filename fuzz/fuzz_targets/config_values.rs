//! Durations, sizes, rates, networks, timetables and secrets, as people write them; and when a backend wants to be asked again.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use groupcast::config::{Network, Rate, Secret, Size, Time};
use groupcast::fuzzing::retry_after;
use groupcast::schedule::Timetable;
use groupcast_fuzz::{head, text};
use libfuzzer_sys::fuzz_target;

const NOW_MS: u64 = 1_795_000_000_000;
const CENTURY: Duration = Duration::from_secs(36_525 * 86_400);

fuzz_target!(|data: &[u8]| {
    let (first, second) = head(data);
    let (Some(text), Some(other)) = (text(first), text(second)) else { return };
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    if let Ok(time) = text.parse::<Time>() {
        // What is printed has whole milliseconds; longer times than anybody waits have fewer digits.
        let printed: Time = time.to_string().parse().expect("what is printed can be read");
        let differ = printed.0.abs_diff(time.0);
        assert!(differ <= Duration::from_millis(1) || time.0 > CENTURY, "{time:?} is printed as {printed:?}");
    }
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.to_string().parse(), Ok(rate));
        assert!(rate.interval() > Duration::ZERO && rate.in_a_second() >= 1);
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
        let first: IpAddr =
            network.to_string().split('/').next().and_then(|text| text.parse().ok()).expect("an address");
        assert!(network.contains(first));
    }
    if let Ok(keys) = Secret::new(text).keys() {
        assert!(!keys.is_empty() && keys.iter().all(|key| (24..=64).contains(&key.len())));
    }
    if let Some(wait) = retry_after(text, NOW_MS) {
        assert!(wait <= Duration::from_secs(3600));
    }
    // Searching for a time takes longer than all else here; a few fields are all there are.
    if text.len() < 40
        && let Ok(timetable) = Timetable::parse(text, if other == "1" { "Europe/Berlin" } else { "UTC" }, NOW_MS)
    {
        ticks(&timetable);
    }
});

fn ticks(timetable: &Timetable) {
    let next = timetable.next(NOW_MS).expect("a timetable that was taken has a next time");
    assert!(next > NOW_MS);
    let last = timetable.last(next);
    assert_eq!(last, Some(next), "a tick is the last one at its time");
}
