//! The channel layer: who is in which group; delivery, order and loss.
//!
//! Knows no HTTP and no meaning of a payload. Reading order: [`layer`] (what callers use), [`registry`] (groups and
//! channels of this node), `group` (one group), [`mailbox`] (channels), [`shard`] (the only fan-out to connections),
//! [`log`] (frames that wait for sockets), `history` (messages for those who come back), `presence` (who comes and goes),
//! [`broker`] (what carries messages between nodes), `bus` (this node's side of it).
//!
//! # The contract
//!
//! A **channel** is a named, bounded, first-in-first-out mailbox; a **group** is a named set of channels; a
//! **message** is a JSON object with a `type`. Every layer, whatever broker is behind it, keeps these rules, and
//! `contract` (feature `contract-tests`) is the list of tests that it has to pass.
//!
//! | operation | promise |
//! |---|---|
//! | `send` | At most once, to one channel. Refused with [`LayerError::ChannelFull`] when the channel holds `capacity` unread messages: never dropped in silence, never waiting for a reader. |
//! | `receive` | The oldest unread message; each goes to exactly one of several readers. Cancel safe: a dropped call has taken nothing. |
//! | `new_channel` | A fresh name of the form `prefix.node!n`, which only this process reads. |
//! | `group_add` | Idempotent; renews the membership's age. Effective when it returns. |
//! | `group_discard` | No error if absent. Nothing that is sent after it returns reaches the channel by this group. |
//! | `group_send` | At most once to each member. Never refused because of a member: one that is full is passed over and counted. Never waits for a slow reader. |
//! | `position`, `history` | Where a group is, and what it keeps of what was sent to it: the newest messages, at most as many and as old as its [`HistoryRule`] says. |
//! | `flush` | Empties everything. |
//!
//! **Order.** What one sender sends to one group, awaiting each call, arrives in that order at every member; the same
//! holds for `send` and one channel. Nothing is promised between senders or between groups.
//!
//! **Expiry.** A message that nobody has read after `expiry` is gone. A membership of a mailbox ends after
//! `group_expiry` unless it is added again; that of a live connection lasts as long as the connection.
//!
//! **History.** Where a [`GroupRule`] says so, each message of a group has an offset, from 1 without holes, within an
//! epoch; and the newest are kept, whether anybody is in the group or not. A group that has had no members and no messages
//! for long is forgotten, and so is one that has to make room; when it comes back it has another epoch. A connection
//! that subscribes with the position it had gets everything behind it and then what comes, in order, none missing and
//! none twice; or is told why not ([`Shard::subscribe`]).
//!
//! **Presence.** Where a rule says so, connections in a group are told which members come and go. Who comes and goes at
//! once may not be told. Presence has no offset and is in no history. With a broker it is of all nodes: each knows who is in
//! such groups elsewhere, a moment later, and again after whatever was lost; the members of a node that is not heard of for
//! 10 to 12.5 s are let go. A node that is cut off itself lets nobody go meanwhile.
//!
//! **Nodes.** With a broker ([`ChannelLayer::with_broker`]) groups and the channels of connections are those of all nodes.
//! Who becomes a member waits until his node follows the group ([`ChannelLayer::open`]). Offsets and history are the
//! broker's, and each node keeps a copy of what it needs. Members of groups without presence, connections and channels
//! without `!` are listed and kept by each node for itself.
//!
//! **Loss.** A connection that reads too slowly falls off its group's log. It goes on from the history at its own pace; or,
//! without one, is told by a `gap` how many messages it missed (0 when only presence was lost). Everybody else notices
//! nothing. What a broker did not bring is read from its history; without one, or when it has begun a new epoch, every
//! member is told by a `gap`, also when nothing follows. A process that ends takes what is in memory with it.
//!
//! **Bounds.** Messages per channel, bytes per log, bytes of all logs of a shard, bytes of all histories, events on their
//! way to a shard, channels in all: see [`LayerConfig`], each with what happens there.

pub mod broker;
mod bus;
pub mod config;
#[cfg(any(test, feature = "contract-tests"))]
pub mod contract;
pub mod deflate;
#[cfg(any(feature = "redis", feature = "nats"))]
pub mod dialect;
pub mod error;
mod group;
mod history;
pub mod layer;
pub mod log;
pub mod mailbox;
mod presence;
pub mod registry;
mod reserved;
pub mod shard;
pub mod stats;
mod witness;

#[cfg(feature = "fuzzing")]
pub use bus::reread_note;
pub use bus::{Carrier, OnNote, Opened};
pub use config::{GroupRule, HistoryRule, LayerConfig};
pub use error::LayerError;
pub use layer::{ChannelLayer, HistoryPage, Sent};
pub use mailbox::Received;
pub use reserved::Reserved;
pub use shard::{ConnectionInfo, Event, Origin, Shard, ShardInbox, Signal, Sink, Slot, Subscribed, Wrote};
pub use witness::{Delivery, Witness};
