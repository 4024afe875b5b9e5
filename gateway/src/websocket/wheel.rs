//! Deadlines of a thread's connections: one timer for all of them.
//!
//! A connection tells its next deadline whenever it goes to sleep, and mostly that only moves away: heard again, so
//! pinged later. So moving one away costs nothing; its old moment comes, and passes it on to the new one. Coarse on
//! purpose: nothing here needs to be more exact than a tick, and never is it early.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::server::shard::Local;

const TICK: Duration = Duration::from_millis(100);
/// Ticks of one turn. What is farther away goes round until it is near.
const SLOTS: u64 = 512;
const NEVER: u64 = u64::MAX;

/// See the [module](self).
pub(crate) struct Wheel {
    started: Instant,
    turning: RefCell<Turning>,
}

struct Turning {
    /// The tick that is over.
    now: u64,
    slots: Vec<Vec<Entry>>,
    timers: Slab<Timer>,
    numbers: u32,
}

/// A moment of a timer; void when the timer is gone or armed for another one.
struct Entry {
    timer: u32,
    number: u32,
}

struct Timer {
    /// Not that of a timer that was here before, within four billion.
    number: u32,
    deadline: u64,
    /// The tick where its entry is, not after the deadline; [`NEVER`] without one.
    armed: u64,
    waker: Waker,
}

/// A connection's deadline; gone when dropped.
pub(super) struct Alarm {
    local: Rc<Local>,
    timer: usize,
}

/// Turns a thread's wheel for ever.
pub(crate) async fn turn(local: Rc<Local>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        local.websockets.wheel.advance(now);
    }
}

impl Default for Wheel {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        let turning = Turning { now: 0, slots, timers: Slab::new(), numbers: 0 };
        Self { started: Instant::now(), turning: RefCell::new(turning) }
    }
}

impl Wheel {
    fn add(&self) -> usize {
        let turning = &mut *self.turning.borrow_mut();
        turning.numbers = turning.numbers.wrapping_add(1);
        let waker = Waker::noop().clone();
        turning.timers.insert(Timer { number: turning.numbers, deadline: NEVER, armed: NEVER, waker })
    }

    fn remove(&self, timer: usize) {
        self.turning.borrow_mut().timers.remove(timer);
    }

    fn set(&self, timer: usize, deadline: Option<Instant>, waker: &Waker) {
        let tick = deadline.map_or(NEVER, |deadline| self.tick_at_or_after(deadline));
        self.turning.borrow_mut().set(timer, tick, waker);
    }

    fn advance(&self, now: Instant) {
        let over = now.duration_since(self.started).as_millis() / TICK.as_millis();
        self.turning.borrow_mut().advance(u64::try_from(over).unwrap_or(NEVER - 1));
    }

    fn tick_at_or_after(&self, deadline: Instant) -> u64 {
        let ticks = deadline.duration_since(self.started).as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(NEVER)
    }
}

impl Turning {
    fn set(&mut self, at: usize, deadline: u64, waker: &Waker) {
        let timer = &mut self.timers[at];
        timer.waker.clone_from(waker);
        timer.deadline = deadline;
        self.arm(at);
    }

    /// Sees to it that the timer is looked at when its deadline comes, or before.
    fn arm(&mut self, at: usize) {
        let timer = &mut self.timers[at];
        let tick = timer.deadline.clamp(self.now + 1, self.now + SLOTS - 1);
        if timer.deadline == NEVER || tick >= timer.armed {
            return;
        }
        timer.armed = tick;
        let index = u32::try_from(at).expect("a thread has fewer sockets than there are descriptors");
        self.slots[(tick % SLOTS) as usize].push(Entry { timer: index, number: timer.number });
    }

    fn advance(&mut self, to: u64) {
        while self.now < to {
            self.now += 1;
            for entry in std::mem::take(&mut self.slots[(self.now % SLOTS) as usize]) {
                self.look(&entry);
            }
        }
    }

    fn look(&mut self, entry: &Entry) {
        let at = entry.timer as usize;
        let Some(timer) = self.timers.get_mut(at) else { return };
        if timer.number != entry.number || timer.armed != self.now {
            return;
        }
        timer.armed = NEVER;
        if timer.deadline <= self.now {
            timer.waker.wake_by_ref();
        } else {
            self.arm(at);
        }
    }
}

impl Alarm {
    pub(super) fn new(local: Rc<Local>) -> Self {
        let timer = local.websockets.wheel.add();
        Self { local, timer }
    }

    /// Wakes the task at the first tick that is not before the deadline, unless it is set anew by then.
    pub(super) fn set(&self, deadline: Option<Instant>, waker: &Waker) {
        self.local.websockets.wheel.set(self.timer, deadline, waker);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.local.websockets.wheel.remove(self.timer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Clock {
        wheel: Wheel,
        woken: Arc<Count>,
    }

    impl Clock {
        fn new() -> (Self, usize) {
            let clock = Self { wheel: Wheel::default(), woken: Arc::default() };
            let timer = clock.wheel.add();
            (clock, timer)
        }

        fn set(&self, timer: usize, ms: u64) {
            let deadline = self.wheel.started + Duration::from_millis(ms);
            self.wheel.set(timer, Some(deadline), &Waker::from(self.woken.clone()));
        }

        fn at(&self, ms: u64) -> usize {
            self.wheel.advance(self.wheel.started + Duration::from_millis(ms));
            self.woken.0.swap(0, Ordering::Relaxed)
        }

        fn entries(&self) -> usize {
            self.wheel.turning.borrow().slots.iter().map(Vec::len).sum()
        }
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let (clock, timer) = Clock::new();
        for ms in [1, 100, 101, 950, 51_100, 51_200, 600_000] {
            let (from, _) = (clock.wheel.turning.borrow().now * 100, ());
            clock.set(timer, from + ms);
            assert_eq!(clock.at(from + ms - 1), 0, "{ms}");
            assert_eq!(clock.at(from + ms + 100), 1, "{ms}");
            assert_eq!(clock.at(from + ms + 200_000), 0, "once");
        }
    }

    #[test]
    fn a_deadline_that_moves_away_costs_no_entry() {
        let (clock, timer) = Clock::new();
        for ms in 0..1000 {
            clock.set(timer, 5_000 + ms);
        }
        assert_eq!(clock.entries(), 1);
        assert_eq!(clock.at(5_950), 0);
        assert_eq!(clock.at(6_000), 1);
        assert_eq!(clock.entries(), 0);
    }

    #[test]
    fn a_deadline_that_comes_nearer_is_kept() {
        let (clock, timer) = Clock::new();
        clock.set(timer, 20_000);
        clock.set(timer, 300);
        assert_eq!(clock.at(300), 1);
        clock.set(timer, 20_000);
        assert_eq!((clock.at(19_900), clock.at(20_000)), (0, 1));
        clock.set(timer, 30_000);
        clock.wheel.set(timer, None, Waker::noop());
        assert_eq!(clock.at(40_000), 0);
    }

    #[test]
    fn what_is_over_is_due_at_the_next_tick() {
        let (clock, timer) = Clock::new();
        clock.at(1_000);
        clock.set(timer, 200);
        assert_eq!(clock.at(1_100), 1);
    }

    #[test]
    fn a_timer_that_is_gone_wakes_nobody_in_its_place() {
        let (clock, timer) = Clock::new();
        clock.set(timer, 500);
        clock.wheel.remove(timer);
        let next = clock.wheel.add();
        assert_eq!(next, timer);
        clock.set(next, 900);
        assert_eq!((clock.at(800), clock.at(900)), (0, 1));
    }
}
