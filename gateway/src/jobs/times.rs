//! `JobTimes`: how long jobs waited and ran, by consumer.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Histograms of the times of jobs. The labels are names of the configuration and fixed words.
pub(crate) struct JobTimes {
    pickup: Family<Consumer, Histogram, fn() -> Histogram>,
    run: Family<Run, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Consumer {
    consumer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    consumer: String,
    outcome: &'static str,
}

impl JobTimes {
    /// An attempt was claimed so long after its job had become ready.
    pub(crate) fn picked_up(&self, consumer: &str, after: Duration) {
        self.pickup.get_or_create(&Consumer { consumer: consumer.to_owned() }).observe(after.as_secs_f64());
    }

    /// An attempt ran so long, and ended like this.
    pub(crate) fn ran(&self, consumer: &str, outcome: &'static str, time: Duration) {
        self.run.get_or_create(&Run { consumer: consumer.to_owned(), outcome }).observe(time.as_secs_f64());
    }

    /// Makes them metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Time from when a job could be run to when an attempt began";
        registry.register("job_pickup_seconds", help, self.pickup.clone());
        registry.register("job_run_seconds", "Time that an attempt took, with the report of its end", self.run.clone());
    }
}

impl Default for JobTimes {
    fn default() -> Self {
        // 1 ms to 65 s.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        Self { pickup: Family::new_with_constructor(seconds), run: Family::new_with_constructor(seconds) }
    }
}

impl fmt::Debug for JobTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobTimes")
    }
}
