//! Makes what the broker sends this node equal to what the node needs, and asks for what was missed. One task.
//!
//! It moves no topic: what the broker answers goes to `inbound` as an errand, because the order between an answer and what
//! arrives is decided in one place.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use groupcast_protocol::Position;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Bus;
use super::interest::Topic;
use crate::broker::{Ask, BrokerError, Kept, LIFE, WhereIs};
use crate::layer::ChannelLayer;

/// Groups in one call.
const BATCH: usize = 512;
/// Histories that are read at once.
const READS: usize = 16;
/// Messages in one answer.
const PAGE: usize = 500;
/// Answers without anything new before a history is left for a while: somebody may announce messages that are none.
const FRUITLESS: usize = 8;
/// After a call that failed.
const RETRY: Duration = Duration::from_millis(250);
/// How long a message may be on its way while the broker says that it has been sent.
const GRACE: Duration = Duration::from_secs(1);
/// How often topics that nobody needs are looked for, those that were short of something, and those in doubt.
const TICK: Duration = Duration::from_millis(500);

/// Something that only `inbound` may do.
pub(super) enum Errand {
    /// A part of a history, for a topic that was followed when `link` was there; answers whether to ask for more.
    Fetched { topic: Arc<Topic>, kept: Kept, link: u64, more: oneshot::Sender<bool> },
    /// Where a group without history is. Answers whether something is missing.
    Checked { topic: Arc<Topic>, head: Position, link: u64, short: oneshot::Sender<bool> },
    /// What was missing at a check has had its time.
    GiveUp { topic: Arc<Topic>, before: Option<Position>, head: Position },
}

struct Reconciler<'a> {
    layer: &'a ChannelLayer,
    bus: &'a Bus,
    errands: mpsc::Sender<Errand>,
    /// Topics that were short of something at a check.
    suspects: Vec<Suspect>,
    renewed: Instant,
}

struct Suspect {
    topic: Arc<Topic>,
    before: Option<Position>,
    head: Position,
    since: Instant,
}

/// Runs until nobody takes errands any more.
pub(super) async fn run(layer: &ChannelLayer, bus: &Bus, errands: mpsc::Sender<Errand>) {
    let renewed = Instant::now();
    let mut reconciler = Reconciler { layer, bus, errands, suspects: Vec::new(), renewed };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ticked = tokio::select! {
            () = bus.interest.changed() => false,
            _ = tick.tick() => true,
        };
        if ticked {
            bus.broker.dropped().tell();
            reconciler.give_up().await;
            reconciler.ask_doubted().await;
            reconciler.unfollow().await;
            reconciler.renew().await;
        }
        reconciler.follow().await;
    }
}

impl Reconciler<'_> {
    /// Follows what is wanted, then asks where it is: in this order, so that nothing lies between the two.
    async fn follow(&mut self) {
        let mut failed = false;
        for batch in self.bus.interest.take_wanted().chunks(BATCH) {
            if let Err(error) = self.follow_batch(batch).await {
                tracing::debug!(%error, groups = batch.len(), "following groups has to be tried again");
                batch.iter().for_each(|topic| self.bus.interest.want(topic.clone()));
                failed = true;
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_batch(&mut self, topics: &[Arc<Topic>]) -> Result<(), BrokerError> {
        let link = self.bus.interest.link();
        self.bus.broker.follow(topics.iter().map(|topic| topic.name.clone()).collect()).await?;
        let (kept, plain): (Vec<_>, Vec<_>) =
            topics.iter().cloned().partition(|topic| topic.with(|p| p.keep().is_some()));
        self.check(plain, link).await?;
        self.fetch_all(kept, link).await
    }

    /// Asks where groups without history are.
    async fn check(&mut self, topics: Vec<Arc<Topic>>, link: u64) -> Result<(), BrokerError> {
        if topics.is_empty() {
            return Ok(());
        }
        topics.iter().for_each(|topic| topic.with(|place| place.asking()));
        let heads = self.heads(&topics).await?;
        for (topic, head) in topics.into_iter().zip(heads) {
            let before = topic.with(|place| place.at().cloned());
            let (short, answer) = oneshot::channel();
            self.errand(Errand::Checked { topic: topic.clone(), head: head.clone(), link, short }).await;
            if answer.await.unwrap_or(false) {
                self.suspects.push(Suspect { topic, before, head, since: Instant::now() });
            }
        }
        Ok(())
    }

    async fn heads(&self, topics: &[Arc<Topic>]) -> Result<Vec<Position>, BrokerError> {
        let config = &self.layer.registry.config;
        let ask = |topic: &Arc<Topic>| WhereIs { group: topic.name.clone(), fresh_epoch: self.bus.fresh_epoch(config) };
        self.bus.broker.heads(topics.iter().map(ask).collect()).await
    }

    async fn fetch_all(&self, topics: Vec<Arc<Topic>>, link: u64) -> Result<(), BrokerError> {
        let mut reads = stream::iter(topics).map(|topic| self.fetch(topic, link)).buffer_unordered(READS);
        let mut outcome = Ok(());
        while let Some(read) = reads.next().await {
            outcome = outcome.and(read);
        }
        outcome
    }

    /// Reads what a topic has not got of its group's history, until nothing is missing.
    async fn fetch(&self, topic: Arc<Topic>, link: u64) -> Result<(), BrokerError> {
        let Some(rule) = topic.with(|place| place.keep()) else { return Ok(()) };
        let mut fruitless = 0;
        while fruitless < FRUITLESS {
            let at = topic.with(|place| {
                place.asking();
                place.at().cloned()
            });
            let mut kept = self.ask(&topic, rule, at.as_ref().map_or(0, |at| at.offset)).await?;
            if at.is_some_and(|at| at.epoch != kept.head.epoch && at.offset > 0) {
                // The offset was of another epoch, and means nothing in this one.
                kept = self.ask(&topic, rule, 0).await?;
            }
            fruitless += usize::from(kept.messages.is_empty());
            let (more, answer) = oneshot::channel();
            self.errand(Errand::Fetched { topic: topic.clone(), kept, link, more }).await;
            if !answer.await.unwrap_or(false) {
                return Ok(());
            }
        }
        // The others have their turn first.
        self.bus.interest.want(topic);
        Ok(())
    }

    async fn ask(&self, topic: &Topic, rule: crate::HistoryRule, after: u64) -> Result<Kept, BrokerError> {
        let fresh_epoch = self.bus.fresh_epoch(&self.layer.registry.config);
        self.bus.broker.history(Ask { group: topic.name.clone(), rule, after, limit: PAGE, fresh_epoch }).await
    }

    /// Asks about what has come and is not the next. It comes by a link that holds, so nothing has to be followed anew.
    async fn ask_doubted(&mut self) {
        let link = self.bus.interest.link();
        for batch in self.bus.interest.take_doubted().chunks(BATCH) {
            if let Err(error) = self.check(batch.to_vec(), link).await {
                tracing::debug!(%error, groups = batch.len(), "what is in doubt has to be asked once more");
                batch.iter().for_each(|topic| self.bus.interest.doubt(topic.clone()));
            }
        }
    }

    /// What was missing for so long does not come any more, unless something has come of it.
    async fn give_up(&mut self) {
        for suspect in std::mem::take(&mut self.suspects) {
            if suspect.since.elapsed() < GRACE {
                self.suspects.push(suspect);
                continue;
            }
            let Suspect { topic, before, head, .. } = suspect;
            let at = topic.with(|place| place.at().cloned());
            match at {
                Some(at) if is_on_its_way(&at, before.as_ref(), &head) => {
                    self.suspects.push(Suspect { topic, before: Some(at), head, since: Instant::now() });
                }
                _ => self.errand(Errand::GiveUp { topic, before, head }).await,
            }
        }
    }

    async fn unfollow(&self) {
        let registry = &self.layer.registry;
        let over = self.bus.interest.take_idle(|group| registry.has_members(group));
        for batch in over.chunks(BATCH) {
            for topic in batch {
                registry.forget(&topic.name);
            }
            // When it fails the link is as good as lost, and with it all that was followed.
            if let Err(error) = self.bus.broker.unfollow(batch.iter().map(|topic| topic.name.clone()).collect()).await {
                tracing::debug!(%error, groups = batch.len(), "groups could not be unfollowed");
            }
        }
    }

    /// Asks for what is followed, so that the broker does not forget it.
    async fn renew(&mut self) {
        if self.renewed.elapsed() < LIFE / 4 {
            return;
        }
        self.renewed = Instant::now();
        for batch in self.bus.interest.topics().chunks(BATCH) {
            if let Err(error) = self.heads(batch).await {
                tracing::debug!(%error, "groups could not be renewed");
                return;
            }
        }
    }

    async fn errand(&self, errand: Errand) {
        // When nobody takes errands any more, `carry` is at its end.
        let _ = self.errands.send(errand).await;
    }
}

/// Whether a group has moved on, and not yet to where the broker said that it is.
fn is_on_its_way(at: &Position, before: Option<&Position>, head: &Position) -> bool {
    Some(at) != before && at.epoch == head.epoch && at.offset < head.offset
}
