//! `Calls`: how many requests backends got, how they ended, and how long they took.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::consumer::work::Failure;
use crate::jobs::ErrorClass;

/// Counts of all consumers with `run = "http"`. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    ended: Family<CallLabels, Counter>,
    seconds: Family<ConsumerLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    consumer: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabels {
    consumer: String,
}

impl Default for Calls {
    fn default() -> Self {
        // 1 ms to 17 min.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 4.0, 11));
        Self { ended: Family::default(), seconds: Family::new_with_constructor(seconds) }
    }
}

impl Calls {
    /// Shows the counts at a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Requests to backends: ok, refused for good, failed for now, or dropped (timeout, cancelled, drain)";
        registry.register("backend_requests", help, self.ended.clone());
        registry.register("backend_request_seconds", "How long requests to backends took", self.seconds.clone());
    }

    /// A request begins. Dropped without its end, it was dropped.
    pub(super) fn begin(&self, consumer: &str) -> Call<'_> {
        Call { calls: self, consumer: consumer.to_owned(), outcome: "dropped", began: Instant::now() }
    }
}

/// A request under way.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    consumer: String,
    outcome: &'static str,
    began: Instant,
}

impl Call<'_> {
    /// The request has ended: well, if there is no failure.
    pub(super) fn end(mut self, failure: Option<&Failure>) {
        self.outcome = match failure.map(|failure| failure.class) {
            None => "ok",
            Some(ErrorClass::Permanent) => "refused",
            Some(ErrorClass::Transient | ErrorClass::Timeout | ErrorClass::Crash) => "failed",
        };
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let (consumer, outcome) = (self.consumer.clone(), self.outcome);
        self.calls
            .seconds
            .get_or_create(&ConsumerLabels { consumer: consumer.clone() })
            .observe(self.began.elapsed().as_secs_f64());
        self.calls.ended.get_or_create(&CallLabels { consumer, outcome }).inc();
    }
}
