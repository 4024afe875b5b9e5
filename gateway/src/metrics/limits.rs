//! Who was over a limit, as metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::limits::Limits;

/// The counters of the limits.
pub(super) struct LimitsPart(pub(super) Limits);

/// The key of a limit in the configuration: never whose it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

impl fmt::Debug for LimitsPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitsPart")
    }
}

impl Collector for LimitsPart {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let help = "Connections, requests, commands and messages that were over a limit";
        let mut refused = out.encode_descriptor("limited", help, None, MetricType::Counter)?;
        for (limit, times) in self.0.refused().counts() {
            let label = LimitLabel { limit: limit.as_str() };
            ConstCounter::new(times).encode(refused.encode_family(&label)?)?;
        }
        let memory = self.0.memory();
        let label = LimitLabel { limit: "memory" };
        ConstCounter::new(memory.refused()).encode(refused.encode_family(&label)?)?;
        let help = "Connections that were closed because memory was short";
        let shed = out.encode_descriptor("memory_shed", help, None, MetricType::Counter)?;
        ConstCounter::new(memory.shed()).encode(shed)?;
        let help = "How short memory is: 1, what needs more is refused; 2, what holds most is let go";
        for (name, help, value) in [
            ("memory_budget_bytes", "Memory that the process may have", memory.budget()),
            ("memory_used_bytes", "Memory that the process uses", memory.used()),
            ("memory_level", help, memory.level() as u64),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Addresses, users, services or groups that a rate keeps in mind";
        let mut keys = out.encode_descriptor("limit_keys", help, None, MetricType::Gauge)?;
        for (limit, count) in self.0.keys() {
            let label = LimitLabel { limit: limit.as_str() };
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(keys.encode_family(&label)?)?;
        }
        Ok(())
    }
}
