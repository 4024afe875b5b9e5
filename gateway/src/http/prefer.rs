//! How long a client is willing to wait: `?wait=N`, and `Prefer: wait=N` (RFC 7240, section 4.3).

use std::time::Duration;

use http::HeaderMap;

use super::params::Params;
use super::problem::Problem;

/// `Prefer: wait=N`, cut to `most`. What cannot be understood is no preference, as the RFC wants it.
pub(super) fn preferred_wait(headers: &HeaderMap, most: Duration) -> Option<Duration> {
    let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split([',', ';'])).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    });
    seconds.map(|seconds| Duration::from_secs(seconds).min(most))
}

/// `?wait=N`, cut to `most`.
pub(super) fn asked_wait(params: &Params, most: Duration) -> Result<Duration, Problem> {
    let seconds = params.whole("wait", 0..=u64::MAX)?;
    Ok(Duration::from_secs(seconds.unwrap_or(0)).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_read_where_there_is_one() {
        for (text, expected) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=5", Some(5)),
            ("Wait = \"7\"; foo", Some(7)),
            ("wait=100000000000", Some(60)),
            ("wait=x", None),
            ("wait=-1", None),
            ("respond-async", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", text.parse().expect("a header's value"));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(preferred_wait(&headers, Duration::from_secs(60)), expected, "{text}");
        }
    }
}
