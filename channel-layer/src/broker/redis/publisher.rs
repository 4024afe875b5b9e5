//! Publications on their way to one server. Those that come while others are on their way wait, and go together as the next
//! call: so the more is published, the less each message costs.
//!
//! One call at a time, which keeps the order; a publication that finds none on its way goes at once.

use std::collections::VecDeque;

use groupcast_protocol::Position;
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::foreign::Told;
use super::names::Names;
use super::publish;
use super::up::{Spread, Up};
use crate::broker::{BrokerError, Publication};

/// Publications that wait; at the bound publishers wait, within their deadline.
const WAITING: usize = 1024;
/// Messages of one call, and their bytes. Redis does nothing else meanwhile: about a millisecond.
const MESSAGES: usize = 128;
const BYTES: usize = 256 << 10;

/// A publication, and who waits for what becomes of it.
pub(super) struct Parcel {
    pub(super) publication: Publication,
    /// The key that the message is known by: it is published once.
    pub(super) seen: Option<String>,
    /// Who of Django's is asked for.
    pub(super) told: Told,
    answer: oneshot::Sender<Result<Done, BrokerError>>,
}

/// What became of a publication.
pub(super) struct Done {
    pub(super) position: Position,
    /// Django's members of the group, or its topic when somebody listens there.
    pub(super) members: Vec<String>,
    /// Whether it was not published before.
    pub(super) is_news: bool,
}

/// Where publications are handed in. A cheap handle.
#[derive(Clone)]
pub(super) struct Publisher(mpsc::Sender<Parcel>);

/// What was handed in.
pub(super) struct Parcels(mpsc::Receiver<Parcel>);

/// Both ends of a server's queue.
pub(super) fn queue() -> (Publisher, Parcels) {
    let (publisher, parcels) = mpsc::channel(WAITING);
    (Publisher(publisher), Parcels(parcels))
}

impl Up {
    /// Publishes a message. A call that is dropped may have been carried out.
    pub(super) async fn publish_message(
        &self,
        publication: Publication,
        seen: Option<String>,
        told: Told,
    ) -> Result<Done, BrokerError> {
        let (answer, done) = oneshot::channel();
        let Publisher(queue) = &self.publisher;
        let carried = async {
            // A caller that has done much already is not put behind those that it begins later.
            unconstrained(queue.send(Parcel { publication, seen, told, answer })).await.ok()?;
            done.await.ok()
        };
        match timeout(self.timeout, carried).await {
            Ok(Some(done)) => done,
            Ok(None) => Err(BrokerError::Unavailable { why: "the link was lost meanwhile".to_owned() }),
            Err(_elapsed) => Err(BrokerError::TimedOut { after: self.timeout }),
        }
    }
}

impl Parcels {
    /// Carries what is handed in, for as long as the link is there. Who waits when this is dropped is told that it was lost.
    pub(super) async fn carry(&mut self, up: &Up, names: &Names) {
        let mut waiting = VecDeque::with_capacity(MESSAGES);
        let mut taken = Vec::with_capacity(MESSAGES);
        while self.0.recv_many(&mut taken, MESSAGES).await > 0 {
            // Who has given up has been told so.
            waiting.extend(taken.drain(..).filter(|parcel| !parcel.answer.is_closed()));
            while !waiting.is_empty() {
                carry_batch(up, names, next_batch(&mut waiting, up.spread)).await;
            }
        }
    }
}

async fn carry_batch(up: &Up, names: &Names, batch: Vec<Parcel>) {
    // Nobody waits any more when an answer cannot be given.
    match publish::publish(up, names, &batch).await {
        Ok(dones) => batch.into_iter().zip(dones).for_each(|(parcel, done)| drop(parcel.answer.send(Ok(done)))),
        Err(error) => batch.into_iter().for_each(|parcel| drop(parcel.answer.send(Err(error.clone())))),
    }
}

/// What goes together: no more than Redis does without being missed, and in a cluster what is in one slot.
fn next_batch(waiting: &mut VecDeque<Parcel>, spread: Spread) -> Vec<Parcel> {
    let Some(first) = waiting.pop_front() else { return Vec::new() };
    let mut bytes = first.publication.message.raw().len();
    let mut batch = vec![first];
    while let Some(Parcel { publication: next, .. }) = waiting.front() {
        bytes += next.message.raw().len();
        let is_near = spread == Spread::Everywhere || next.group == batch[0].publication.group;
        if !is_near || bytes > BYTES {
            break;
        }
        batch.extend(waiting.pop_front());
    }
    batch
}
