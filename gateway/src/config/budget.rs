//! How much memory the process may have: a share of what there is, or a size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::units::Size;

/// `"80%"` of what there is, or `"2GiB"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many hundredths, 1 to 100.
    Share(u8),
    /// So many bytes.
    Bytes(Size),
}

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a share nor a size; write \"80%\" (1 to 100), or a size such as \"2GiB\"")]
pub struct BudgetError(String);

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let refused = || BudgetError(text.chars().take(40).collect());
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Share(percent)),
                _ => Err(refused()),
            },
            None => text.parse().map(Self::Bytes).map_err(|_| refused()),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(percent) => write!(f, "{percent}%"),
            Self::Bytes(size) => fmt::Display::fmt(size, f),
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes() {
        for (text, expected) in
            [("80%", Budget::Share(80)), ("1 %", Budget::Share(1)), ("2GiB", Budget::Bytes(Size(2 << 30)))]
        {
            let budget: Budget = text.parse().expect(text);
            assert_eq!(budget, expected, "{text}");
            assert_eq!(budget.to_string().parse(), Ok(budget));
        }
        for text in ["", "%", "0%", "101%", "-1%", "80 percent", "much"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }
}
