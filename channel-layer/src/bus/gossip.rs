//! Tells other nodes who is in groups with presence here, and notes what they tell. One task; nodes tell each other by the
//! broker's notes.
//!
//! Each node is the truth of its own members. Every node knows those of all: so a list is answered at once, and nothing has to
//! be asked when somebody subscribes. What a broker loses is noticed by numbers ([`peers`]), and then the whole is told once
//! more. Changes within [`GATHER`] go together. A node that is not heard of for 10 to 12.5 s (five times [`BEAT`]) has no members.

pub(super) mod note;
mod peers;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::GroupName;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::Bus;
use crate::broker::BrokerError;
use crate::broker::dropped::Reason;
use crate::config::LayerConfig;
use crate::error::LayerError;
use crate::layer::ChannelLayer;
use crate::presence::{Change, Taken};
use note::{Lines, Note, Said, Speaker, Writer};
use peers::{Act, Peers};

/// Notes on their way to this task. It waits for the broker at times; of more, the newest are lost, which is noticed.
pub(super) const HEARD: usize = 256;
/// Notes that are taken at once.
const BATCH: usize = 16;
/// How often a node says that it lives.
const BEAT: Duration = Duration::from_millis(2500);
/// Changes are told at most so often.
const GATHER: Duration = Duration::from_millis(20);
/// Changes in one note at most; they may be fewer by their size.
const CHANGES: usize = 500;
/// After a call that failed.
const RETRY: Duration = Duration::from_millis(250);
/// Who asks for the whole waits so long, so that others who ask get the same answer.
const STATE_AFTER: Duration = Duration::from_millis(50);
/// The whole is told at most so often.
const STATE_EVERY: Duration = Duration::from_millis(500);

/// What the task has to know.
pub(super) enum Heard {
    /// The link is there.
    Up,
    /// A node has told something.
    Note(Bytes),
}

struct Gossip<'a> {
    layer: &'a ChannelLayer,
    bus: &'a Bus,
    me: Speaker,
    peers: Peers,
    /// The number of the last change that was told, or was to be.
    seq: u64,
    /// Nodes to be asked.
    asks: Vec<Speaker>,
    due: Due,
}

/// What is to be told, and when at the earliest.
struct Due {
    beat: bool,
    changes: Option<Instant>,
    changes_not_before: Instant,
    state: Option<Instant>,
    state_not_before: Instant,
}

/// Whether any group of this layer has presence on several nodes.
pub(super) fn is_needed(config: &LayerConfig) -> bool {
    config.groups.iter().any(|rule| rule.presence && !rule.is_local)
}

/// Runs until nobody hears notes any more.
pub(super) async fn run(layer: &ChannelLayer, bus: &Bus, mut heard: mpsc::Receiver<Heard>) {
    let mut gossip = Gossip::new(layer, bus);
    let mut beat = every(BEAT);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let next = gossip.due.next();
        tokio::select! {
            taken = heard.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = layer.registry.rosters.outgoing().grown() => gossip.due.changes(),
            _ = beat.tick() => gossip.due.beat = true,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        batch.drain(..).for_each(|heard| gossip.hear(&heard));
        gossip.speak().await;
    }
}

impl ChannelLayer {
    /// Tells other nodes that this one has no members any more, and nothing else of them from here on: for who is about to
    /// close the broker. [`ChannelLayer::carry`] still runs. Nothing without a broker or groups with presence.
    ///
    /// # Errors
    /// [`LayerError::Broker`] when that did not take it; the other nodes will notice after a while.
    pub async fn part(&self) -> Result<(), LayerError> {
        match &self.bus {
            Some(bus) if is_needed(self.config()) => {
                bus.has_parted.store(true, Ordering::Release);
                let end = Note { from: speaker(self.config()), said: Said::End };
                bus.broker.tell(end.encode()).await.map_err(LayerError::Broker)
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Gossip<'a> {
    fn new(layer: &'a ChannelLayer, bus: &'a Bus) -> Self {
        let me = speaker(layer.config());
        let (peers, now) = (Peers::new(me.clone()), Instant::now());
        let due = Due { beat: false, changes: None, changes_not_before: now, state: None, state_not_before: now };
        Self { layer, bus, me, peers, seq: 0, asks: Vec::new(), due }
    }

    fn hear(&mut self, heard: &Heard) {
        let note = match heard {
            // Who has been away is known again at once.
            Heard::Up => return self.due.beat = true,
            Heard::Note(note) => note,
        };
        let Some(note) = Note::parse(note) else {
            return self.bus.broker.dropped().note(Reason::Unreadable);
        };
        for act in self.peers.hear(note, Instant::now()) {
            self.act(act);
        }
        self.layer.registry.stats.presence.peers.set(self.peers.len() as u64);
    }

    fn act(&mut self, act: Act) {
        let registry = &self.layer.registry;
        match act {
            Act::Ask { of } => self.asks.push(of),
            Act::Answer => self.due.state(),
            Act::Introduce => self.due.beat = true,
            Act::Change { by, group, changes } => {
                if self.is_shared(&group) && registry.rosters.change(&group, &changes, by) {
                    registry.list_by_name(&group);
                }
            }
            Act::Replace { by, mut members } => {
                registry.stats.presence.wholes.add(1);
                members.retain(|group, _| self.is_shared(group));
                for group in registry.rosters.replace(&members, by) {
                    registry.list_by_name(&group);
                }
            }
        }
    }

    /// Whether the members of other nodes are in the group, by this node's own rules.
    fn is_shared(&self, group: &GroupName) -> bool {
        self.layer.has_presence(group) && self.layer.bus_of(group).is_some()
    }

    /// Tells what is due. What fails is not kept: others notice that it is missing.
    async fn speak(&mut self) {
        if let Err(error) = self.try_to_speak().await {
            tracing::debug!(%error, "other nodes could not be told who is here");
            self.due.put_off(Instant::now() + RETRY);
        }
        let (_, elsewhere) = self.layer.registry.rosters.count();
        self.layer.registry.stats.presence.elsewhere.set(elsewhere);
    }

    async fn try_to_speak(&mut self) -> Result<(), BrokerError> {
        for of in std::mem::take(&mut self.asks) {
            self.tell(Said::Ask { of }).await?;
        }
        let now = Instant::now();
        if self.due.beat || self.due.changes.is_some_and(|at| at <= now) {
            let told = self.tell_changes().await;
            // A number that nobody is told: also if this one was carried out, what was to come behind it is missing.
            self.seq += u64::from(told.is_err());
            told?;
        }
        if self.due.state.is_some_and(|at| at <= now) {
            self.tell_state().await?;
        }
        if std::mem::take(&mut self.due.beat) {
            let (members, _) = self.layer.registry.rosters.count();
            self.tell(Said::Beat { seq: self.seq, members }).await?;
        }
        Ok(())
    }

    async fn tell_changes(&mut self) -> Result<(), BrokerError> {
        self.due.changes = None;
        let mut lines = Writer::default();
        loop {
            let Taken { changes, is_lost } = self.layer.registry.rosters.outgoing().take(CHANGES);
            // As when it could not be told.
            self.seq += u64::from(is_lost);
            if changes.is_empty() {
                break;
            }
            let is_all = changes.len() < CHANGES;
            let mut rest = changes.into_iter().peekable();
            while let Some(((group, member), change)) = rest.next() {
                lines.push(&group, &member, change);
                if lines.is_full() || rest.peek().is_none() {
                    self.seq += 1;
                    let text = lines.take();
                    self.tell(Said::Changes { seq: self.seq, lines: Lines(&text) }).await?;
                }
            }
            if is_all {
                break;
            }
        }
        self.due.changes_not_before = Instant::now() + GATHER;
        Ok(())
    }

    /// Tells all members that are here. What changes meanwhile is told afterwards, whether it is in here or not.
    async fn tell_state(&mut self) -> Result<(), BrokerError> {
        self.due.state = None;
        self.due.state_not_before = Instant::now() + STATE_EVERY;
        let rosters = &self.layer.registry.rosters;
        let (mut lines, mut part) = (Writer::default(), 0);
        for group in rosters.names() {
            for member in rosters.of_here(&group) {
                lines.push(&group, &member, Change::Joined);
                if lines.is_full() {
                    let text = lines.take();
                    self.tell(Said::State { seq: self.seq, part, is_last: false, lines: Lines(&text) }).await?;
                    part += 1;
                }
            }
        }
        let text = lines.take();
        self.tell(Said::State { seq: self.seq, part, is_last: true, lines: Lines(&text) }).await
    }

    async fn tell(&self, said: Said<'_>) -> Result<(), BrokerError> {
        if self.bus.has_parted.load(Ordering::Acquire) {
            return Ok(());
        }
        self.bus.broker.tell(Note { from: self.me.clone(), said }.encode()).await
    }
}

impl Due {
    fn next(&self) -> Option<Instant> {
        [self.changes, self.state].into_iter().flatten().min()
    }

    fn changes(&mut self) {
        self.changes.get_or_insert(self.changes_not_before.max(Instant::now()));
    }

    fn state(&mut self) {
        self.state.get_or_insert(self.state_not_before.max(Instant::now() + STATE_AFTER));
    }

    fn put_off(&mut self, until: Instant) {
        self.changes_not_before = until;
        for due in [&mut self.changes, &mut self.state].into_iter().flatten() {
            *due = until.max(*due);
        }
    }
}

fn speaker(config: &LayerConfig) -> Speaker {
    Speaker::new(&config.node, config.epoch_seed)
}

fn every(period: Duration) -> Interval {
    let mut every = interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}
