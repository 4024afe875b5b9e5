//! Takes what arrives from the broker, in order. One task, and the only one that moves a topic on.
//!
//! It waits for shards, never for the broker: a reader that waited for an answer could wait for itself.

use std::sync::Arc;

use groupcast_protocol::{ChannelName, Envelope, GroupName, Message, Position};
use tokio::sync::mpsc;

use super::gossip::{self, Heard};
use super::interest::Topic;
use super::reconcile::Errand;
use super::topic::{Arrival, Checked, Hole, Parking, Step};
use super::{Bus, Carrier};
use crate::broker::{BrokerEvent, Kept};
use crate::layer::ChannelLayer;

/// Events that are taken at once.
const BATCH: usize = 256;

struct Inbound<'a> {
    layer: &'a ChannelLayer,
    bus: &'a Bus,
    /// There when it is known who is in groups of other nodes.
    gossip: Option<mpsc::Sender<Heard>>,
    parking: Parking<'a>,
}

/// Runs until the broker is closed.
pub(super) async fn run(
    layer: &ChannelLayer,
    bus: &Bus,
    carrier: Carrier,
    (mut todo, gossip): (mpsc::Receiver<Errand>, Option<mpsc::Sender<Heard>>),
) {
    let Carrier { mut inbox, on_note } = carrier;
    let parking = Parking::new(bus.broker.dropped());
    let inbound = Inbound { layer, bus, gossip, parking };
    let mut events = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            taken = inbox.recv_many(&mut events, BATCH) => if taken == 0 { return },
            Some(errand) = todo.recv() => inbound.run_errand(errand).await,
        }
        for event in events.drain(..) {
            match event {
                BrokerEvent::Message { group, envelope } => inbound.message(&group, envelope).await,
                BrokerEvent::Direct { channel, message } => inbound.direct(&channel, message).await,
                BrokerEvent::Mail { .. } => {}
                BrokerEvent::Note(note) if gossip::note::is_ours(&note) => inbound.hear(Heard::Note(note)),
                BrokerEvent::Note(note) => on_note(note),
                BrokerEvent::Up => inbound.up(),
                BrokerEvent::Down { why } => inbound.down(&why),
            }
        }
    }
}

impl Inbound<'_> {
    async fn message(&self, group: &GroupName, envelope: Envelope) {
        let stats = &self.layer.registry.stats.broker;
        let Some(topic) = self.bus.interest.topic(group) else { return };
        match topic.with(|place| place.arrive(envelope, &self.parking)) {
            Arrival::Next(message) => self.deliver(&topic, &message).await,
            Arrival::Behind(hole, message) => {
                self.tell(&topic, hole, None).await;
                self.deliver(&topic, &message).await;
            }
            Arrival::Old => return stats.doubles.add(1),
            Arrival::Early => {}
            Arrival::Later => return,
            Arrival::Ask => return self.bus.interest.want(topic),
            Arrival::Doubt => return self.bus.interest.doubt(topic),
        }
        stats.arrived.add(1);
    }

    async fn direct(&self, channel: &ChannelName, message: Message) {
        if let Err(error) = self.layer.local_send(channel, message).await {
            self.layer.registry.stats.broker.undelivered.add(1);
            tracing::debug!(%error, "a message of another node was not delivered");
        }
    }

    /// Nothing is followed: everything is to be, and whatever was missed to be found out.
    fn up(&self) {
        let topics = self.bus.interest.close_all();
        tracing::info!(groups = topics.len(), "the broker is there");
        topics.into_iter().for_each(|topic| self.bus.interest.want(topic));
        self.hear(Heard::Up);
    }

    /// Never waits: what is lost is noticed, and the messages of groups do not wait for it.
    fn hear(&self, heard: Heard) {
        if self.gossip.as_ref().is_some_and(|gossip| gossip.try_send(heard).is_err()) {
            self.layer.registry.stats.presence.lost.add(1);
        }
    }

    fn down(&self, why: &str) {
        tracing::warn!(why, "the broker is gone; what it carries waits until it is back");
        self.layer.registry.stats.broker.losses.add(1);
        self.bus.interest.close_all();
    }

    async fn run_errand(&self, errand: Errand) {
        match errand {
            // Nobody waits any more when an answer cannot be given.
            Errand::Fetched { topic, kept, link, more } => {
                let again = self.is_current(link) && self.take_history(&topic, kept).await;
                let _ = more.send(again);
            }
            Errand::Checked { topic, head, link, short } => {
                let is_short = self.is_current(link) && self.check(&topic, &head).await;
                let _ = short.send(is_short);
            }
            Errand::GiveUp { topic, before, head } => {
                let steps = topic.with(|place| place.give_up(before.as_ref(), &head));
                self.go(&topic, steps).await;
            }
        }
    }

    /// Takes what a broker's answer says of a group without history; says whether something is missing.
    async fn check(&self, topic: &Arc<Topic>, head: &Position) -> bool {
        let Checked { steps, is_short, is_doubted } = topic.with(|place| place.check(head, &self.parking));
        self.go(topic, steps).await;
        topic.tell_open();
        if is_doubted {
            self.bus.interest.doubt(topic.clone());
        }
        is_short
    }

    async fn go(&self, topic: &Topic, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Hole(hole) => self.tell(topic, hole, None).await,
                Step::Message(message) => {
                    self.layer.registry.stats.broker.arrived.add(1);
                    self.deliver(topic, &message).await;
                }
            }
        }
    }

    /// Whether the link has neither gone nor come since: otherwise everything is followed and asked for once more.
    fn is_current(&self, link: u64) -> bool {
        self.bus.interest.link() == link
    }

    /// Takes a part of a group's history; says whether to ask for more.
    async fn take_history(&self, topic: &Arc<Topic>, kept: Kept) -> bool {
        let Kept { head, messages, more } = kept;
        let at = topic.with(|place| place.at().cloned());
        let mut next = match at {
            Some(at) if at.epoch == head.epoch => at.offset + 1,
            other => {
                let first = messages.first().map_or(head.offset + 1, |(offset, _)| *offset);
                self.begin(topic, other.is_some(), &head, first).await;
                first
            }
        };
        for (offset, message) in messages {
            if offset > next {
                self.tell(topic, Hole(Some(offset - next)), Some(offset - 1)).await;
            }
            if offset >= next {
                self.deliver(topic, &message).await;
                next = offset + 1;
            }
        }
        if more {
            topic.with(|place| place.took(Position { epoch: head.epoch, offset: next - 1 }));
            return true;
        }
        if head.offset >= next {
            self.tell(topic, Hole(Some(head.offset + 1 - next)), Some(head.offset)).await;
        }
        let is_open = topic.with(|place| place.caught_up(head, &self.parking));
        if is_open {
            topic.tell_open();
        }
        !is_open
    }

    /// A group's history begins here, or begins anew.
    async fn begin(&self, topic: &Arc<Topic>, anew: bool, head: &Position, first: u64) {
        if anew {
            self.layer.registry.stats.broker.holes.add(1);
        }
        self.layer.begin(&topic.name, head.epoch.clone(), first).await;
    }

    async fn deliver(&self, topic: &Topic, message: &Message) {
        self.layer.arrive(&topic.name, message).await;
    }

    /// Tells the members that messages are missing: up to offset `to`, in a group that keeps history.
    async fn tell(&self, topic: &Topic, Hole(missed): Hole, to: Option<u64>) {
        self.layer.registry.stats.broker.holes.add(1);
        self.layer.tell_hole(&topic.name, missed, to).await;
    }
}
