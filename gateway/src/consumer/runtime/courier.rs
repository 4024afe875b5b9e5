//! `Courier`: brings events to the outlet, and makes sure that terminal ones are not forgotten.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{JobId, Message, MessageError};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::consumer::event;
use crate::consumer::outlet::{Outlet, OutletError};
use crate::jobs::Carried;
use crate::jobs::queue::{Claimed, Sent, Settled};
use crate::jobs::results::Content;
use crate::jobs::{Jobs, ReplyTo};

/// How often pending events are looked for when nobody says that there are some.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// How long the outlet may take for one event.
const DEADLINE: Duration = Duration::from_secs(5);

/// Pending events read at once.
const BATCH: usize = 100;

/// Events of which is remembered that they were sent: as many as can be under way between the send and its commit.
const REMEMBERED: usize = 4096;

/// What a result may have to travel in its event, where the consumer is not configured any more.
const INLINE_BYTES: usize = 64 << 10;

pub(super) struct Courier {
    jobs: Jobs,
    outlet: Arc<dyn Outlet>,
    inline_bytes: HashMap<String, usize>,
    sent: Mutex<VecDeque<Sent>>,
}

impl Courier {
    pub(super) fn new(jobs: Jobs, outlet: Arc<dyn Outlet>, inline_bytes: HashMap<String, usize>) -> Self {
        Self { jobs, outlet, inline_bytes, sent: Mutex::default() }
    }

    /// Sends an event that may be lost: start and progress are hints. Of a job that another process took in, it goes there.
    pub(super) async fn tell(&self, claimed: &Claimed, event: Result<Message, MessageError>) {
        match (event, &claimed.told_by) {
            (Ok(message), None) => drop(self.publish(&claimed.reply_to, message).await),
            (Ok(event), Some(to)) => {
                let (id, attempt, reply_to) = (claimed.lease.id, claimed.attempt, claimed.reply_to.clone());
                self.jobs.carry(claimed.lease.durability, to, Carried { id, attempt, reply_to, event });
            }
            (Err(error), _) => tracing::error!(%error, "an event is not a message"),
        }
    }

    /// Sends what other processes say of jobs that this one took in. Before it looks for pending events, in the same task:
    /// so nothing of a job is told after its end, nor of an attempt after the next has begun.
    pub(super) async fn send_carried(&self) {
        loop {
            let carried = self.jobs.watch().arrived.take(BATCH);
            if carried.is_empty() {
                return;
            }
            let ids: HashSet<JobId> = carried.iter().map(|carried| carried.id).collect();
            let live = match self.jobs.attempts(ids.into_iter().collect()).await {
                Ok(live) => live,
                Err(error) => return tracing::debug!(%error, "what other processes said is not told"),
            };
            for Carried { id, attempt, reply_to, event } in carried {
                // One that has begun here meanwhile speaks for itself.
                let is_over = live.get(&id) != Some(&attempt) || self.jobs.is_running(id);
                if !is_over && self.publish(&reply_to, event).await.is_err() {
                    // The others would wait for the layer, too, and what is owed after them.
                    break;
                }
            }
        }
    }

    /// Sends the event of a commit; a terminal one is cleared, or else sent again later.
    pub(super) async fn deliver(&self, settled: &Settled, content: Option<&Content>) {
        if let Some(to) = &settled.told_by {
            return self.hand_over(settled, to);
        }
        let max = self.inline_max(settled);
        let inline = content.and_then(|content| event::inline_content(content, max));
        self.send(settled, inline.as_deref()).await;
    }

    /// What another process tells: of an end the store has given it a hint, of a retry nobody else does.
    fn hand_over(&self, settled: &Settled, to: &str) {
        let record = &settled.record;
        if record.state.is_ended() {
            return;
        }
        match event::settled(settled, None) {
            Ok(None) => {}
            Ok(Some(event)) => {
                let (id, attempt, reply_to) = (record.id, record.attempt, settled.reply_to.clone());
                self.jobs.carry(record.durability, to, Carried { id, attempt, reply_to, event });
            }
            Err(error) => tracing::error!(%error, job = %record.id, "an event is not a message"),
        }
    }

    /// Sends the terminal events that a former process or a store left.
    pub(super) async fn send_pending(&self) {
        loop {
            let pending = match self.jobs.events_pending(BATCH).await {
                Ok(pending) => pending,
                Err(error) => return tracing::warn!(%error, "reading pending events failed; trying again"),
            };
            let mut cleared = 0;
            for settled in pending.iter().filter(|settled| !self.jobs.is_running(settled.record.id)) {
                cleared += usize::from(self.settle(settled).await);
            }
            // A full batch of which nothing can be cleared would be read again and again.
            if pending.len() < BATCH || cleared == 0 {
                return;
            }
        }
    }

    async fn settle(&self, settled: &Settled) -> bool {
        if self.was_sent(settled) {
            return self.clear(settled).await;
        }
        self.deliver_stored(settled).await
    }

    /// Whether the event was sent by this process, though it is not cleared yet.
    fn was_sent(&self, settled: &Settled) -> bool {
        self.sent.lock().contains(&Sent::from(&settled.record))
    }

    async fn deliver_stored(&self, settled: &Settled) -> bool {
        let max = self.inline_max(settled);
        let is_small = settled.record.result.as_ref().is_some_and(|result| result.bytes <= max as u64);
        let stored = if is_small { self.jobs.whole_result(settled).await.ok().flatten() } else { None };
        let inline = stored.and_then(|stored| event::inline_stored(&stored, max));
        self.send(settled, inline.as_deref()).await
    }

    async fn send(&self, settled: &Settled, inline: Option<&str>) -> bool {
        let message = match event::settled(settled, inline) {
            Ok(Some(message)) => message,
            Ok(None) => return true,
            Err(error) => {
                tracing::error!(%error, job = %settled.record.id, "an event is not a message");
                return false;
            }
        };
        if self.publish(&settled.reply_to, message).await.is_err() {
            return false;
        }
        if !settled.record.state.is_ended() {
            return true;
        }
        self.remember(settled);
        settled.reply_to == ReplyTo::Nobody || self.clear(settled).await
    }

    async fn clear(&self, settled: &Settled) -> bool {
        let cleared = self.jobs.event_sent(settled).await;
        if let Err(error) = &cleared {
            tracing::warn!(%error, job = %settled.record.id, "a sent event could not be cleared; trying again");
        }
        cleared.is_ok()
    }

    async fn publish(&self, to: &ReplyTo, message: Message) -> Result<(), OutletError> {
        if *to == ReplyTo::Nobody {
            return Ok(());
        }
        let sent = timeout(DEADLINE, self.outlet.publish(to.clone(), message)).await;
        let sent = sent.unwrap_or_else(|_| Err(OutletError("it took too long".into())));
        if let Err(error) = &sent {
            self.jobs.counters().events_failed.add(1);
            tracing::warn!(%error, "an event was not taken");
        }
        sent
    }

    fn remember(&self, settled: &Settled) {
        let mut sent = self.sent.lock();
        if sent.len() == REMEMBERED {
            sent.pop_front();
        }
        sent.push_back(Sent::from(&settled.record));
    }

    fn inline_max(&self, settled: &Settled) -> usize {
        self.inline_bytes.get(&settled.record.consumer).copied().unwrap_or(INLINE_BYTES)
    }
}
