//! A channel: a bounded, first-in-first-out mailbox with expiry.
//!
//! Who may read it and who is in which group is the registry's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use groupcast_protocol::{ChannelName, GroupName, Message};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shard::Address;

/// A message as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// The group it came by, if it was not sent to the channel itself.
    pub group: Option<GroupName>,
}

impl Received {
    /// What it counts for: its text, and about what a place in a queue takes.
    fn bytes(&self) -> usize {
        self.message.raw().len() + 100
    }
}

/// Bytes of all unread messages of a layer: capacity alone counts messages, and those may be large.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    held: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One channel's unread messages.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) name: ChannelName,
    pub(crate) capacity: usize,
    /// The connection whose channel it is. Its shard takes the messages out, nobody else.
    pub(crate) owner: Option<Address>,
    /// Readers of a channel without an owner wait here.
    arrived: Notify,
    budget: Arc<Budget>,
    /// In how many groups it is: one that is in a group is kept though nobody has used it.
    memberships: AtomicU32,
    // A std-like mutex held for a push or a pop: no await, no allocation beyond the queue's own.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<(Instant, Received)>,
    /// The owner's shard has been told that something is here and has not looked yet.
    signalled: bool,
    closed: bool,
    last_used: Instant,
}

/// What became of a pushed message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is in the queue; the owner's shard knows already, or there is none to tell.
    Queued,
    /// It is in the queue, and the owner's shard has to be told.
    Signal,
    Full,
    /// All mailboxes together hold as many bytes as they may.
    OverBudget,
    Closed,
}

impl Mailbox {
    pub(crate) fn new(name: ChannelName, capacity: usize, owner: Option<Address>, budget: Arc<Budget>) -> Self {
        let state = State { queue: VecDeque::new(), signalled: false, closed: false, last_used: Instant::now() };
        Self {
            name,
            capacity,
            owner,
            arrived: Notify::new(),
            budget,
            memberships: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn joined(&self) {
        self.memberships.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) {
        self.memberships.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_member(&self) -> bool {
        self.memberships.load(Ordering::Relaxed) > 0
    }

    /// Puts a message at the end, unless `capacity` unexpired ones are there. Returns how many had expired, too.
    pub(crate) fn push(&self, item: Received, expiry: Duration) -> (Pushed, u64) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let expired = state.purge(now, expiry, &self.budget);
        if state.closed {
            return (Pushed::Closed, expired);
        }
        if state.queue.len() >= self.capacity {
            return (Pushed::Full, expired);
        }
        if !self.budget.take(item.bytes()) {
            return (Pushed::OverBudget, expired);
        }
        state.queue.push_back((now, item));
        state.last_used = now;
        if self.owner.is_some() && !state.signalled {
            state.signalled = true;
            return (Pushed::Signal, expired);
        }
        drop(state);
        self.arrived.notify_one();
        (Pushed::Queued, expired)
    }

    /// Takes the oldest unexpired message.
    pub(crate) fn pop(&self, expiry: Duration) -> Option<Received> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.last_used = now;
        state.purge(now, expiry, &self.budget);
        let item = state.queue.pop_front();
        if item.is_none() {
            // The shard has seen the end: the next push has to tell it again.
            state.signalled = false;
        }
        let (_, item) = item?;
        self.budget.give_back(item.bytes());
        Some(item)
    }

    /// Waits for the oldest message. Cancel safe: nothing is taken before it returns.
    pub(crate) async fn receive(&self, expiry: Duration) -> Option<Received> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(item) = self.pop(expiry) {
                return Some(item);
            }
            if self.state.lock().closed {
                return None;
            }
            arrived.await;
        }
    }

    /// Refuses all further messages and wakes the readers.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.clear(&self.budget);
        drop(state);
        self.arrived.notify_waiters();
    }

    pub(crate) fn clear(&self) {
        self.state.lock().clear(&self.budget);
    }

    /// Drops what has expired; says how much, and whether it has closed the mailbox because nobody has used it for `idle`.
    pub(crate) fn sweep(&self, expiry: Duration, idle: Duration) -> (u64, bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let expired = state.purge(now, expiry, &self.budget);
        let unused = state.queue.is_empty() && now.duration_since(state.last_used) >= idle;
        let over = unused && self.owner.is_none() && !self.is_member();
        // Under the same lock: what is pushed from here on is refused, and not lost with the mailbox.
        state.closed |= over;
        drop(state);
        if over {
            self.arrived.notify_waiters();
        }
        (expired, over)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

impl State {
    fn purge(&mut self, now: Instant, expiry: Duration, budget: &Budget) -> u64 {
        let mut expired = 0;
        while let Some((_, item)) = self.queue.pop_front_if(|(sent, _)| now.duration_since(*sent) >= expiry) {
            budget.give_back(item.bytes());
            expired += 1;
        }
        expired
    }

    fn clear(&mut self, budget: &Budget) {
        for (_, item) in self.queue.drain(..) {
            budget.give_back(item.bytes());
        }
    }
}
