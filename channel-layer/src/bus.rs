//! This node's part of a cluster: what it publishes, what it follows, and what becomes of what arrives.
//!
//! Four parts, each the only one who does its thing. [`interest`] is the list of groups that somebody here needs, each a
//! [`topic`]: where the group is, as far as this node knows. `reconcile` makes the broker's subscriptions equal to that list,
//! also after a reconnect, and asks the broker for what was missed. `inbound` takes what arrives in order and is alone in
//! moving a topic on. `gossip` tells and hears who is in groups with presence. Who is in a group here and which socket gets what is the registry's and the shards'.

mod gossip;
mod inbound;
mod interest;
mod reconcile;
#[cfg(test)]
mod tests;
mod topic;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::broker::dropped::Reason;
use crate::broker::{Broker, BrokerError, BrokerInbox, ChannelBound, Level, Publication};
use crate::config::LayerConfig;
use crate::error::LayerError;
use crate::layer::{ChannelLayer, Sent};
use crate::shard::ShardInbox;

#[cfg(feature = "fuzzing")]
pub use gossip::note::reread as reread_note;
pub(crate) use interest::Interest;
pub use interest::Opened;

/// Errands on their way to `inbound`. It is quick, so few suffice; at the bound `reconcile` waits.
const ERRANDS: usize = 64;

/// What takes the notes that nodes tell each other. Must not block.
pub type OnNote = Box<dyn Fn(Bytes) + Send + Sync>;

/// The layer's side of a broker.
pub(crate) struct Bus {
    pub(crate) broker: Arc<dyn Broker>,
    interest: Arc<Interest>,
    epochs: AtomicU64,
    /// Whether this node has told that it has no members any more: then it tells nothing else of them.
    has_parted: AtomicBool,
}

/// What the owner of a layer with a broker has to run: [`ChannelLayer::carry`].
pub struct Carrier {
    inbox: BrokerInbox,
    on_note: OnNote,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl ChannelLayer {
    /// Makes a layer that shares its groups with other nodes, the inboxes of its shards, and what its owner has to run.
    pub fn with_broker(
        config: LayerConfig,
        broker: Arc<dyn Broker>,
        inbox: BrokerInbox,
        on_note: OnNote,
    ) -> (Self, Vec<ShardInbox>, Carrier) {
        let (mut layer, inboxes) = Self::new(config);
        let interest = Arc::new(Interest::default());
        layer.registry.report_emptied_to(interest.clone());
        if gossip::is_needed(layer.config()) {
            layer.registry.rosters.outgoing();
        }
        layer.bus =
            Some(Arc::new(Bus { broker, interest, epochs: AtomicU64::new(0), has_parted: AtomicBool::new(false) }));
        (layer, inboxes, Carrier { inbox, on_note })
    }

    /// Keeps the layer together with its broker. Its owner spawns it once; it ends when the broker is closed.
    ///
    /// # Panics
    /// Never for a layer that [`ChannelLayer::with_broker`] made.
    pub async fn carry(&self, carrier: Carrier) {
        let bus = self.bus.clone().expect("a carrier is made together with a layer that has a bus");
        let (errands, todo) = mpsc::channel(ERRANDS);
        let (heard, hears) = mpsc::channel(gossip::HEARD);
        let gossip = gossip::is_needed(self.config()).then_some(heard);
        let gossips = gossip.is_some();
        tokio::select! {
            () = inbound::run(self, &bus, carrier, (todo, gossip)) => {}
            () = reconcile::run(self, &bus, errands) => {}
            () = gossip::run(self, &bus, hears), if gossips => {}
        }
    }

    /// Waits until a group's messages reach this node, and keeps it so until the answer is dropped: for who is about to
    /// become a member, or to read the group's history.
    ///
    /// Without a broker nothing is waited for.
    ///
    /// # Errors
    /// [`LayerError::Broker`] when it could not be within the deadline.
    ///
    /// # Cancel safety
    /// Cancel safe: what a dropped call has begun is ended after a while.
    pub async fn open(&self, group: &GroupName) -> Result<Opened, LayerError> {
        let Some(bus) = self.bus_of(group) else { return Ok(Opened::nothing()) };
        let keep = self.registry.config.rule_of(group.as_str()).and_then(|rule| rule.history);
        let wait = bus.interest.open(group, keep);
        match timeout(self.registry.config.publish_deadline, wait).await {
            Ok(opened) => Ok(opened),
            Err(_elapsed) => Err(LayerError::Broker(self.why_not_open(bus))),
        }
    }

    /// As [`ChannelLayer::open`], when nothing has to be waited for.
    pub fn open_now(&self, group: &GroupName) -> Option<Opened> {
        match self.bus_of(group) {
            Some(bus) => bus.interest.open_now(group),
            None => Some(Opened::nothing()),
        }
    }

    /// Whether nodes share this layer's groups.
    pub fn is_shared(&self) -> bool {
        self.bus.is_some()
    }

    /// Whether the broker works; `Err` says what is the matter.
    ///
    /// # Errors
    /// What is the matter, in words for `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        let Some(bus) = &self.bus else { return Ok(()) };
        bus.broker.ready()?;
        bus.prove(self.registry.config.level_min).map_err(|error| error.to_string())
    }

    /// What the broker counts itself: a name, what it says, and the value.
    pub fn broker_counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.bus.as_ref().map(|bus| bus.broker.counters()).unwrap_or_default()
    }

    /// What was dropped of what came from the broker: the reason, and how many.
    pub fn dropped(&self) -> Vec<(Reason, u64)> {
        self.bus.as_ref().map(|bus| bus.broker.dropped().counts().collect()).unwrap_or_default()
    }

    /// Counts a note that the owner could not understand: nobody else knows whether it could.
    pub fn drop_note(&self) {
        if let Some(bus) = &self.bus {
            bus.broker.dropped().note(Reason::Unreadable);
        }
    }

    /// As [`ChannelLayer::broker_counters`], for what goes up and down.
    pub fn broker_gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.bus.as_ref().map(|bus| bus.broker.gauges()).unwrap_or_default()
    }

    /// Tells something to all nodes, this one too, for their [`OnNote`]. Without a broker nobody is told. What begins with
    /// `presence ` is the layer's own.
    ///
    /// # Errors
    /// [`LayerError::Broker`] when the broker did not take it.
    pub async fn tell(&self, note: Bytes) -> Result<(), LayerError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        bus.broker.tell(note).await.map_err(LayerError::Broker)
    }

    /// The bus, for a group whose messages it carries.
    pub(crate) fn bus_of(&self, group: &GroupName) -> Option<&Arc<Bus>> {
        let is_local = || self.registry.config.rule_of(group.as_str()).is_some_and(|rule| rule.is_local);
        self.bus.as_ref().filter(|_| !is_local())
    }

    fn why_not_open(&self, bus: &Bus) -> BrokerError {
        match bus.broker.ready() {
            Err(why) => BrokerError::Unavailable { why },
            Ok(()) => BrokerError::TimedOut { after: self.registry.config.publish_deadline },
        }
    }
}

impl Bus {
    /// Sends a message to the group's members on all nodes.
    pub(crate) async fn publish(
        &self,
        layer: &ChannelLayer,
        group: &GroupName,
        message: &Message,
    ) -> Result<Sent, LayerError> {
        let config = &layer.registry.config;
        self.prove(config.level_min)?;
        let rule = config.rule_of(group.as_str());
        let keep = rule.and_then(|rule| rule.history);
        let publication =
            Publication { group: group.clone(), message: message.clone(), keep, fresh_epoch: self.fresh_epoch(config) };
        let published = self.broker.publish(publication).await.map_err(LayerError::Broker)?;
        layer.registry.stats.broker.published.add(1);
        // Groups with presence are known of all nodes; nobody counts the members of others.
        let members = rule.is_some_and(|rule| rule.presence).then(|| layer.registry.rosters.len(group));
        Ok(Sent { members, position: keep.is_some().then_some(published.position) })
    }

    /// Whether the broker's settings prove what is asked for.
    fn prove(&self, level: Level) -> Result<(), LayerError> {
        if self.broker.level() >= level {
            return Ok(());
        }
        let why = match level {
            Level::Fsync => {
                "it is not set to write each message to disk before it answers, or does not let us see that; \
                 with Redis set `appendonly yes` and `appendfsync always`, and let the user run CONFIG GET; \
                 with NATS set `sync_interval: always`, and name its monitoring"
            }
            Level::Memory | Level::Broker => "it keeps no message",
        };
        Err(LayerError::Broker(BrokerError::Refused { why: why.to_owned() }))
    }

    /// Hands a message to a channel of another node.
    pub(crate) async fn send(&self, node: NodeId, channel: &ChannelName, message: Message) -> Result<(), LayerError> {
        match self.broker.send(node, channel.clone(), message).await.map_err(|error| refusal(channel, error))? {
            true => Ok(()),
            false => Err(LayerError::Gone { channel: channel.clone() }),
        }
    }

    /// Puts a message into a channel that programs of another kind read.
    pub(crate) async fn push(
        &self,
        config: &LayerConfig,
        channel: &ChannelName,
        message: Message,
    ) -> Result<(), LayerError> {
        let bound = ChannelBound { capacity: config.capacity_of(channel.as_str()), expiry: config.expiry };
        match self.broker.push(channel.clone(), message, bound).await.map_err(|error| refusal(channel, error))? {
            true => Ok(()),
            false => Err(LayerError::ChannelFull { channel: channel.clone(), capacity: bound.capacity }),
        }
    }

    /// The epoch of a group that begins anew: no two are the same, on whatever node.
    fn fresh_epoch(&self, config: &LayerConfig) -> Box<str> {
        let number = self.epochs.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", config.epoch_seed).into()
    }
}

fn refusal(channel: &ChannelName, error: BrokerError) -> LayerError {
    match error {
        BrokerError::Full { capacity } => LayerError::ChannelFull { channel: channel.clone(), capacity },
        error => LayerError::Broker(error),
    }
}
