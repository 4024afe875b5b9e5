//! What the layer and the jobs count themselves, as metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use groupcast_channel_layer::ChannelLayer;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::consumer::{CpuPool, Sources};
use crate::jobs::{Depth, Jobs};
use crate::live::Live;

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
        let history = &stats.history;
        gauge(&mut out, "history_bytes", "Bytes that histories take", history.bytes.value())?;
        gauge(&mut out, "history_messages", "Messages that histories keep", history.messages.value())?;
        for (name, help, counter) in [
            ("group_sends", "Messages that group_send took", &stats.group_sends),
            ("sends", "Messages that send took", &stats.sends),
            ("deliveries", "Messages addressed to a member of a group, one for each", &stats.deliveries),
            ("missed", "Messages that a slow connection missed and was told of", &stats.missed),
            ("replayed", "Messages that connections got from a history", &stats.replayed),
            ("catch_ups", "Connections that fell off a log and went on from the history", &stats.catch_ups),
            ("presence_changes", "Comings and goings that groups were told of", &stats.presence_changes),
            ("passed_over", "Messages that a full mailbox in a group did not get", &stats.passed_over),
            ("expired", "Messages that nobody read in time", &stats.expired),
            ("socket_writes", "Writes to sockets", &stats.writes),
            ("socket_bytes", "Bytes written to sockets", &stats.bytes_written),
        ] {
            count(&mut out, name, help, counter.value())?;
        }
        let mut gaps =
            out.encode_descriptor("gaps", "Gaps that connections were told of, by reason", None, MetricType::Counter)?;
        for (reason, count) in stats.gaps.by_reason() {
            let labels = ReasonLabel { reason: reason.as_str() };
            ConstCounter::new(count).encode(gaps.encode_family(&labels)?)?;
        }
        self.encode_broker(&mut out)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl LayerPart {
    /// What a broker takes and brings; nothing without one.
    fn encode_broker(&self, out: &mut DescriptorEncoder) -> fmt::Result {
        let Some(followed) = self.0.followed() else { return Ok(()) };
        let broker = &self.0.stats().broker;
        gauge(out, "broker_up", "Whether the broker is there", u64::from(self.0.ready().is_ok()))?;
        gauge(out, "broker_groups", "Groups that the broker brings to this gateway", followed as u64)?;
        let presence = &self.0.stats().presence;
        gauge(
            out,
            "presence_gateways",
            "Other gateways that are heard of, with groups with presence",
            presence.peers.value(),
        )?;
        gauge(
            out,
            "presence_elsewhere",
            "Members of other gateways in groups with presence, each as often as it is in one",
            presence.elsewhere.value(),
        )?;
        for (name, help, counter) in [
            (
                "presence_wholes",
                "Times that all members of another gateway were taken anew, or let go",
                &presence.wholes,
            ),
            (
                "presence_lost",
                "Notes on members of other gateways that came faster than they were taken",
                &presence.lost,
            ),
        ] {
            count(out, name, help, counter.value())?;
        }
        for (name, help, counter) in [
            ("broker_published", "Messages that the broker took", &broker.published),
            ("broker_arrived", "Messages of followed groups that the broker brought", &broker.arrived),
            ("broker_doubles", "Messages that the broker brought again", &broker.doubles),
            ("broker_holes", "Holes between messages, and groups that began anew", &broker.holes),
            (
                "broker_undelivered",
                "Messages of other gateways to channels that were full or gone",
                &broker.undelivered,
            ),
            ("broker_losses", "Times that the link to the broker was lost", &broker.losses),
        ] {
            count(out, name, help, counter.value())?;
        }
        let help = "What came from the broker and was dropped, by reason";
        let mut dropped = out.encode_descriptor("broker_frames_dropped", help, None, MetricType::Counter)?;
        for (reason, count) in self.0.dropped() {
            let labels = ReasonLabel { reason: reason.as_str() };
            ConstCounter::new(count).encode(dropped.encode_family(&labels)?)?;
        }
        for (name, help, value) in self.0.broker_counters() {
            count(out, name, help, value)?;
        }
        for (name, help, value) in self.0.broker_gauges() {
            gauge(out, name, help, value)?;
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
            ("jobs_coalesced", "Attempts that shared the execution of another job", &counters.coalesced),
            ("jobs_cached", "Jobs answered by the result of an earlier one", &counters.cached),
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
            ("jobs_hung", "Attempts that showed no life and lost their lease", &counters.hung),
            ("jobs_threads_lost", "CPU threads given up because their work did not end", &counters.threads_lost),
        ] {
            count(&mut out, name, help, value.get())?;
        }
        Ok(())
    }
}

/// The counters of live queries.
pub(super) struct LivePart(pub(super) Live);

impl fmt::Debug for LivePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LivePart")
    }
}

impl Collector for LivePart {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let (sets, subscribers) = self.0.load();
        gauge(&mut out, "live_queries", "Live queries, each with its parameters counted once", sets)?;
        gauge(&mut out, "live_subscribers", "Subscriptions to live queries", subscribers)?;
        let counters = self.0.counters();
        for (name, help, value) in [
            ("live_runs", "Times that live queries were asked", &counters.runs),
            ("live_failures", "Runs of live queries that failed", &counters.failures),
            (
                "live_changes",
                "Changes of live queries that were sent, each once for all subscribers",
                &counters.changes,
            ),
            ("live_invalidations", "Requests to ask live queries again", &counters.invalidations),
        ] {
            count(&mut out, name, help, value.get())?;
        }
        Ok(())
    }
}

/// The threads that work runs on.
pub(super) struct PoolsPart {
    pub(super) cpu: Arc<CpuPool>,
    pub(super) sources: Arc<Sources>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: String,
}

impl fmt::Debug for PoolsPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolsPart")
    }
}

impl Collector for PoolsPart {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let cpu = self.cpu.load();
        gauge(&mut out, "cpu_pool_busy", "Pieces of work that are being computed", cpu.busy as u64)?;
        gauge(&mut out, "cpu_pool_queued", "Pieces of work that wait to be computed", cpu.queued as u64)?;
        let help = "Pieces of work that were held back because the runtimes were late";
        count(&mut out, "cpu_pool_deferred", help, cpu.deferred)?;
        let mut busy = out.encode_descriptor("query_pool_busy", "Queries that run", None, MetricType::Gauge)?;
        for (source, load) in self.sources.loads() {
            ConstGauge::new(signed(load.0 as u64))
                .encode(busy.encode_family(&SourceLabel { source: source.to_owned() })?)?;
        }
        let help = "Queries that wait for a thread of their source";
        let mut queued = out.encode_descriptor("query_pool_queued", help, None, MetricType::Gauge)?;
        for (source, load) in self.sources.loads() {
            ConstGauge::new(signed(load.1 as u64))
                .encode(queued.encode_family(&SourceLabel { source: source.to_owned() })?)?;
        }
        Ok(())
    }
}

/// How much there is to do, by consumer and state; a consumer without jobs has no value.
#[derive(Debug, Clone, Default)]
pub(super) struct Depths(Arc<Mutex<Seen>>);

/// What was read at a time: how many jobs, and when the oldest was stored.
#[derive(Debug, Clone, Default)]
struct Seen {
    now: u64,
    values: BTreeMap<DepthLabels, (u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct DepthLabels {
    consumer: String,
    state: &'static str,
}

impl Depths {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let depths = Self::default();
        registry.register_collector(Box::new(depths.clone()));
        depths
    }

    /// Replaces all values at once, so that scrapes at the same time see the one or the other. `now` is in milliseconds since
    /// 1970.
    pub(super) fn set(&self, depths: &[Depth], now: u64) {
        let mut values = BTreeMap::new();
        for depth in depths {
            let labels = DepthLabels { consumer: depth.consumer.clone(), state: depth.state.as_str() };
            // The memory and the durable store may both have jobs of a consumer.
            let (jobs, oldest_at) = values.entry(labels).or_insert((0, u64::MAX));
            *jobs += depth.jobs;
            *oldest_at = depth.oldest_at.min(*oldest_at);
        }
        *self.0.lock() = Seen { now, values };
    }
}

impl Collector for Depths {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let Seen { now, values } = self.0.lock().clone();
        let mut jobs = out.encode_descriptor("jobs", "Jobs that have not ended", None, MetricType::Gauge)?;
        for (labels, (count, _)) in &values {
            ConstGauge::new(signed(*count)).encode(jobs.encode_family(labels)?)?;
        }
        let help = "When the oldest job that has not ended was stored, in ms since 1970";
        let mut oldest = out.encode_descriptor("jobs_oldest_ms", help, None, MetricType::Gauge)?;
        for (labels, (_, at)) in &values {
            ConstGauge::new(signed(*at)).encode(oldest.encode_family(labels)?)?;
        }
        let help = "How long ago the oldest job that has not ended was stored";
        let mut age = out.encode_descriptor("jobs_oldest_age_seconds", help, None, MetricType::Gauge)?;
        for (labels, (_, at)) in &values {
            let seconds = now.saturating_sub(*at) as f64 / 1000.0;
            ConstGauge::new(seconds).encode(age.encode_family(labels)?)?;
        }
        Ok(())
    }
}

/// Which consumers are paused: 1 for each that is.
#[derive(Debug, Clone, Default)]
pub(super) struct Paused(Arc<Mutex<Vec<String>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabels {
    consumer: String,
}

impl Paused {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let paused = Self::default();
        registry.register_collector(Box::new(paused.clone()));
        paused
    }

    pub(super) fn set(&self, consumers: Vec<String>) {
        *self.0.lock() = consumers;
    }
}

impl Collector for Paused {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let help = "Whether a consumer is paused; one that is not has no value";
        let mut paused = out.encode_descriptor("consumer_paused", help, None, MetricType::Gauge)?;
        for consumer in self.0.lock().clone() {
            ConstGauge::new(1_i64).encode(paused.encode_family(&ConsumerLabels { consumer })?)?;
        }
        Ok(())
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(signed(value));
    gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::jobs::JobState;

    #[test]
    fn depths_of_both_stores_are_summed_however_often_they_are_set() {
        let mut registry = Registry::default();
        let depths = Depths::register(&mut registry);
        let depth = |jobs, oldest_at| Depth { consumer: "q".into(), state: JobState::Ready, jobs, oldest_at };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| depths.set(&[depth(2, 7), depth(3, 5)], 2505)));
            }
        });
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        assert!(text.contains("\njobs{consumer=\"q\",state=\"ready\"} 5\n"), "{text}");
        assert!(text.contains("\njobs_oldest_ms{consumer=\"q\",state=\"ready\"} 5\n"), "{text}");
        assert!(text.contains("\njobs_oldest_age_seconds{consumer=\"q\",state=\"ready\"} 2.5\n"), "{text}");
        depths.set(&[], 0);
        text.clear();
        encode(&mut text, &registry).expect("text");
        assert!(!text.contains("consumer"), "{text}");
    }
}
