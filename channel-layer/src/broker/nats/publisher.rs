//! Numbers messages and stores them. One task; at most one record of a group is on its way at a time.
//!
//! A record is stored only if the group's newest one is that which its numbers stand on; who was overtaken by another node
//! reads the newest and tries again. What comes meanwhile for the same group waits, and is stored together as the next
//! record: so the more is sent to a group, the less each message costs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use groupcast_protocol::{GroupName, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::link::Link;
use super::names::Stream;
use super::place::{Newest, Next};
use super::session::Session;
use super::traces;
use crate::broker::{BrokerError, Publication, Published};

/// Publications on their way to the task; at the bound publishers wait.
pub(super) const WORK: usize = 1024;
/// Publications that wait behind others of their groups; at the bound no more are taken.
const WAITING_MAX: usize = 16_384;
/// Messages of one record, and their bytes: a server takes 1 MiB by default.
pub(super) const MESSAGES: usize = 256;
pub(super) const BYTES: usize = 256 << 10;
/// Groups whose newest record is remembered; beyond them it is read again.
const REMEMBERED: usize = 10_000;

/// A publication, and who waits for what becomes of it.
pub(super) struct Work {
    pub(super) publication: Publication,
    pub(super) answer: oneshot::Sender<Result<Published, BrokerError>>,
}

/// A group that is being published to, or was.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Work>,
    is_busy: bool,
    /// What is known of it, and in which session.
    known: Option<(u64, Newest)>,
}

type Key = (Stream, GroupName);

/// A record that is stored, or not.
struct Landed {
    key: Key,
    known: Option<(u64, Newest)>,
}

struct Lanes {
    link: Link,
    lanes: HashMap<Key, Lane>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    waiting: usize,
}

/// Runs until nobody can send work any more.
pub(super) async fn run(link: Link, mut work: mpsc::Receiver<Work>) {
    let mut lanes = Lanes { link, lanes: HashMap::new(), flights: FuturesUnordered::new(), waiting: 0 };
    let mut taken = Vec::with_capacity(WORK);
    loop {
        let landed = tokio::select! {
            Some(landed) = lanes.flights.next(), if !lanes.flights.is_empty() => Some(landed),
            count = work.recv_many(&mut taken, WORK), if lanes.waiting < WAITING_MAX => {
                if count == 0 { return }
                None
            }
        };
        if let Some(Landed { key, known }) = landed {
            lanes.land(key, known);
        }
        for work in taken.drain(..) {
            lanes.add(work);
        }
    }
}

impl Lanes {
    fn add(&mut self, work: Work) {
        let key = (Stream::of(work.publication.keep.is_some()), work.publication.group.clone());
        self.lanes.entry(key.clone()).or_default().waiting.push_back(work);
        self.waiting += 1;
        self.launch(key);
    }

    fn land(&mut self, key: Key, known: Option<(u64, Newest)>) {
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.is_busy = false;
        lane.known = known;
        self.launch(key);
        if self.lanes.len() > REMEMBERED {
            self.lanes.retain(|_, lane| lane.is_busy || !lane.waiting.is_empty());
        }
    }

    /// Sends what waits for a group, unless something is on its way.
    fn launch(&mut self, key: Key) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.is_busy {
            return;
        }
        let (batch, taken) = next_batch(&mut lane.waiting);
        self.waiting -= taken;
        if batch.is_empty() {
            return;
        }
        match self.link.session() {
            Ok(session) => {
                lane.is_busy = true;
                let known = lane.known.take().filter(|(number, _)| *number == session.number).map(|(_, known)| known);
                self.flights.push(Box::pin(fly(session, key, known, batch)));
            }
            Err(error) => answer_all(batch, &error),
        }
    }
}

/// What is stored as one record, and how many publications that took off the queue.
fn next_batch(waiting: &mut VecDeque<Work>) -> (Vec<Work>, usize) {
    let (mut batch, mut bytes, mut taken) = (Vec::new(), 0, 0);
    while let Some(work) = waiting.front() {
        let size = work.publication.message.raw().len() + traces::bytes(&work.publication.message);
        if !batch.is_empty() && (batch.len() >= MESSAGES || bytes + size > BYTES) {
            break;
        }
        let work = waiting.pop_front().expect("the line above has looked at it");
        taken += 1;
        // Who has given up is not to hear later that it was sent.
        if !work.answer.is_closed() {
            bytes += size;
            batch.push(work);
        }
    }
    (batch, taken)
}

async fn fly(session: Arc<Session>, key: Key, known: Option<Newest>, batch: Vec<Work>) -> Landed {
    let number = session.number;
    let stored = session.unless_over(store(&session, &key, known, &batch));
    let stored = timeout(session.api.timeout, stored).await;
    let stored = stored.unwrap_or(Err(BrokerError::TimedOut { after: session.api.timeout }));
    match stored {
        Ok((newest, at)) => {
            let first = at.offset + 1 - batch.len() as u64;
            for (offset, work) in (first..).zip(batch) {
                let position = Position { epoch: at.epoch.clone(), offset };
                // Who has given up meanwhile does not hear it.
                let _ = work.answer.send(Ok(Published { position }));
            }
            Landed { key, known: Some((number, newest)) }
        }
        Err(error) => {
            answer_all(batch, &error);
            Landed { key, known: None }
        }
    }
}

async fn store(
    session: &Session,
    (stream, group): &Key,
    known: Option<Newest>,
    batch: &[Work],
) -> Result<(Newest, Position), BrokerError> {
    let mut newest = match known {
        Some(known) => Some(known),
        None => session.newest(*stream, group).await?,
    };
    loop {
        let (epoch, offset) = match newest.as_ref().and_then(|newest| newest.at.as_ref()) {
            Some(at) => (at.epoch.clone(), at.offset),
            None => (batch[0].publication.fresh_epoch.clone(), 0),
        };
        let to = Position { epoch, offset: offset + batch.len() as u64 };
        let messages = batch.iter().map(|work| work.publication.message.clone()).collect();
        let next = Next { to: to.clone(), messages, foreign: None };
        if let Some(stored) = session.advance(*stream, group, newest.as_ref(), next).await? {
            return Ok((stored, to));
        }
        newest = session.newest(*stream, group).await?;
    }
}

fn answer_all(batch: Vec<Work>, error: &BrokerError) {
    for work in batch {
        // Who has given up meanwhile does not hear it.
        let _ = work.answer.send(Err(error.clone()));
    }
}
