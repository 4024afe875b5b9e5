//! In place of `export` in a build without the feature `otel`: nothing is sent, so nothing is recorded.

use tokio::sync::mpsc;

use super::span::Record;
use super::tracer::Counts;
use crate::config::TracingConfig;

/// Never there.
pub(crate) enum Exporter {}

impl Exporter {
    /// Refuses, and says what to do.
    pub(super) fn start(
        _: &TracingConfig,
        _: &str,
        _: &str,
        _: mpsc::Receiver<Record>,
        _: Counts,
    ) -> Result<Self, String> {
        Err("traces need the feature `otel`, which this build lacks; build with it, or unset OTEL_EXPORTER_OTLP_ENDPOINT".into())
    }

    /// Nothing to wait for.
    pub(super) async fn end(self) {
        match self {}
    }
}
