//! Durations and sizes as people write them: `"5s"`, `"1h"`, `"8MiB"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in a configuration: a number with `ms`, `s`, `m`, `h` or `d`, as in `"1.5s"` or `"7d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A number of bytes in a configuration: a plain number, or a text with `B`, `KiB`, `MiB`, `GiB`, `kB`, `MB` or `GB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// A text that is not a duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{0}` is not a duration; write a number and ms, s, m, h or d, as in \"5s\"")]
    Time(String),
    /// Not a size.
    #[error("`{0}` is not a size; write a number of bytes, or a number and KiB, MiB or GiB, as in \"8MiB\"")]
    Size(String),
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError::Time(text.to_owned());
        let (number, unit) = split(text).ok_or_else(refused)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(refused()),
        };
        let exact = Duration::try_from_secs_f64(number * seconds).map_err(|_| refused())?;
        // To the millisecond, as it is printed: half a one would be read as none.
        let ms = u64::try_from(exact.saturating_add(Duration::from_micros(500)).as_millis()).map_err(|_| refused())?;
        if ms == 0 && number > 0.0 { Err(refused()) } else { Ok(Self(Duration::from_millis(ms))) }
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError::Size(text.to_owned());
        let (number, unit) = split(text).ok_or_else(refused)?;
        let factor = match unit {
            "" | "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(refused()),
        };
        let bytes = number * factor;
        if bytes > 1e15 { Err(refused()) } else { Ok(Self(bytes as usize)) }
    }
}

fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(86_400_000) => write!(f, "{}d", ms / 86_400_000),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0B"),
            n if n.is_multiple_of(1 << 30) => write!(f, "{}GiB", n >> 30),
            n if n.is_multiple_of(1 << 20) => write!(f, "{}MiB", n >> 20),
            n if n.is_multiple_of(1 << 10) => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

macro_rules! unit_serde {
    ($name:ident, $expecting:literal, { $($visit:tt)* }) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    $($visit)*
                }
                d.deserialize_any(Visitor)
            }
        }
    };
}

unit_serde!(Time, "a duration such as \"5s\"", {});
unit_serde!(Size, "a number of bytes or a size such as \"8MiB\"", {
    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Size, E> {
        usize::try_from(n).map(Size).map_err(E::custom)
    }
    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Size, E> {
        usize::try_from(n).map(Size).map_err(E::custom)
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("1.1ms", 1),
            ("5s", 5000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(text.parse::<Time>().map(|t| t.0.as_millis()), Ok(ms), "{text}");
        }
        for text in ["", "5", "s", "-1s", "0.0004s", "0.4ms", "5 weeks", "1e99s", "99999999999999999999d"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("100", 100), ("64KiB", 65536), ("8MiB", 8 << 20), ("1.5 MB", 1_500_000)] {
            assert_eq!(text.parse::<Size>().map(|s| s.0), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "8 potatoes", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["250ms", "5s", "2m", "1h", "7d", "0s"] {
            assert_eq!(text.parse::<Time>().expect("valid").to_string(), text);
        }
        for text in ["64KiB", "8MiB", "2GiB", "100B"] {
            assert_eq!(text.parse::<Size>().expect("valid").to_string(), text);
        }
    }
}
