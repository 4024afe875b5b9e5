//! What connects the lines of a log, and the steps of a trace, with each other.
//!
//! Reading order: `scope` (what a task is doing), `request_id` (what a request is called), `line` (how a line of the log tells
//! it); `span` (one step of a trace), `tracer` (which steps are recorded, and where they wait), `export` (their way to a
//! collector), `otlp` (the bytes on that way; all that knows OpenTelemetry).

mod deliveries;
#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
#[path = "telemetry/no_export.rs"]
mod export;
mod line;
#[cfg(feature = "otel")]
mod otlp;
mod request_id;
mod scope;
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "nobody reads what is not sent"))]
mod span;
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "nobody counts what is not sent"))]
mod tracer;

use prometheus_client::registry::Registry;

pub(crate) use self::deliveries::Deliveries;
use self::export::Exporter;
pub(crate) use self::line::{InScope, Shape};
pub(crate) use self::request_id::{RequestId, X_REQUEST_ID};
pub(crate) use self::scope::Scope;
pub(crate) use self::span::{Kind, Span};
use self::tracer::Counts;
pub(crate) use self::tracer::Tracer;
use crate::config::Config;

/// What records, and what sends it; owned by who runs the gateway.
pub(crate) struct Telemetry {
    tracer: Tracer,
    exporter: Option<Exporter>,
    counts: Counts,
}

impl Telemetry {
    /// Begins to record and to send, if the configuration says where to. Connects to nothing yet.
    ///
    /// # Errors
    /// What cannot be used of the configuration or the variables, without any secret.
    pub(crate) fn start(config: &Config) -> Result<Self, String> {
        let counts = Counts::default();
        let off = Self { tracer: Tracer::off(), exporter: None, counts: counts.clone() };
        let Some(traces) = config.tracing.traces() else { return Ok(off) };
        let (tracer, records) = Tracer::new(&config.tracing, counts.clone());
        match Exporter::start(&config.tracing, &traces, &config.server.node, records, counts.clone()) {
            Ok(exporter) => Ok(Self { tracer, exporter: Some(exporter), counts }),
            // A key would have been refused. A variable may be meant for others, too.
            Err(why) if !cfg!(feature = "otel") => {
                tracing::warn!(why, "nothing is traced");
                Ok(off)
            }
            Err(why) => Err(why),
        }
    }

    /// Begins spans.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Shows what became of spans.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.counts.register(registry);
    }

    /// Sends the last spans; takes at most 2 s, whatever the collector does.
    pub(crate) async fn end(self) {
        if let Some(exporter) = self.exporter {
            exporter.end().await;
        }
    }
}
