//! Content negotiation (RFC 9110, section 12.5.1): which of the representations that can be made is the best.

use http::HeaderMap;
use http::header::ACCEPT;

/// The index of the media type in `offers` that the client likes best; of equals the first. `None`: likes none.
pub(super) fn best(headers: &HeaderMap, offers: &[&str]) -> Option<usize> {
    let ranges: Vec<(String, u16)> = headers
        .get_all(ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(range)
        .collect();
    if ranges.is_empty() {
        return (!offers.is_empty()).then_some(0);
    }
    let quality = |offer: &str| {
        // The most specific range that matches decides, whatever its quality.
        let matching = ranges.iter().filter_map(|(range, q)| Some((specificity(range, offer)?, *q)));
        matching.max_by_key(|(specificity, _)| *specificity).map_or(0, |(_, q)| q)
    };
    let rated = offers.iter().enumerate().map(|(at, offer)| (quality(offer), at)).filter(|(q, _)| *q > 0);
    rated.max_by_key(|(q, at)| (*q, std::cmp::Reverse(*at))).map(|(_, at)| at)
}

/// One media range and its quality in thousandths.
fn range(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let quality = quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0));
    Some((range, (quality * 1000.0) as u16))
}

fn specificity(range: &str, offer: &str) -> Option<u8> {
    let offer = offer.split(';').next().unwrap_or_default();
    match range.strip_suffix('*') {
        Some("*/") => Some(0),
        Some(stem) => (stem.ends_with('/') && offer.starts_with(stem)).then_some(1),
        None => (range == offer).then_some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: &[&str] = &["application/json", "application/x-ndjson", "text/csv; charset=utf-8"];

    fn check(accept: &str, expected: Option<usize>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header's value"));
        assert_eq!(best(&headers, OFFERS), expected, "{accept}");
    }

    #[test]
    fn the_best_offer_wins() {
        check("*/*", Some(0));
        check("text/csv", Some(2));
        check("text/*, application/json;q=0.5", Some(2));
        check("application/json;q=0.5, application/x-ndjson", Some(1));
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(0));
        check("*/*;q=0.5, application/json;q=0", Some(1));
        check("TEXT/CSV", Some(2));
    }

    #[test]
    fn what_cannot_be_made_is_not_offered() {
        for accept in ["image/png", "application/json;q=0", "text/html", "application/*;q=0"] {
            check(accept, None);
        }
    }

    #[test]
    fn no_wish_gets_the_first() {
        assert_eq!(best(&HeaderMap::new(), OFFERS), Some(0));
        check("", Some(0));
    }
}
