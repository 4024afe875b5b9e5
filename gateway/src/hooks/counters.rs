//! What is counted of hooks.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    ended: Family<CallLabels, Counter>,
    seconds: Family<EventLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    pub(super) waiting: Gauge,
    pub(super) circuit: Gauge,
    pub(super) notices_dropped: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    event: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

impl Default for Counters {
    fn default() -> Self {
        // 1 ms to 33 s.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self {
            ended: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            circuit: Gauge::default(),
            notices_dropped: Counter::default(),
        }
    }
}

impl Counters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Questions to the service of [hooks]: ok, denied, timeout, unreachable, failed, bad_answer, busy, open, or dropped (the client has gone)";
        registry.register("hook_calls", help, self.ended.clone());
        registry.register("hook_seconds", "How long questions took, time in line included", self.seconds.clone());
        registry.register("hook_calls_in_flight", "Questions that are being asked", self.in_flight.clone());
        registry.register("hook_calls_waiting", "Questions that wait for their turn", self.waiting.clone());
        let help = "Whether the service is asked: 0 yes, 1 one call tries, 2 it is left alone";
        registry.register("hook_circuit", help, self.circuit.clone());
        let help = "Ends of connections that could not be told for want of room";
        registry.register("hook_notices_dropped", help, self.notices_dropped.clone());
    }

    /// A question begins. Without an end of its own it was dropped.
    pub(super) fn begin(&self, event: &'static str) -> Asked<'_> {
        self.in_flight.inc();
        Asked { counters: self, event, outcome: "dropped", began: Instant::now() }
    }

    /// An answer that was fine turned out to be one that cannot be followed.
    pub(super) fn wrong(&self, event: &'static str) {
        self.ended.get_or_create(&CallLabels { event, outcome: "bad_answer" }).inc();
    }
}

/// A question under way.
pub(super) struct Asked<'a> {
    counters: &'a Counters,
    event: &'static str,
    outcome: &'static str,
    began: Instant,
}

impl Asked<'_> {
    pub(super) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let (event, outcome) = (self.event, self.outcome);
        self.counters.in_flight.dec();
        self.counters.seconds.get_or_create(&EventLabels { event }).observe(self.began.elapsed().as_secs_f64());
        self.counters.ended.get_or_create(&CallLabels { event, outcome }).inc();
    }
}
