//! Counters of a layer, read by whoever reports metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use groupcast_protocol::frame::GapReason;

/// Counters of a layer since its start. Relaxed: each is right, together they are not a snapshot.
#[derive(Debug, Default)]
pub struct Stats {
    /// Messages that `group_send` took.
    pub group_sends: Counter,
    /// Messages that `send` took.
    pub sends: Counter,
    /// Messages addressed to a member of a group, one for each.
    pub deliveries: Counter,
    /// Messages that a slow connection missed and was told of.
    pub missed: Counter,
    /// `gap` frames, by their reason.
    pub gaps: Gaps,
    /// Messages that a full mailbox in a group did not get.
    pub passed_over: Counter,
    /// Messages that nobody read in time.
    pub expired: Counter,
    /// Bytes written to sockets.
    pub bytes_written: Counter,
    /// Writes to sockets.
    pub writes: Counter,
    /// Groups with members.
    pub groups: Counter,
    /// Channels in groups, each as often as it is in one.
    pub memberships: Counter,
    /// Live connections.
    pub connections: Counter,
    /// Bytes in the logs of all shards.
    pub log_bytes: Counter,
    /// What all histories keep.
    pub history: Arc<HistoryUse>,
    /// Messages that connections got from a history.
    pub replayed: Counter,
    /// Connections that fell off a log and went on from the history.
    pub catch_ups: Counter,
    /// Comings and goings that groups were told of.
    pub presence_changes: Counter,
    /// What is known of the members of other nodes.
    pub presence: PresenceUse,
    /// What a broker takes and brings.
    pub broker: BrokerUse,
}

/// `gap` frames, by their reason.
#[derive(Debug, Default)]
pub struct Gaps([Counter; GapReason::ALL.len()]);

impl Gaps {
    /// Counts one.
    pub fn add(&self, reason: GapReason) {
        let at = GapReason::ALL.iter().position(|known| *known == reason);
        self.0[at.expect("all reasons are in the list of all")].add(1);
    }

    /// How many there were for each reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (GapReason, u64)> {
        GapReason::ALL.iter().copied().zip(self.0.iter().map(Counter::value))
    }

    /// How many there were.
    pub fn value(&self) -> u64 {
        self.0.iter().map(Counter::value).sum()
    }
}

/// What is known of the members of other nodes, in groups with presence.
#[derive(Debug, Default)]
pub struct PresenceUse {
    /// Other nodes that are heard of.
    pub peers: Counter,
    /// Their members, each as often as it is in a group.
    pub elsewhere: Counter,
    /// Times that all members of another node were taken anew, or let go.
    pub wholes: Counter,
    /// Notes of other nodes that came faster than they were taken.
    pub lost: Counter,
}

/// What a broker takes and brings.
#[derive(Debug, Default)]
pub struct BrokerUse {
    /// Messages that it took.
    pub published: Counter,
    /// Messages of followed groups that it brought, and that were news.
    pub arrived: Counter,
    /// Messages that had been taken before.
    pub doubles: Counter,
    /// Holes that members were told of, and groups that began anew.
    pub holes: Counter,
    /// Messages of other nodes to channels that are full or gone.
    pub undelivered: Counter,
    /// Times that the link was lost.
    pub losses: Counter,
}

/// What all histories keep together.
#[derive(Debug, Default)]
pub struct HistoryUse {
    /// Bytes, with what keeping them takes.
    pub bytes: Counter,
    /// Messages.
    pub messages: Counter,
}

/// One counter or gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets it, for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Takes from it, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
