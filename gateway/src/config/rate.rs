//! How many in which time, as people write it: `"10/s"`, `"600/m"`, `"100/h"`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most in one second: more is no limit.
const PER_SECOND_MAX: u32 = 100_000;

/// So many in a second, a minute or an hour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Per,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate; write a whole number from 1 and s, m or h, as in \"10/s\" (at most 100000/s)")]
pub struct RateError(String);

impl Rate {
    /// The time that one takes.
    pub fn interval(self) -> Duration {
        self.per.time() / self.count.get()
    }

    /// What comes in one second, at least 1.
    pub fn in_a_second(self) -> u32 {
        let seconds = u32::try_from(self.per.time().as_secs()).unwrap_or(u32::MAX);
        (self.count.get() / seconds).max(1)
    }
}

impl Per {
    fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let refused = || RateError(text.chars().take(40).collect());
        let (count, unit) = text.split_once('/').ok_or_else(refused)?;
        let per = [Per::Second, Per::Minute, Per::Hour].into_iter().find(|per| per.as_str() == unit.trim());
        let rate = Self { count: count.trim().parse().map_err(|_| refused())?, per: per.ok_or_else(refused)? };
        if rate.in_a_second() > PER_SECOND_MAX { Err(refused()) } else { Ok(rate) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.as_str())
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate such as \"10/s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, ms, burst) in
            [("1/s", 1000, 1), ("10/s", 100, 10), ("30/m", 2000, 1), ("600/m", 100, 10), ("100/h", 36_000, 1)]
        {
            let rate: Rate = text.parse().expect(text);
            assert_eq!(
                (rate.interval().as_millis(), rate.in_a_second(), rate.to_string()),
                (ms, burst, text.to_owned())
            );
        }
        for text in ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10 per second", "100001/s", "99999999999/h"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
