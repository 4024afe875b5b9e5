//! Delays that a command measured: gathered in nanoseconds, told as percentiles in milliseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Delays longer than this count as this.
const DELAY_MAX_NS: u64 = 600_000_000_000;

/// A histogram of nanoseconds with three digits.
pub(in crate::cli) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, DELAY_MAX_NS, 3).expect("the bounds are constants and tested")
}

/// Percentiles in milliseconds; `null` when nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Percentiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

impl Percentiles {
    /// Reads them out of a histogram.
    pub(in crate::cli) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |ns: u64| (!histogram.is_empty()).then_some((ns as f64 / 1e3).round() / 1e3);
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: ms(histogram.max()) }
    }
}

/// The names of all percentiles, as [`milliseconds`] takes them.
pub(in crate::cli) const ALL: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// The wanted percentiles in one line: `p50 1.20   p99 8.00 ms`.
pub(in crate::cli) fn milliseconds(percentiles: &Percentiles, wanted: &[&str]) -> String {
    let Percentiles { p50, p90, p99, p999, max } = *percentiles;
    let named = ALL.into_iter().zip([p50, p90, p99, p999, max]).filter(|(name, _)| wanted.contains(name));
    let told = named.map(|(name, ms)| format!("{name} {}", ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"))));
    format!("{} ms", told.collect::<Vec<_>>().join("   "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds_and_absent_without_a_value() {
        let mut delays = histogram();
        assert_eq!(Percentiles::of(&delays), Percentiles::default());
        (1..=1000u64).for_each(|n| delays.saturating_record(n * 1_000_000));
        delays.saturating_record(u64::MAX);
        let found = Percentiles::of(&delays);
        let near = |value: Option<f64>, expected: f64| value.is_some_and(|ms| (ms / expected - 1.0).abs() < 0.002);
        assert!(near(found.p50, 501.0) && near(found.p99, 991.0) && near(found.max, 600_000.0), "{found:?}");
    }
}
