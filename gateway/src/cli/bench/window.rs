//! How many deliveries are on their way, so that publishers need not be further ahead of the readers than they want.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

/// Counts deliveries that have to happen and those that need no more waiting for. Publishers are on one thread, readers
/// on others.
#[derive(Debug)]
pub(super) struct Window {
    groups: Vec<Group>,
    /// Deliveries that were begun.
    expected: AtomicU64,
    /// Deliveries that came, were told missing, or can never come.
    settled: AtomicU64,
    /// At this many settled ones somebody waits to be woken.
    wanted: AtomicU64,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Group {
    members: AtomicU64,
    published: AtomicU64,
}

impl Window {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            groups: (0..groups).map(|_| Group::default()).collect(),
            expected: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            woken: Notify::new(),
        }
    }

    /// A connection is subscribed.
    pub(super) fn joined(&self, group: u32) {
        self.groups[group as usize].members.fetch_add(1, SeqCst);
    }

    /// A connection is lost, of whose deliveries `settled` were; nobody waits for the others.
    pub(super) fn left(&self, group: u32, settled: u64) {
        let group = &self.groups[group as usize];
        group.members.fetch_sub(1, SeqCst);
        self.settle(group.published.load(SeqCst).saturating_sub(settled));
    }

    /// The connections of a group.
    pub(super) fn members(&self, group: u32) -> u64 {
        self.groups[group as usize].members.load(SeqCst)
    }

    /// Begins the deliveries of one message, and says how many those are.
    pub(super) fn begin(&self, group: u32) -> u64 {
        let members = self.members(group);
        self.groups[group as usize].published.fetch_add(1, SeqCst);
        self.expected.fetch_add(members, SeqCst);
        members
    }

    /// So many deliveries need no more waiting for.
    pub(super) fn settle(&self, deliveries: u64) {
        let settled = self.settled.fetch_add(deliveries, SeqCst) + deliveries;
        if settled >= self.wanted.load(SeqCst) {
            self.wanted.store(u64::MAX, SeqCst);
            self.woken.notify_waiters();
        }
    }

    /// How many deliveries are settled.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(SeqCst)
    }

    /// Whether a message to the group fits when the deliveries of `messages` like it may be on their way.
    pub(super) fn has_room(&self, group: u32, messages: u64) -> bool {
        self.settled() >= self.needed(group, messages)
    }

    /// Waits until it does.
    pub(super) async fn room(&self, group: u32, messages: u64) {
        self.reach(|| self.needed(group, messages)).await;
    }

    /// Waits until nothing is on its way.
    pub(super) async fn empty(&self) {
        self.reach(|| self.expected.load(SeqCst)).await;
    }

    fn needed(&self, group: u32, messages: u64) -> u64 {
        let members = self.members(group);
        (self.expected.load(SeqCst) + members).saturating_sub(messages * members)
    }

    async fn reach(&self, needed: impl Fn() -> u64) {
        loop {
            let mut woken = std::pin::pin!(self.woken.notified());
            woken.as_mut().enable();
            // First ask to be woken, then look: a reader that settles in between sees the one or is seen by the other.
            let needed = needed();
            self.wanted.fetch_min(needed, SeqCst);
            if self.settled() >= needed {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    async fn is_pending(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn one_message_in_flight_waits_for_all_its_readers() {
        let window = Window::new(1);
        (0..3).for_each(|_| window.joined(0));
        window.room(0, 1).await;
        assert_eq!(window.begin(0), 3);
        window.settle(2);
        assert!(is_pending(window.room(0, 1)).await && window.has_room(0, 2));
        let (settled, ()) = tokio::join!(window.room(0, 1), async { window.settle(1) });
        assert_eq!((settled, window.settled()), ((), 3));
        window.empty().await;
    }

    #[tokio::test]
    async fn a_lost_connection_holds_up_nobody() {
        let window = Window::new(2);
        [0, 0, 1].into_iter().for_each(|group| window.joined(group));
        for _ in 0..5 {
            window.begin(0);
        }
        window.settle(5);
        assert!(is_pending(window.empty()).await);
        // It had one of the five messages, the other connection four.
        window.left(0, 1);
        window.settle(1);
        window.empty().await;
        assert_eq!((window.members(0), window.members(1)), (1, 1));
    }

    #[tokio::test]
    async fn a_group_without_readers_has_room() {
        let window = Window::new(1);
        assert_eq!(window.begin(0), 0);
        window.room(0, 1).await;
        window.empty().await;
    }
}
