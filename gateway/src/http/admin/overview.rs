//! `GET /admin/api/overview`: how the gateway is at the moment, in one answer of bounded size.
//!
//! Counters are given as they stand, with the time: whoever asks twice knows the rate between, and several who ask do not
//! disturb each other.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use groupcast_protocol::ErrorCode;
use serde::Serialize;

use super::Admin;
use super::samples::{self, Sample};
use crate::app::App;
use crate::clock;
use crate::config::{LayerKind, Role};
use crate::http::problem::Problem;

/// Histograms that are told, and what they are called.
const TIMES: [(&str, &str); 4] = [
    ("http_request_seconds", "http"),
    ("loop_lag_seconds", "loop_lag"),
    ("job_pickup_seconds", "job_pickup"),
    ("job_run_seconds", "job_run"),
];
/// Routes whose answers may wait for something by intention, and so say nothing about how fast answers are.
const WAITING: [&str; 3] = ["/v1/jobs/{id}", "/v1/queries/{name}", "/ws"];
/// Reasons of refusals that are told; those of most refusals.
const REFUSALS_MAX: usize = 50;

/// How the gateway is.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    node: String,
    version: &'static str,
    role: Role,
    layer: LayerKind,
    /// Milliseconds since the process began, by a clock that nobody sets.
    at_ms: u64,
    /// When it began, RFC 3339.
    began_at: String,
    /// Bytes of memory that the process uses; `null` where that cannot be known.
    memory_bytes: Option<u64>,
    /// Every metric without labels, by its name.
    values: BTreeMap<String, f64>,
    /// Jobs that have not ended, by consumer and state.
    jobs: Vec<InState>,
    /// What was refused since the start, by reason, most first.
    refusals: Vec<Refused>,
    /// Times, since the start.
    times: BTreeMap<&'static str, Times>,
    /// Whether each part works.
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct InState {
    consumer: String,
    state: String,
    jobs: f64,
}

/// Refusals of one kind.
#[derive(Debug, PartialEq, Serialize)]
struct Refused {
    /// As in `HTTP 429`.
    what: String,
    count: f64,
}

/// A histogram: how many were at most so long.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Times {
    /// Seconds, ascending; above the last one there is no bound.
    bounds: Vec<f64>,
    /// For each bound, and one more for all.
    counts: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Part {
    part: String,
    /// What is the matter; `null`: nothing.
    problem: Option<String>,
}

/// Shows how the gateway is.
pub(super) async fn read(
    State(app): State<App>,
    Extension(admin): Extension<Admin>,
) -> Result<Json<Overview>, Problem> {
    let (text, parts) = tokio::join!(app.metrics.encode(), app.health.check());
    let text = text.map_err(|_| Problem::new(ErrorCode::Internal, "the metrics cannot be written"))?;
    let part = |(part, answer): (String, Result<(), String>)| Part { part, problem: answer.err() };
    let server = &app.config.server;
    Ok(Json(Overview {
        node: server.node.clone(),
        version: env!("CARGO_PKG_VERSION"),
        role: server.role,
        layer: app.config.layer.kind,
        at_ms: milliseconds(admin.began.elapsed()),
        began_at: clock::rfc3339(admin.began_ms),
        memory_bytes: memory_bytes(),
        values: values(&text),
        jobs: jobs(&text),
        refusals: refusals(&text),
        times: TIMES.iter().map(|(metric, name)| (*name, times(&text, metric))).collect(),
        parts: parts.into_iter().map(part).collect(),
    }))
}

fn values(text: &str) -> BTreeMap<String, f64> {
    let plain = samples::read(text).filter(Sample::is_plain);
    plain.map(|sample| (sample.name.trim_end_matches("_total").to_owned(), sample.value)).collect()
}

fn jobs(text: &str) -> Vec<InState> {
    let of = |sample: Sample| {
        let (consumer, state) = (sample.label("consumer")?.to_owned(), sample.label("state")?.to_owned());
        Some(InState { consumer, state, jobs: sample.value })
    };
    samples::read(text).filter(|sample| sample.name == "jobs").filter_map(of).collect()
}

/// Whatever was refused: requests by status, sockets by the code they were closed with, and counters that name a `reason`.
fn refusals(text: &str) -> Vec<Refused> {
    let mut all = BTreeMap::<String, f64>::new();
    for sample in samples::read(text).filter(|sample| sample.value > 0.0) {
        let what = match sample.name {
            "http_requests_total" => {
                sample.label("status").filter(|status| *status >= "400").map(|s| format!("HTTP {s}"))
            }
            "websockets_closed_total" => {
                sample.label("code").filter(|code| is_refusal(code)).map(|c| format!("WebSocket {c}"))
            }
            name if name.ends_with("_total") => sample.label("reason").map(|reason| reason.replace('_', " ")),
            _ => None,
        };
        if let Some(what) = what {
            *all.entry(what).or_default() += sample.value;
        }
    }
    let mut all: Vec<_> = all.into_iter().map(|(what, count)| Refused { what, count }).collect();
    all.sort_by(|a, b| b.count.total_cmp(&a.count));
    all.truncate(REFUSALS_MAX);
    all
}

/// 1000 and 1001 are goodbyes, 1005 and 1006 the other end's doing, 1012 a drain.
fn is_refusal(code: &str) -> bool {
    !matches!(code, "1000" | "1001" | "1005" | "1006" | "1012")
}

/// The histograms of one metric, summed over its labels; all have the same bounds.
fn times(text: &str, metric: &str) -> Times {
    let mut counts = Vec::<(f64, f64)>::new();
    for sample in samples::read(text).filter(|sample| sample.name.strip_suffix("_bucket") == Some(metric)) {
        let route = sample.label("route").unwrap_or_default();
        if route.starts_with("/admin") || WAITING.contains(&route) {
            continue;
        }
        let Some(bound) = sample.label("le").and_then(|bound| bound.parse::<f64>().ok()) else { continue };
        match counts.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += sample.value,
            None => counts.push((bound, sample.value)),
        }
    }
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (bounds, counts): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
    Times { bounds: bounds.into_iter().filter(|bound| bound.is_finite()).collect(), counts }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What the kernel counts for this process; it tells without waiting.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# EOF is below\ngroupcast_connections 2\ngroupcast_deliveries_total 9\n\
        groupcast_http_requests_total{method=\"GET\",route=\"/a\",status=\"200\"} 5\n\
        groupcast_http_requests_total{method=\"GET\",route=\"/a\",status=\"404\"} 1\n\
        groupcast_http_requests_total{method=\"GET\",route=\"/b\",status=\"404\"} 2\n\
        groupcast_websockets_closed_total{code=\"1000\"} 8\ngroupcast_websockets_closed_total{code=\"1008\"} 4\n\
        groupcast_refused_total{reason=\"rate_limited\"} 1\n\
        groupcast_jobs{consumer=\"q\",state=\"ready\"} 3\n\
        groupcast_http_request_seconds_bucket{le=\"0.001\",route=\"/a\"} 1\n\
        groupcast_http_request_seconds_bucket{le=\"+Inf\",route=\"/a\"} 4\n\
        groupcast_http_request_seconds_bucket{le=\"0.001\",route=\"/b\"} 2\n\
        groupcast_http_request_seconds_bucket{le=\"+Inf\",route=\"/b\"} 2\n\
        groupcast_http_request_seconds_bucket{le=\"0.001\",route=\"/admin/api/overview\"} 50\n\
        groupcast_http_request_seconds_bucket{le=\"0.001\",route=\"/v1/jobs/{id}\"} 50\n";

    #[test]
    fn what_is_counted_is_told_and_what_was_refused_by_reason() {
        let values = values(TEXT);
        assert_eq!((values.len(), values["connections"], values["deliveries"]), (2, 2.0, 9.0));
        let refusal = |what: &str, count| Refused { what: what.to_owned(), count };
        assert_eq!(
            refusals(TEXT),
            [refusal("WebSocket 1008", 4.0), refusal("HTTP 404", 3.0), refusal("rate limited", 1.0)]
        );
        assert_eq!((jobs(TEXT)[0].consumer.as_str(), jobs(TEXT)[0].jobs), ("q", 3.0));
    }

    #[test]
    fn histograms_are_summed_without_the_page_itself_and_without_what_waits() {
        let expected = Times { bounds: vec![0.001], counts: vec![3.0, 6.0] };
        assert_eq!(times(TEXT, "http_request_seconds"), expected);
        assert_eq!(times(TEXT, "loop_lag_seconds"), Times::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_told() {
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
