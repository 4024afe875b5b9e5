//! Takes what Django's processes have sent: for all gateways as the registrar of buckets, and for this gateway's own
//! connections. One task for each server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use groupcast_protocol::{ChannelName, GroupName};
use tokio::time::{Instant, sleep, timeout};

use super::depths::Depths;
use super::parked::Parked;
use super::scripts::{self, Collected};
use super::{BUCKETS, Core, MEMBER, bucket_of, now_secs};
use crate::broker::foreign::{Intake, Taken};
use crate::broker::redis::up::Up;
use crate::broker::redis::{RedisBroker, shard};
use crate::broker::{BrokerError, BrokerEvent};
use crate::dialect::Frame;

/// How long a registrar is one without saying so again, and how often it does.
const LEASE: Duration = Duration::from_secs(2);
const LEASE_EVERY: Duration = Duration::from_millis(500);
/// How long a gateway that says nothing is believed to live.
const ALIVE_SECS: u64 = 30;
/// How often memberships are looked over: renewed, and those of dead gateways ended.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Long group names that are remembered; of more, all are asked for once more.
const NAMES_MAX: usize = 10_000;
/// Frames in one go.
const BATCH: usize = 100;
/// Between looks at a server that does not tell of changes.
const POLL: Duration = Duration::from_millis(5);
/// Before what could not be taken is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs for one server until the broker is closed.
pub(in crate::broker::redis) async fn run(broker: Arc<RedisBroker>, at: usize, intake: Arc<dyn Intake>, token: String) {
    let Some(core) = broker.core.clone() else { return };
    let mut registrar = Registrar {
        broker,
        core,
        at,
        intake,
        token,
        buckets: Vec::new(),
        leased: None,
        swept: Instant::now(),
        names: HashMap::new(),
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
    core: Arc<Core>,
    /// Which server.
    at: usize,
    intake: Arc<dyn Intake>,
    /// What the leases of this run are held by: no other has it.
    token: String,
    /// The buckets whose registrar this node is.
    buckets: Vec<usize>,
    leased: Option<Instant>,
    swept: Instant,
    /// Group names that are too long for a member's name, by what stands for them.
    names: HashMap<String, GroupName>,
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
        let mut more = self.take_own(&up).await?;
        more |= self.take_buckets(&up).await?;
        self.core.counters.registrar_of.set(self.buckets.len() as u64);
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.sweep(&up).await?;
        }
        if !more {
            self.wait(&up).await;
        }
        Ok(())
    }

    /// Waits until something has come, or a lease has to be renewed.
    async fn wait(&self, up: &Up) {
        let limit = match up.tracks {
            true if self.paused.is_empty() => LEASE_EVERY,
            true => AGAIN,
            false => POLL,
        };
        // Whatever has changed since the last look has left its mark.
        let _ = timeout(limit, self.core.wakes[self.at].wait()).await;
    }

    async fn lease(&mut self, up: &Up) -> Result<(), BrokerError> {
        let began = Instant::now();
        self.buckets = scripts::lease(&self.core, up, &self.token, LEASE.as_millis() as u64, ALIVE_SECS).await?;
        self.leased = Some(began);
        Ok(())
    }

    /// Takes frames for this node's connections; says whether there may be more.
    async fn take_own(&self, up: &Up) -> Result<bool, BrokerError> {
        let frames = scripts::pop_own(&self.core, up, BATCH).await?;
        for frame in &frames {
            let Some(Frame { message, channels, .. }) = self.read(frame, now_secs()) else { continue };
            for name in channels {
                if let Ok(channel) = ChannelName::parse(&name) {
                    self.broker.tell(BrokerEvent::Direct { channel, message: message.clone() }).await;
                }
            }
        }
        Ok(frames.len() == BATCH)
    }

    /// Takes the frames of all buckets; says whether there may be more.
    async fn take_buckets(&mut self, up: &Up) -> Result<bool, BrokerError> {
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        let buckets: Vec<usize> = self.buckets.iter().copied().filter(|at| !self.paused.contains_key(at)).collect();
        if buckets.is_empty() {
            return Ok(false);
        }
        let found = scripts::collect(&self.core, up, &buckets, &self.token, BATCH).await?;
        self.depths.note(&self.core, &buckets, &found);
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
            Some(Sent { group, frame, id }) => self.intake.take(group, &frame.message, id).await,
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
        if done > 0 && !scripts::done(&self.core, up, bucket, &self.token, done).await? {
            self.buckets.retain(|held| *held != bucket);
        }
        if done < parked.len() {
            self.paused.insert(bucket, Instant::now() + AGAIN);
            return Ok(false);
        }
        Ok(left > 0)
    }

    async fn show(&self, Sent { group, frame, id }: &Sent) -> Result<(), BrokerError> {
        let is_news = self.broker.publish_foreign(group, &frame.message, id).await?;
        let counters = &self.core.counters;
        if is_news {
            counters.shown.add(1)
        } else {
            counters.repeated.add(1)
        }
        Ok(())
    }

    async fn read_all(&mut self, up: &Up, bucket: usize, parked: &[Vec<u8>]) -> Result<Vec<Option<Sent>>, BrokerError> {
        let ours = format!("{MEMBER}{bucket}!");
        let mut all = Vec::with_capacity(parked.len());
        for Parked { at, id, frame } in parked.iter().map(|entry| Parked::of(entry)) {
            let Some(frame) = self.read(frame, at) else {
                all.push(None);
                continue;
            };
            let name = frame.channels.iter().find_map(|name| name.strip_prefix(&ours)).map(str::to_owned);
            let group = match name {
                Some(name) => self.group(up, &name).await?,
                None => None,
            };
            if group.is_none() {
                self.core.counters.dropped.add(1);
            }
            all.push(group.map(|group| Sent { group, frame, id }));
        }
        Ok(all)
    }

    /// Reads a frame that was taken from its key at a time.
    fn read(&self, bytes: &[u8], at: u64) -> Option<Frame> {
        self.core.counters.arrived.add(1);
        match self.core.config.codec.decode(bytes, at) {
            Ok(frame) => Some(frame),
            Err(error) => {
                self.core.drop_frame(&error);
                None
            }
        }
    }

    /// The group that a member's name stands for.
    async fn group(&mut self, up: &Up, id: &str) -> Result<Option<GroupName>, BrokerError> {
        if let Some(name) = id.strip_prefix("g.") {
            return Ok(GroupName::parse(name).ok());
        }
        let Some(id) = id.strip_prefix("h.") else { return Ok(None) };
        if let Some(name) = self.names.get(id) {
            return Ok(Some(name.clone()));
        }
        let command = redis::cmd("HGET").arg(format!("{}:ids", self.core.own)).arg(id).clone();
        let name: Option<String> = up.run(&command).await?;
        let name = name.and_then(|name| GroupName::parse(&name).ok());
        if let Some(name) = &name {
            if self.names.len() >= NAMES_MAX {
                self.names.clear();
            }
            self.names.insert(id.to_owned(), name.clone());
        }
        Ok(name)
    }

    /// Renews the memberships of the buckets that this node is registrar of, and ends those that no living gateway needs.
    async fn sweep(&self, up: &Up) -> Result<(), BrokerError> {
        for bucket in &self.buckets {
            let command = redis::cmd("SMEMBERS").arg(self.core.key("groups", bucket)).clone();
            let groups: Vec<String> = up.run(&command).await?;
            for group in groups.iter().filter_map(|name| GroupName::parse(name).ok()) {
                if shard::index(group.as_str().as_bytes(), self.broker.known.fleet()?.links().len()) == self.at
                    && bucket_of(&group) < BUCKETS
                {
                    self.look_over(up, &group).await?;
                }
            }
        }
        Ok(())
    }

    async fn look_over(&self, up: &Up, group: &GroupName) -> Result<(), BrokerError> {
        let nodes: Vec<String> = up.run(&redis::cmd("SMEMBERS").arg(self.core.key("interest", group)).clone()).await?;
        let mut lives = false;
        for node in &nodes {
            let alive: bool = up.run(&redis::cmd("EXISTS").arg(self.core.key("alive", node)).clone()).await?;
            if alive {
                lives = true;
            } else {
                scripts::leave_for(&self.core, up, group, node).await?;
            }
        }
        if lives {
            // Long-lived members would otherwise be dropped by senders after `group_expiry`.
            let mut pipeline = redis::pipe();
            pipeline.cmd("ZADD").arg(self.core.group_key(group)).arg("XX").arg(now_secs()).arg(self.core.member(group));
            pipeline.cmd("EXPIRE").arg(self.core.group_key(group)).arg(self.core.config.group_expiry.as_secs().max(1));
            up.run_all(&pipeline).await?;
        } else if nodes.is_empty() {
            scripts::leave_for(&self.core, up, group, "").await?;
        }
        Ok(())
    }
}

/// A message that was sent to a group.
struct Sent {
    group: GroupName,
    frame: Frame,
    id: [u8; 16],
}

/// Gives up the leases, so that another node need not wait for their end.
pub(in crate::broker::redis) async fn resign(core: &Core, up: &Up, token: &str) {
    // Otherwise they end by themselves.
    let _ = scripts::release(core, up, token).await;
}
