//! `LoopLag`: how late the runtimes come to what is due, and whether that is too late for more work that computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Between two looks while something computes.
const FINE: Duration = Duration::from_millis(5);

/// Between two looks otherwise. A look wakes the thread, which was measured to cost up to 0.1 ms on a cold core (without
/// optimization): four a second are nothing, two hundred on each thread of an idle gateway would not be.
const COARSE: Duration = Duration::from_millis(250);

/// What is remembered when it is asked how late the runtimes are: the last second, in two halves.
const HALF: Duration = Duration::from_millis(500);

/// In seconds. A timer of the runtime itself is up to 1 ms late.
const BUCKETS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

/// The lateness of the runtimes of one gateway. Clones are one.
#[derive(Clone)]
pub struct LoopLag(Arc<Inner>);

struct Inner {
    /// Zero: no lag is too much.
    budget: Duration,
    seconds: Family<RuntimeLabel, Histogram, fn() -> Histogram>,
    meters: Mutex<Vec<Arc<Mutex<Meter>>>>,
    is_over: AtomicBool,
    computing: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuntimeLabel {
    runtime: String,
}

impl LoopLag {
    /// Nothing is measured yet. With a budget of zero no lag is ever too much.
    pub fn new(budget: Duration) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self(Arc::new(Inner {
            budget,
            seconds: Family::new_with_constructor(seconds),
            meters: Mutex::default(),
            is_over: AtomicBool::new(false),
            computing: AtomicUsize::new(0),
        }))
    }

    /// Makes the measurements a metric.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("loop_lag_seconds", "How late a runtime came to what was due", self.0.seconds.clone());
    }

    /// Measures the runtime that this is awaited on, until it is dropped: every 5 ms while something computes, which is
    /// noticed within 250 ms, and every 250 ms otherwise.
    pub(crate) async fn measure(&self, runtime: String) {
        let seconds = self.0.seconds.get_or_create_owned(&RuntimeLabel { runtime });
        let measured = Measured::begin(self.clone());
        loop {
            let due = Instant::now() + self.period();
            measured.meter.lock().due = due;
            tokio::time::sleep_until(due.into()).await;
            let now = Instant::now();
            let late = now.saturating_duration_since(due);
            seconds.observe(late.as_secs_f64());
            measured.meter.lock().note(late, now);
        }
    }

    /// Says that something computes, until the guard is dropped.
    pub(crate) fn compute(&self) -> Computing {
        self.0.computing.fetch_add(1, Ordering::Relaxed);
        Computing(self.clone())
    }

    /// Whether the runtimes are later than the budget allows: when the worst of the last second is above it, and then until
    /// that is below half of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        let budget = self.0.budget;
        if budget.is_zero() {
            return false;
        }
        let worst = self.0.meters.lock().iter().map(|meter| meter.lock().worst(now)).max().unwrap_or_default();
        let allowed = if self.0.is_over.load(Ordering::Relaxed) { budget / 2 } else { budget };
        let is_over = worst > allowed;
        self.0.is_over.store(is_over, Ordering::Relaxed);
        is_over
    }

    fn period(&self) -> Duration {
        if self.0.computing.load(Ordering::Relaxed) > 0 { FINE } else { COARSE }
    }
}

/// Without a budget.
impl Default for LoopLag {
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

/// Something computes.
pub(crate) struct Computing(LoopLag);

impl Drop for Computing {
    fn drop(&mut self) {
        self.0.0.computing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A runtime is being measured. One that has ended is not late.
struct Measured {
    lag: LoopLag,
    meter: Arc<Mutex<Meter>>,
}

impl Measured {
    fn begin(lag: LoopLag) -> Self {
        let meter = Arc::new(Mutex::new(Meter::new(Instant::now())));
        lag.0.meters.lock().push(Arc::clone(&meter));
        Self { lag, meter }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.lag.0.meters.lock().retain(|meter| !Arc::ptr_eq(meter, &self.meter));
    }
}

/// What is remembered of one runtime.
struct Meter {
    /// When it looks next: one that is stuck is late before it says so.
    due: Instant,
    half_began: Instant,
    worst: Duration,
    worst_before: Duration,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { due: now + COARSE, half_began: now, worst: Duration::ZERO, worst_before: Duration::ZERO }
    }

    fn note(&mut self, late: Duration, now: Instant) {
        self.turn(now);
        self.worst = self.worst.max(late);
    }

    fn worst(&mut self, now: Instant) -> Duration {
        self.turn(now);
        self.worst.max(self.worst_before).max(now.saturating_duration_since(self.due))
    }

    /// Forgets what is too old.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.half_began);
        if age < HALF {
            return;
        }
        self.worst_before = if age < 2 * HALF { self.worst } else { Duration::ZERO };
        self.worst = Duration::ZERO;
        self.half_began = now;
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_worst_of_the_last_second_counts_and_half_the_budget_ends_it() {
        let (lag, now) = (LoopLag::new(20 * MS), Instant::now());
        let measured = Measured::begin(lag.clone());
        let note = |late: u32, at: u32| {
            let mut meter = measured.meter.lock();
            meter.due = now + at * MS;
            meter.note(late * MS, now + at * MS);
        };
        let is_over = |at: u32| lag.is_over_at(now + at * MS);
        note(20, 0);
        assert!(!is_over(0), "as late as it may be");
        note(21, 1);
        assert!(is_over(2));
        note(15, 600);
        assert!(is_over(601));
        note(15, 1200);
        assert!(is_over(1201), "above half of the budget");
        note(3, 1800);
        note(3, 2400);
        assert!(!is_over(2401));
        note(15, 2402);
        assert!(!is_over(2403), "below the budget");
    }

    #[test]
    fn a_runtime_that_is_stuck_is_late_before_it_says_so_and_one_that_has_ended_is_not() {
        let (lag, now) = (LoopLag::new(20 * MS), Instant::now());
        let measured = Measured::begin(lag.clone());
        measured.meter.lock().due = now;
        assert!(!lag.is_over_at(now + 20 * MS));
        assert!(lag.is_over_at(now + 21 * MS));
        drop(measured);
        assert!(!lag.is_over_at(now + 22 * MS));
    }

    #[test]
    fn without_a_budget_nothing_is_too_late() {
        let (lag, now) = (LoopLag::default(), Instant::now());
        let measured = Measured::begin(lag.clone());
        measured.meter.lock().note(Duration::from_secs(9), now);
        assert!(!lag.is_over_at(now));
    }

    #[test]
    fn it_looks_more_often_while_something_computes() {
        let lag = LoopLag::default();
        assert_eq!(lag.period(), COARSE);
        let computing = lag.compute();
        assert_eq!(lag.period(), FINE);
        drop(computing);
        assert_eq!(lag.period(), COARSE);
    }

    #[tokio::test]
    async fn what_blocks_a_runtime_is_measured() {
        let lag = LoopLag::new(20 * MS);
        let _computing = lag.compute();
        let mut measuring = Box::pin(lag.measure("test".to_owned()));
        assert!(futures_util::poll!(&mut measuring).is_pending());
        std::thread::sleep(100 * MS);
        assert!(lag.is_over());
        while !text(&lag).contains("loop_lag_seconds_count{runtime=\"test\"} 1\n") {
            assert!(futures_util::poll!(&mut measuring).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(text(&lag).contains("loop_lag_seconds_bucket{le=\"0.05\",runtime=\"test\"} 0\n"), "{}", text(&lag));
    }

    fn text(lag: &LoopLag) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        lag.register(&mut registry);
        encode(&mut text, &registry).expect("text");
        text
    }
}
