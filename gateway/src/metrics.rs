//! What is counted, for `/metrics`. No label carries the name of a group, a channel or a user.
//!
//! One registry for each gateway, so that tests can run many in a process. What the layer and the jobs count
//! themselves is read at the scrape.

mod limits;
mod parts;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::ErrorCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clock;
use crate::consumer::{Calls, CpuPool, Sources};
use crate::hooks::Hooks;
use crate::jobs::Jobs;
use crate::lag::LoopLag;
use crate::limits::Limits;
use crate::live::Live;
use crate::telemetry::Telemetry;
use limits::LimitsPart;
use parts::{JobsPart, LayerPart, LivePart, PoolsPart};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Handles to what is counted.
pub struct Metrics {
    registry: Registry,
    jobs: Jobs,
    depths: parts::Depths,
    paused: parts::Paused,
    /// Requests by method, route and status.
    http_requests: Family<HttpLabels, Counter>,
    http_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// WebSockets that were opened.
    pub websockets_opened: Counter,
    /// WebSockets that ended, by the code they were closed with; 1006 for those that broke.
    pub websockets_closed: Family<CloseLabels, Counter>,
    /// Refused requests, and commands of sockets, by their code.
    refusals: Family<CodeLabel, Counter>,
    config_reloads: Family<OutcomeLabel, Counter>,
    config_reloaded: Gauge<f64, AtomicU64>,
    /// Panics, each of which cost a request or a connection: each is a defect.
    pub panics: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The label of [`Metrics::websockets_closed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The close code.
    pub code: u16,
}

impl Metrics {
    /// Makes the handles, and reads from these parts at each scrape.
    pub fn new(layer: ChannelLayer, jobs: Jobs, live: Live) -> Self {
        let mut registry = Registry::with_prefix("groupcast");
        registry.register_collector(Box::new(LayerPart(layer)));
        registry.register_collector(Box::new(JobsPart(jobs.clone())));
        registry.register("live_run_seconds", "Time of a run of a live query", live.counters().seconds.clone());
        registry.register_collector(Box::new(LivePart(live)));
        jobs.counters().times.register(&mut registry);
        let depths = parts::Depths::register(&mut registry);
        let paused = parts::Paused::register(&mut registry);
        // 1 ms to 8 s.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let metrics = Self {
            jobs,
            depths,
            paused,
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(seconds),
            websockets_opened: Counter::default(),
            websockets_closed: Family::default(),
            refusals: Family::default(),
            config_reloads: Family::default(),
            config_reloaded: Gauge::default(),
            panics: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "HTTP requests", metrics.http_requests.clone());
        registry.register("http_request_seconds", "Time to the head of the answer", metrics.http_seconds.clone());
        registry.register("websockets_opened", "WebSockets opened", metrics.websockets_opened.clone());
        registry.register("websockets_closed", "WebSockets ended, by close code", metrics.websockets_closed.clone());
        registry.register("refusals", "Refused requests, and commands of sockets, by code", metrics.refusals.clone());
        let help = "Times that the configuration was read again, by what came of it";
        registry.register("config_reloads", help, metrics.config_reloads.clone());
        let help = "When the configuration was taken last, in seconds since 1970";
        registry.register("config_reloaded_timestamp_seconds", help, metrics.config_reloaded.clone());
        // There from the start: an alert sees the first one.
        for outcome in ["refused", "taken"] {
            metrics.config_reloads.get_or_create_owned(&OutcomeLabel { outcome });
        }
        metrics.config_reloaded.set(seconds_of(clock::now_ms()));
        registry.register("panics", "Panics, each of which cost a request or a connection", metrics.panics.clone());
        Self { registry, ..metrics }
    }

    /// Shows what requests to backends came to.
    #[must_use]
    pub(crate) fn with_calls(mut self, calls: &Calls) -> Self {
        calls.register(&mut self.registry);
        self
    }

    /// Shows who was over a limit.
    #[must_use]
    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.registry.register_collector(Box::new(LimitsPart(limits)));
        self
    }

    /// Shows what questions to the team's own service came to.
    #[must_use]
    pub(crate) fn with_hooks(mut self, hooks: &Hooks) -> Self {
        hooks.register(&mut self.registry);
        self
    }

    /// Shows what became of the spans of traces.
    #[must_use]
    pub(crate) fn with_telemetry(mut self, telemetry: &Telemetry) -> Self {
        telemetry.register(&mut self.registry);
        self
    }

    /// Adds what the threads tell that work runs on, and how late the runtimes are.
    #[must_use]
    pub(crate) fn with_pools(mut self, cpu: Arc<CpuPool>, sources: Arc<Sources>, lag: &LoopLag) -> Self {
        let registry = &mut self.registry;
        lag.register(registry);
        registry.register("cpu_piece_seconds", "Time that a piece of work computed", cpu.seconds());
        registry.register_collector(Box::new(PoolsPart { cpu, sources }));
        self
    }

    /// Counts an answered request. `route` is the pattern, as in `/v1/groups/{group}`.
    pub fn http_request(&self, method: &http::Method, route: &str, status: u16, took: Duration) {
        let method = known_method(method);
        self.http_requests.get_or_create(&HttpLabels { method, route: route.to_owned(), status }).inc();
        self.http_seconds.get_or_create(&RouteLabels { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// Counts requests of one route, with what is usual looked up once.
    pub(crate) fn route(self: &Arc<Self>, method: http::Method, route: &'static str, usual: u16) -> RouteMeter {
        let labels = HttpLabels { method: known_method(&method), route: route.to_owned(), status: usual };
        let answered = self.http_requests.get_or_create_owned(&labels);
        let seconds = self.http_seconds.get_or_create_owned(&RouteLabels { route: route.to_owned() });
        RouteMeter { metrics: self.clone(), method, route, usual, answered, seconds }
    }

    /// Counts a request or a command that was refused.
    pub(crate) fn refused(&self, code: ErrorCode) {
        self.refusals.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    /// Counts a reading of the configuration: when it was taken, in milliseconds since 1970; `None`: it was refused.
    pub(crate) fn config_reloaded(&self, taken_ms: Option<u64>) {
        let outcome = if taken_ms.is_some() { "taken" } else { "refused" };
        self.config_reloads.get_or_create(&OutcomeLabel { outcome }).inc();
        if let Some(at) = taken_ms {
            self.config_reloaded.set(seconds_of(at));
        }
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a `String` does not fail.
    pub async fn encode(&self) -> Result<String, fmt::Error> {
        // A store that does not answer must not hide the rest; `/readyz` tells of it.
        if let Ok(depths) = self.jobs.depths().await {
            self.depths.set(&depths, clock::now_ms());
        }
        if let Ok(paused) = self.jobs.paused().await {
            self.paused.set(paused);
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Counts requests of one method and route.
#[derive(Clone)]
pub(crate) struct RouteMeter {
    metrics: Arc<Metrics>,
    method: http::Method,
    route: &'static str,
    /// The status of which there are most.
    usual: u16,
    answered: Counter,
    seconds: Histogram,
}

impl RouteMeter {
    /// As [`Metrics::http_request`].
    pub(crate) fn count(&self, status: u16, took: Duration) {
        if status != self.usual {
            return self.metrics.http_request(&self.method, self.route, status, took);
        }
        self.answered.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

fn seconds_of(ms: u64) -> f64 {
    // Exact for the next hundred thousand years.
    ms as f64 / 1000.0
}

/// A client may invent methods without end; each would be a label.
pub(crate) fn known_method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
