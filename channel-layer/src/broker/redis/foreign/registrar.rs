//! Takes what Django's processes have sent, as the registrar of buckets; in `core` also for this gateway's own connections.
//! One task for each server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use groupcast_protocol::{GroupName, Message};
use tokio::time::{Instant, sleep, timeout};

use super::core::names::LongNames;
use super::depths::Depths;
use super::leases::{self, Collected};
use super::parked::Parked;
use super::{Dialect, Foreign, core, pubsub};
use crate::broker::BrokerError;
use crate::broker::foreign::{Intake, Taken};
use crate::broker::redis::RedisBroker;
use crate::broker::redis::up::Up;
use crate::dialect::Frame;

/// How long a registrar is one without saying so again, and how often it does.
const LEASE: Duration = Duration::from_secs(2);
const LEASE_EVERY: Duration = Duration::from_millis(500);
/// How long a gateway that says nothing is believed to live.
const ALIVE_SECS: u64 = 30;
/// How often memberships are looked over: renewed, and those of dead gateways ended.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Frames in one go.
pub(super) const BATCH: usize = 100;
/// Between looks at a server that does not tell of changes.
const POLL: Duration = Duration::from_millis(5);
/// Before what could not be taken is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs for one server until the broker is closed.
pub(in crate::broker::redis) async fn run(broker: Arc<RedisBroker>, at: usize, intake: Arc<dyn Intake>, token: String) {
    let Some(foreign) = broker.foreign.clone() else { return };
    let mut registrar = Registrar {
        broker,
        foreign,
        at,
        intake,
        token,
        buckets: Vec::new(),
        leased: None,
        swept: Instant::now(),
        names: LongNames::default(),
        paused: HashMap::new(),
        depths: Depths::default(),
    };
    loop {
        if let Err(error) = registrar.turn().await {
            tracing::debug!(%error, "what Django has sent cannot be taken right now");
            registrar.buckets.clear();
            sleep(AGAIN).await;
        }
    }
}

struct Registrar {
    broker: Arc<RedisBroker>,
    foreign: Arc<Foreign>,
    /// Which server.
    at: usize,
    intake: Arc<dyn Intake>,
    /// What the leases of this run are held by: no other has it.
    token: String,
    /// The buckets whose registrar this node is.
    buckets: Vec<usize>,
    leased: Option<Instant>,
    swept: Instant,
    names: LongNames,
    /// Buckets with something that could not be taken, and until when they are left alone: the others go on.
    paused: HashMap<usize, Instant>,
    depths: Depths,
}

impl Registrar {
    async fn turn(&mut self) -> Result<(), BrokerError> {
        let up = self.broker.known.fleet()?.links()[self.at].up()?;
        if self.leased.is_none_or(|leased| leased.elapsed() >= LEASE_EVERY) {
            self.lease(&up).await?;
        }
        let is_core = self.foreign.config.dialect == Dialect::Core;
        let mut more = is_core && core::take_own(&self.broker, &self.foreign, &up).await?;
        more |= self.take_buckets(&up).await?;
        self.foreign.counters.registrar_of.set(self.buckets.len() as u64);
        if is_core && self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            core::sweep::sweep(&self.foreign, &up, &self.buckets).await?;
        }
        if !more {
            self.wait(&up).await;
        }
        Ok(())
    }

    /// Waits until something has come, or a lease has to be renewed.
    async fn wait(&self, up: &Up) {
        let limit = match self.foreign.config.dialect {
            Dialect::Core if !up.tracks => POLL,
            Dialect::Core if self.paused.is_empty() => LEASE_EVERY,
            // What others should have parked is looked for, too.
            Dialect::Core | Dialect::Pubsub => AGAIN,
        };
        // Whatever has changed since the last look has left its mark.
        let _ = timeout(limit, self.foreign.wakes[self.at].wait()).await;
    }

    async fn lease(&mut self, up: &Up) -> Result<(), BrokerError> {
        let began = Instant::now();
        self.buckets = leases::lease(&self.foreign, up, &self.token, LEASE.as_millis() as u64, ALIVE_SECS).await?;
        self.leased = Some(began);
        Ok(())
    }

    /// Takes the frames of all buckets; says whether there may be more.
    async fn take_buckets(&mut self, up: &Up) -> Result<bool, BrokerError> {
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        let buckets: Vec<usize> = self.buckets.iter().copied().filter(|at| !self.paused.contains_key(at)).collect();
        let (foreign, token) = (&*self.foreign, &self.token);
        let found = match foreign.config.dialect {
            Dialect::Core if buckets.is_empty() => return Ok(false),
            Dialect::Core => core::collect(foreign, up, &buckets, token, BATCH).await?,
            Dialect::Pubsub => pubsub::collect(foreign, up, self.at, &buckets, token, BATCH).await?,
        };
        self.depths.note(foreign, &buckets, &found);
        let mut more = false;
        for Collected { bucket, left, parked } in found {
            match left {
                Some(left) => more |= self.take_bucket(up, bucket, left, &parked).await?,
                None => self.buckets.retain(|held| *held != bucket),
            }
        }
        Ok(more)
    }

    /// Takes what is parked of a bucket; says whether there may be more.
    async fn take_bucket(
        &mut self,
        up: &Up,
        bucket: usize,
        left: usize,
        parked: &[Vec<u8>],
    ) -> Result<bool, BrokerError> {
        let read = self.read_all(up, bucket, parked).await?;
        let taken = join_all(read.iter().map(async |sent| match sent {
            Some(Sent { group, message, id }) => self.intake.take(group, message, id).await,
            None => Taken::Done,
        }));
        let taken = taken.await;
        let mut done = 0;
        for (sent, taken) in read.iter().zip(taken) {
            match (sent, taken) {
                (Some(sent), Taken::Show) => self.show(sent).await?,
                (_, Taken::Later) => break,
                _ => {}
            }
            done += 1;
        }
        if done > 0 && !leases::done(&self.foreign, up, bucket, &self.token, done).await? {
            self.buckets.retain(|held| *held != bucket);
        }
        if done < parked.len() {
            self.paused.insert(bucket, Instant::now() + AGAIN);
            return Ok(false);
        }
        Ok(left > 0)
    }

    async fn show(&self, Sent { group, message, id }: &Sent) -> Result<(), BrokerError> {
        let is_news = self.broker.publish_foreign(group, message, id).await?;
        let counters = &self.foreign.counters;
        if is_news {
            counters.shown.add(1)
        } else {
            counters.repeated.add(1)
        }
        Ok(())
    }

    async fn read_all(&mut self, up: &Up, bucket: usize, parked: &[Vec<u8>]) -> Result<Vec<Option<Sent>>, BrokerError> {
        let mut all = Vec::with_capacity(parked.len());
        for parked in parked.iter().map(|entry| Parked::of(entry)) {
            let sent = match self.foreign.config.dialect {
                Dialect::Core => self.read_core(up, bucket, &parked).await?,
                Dialect::Pubsub => self.read_pubsub(&parked),
            };
            all.push(sent);
        }
        Ok(all)
    }

    async fn read_core(&mut self, up: &Up, bucket: usize, parked: &Parked<'_>) -> Result<Option<Sent>, BrokerError> {
        let Some(frame) = read(&self.foreign, parked.frame, parked.at) else { return Ok(None) };
        let group = match core::named(&frame, bucket) {
            Some(name) => self.names.group(&self.foreign, up, name).await?,
            None => None,
        };
        if group.is_none() {
            self.foreign.counters.dropped.add(1);
        }
        Ok(group.map(|group| Sent { group, message: frame.message, id: parked.id }))
    }

    fn read_pubsub(&self, parked: &Parked<'_>) -> Option<Sent> {
        let Some((group, frame)) = pubsub::read(parked.frame) else {
            self.foreign.counters.dropped.add(1);
            return None;
        };
        let Frame { message, .. } = read(&self.foreign, frame, parked.at)?;
        Some(Sent { group, message, id: parked.id })
    }
}

/// Reads a frame that was taken from Redis at a time.
pub(super) fn read(foreign: &Foreign, bytes: &[u8], at: u64) -> Option<Frame> {
    foreign.counters.arrived.add(1);
    match foreign.config.codec.decode(bytes, at) {
        Ok(frame) => Some(frame),
        Err(error) => {
            foreign.drop_frame(&error);
            None
        }
    }
}

/// A message that was sent to a group.
struct Sent {
    group: GroupName,
    message: Message,
    id: [u8; 16],
}

/// Gives up the leases, so that another node need not wait for their end.
pub(in crate::broker::redis) async fn resign(foreign: &Foreign, up: &Up, token: &str) {
    // Otherwise they end by themselves.
    let _ = leases::release(foreign, up, token).await;
}
