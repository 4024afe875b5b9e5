//! What the layer and the jobs count themselves, as metrics.

use std::fmt;

use groupcast_channel_layer::ChannelLayer;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::jobs::{Depth, Jobs};

/// The counters of the layer.
#[derive(Debug)]
pub(super) struct LayerPart(pub(super) ChannelLayer);

impl Collector for LayerPart {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let stats = self.0.stats();
        gauge(&mut out, "connections", "Live connections", stats.connections.value())?;
        gauge(&mut out, "groups", "Groups with members", stats.groups.value())?;
        gauge(&mut out, "memberships", "Channels in groups, each as often as it is in one", stats.memberships.value())?;
        gauge(&mut out, "log_bytes", "Bytes that wait in the logs of groups", stats.log_bytes.value())?;
        for (name, help, counter) in [
            ("group_sends", "Messages that group_send took", &stats.group_sends),
            ("sends", "Messages that send took", &stats.sends),
            ("deliveries", "Messages addressed to a member of a group, one for each", &stats.deliveries),
            ("missed", "Messages that a slow connection missed and was told of", &stats.missed),
            ("gaps", "Gaps that connections were told of", &stats.gaps),
            ("passed_over", "Messages that a full mailbox in a group did not get", &stats.passed_over),
            ("expired", "Messages that nobody read in time", &stats.expired),
            ("socket_writes", "Writes to sockets", &stats.writes),
            ("socket_bytes", "Bytes written to sockets", &stats.bytes_written),
        ] {
            count(&mut out, name, help, counter.value())?;
        }
        Ok(())
    }
}

/// The counters of the jobs.
pub(super) struct JobsPart(pub(super) Jobs);

impl fmt::Debug for JobsPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobsPart")
    }
}

impl Collector for JobsPart {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let counters = self.0.counters();
        for (name, help, value) in [
            ("jobs_enqueued", "Jobs stored", &counters.enqueued),
            ("jobs_claimed", "Attempts begun", &counters.claimed),
            ("jobs_succeeded", "Jobs that ended well", &counters.succeeded),
            ("jobs_retried", "Attempts that failed and are repeated", &counters.retried),
            ("jobs_dead", "Jobs that failed for good", &counters.dead),
            ("jobs_cancelled", "Running jobs that were cancelled", &counters.cancelled),
            ("jobs_released", "Attempts given up by a drain", &counters.released),
            ("jobs_fenced", "Reports that came too late and were refused", &counters.fenced),
            ("jobs_recovered", "Jobs of a dead process, released at the start", &counters.recovered),
            ("jobs_commits", "Transactions of the durable queue", &counters.commits),
            ("jobs_committed_calls", "Calls in those transactions", &counters.committed_calls),
            ("jobs_syncs", "Transactions that were synced to disk", &counters.syncs),
            ("jobs_events_failed", "Events that were not taken in time and are sent again", &counters.events_failed),
            ("jobs_threads_lost", "CPU threads given up because their work did not end", &counters.threads_lost),
        ] {
            count(&mut out, name, help, value.get())?;
        }
        Ok(())
    }
}

/// How much there is to do, by consumer and state.
#[derive(Debug, Clone, Default)]
pub(super) struct Depths {
    jobs: Family<DepthLabels, Gauge>,
    oldest: Family<DepthLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DepthLabels {
    consumer: String,
    state: &'static str,
}

impl Depths {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let depths = Self::default();
        registry.register("jobs", "Jobs that have not ended", depths.jobs.clone());
        let help = "When the oldest job that has not ended was stored, in ms since 1970";
        registry.register("jobs_oldest_ms", help, depths.oldest.clone());
        depths
    }

    /// Replaces all values: a consumer without jobs has no value.
    pub(super) fn set(&self, depths: &[Depth]) {
        self.jobs.clear();
        self.oldest.clear();
        for depth in depths {
            let labels = DepthLabels { consumer: depth.consumer.clone(), state: depth.state.as_str() };
            // The memory and the durable store may both have jobs of a consumer.
            self.jobs.get_or_create(&labels).inc_by(signed(depth.jobs));
            let oldest = self.oldest.get_or_create(&labels);
            let known = oldest.get();
            oldest.set(if known == 0 { signed(depth.oldest_at) } else { known.min(signed(depth.oldest_at)) });
        }
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(out.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(signed(value));
    gauge.encode(out.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
}
