//! The server's time, which decides how old a message is: told once, and counted on from there.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds since 1970, as a server tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerTime(u128);

/// The server's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerClock {
    told: ServerTime,
    at: Instant,
}

impl ServerTime {
    /// Of nanoseconds since 1970.
    pub(super) fn from_nanos(nanos: u128) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    pub(super) fn nanos(self) -> u128 {
        self.0
    }

    /// Reads `2026-11-27T01:50:15.123456789Z`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
            let numbers: Result<Vec<u64>, _> = text.split(by).map(str::parse).collect();
            numbers.ok()?.try_into().ok()
        };
        let [year, month, day] = numbers(date, '-')?;
        let [hours, minutes, seconds] = numbers(time, ':')?;
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // A leap second has the number 60.
        if hours > 23 || minutes > 59 || seconds > 60 {
            return None;
        }
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
            return None;
        }
        let nanos: u128 = format!("{fraction:0<9}").parse().ok()?;
        let seconds = days(year, month, day) * 86_400 + hours * 3600 + minutes * 60 + seconds;
        Some(Self(u128::from(seconds) * 1_000_000_000 + nanos))
    }
}

impl ServerClock {
    pub(super) fn told(told: ServerTime) -> Self {
        Self { told, at: Instant::now() }
    }

    /// How long something has been there; zero when it comes from the future.
    pub(super) fn age(&self, since: ServerTime) -> Duration {
        let now = self.told.0 + self.at.elapsed().as_nanos();
        Duration::from_nanos(now.saturating_sub(since.0).try_into().unwrap_or(u64::MAX))
    }
}

/// Days from 1970 to a day of the Gregorian calendar. Years begin in March, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_write() {
        let read = |text| ServerTime::parse(text).map(|time| time.0);
        assert_eq!(read("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(read("2000-03-01T00:00:00.5Z"), Some(951_868_800_500_000_000));
        assert_eq!(read("2026-11-27T01:50:15.123456789Z"), Some(1_795_744_215_123_456_789));
        for text in [
            "",
            "2026-11-27",
            "2026-13-01T00:00:00Z",
            "2026-11-27T01:50Z",
            "2026-11-27T01:50:15.xZ",
            "2026-11-27T24:00:00Z",
            "2026-11-27T18446744073709551615:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_on() {
        let at = |text| ServerTime::parse(text).expect("valid");
        let clock = ServerClock::told(at("2026-11-27T00:00:10Z"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.age(at("2026-11-27T00:00:09Z")), Duration::from_secs(6));
        assert_eq!(clock.age(at("2026-11-27T00:00:19Z")), Duration::ZERO);
    }
}
