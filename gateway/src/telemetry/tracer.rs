//! `Tracer`: what is recorded, and where it is kept until it is sent.

use std::fmt;
use std::sync::Arc;

use groupcast_protocol::{Trace, TraceContext};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::span::{Kind, Record, Span};
use crate::clock;
use crate::config::TracingConfig;

/// Begins spans. A cheap handle; where nothing is traced, a null pointer.
///
/// Spans wait to be sent in a queue of [`QUEUE_MAX`]. Nobody waits for room in it: what finds none is dropped, and counted.
#[derive(Clone, Default)]
pub(crate) struct Tracer(Option<Arc<Inner>>);

struct Inner {
    sample: f64,
    queue: mpsc::Sender<Record>,
    counts: Counts,
}

/// Spans that wait to be sent: two megabytes or so of them, and what a collector that is away for a moment is spared.
pub(super) const QUEUE_MAX: usize = 4096;

/// What became of spans.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// The collector has them.
    pub(super) exported: Counter,
    /// The collector was away, or did not take them.
    pub(super) failed: Counter,
    /// There was no room for them.
    pub(super) dropped: Counter,
    all: Family<Outcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Tracer {
    /// Records what this configuration says, into a queue of its own.
    pub(super) fn new(config: &TracingConfig, counts: Counts) -> (Self, mpsc::Receiver<Record>) {
        let (queue, records) = mpsc::channel(QUEUE_MAX);
        (Self(Some(Arc::new(Inner { sample: config.sample, queue, counts }))), records)
    }

    /// Records nothing.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Whether anything may be recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a step of a trace that is recorded. `None`, after a look at a pointer or two, where there is none.
    pub(crate) fn begin(&self, trace: &Trace, kind: Kind, name: &'static str) -> Option<Span> {
        let parent = trace.as_deref().filter(|trace| self.is_on() && trace.sampled())?;
        self.child(parent, false, kind, name)
    }

    /// Begins the first step here of what another program asks for, and says which trace it is part of.
    ///
    /// Without a `traceparent` a trace begins, and the configured share of those is recorded. One that is not recorded by
    /// who sends it is not recorded here. One that is recorded is recorded here too if that is `trusted`, and by the configured
    /// share otherwise: a stranger could have everything recorded.
    pub(crate) fn arrive(
        &self,
        came: Trace,
        trusted: impl FnOnce() -> bool,
        kind: Kind,
        name: &'static str,
    ) -> (Trace, Option<Span>) {
        let Some(inner) = &self.0 else { return (came, None) };
        let is_recorded = match &came {
            Some(came) => came.sampled() && (trusted() || inner.chosen()),
            None => inner.chosen(),
        };
        let span = match (&came, is_recorded) {
            (_, false) => None,
            (Some(came), true) => self.child(came, true, kind, name),
            (None, true) => self.root(kind, name),
        };
        match (span, came) {
            (Some(span), _) => (span.trace(), Some(span)),
            (None, came) => (self.unrecorded(came), None),
        }
    }

    /// Hands a trace on that is not recorded here. Nobody behind us records what we do not: half a trace helps nobody.
    pub(crate) fn unrecorded(&self, trace: Trace) -> Trace {
        match trace {
            Some(trace) if self.is_on() && trace.sampled() => trace.with_parent(trace.parent_id(), false).map(Arc::new),
            trace => trace,
        }
    }

    fn child(&self, parent: &TraceContext, is_remote: bool, kind: Kind, name: &'static str) -> Option<Span> {
        // Of 2^64 random ids one is none.
        let context = parent.with_parent(random_id(), true)?;
        Some(self.record(context, Some(parent.parent_id()), is_remote, kind, name))
    }

    fn root(&self, kind: Kind, name: &'static str) -> Option<Span> {
        let context = TraceContext::new(clock::random().to_be_bytes(), random_id(), true)?;
        Some(self.record(context, None, false, kind, name))
    }

    fn record(
        &self,
        context: TraceContext,
        parent: Option<[u8; 8]>,
        is_parent_remote: bool,
        kind: Kind,
        name: &'static str,
    ) -> Span {
        let now = clock::now_ns();
        Span::new(
            self.clone(),
            Record {
                context: Arc::new(context),
                parent,
                is_parent_remote,
                kind,
                name: name.into(),
                began_ns: now,
                ended_ns: now,
                attributes: Vec::new(),
                error: None,
            },
        )
    }

    /// Takes a span that has ended. Never waits.
    pub(super) fn keep(&self, record: Record) {
        if let Some(inner) = &self.0
            && inner.queue.try_send(record).is_err()
        {
            inner.counts.dropped.inc();
        }
    }
}

impl Inner {
    fn chosen(&self) -> bool {
        // Not by the trace's id: whoever makes it could choose.
        self.sample > 0.0 && clock::random_fraction() < self.sample
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Default for Counts {
    fn default() -> Self {
        let all = Family::<Outcome, Counter>::default();
        // There from the start: an alert sees the first one.
        let of = |outcome| all.get_or_create_owned(&Outcome { outcome });
        Self { exported: of("exported"), failed: of("failed"), dropped: of("dropped"), all: all.clone() }
    }
}

impl Counts {
    /// Shows them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("trace_spans", "Recorded spans, by what became of them", self.all.clone());
    }
}

fn random_id() -> [u8; 8] {
    let [id @ .., _, _, _, _, _, _, _, _] = clock::random().to_be_bytes();
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    fn tracer(sample: f64) -> (Tracer, mpsc::Receiver<Record>, Counts) {
        let counts = Counts::default();
        let (tracer, records) = Tracer::new(&TracingConfig { sample, ..TracingConfig::default() }, counts.clone());
        (tracer, records, counts)
    }

    fn came(flag: &str) -> Trace {
        Some(Arc::new(TraceContext::parse(format!("{CAME}{flag}"), Some(b"rojo=1")).expect("a context")))
    }

    fn arrive(sample: f64, came: Trace, trusted: bool) -> (Trace, Option<Record>) {
        let (tracer, mut records, _) = tracer(sample);
        let (trace, span) = tracer.arrive(came, || trusted, Kind::Server, "GET");
        drop(span);
        (trace, records.try_recv().ok())
    }

    #[test]
    fn whom_we_trust_decides_and_strangers_get_the_share() {
        for (sample, flag, trusted, is_recorded) in [
            (0.0, "1", true, true),
            (0.0, "1", false, false),
            (1.0, "1", false, true),
            (1.0, "0", true, false),
            (1.0, "0", false, false),
        ] {
            let (trace, record) = arrive(sample, came(flag), trusted);
            let trace = trace.expect("it is handed on");
            let what = format!("{sample} {flag} {trusted}");
            assert_eq!((record.is_some(), trace.sampled()), (is_recorded, is_recorded), "{what}");
            assert_eq!((trace.trace_id()[0], trace.tracestate()), (0x0a, Some("rojo=1")), "{what}");
            let parent = came(flag).expect("it came").parent_id();
            match record {
                Some(record) => {
                    assert_eq!((record.parent, record.is_parent_remote), (Some(parent), true), "{what}");
                    assert_eq!(record.context.parent_id(), trace.parent_id(), "{what}");
                    assert_ne!(trace.parent_id(), parent, "{what}");
                }
                None => assert_eq!(trace.parent_id(), parent, "{what}"),
            }
        }
    }

    #[test]
    fn a_share_of_what_begins_here_is_recorded() {
        let (trace, record) = arrive(1.0, None, false);
        assert!(trace.is_some_and(|trace| trace.sampled()) && record.is_some_and(|record| record.parent.is_none()));
        assert_eq!(arrive(0.0, None, true).0, None);
        let recorded = (0..2000).filter(|_| arrive(0.5, None, true).1.is_some()).count();
        assert!((800..1200).contains(&recorded), "{recorded}");
    }

    #[test]
    fn only_steps_of_recorded_traces_are_begun() {
        let (tracer, mut records, _) = tracer(1.0);
        assert!(tracer.begin(&None, Kind::Producer, "publish").is_none());
        assert!(tracer.begin(&came("0"), Kind::Producer, "publish").is_none());
        let mut span = tracer.begin(&came("1"), Kind::Producer, "publish").expect("it is recorded");
        span.set("n", 7_u32);
        span.fail("busy", "try again");
        let child = tracer.begin(&span.trace(), Kind::Consumer, "process").expect("it is recorded");
        drop((child, span));
        let (child, span) = (records.try_recv().expect("the child"), records.try_recv().expect("the span"));
        assert_eq!(child.parent, Some(span.context.parent_id()));
        assert_eq!(child.context.trace_id(), span.context.trace_id());
        assert_eq!(span.attributes, [("n", 7_u32.into()), ("error.type", "busy".into())]);
        assert!(span.began_ns <= span.ended_ns && span.error.as_deref() == Some("try again"));
        assert!(Tracer::off().begin(&came("1"), Kind::Producer, "publish").is_none());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (tracer, records, counts) = tracer(1.0);
        for _ in 0..QUEUE_MAX + 3 {
            drop(tracer.arrive(None, || true, Kind::Server, "GET"));
        }
        assert_eq!(counts.dropped.get(), 3);
        drop(records);
    }
}
