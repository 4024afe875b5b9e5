//! `Retry-After`: when a backend wants to be asked again.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

/// The longest wait that a backend can ask for: it may be wrong, or not mean well.
const MAX: Duration = Duration::from_secs(3600);

static DATES: DateTimeParser = DateTimeParser::new();

/// How long to wait (RFC 9110, section 10.2.3): seconds, or a date; at most [`MAX`]. `None` if it is neither.
pub(in crate::consumer) fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number can hold is long.
        return Some(text.parse().map_or(MAX, Duration::from_secs).min(MAX));
    }
    let at = DATES.parse_timestamp(text).ok()?.as_millisecond();
    let at = u64::try_from(at).unwrap_or(0);
    Some(Duration::from_millis(at.saturating_sub(now_ms)).min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_bounded() {
        let now = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, seconds) in [
            ("0", 0),
            (" 120 ", 120),
            ("3600", 3600),
            ("86400", 3600),
            ("99999999999999999999999", 3600),
            ("Sun, 06 Nov 1994 08:50:07 GMT", 30),
            ("Sun, 06 Nov 1994 08:49:07 GMT", 0),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 3600),
        ] {
            assert_eq!(retry_after(text, now), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1", "soon", "1.5", "Sun, 06 Nov"] {
            assert_eq!(retry_after(text, now), None, "{text}");
        }
    }
}
