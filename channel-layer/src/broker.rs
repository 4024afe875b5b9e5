//! What carries messages between the nodes of a cluster. It knows groups by name and no subscriber.
//!
//! The layer decides what a node follows (`interest`) and what becomes of what arrives (`bus`); who is in a group of this
//! node and which socket gets what stays the registry's. Reading order: this file (the contract), [`memory`] (the
//! simplest broker there is, and the model of the others).
//!
//! # The contract
//!
//! * **Numbering.** [`Broker::publish`] gives each message of a group the next offset of the group's epoch, from 1 and
//!   without holes, and hands it to every node that follows the group: at most once, in the order of the offsets. Where the
//!   publication says `keep`, the message is in the group's history from the same moment: numbering, keeping and handing
//!   over are one step, or none of it.
//! * **Epochs.** A broker that cannot be sure to go on where a group was (it was restarted, has failed over, has
//!   forgotten the group) begins a new epoch, the publication's `fresh_epoch`, at offset 1 and with an empty history. An
//!   offset is never used twice within an epoch.
//! * **Following.** [`Broker::follow`] returns when it is effective: what is published afterwards arrives. It is
//!   idempotent. Nothing is remembered over a loss of the link: after [`BrokerEvent::Up`] a node follows nothing until it
//!   follows again.
//! * **Loss.** Whatever may have been missed is behind a [`BrokerEvent::Down`] or [`BrokerEvent::Up`]: between two of them
//!   what arrives is without holes. The layer notices holes by the offsets anyway.
//! * **Deadlines.** Every call ends within the broker's own deadline, also when the broker is gone, half-open or slow. A
//!   publish that ends in an error may have been carried out all the same; only [`BrokerError::Refused`] and
//!   [`BrokerError::Unwritable`] say that it was not.
//! * **No deadlock.** Calls make progress while nobody takes events from the inbox.
//! * **Distrust.** What comes from a broker may come from anybody who can reach it: what cannot be understood, or is larger
//!   than the limit, is dropped and counted by its reason ([`dropped`]). What has a number that is not the next one is
//!   believed only if [`Broker::heads`] says that so many were given.
//!
//! `broker::contract` (feature `contract-tests`) is the list of tests that every broker passes.

#[cfg(any(test, feature = "contract-tests"))]
pub mod contract;
pub mod dropped;
pub mod foreign;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
mod seldom;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Envelope, GroupName, Message, NodeId, Position};
use tokio::sync::mpsc;

use crate::config::HistoryRule;
use dropped::Dropped;

/// A call to a broker that is under way.
pub type BrokerCall<'a, T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send + 'a>>;

/// The events of one node, bounded by [`INBOX`]; a full one makes the broker's reader wait, and with it the broker.
pub type BrokerInbox = mpsc::Receiver<BrokerEvent>;

/// Events between a broker's reader and the layer. Enough to take a burst; beyond it the broker keeps what waits.
pub const INBOX: usize = 4096;

/// How long a broker remembers at least where a group is, from the last publication, reading or asking on. Nodes ask for
/// what they follow more often than that.
pub const LIFE: Duration = Duration::from_secs(3600);

/// Carries messages between nodes. The rules are in the module's documentation.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Numbers a message, keeps it if the publication says so, and hands it to every node that follows the group.
    ///
    /// # Errors
    /// See the contract: only [`BrokerError::Refused`] says that nothing has happened.
    fn publish(&self, publication: Publication) -> BrokerCall<'_, Published>;

    /// Follows groups: their messages come by the inbox.
    fn follow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()>;

    /// Follows groups no more. Messages that are on their way may still come.
    fn unfollow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()>;

    /// Where groups are, in the order of the question. A group that the broker does not know begins at offset 0 of the
    /// fresh epoch: so a node that asks again can tell a broker that has forgotten from one where nothing happened. Asking
    /// keeps a group from being forgotten, see [`LIFE`].
    fn heads(&self, asks: Vec<WhereIs>) -> BrokerCall<'_, Vec<Position>>;

    /// What is kept of a group behind an offset, oldest first. A group that the broker does not know begins at offset 0 of
    /// the fresh epoch: clients are told where they are before the first message.
    fn history(&self, ask: Ask) -> BrokerCall<'_, Kept>;

    /// Hands a message to one channel of another node. Says whether that node was there to take it: a full channel is not
    /// told.
    fn send(&self, node: NodeId, channel: ChannelName, message: Message) -> BrokerCall<'_, bool>;

    /// Puts a message at the end of a channel that any node may read. Says whether there was room: at most `capacity`
    /// unread messages, each for `expiry`.
    fn push(&self, channel: ChannelName, message: Message, bound: ChannelBound) -> BrokerCall<'_, bool>;

    /// Takes the oldest message of a channel that any node may read; each goes to exactly one taker. When there is none,
    /// the next [`Broker::push`] is told by [`BrokerEvent::Mail`].
    fn take(&self, channel: ChannelName) -> BrokerCall<'_, Option<Message>>;

    /// Whether [`Broker::push`] reaches readers that are no nodes: then a layer sends there what is for a channel without `!`.
    fn has_foreign_channels(&self) -> bool {
        false
    }

    /// Counts what was dropped of what came from the broker, by the broker and by the layer above it.
    fn dropped(&self) -> &Dropped;

    /// What it counts beside what the layer does: a name, what it says, and the value.
    fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }

    /// As [`Broker::counters`], for what goes up and down.
    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }

    /// Tells something to all nodes, this one too: at most once, in the order of one node's calls.
    fn tell(&self, note: Bytes) -> BrokerCall<'_, ()>;

    /// Whether calls are worth trying; `Err` says what is the matter, for `/readyz`. Never waits.
    fn ready(&self) -> Result<(), String>;

    /// How safe a message is when [`Broker::publish`] has returned, as far as the broker's settings prove it; read at
    /// connect.
    fn level(&self) -> Level;

    /// Ends the link. Calls fail from here on.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A message on its way to a group.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The group.
    pub group: GroupName,
    /// The message.
    pub message: Message,
    /// How much history the group keeps, if any.
    pub keep: Option<HistoryRule>,
    /// The epoch that begins if the broker has to begin one; never used before.
    pub fresh_epoch: Box<str>,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its place in the group's sequence.
    pub position: Position,
}

/// A group whose place is asked for.
#[derive(Debug, Clone)]
pub struct WhereIs {
    /// The group.
    pub group: GroupName,
    /// The epoch that begins if the broker does not know the group; never used before.
    pub fresh_epoch: Box<str>,
}

/// A part of a group's history that is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The group.
    pub group: GroupName,
    /// How much it keeps: nothing older is given, though the broker may have it.
    pub rule: HistoryRule,
    /// Only messages behind this offset.
    pub after: u64,
    /// At most so many messages.
    pub limit: usize,
    /// The epoch that begins if the broker does not know the group; never used before.
    pub fresh_epoch: Box<str>,
}

/// A part of what a broker keeps of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The group's epoch, and the offset of its newest message; of the same moment as the messages.
    pub head: Position,
    /// Messages with their offsets, oldest first.
    pub messages: Vec<(u64, Message)>,
    /// Whether there is more behind them.
    pub more: bool,
}

/// The bound of a channel that any node may read.
#[derive(Debug, Clone, Copy)]
pub struct ChannelBound {
    /// Unread messages.
    pub capacity: usize,
    /// How long each waits to be read.
    pub expiry: Duration,
}

/// What a broker tells a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerEvent {
    /// A message of a followed group.
    Message {
        /// The group.
        group: GroupName,
        /// The message and its place.
        envelope: Envelope,
    },
    /// A message for one channel of this node.
    Direct {
        /// The channel.
        channel: ChannelName,
        /// The message.
        message: Message,
    },
    /// A channel that was found empty has a message.
    Mail {
        /// The channel.
        channel: ChannelName,
    },
    /// What a node told to all.
    Note(Bytes),
    /// The link is there, for the first time or again. Nothing is followed.
    Up,
    /// The link is lost, or messages were: what comes may have holes until [`BrokerEvent::Up`].
    Down {
        /// What happened, for the log and for `/readyz`.
        why: String,
    },
}

/// How safe a message is, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In the memory of this process.
    Memory,
    /// The broker has it.
    Broker,
    /// The broker's disk has it.
    Fsync,
}

/// Why a broker did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// There is no link.
    #[error("the broker cannot be reached ({why}); try again later")]
    Unavailable {
        /// What happened.
        why: String,
    },
    /// No answer within the deadline. It may have been done or not.
    #[error("the broker did not answer within {} ms; it may have done what it was asked; try again later", after.as_millis())]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The channel holds as many unread messages as it may.
    #[error("the channel holds {capacity} unread messages, its capacity; send later")]
    Full {
        /// Its capacity.
        capacity: usize,
    },
    /// Nobody listens to the channel, and the broker keeps nothing for who comes later.
    #[error("nobody listens to the channel, and with this dialect nothing is kept for later")]
    Unheard,
    /// The message cannot be written for other programs that read it; nothing has been done. No retry helps.
    #[error("{why}")]
    Unwritable {
        /// What to change.
        why: String,
    },
    /// The broker said no, and has done nothing.
    #[error("the broker refused: {why}")]
    Refused {
        /// In the broker's words.
        why: String,
    },
}
