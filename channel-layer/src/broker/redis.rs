//! Redis between nodes, 6.2 and later, or what speaks its protocol: pub/sub by group, numbers and history in scripts.
//!
//! One pub/sub topic for each group, to which a node subscribes while it follows the group; one script numbers, keeps and
//! publishes a message, so that none of the three is without the others. Reading order: `config`, `names` (keys and
//! topics), `fleet` (which server has what), `link` (one server: connecting, watching, connecting again) and `cluster` (many
//! that belong together), `arrivals` (what a server pushes), `publisher` and `publish` (what is published, many at a time), `up` and
//! `scripts` (what else is asked of it).
//!
//! ```text
//! PREFIX:{GROUP}        topic; the payload is an envelope
//! PREFIX:{GROUP}:h      hash: e = epoch, n = offset of the newest message, r = run id of the server that began the epoch
//! PREFIX:{GROUP}:s      stream: ids OFFSET-0, t = Redis's time in ms, m = the envelope behind the offset
//! PREFIX:node:{NODE}    topic of one node: `CHANNEL MESSAGE`
//! PREFIX:ch:{CHANNEL}   list of a channel that any node may read: `DEADLINE_MS MESSAGE`
//! PREFIX:wait:{CHANNEL} somebody has found the channel empty
//! PREFIX:mail           topic: the name of a channel that was found empty and has a message
//! PREFIX:notes          topic of all nodes
//! ```
//!
//! **Epochs.** A server that was started anew, or another one after a failover, has another run id: whatever it still has
//! may lack what was acknowledged last. So the group begins a new epoch there, and nothing of the old one is given out.
//!
//! **Several hosts** share the groups as channels_redis shares them ([`shard`]). **A cluster** shares them by its slots; the
//! topics of groups and nodes are sharded ones there.

mod arrivals;
mod backlog;
mod cluster;
mod config;
mod facts;
mod fleet;
pub mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
mod names;
mod publish;
mod publisher;
mod retry;
mod scripts;
pub mod shard;
mod shared;
mod slot;
mod up;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId, Position};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dropped::{Dropped, Reason};
use super::foreign::{Intake, is_connection};
use super::{
    Ask, Broker, BrokerCall, BrokerError, BrokerEvent, BrokerInbox, ChannelBound, INBOX, Kept, Level, Publication,
    Published, WhereIs,
};
use crate::config::GroupRule;
use cluster::Cluster;
pub use config::{AddressError, RedisConfig, Topology};
use fleet::{Fleet, Known};
pub use foreign::{Dialect, ForeignConfig};
use foreign::{Foreign, Told};
use link::{Link, Own};
use names::Names;
use shared::Shared;

/// Redis as the broker of one node.
#[derive(Debug)]
pub struct RedisBroker {
    known: Known,
    names: Names,
    max_bytes: usize,
    /// There when Django's processes are in the same groups.
    foreign: Option<Arc<Foreign>>,
    events: mpsc::Sender<BrokerEvent>,
    dropped: Arc<Dropped>,
    /// How much history groups keep, for what is published on behalf of others.
    rules: Vec<GroupRule>,
    epochs: AtomicU64,
    /// What this run is known by: no other has the same.
    token: String,
    /// What keeps the links.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl RedisBroker {
    /// Connects in the background, and again whenever the link is lost: a server that is not there yet is waited for.
    ///
    /// # Errors
    /// When an address cannot be understood.
    pub fn connect(config: RedisConfig, node: &NodeId) -> Result<(Arc<Self>, BrokerInbox), AddressError> {
        let (events, inbox) = mpsc::channel(INBOX);
        let names = Names::new(&config.prefix);
        let servers = config.servers()?;
        let speak = |foreign| {
            Arc::new(Foreign::new(foreign, config.prefix.clone(), node.clone(), servers.len(), config.timeout))
        };
        let foreign = config.foreign.clone().map(speak);
        let shared = Arc::new(Shared::new(&config, servers.len(), node, events.clone(), foreign.clone()));
        let (known, dropped, mut tasks) = (Known::not_yet(), shared.dropped.clone(), JoinSet::new());
        match config.topology {
            Topology::Cluster => drop(tasks.spawn(Cluster { seeds: servers }.keep(known.clone(), shared))),
            Topology::Servers | Topology::Sentinels(_) => {
                let link = |(at, server)| Link::new(at, server, own(&shared));
                let links: Vec<Link> = servers.into_iter().enumerate().map(link).collect();
                links.iter().for_each(|link| drop(tasks.spawn(link.clone().keep(shared.clone()))));
                known.set(Ok(Fleet::new(links, None)));
            }
        }
        let RedisConfig { message_bytes: max_bytes, groups: rules, run, .. } = config;
        let (token, epochs) = (format!("{node}-{run}"), AtomicU64::new(0));
        let tasks = tokio::sync::Mutex::new(tasks);
        Ok((Arc::new(Self { known, names, max_bytes, foreign, events, dropped, rules, epochs, token, tasks }), inbox))
    }

    /// Takes in what Django's processes send, from here on. Nothing without a dialect.
    pub async fn take_in(self: &Arc<Self>, intake: Arc<dyn Intake>) {
        // The dialect knows no cluster: its servers are known from the beginning.
        if let (Some(_), Ok(fleet)) = (&self.foreign, self.known.fleet()) {
            for at in 0..fleet.links().len() {
                self.tasks.lock().await.spawn(foreign::run(self.clone(), at, intake.clone(), self.token.clone()));
            }
        }
    }

    /// Publishes a message of another program, once by its id; says whether it was news.
    async fn publish_foreign(&self, group: &GroupName, message: &Message, id: &[u8]) -> Result<bool, BrokerError> {
        let keep = self.rules.iter().find(|rule| rule.pattern.matches(group.as_str())).and_then(|rule| rule.history);
        let number = self.epochs.fetch_add(1, Ordering::Relaxed);
        let fresh_epoch = format!("{}-f{number:x}", self.token).into();
        let publication = Publication { group: group.clone(), message: message.clone(), keep, fresh_epoch };
        let link = self.known.fleet()?.of(group.as_str())?;
        Ok(link.publish_message(publication, Some(self.names.seen(id)), Told::Nobody).await?.is_news)
    }

    fn sieve(&self) -> Sieve<'_> {
        Sieve { max_bytes: self.max_bytes, dropped: &self.dropped }
    }

    async fn tell(&self, event: BrokerEvent) {
        // When nobody takes events any more, the layer is at its end.
        let _ = self.events.send(event).await;
    }

    fn topics(&self, groups: &[GroupName]) -> Vec<String> {
        groups.iter().map(|group| self.names.topic(group)).collect()
    }
}

/// Of several servers each publishes for itself.
fn own(shared: &Shared) -> Own {
    let names = &shared.names;
    Own { spread: Vec::new(), common: vec![names.node(&shared.node), names.mail(), names.notes()] }
}

impl Broker for RedisBroker {
    fn publish(&self, publication: Publication) -> BrokerCall<'_, Published> {
        Box::pin(async move {
            let fleet = self.known.fleet()?;
            let link = fleet.of(publication.group.as_str())?;
            let Some(foreign) = &self.foreign else {
                let done = link.publish_message(publication, None, Told::Nobody).await?;
                return Ok(Published { position: done.position });
            };
            foreign.check(&publication.message)?;
            let key = foreign.group_key(&publication.group);
            let (message, told) = (publication.message.clone(), foreign.told(&key, fleet.links().len()));
            let done = link.publish_message(publication, None, told).await?;
            foreign.forward(&fleet, &key, &done.members, &message).await?;
            Ok(Published { position: done.position })
        })
    }

    fn follow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            for (link, part) in self.known.fleet()?.sort(groups, GroupName::as_str) {
                let groups: Vec<GroupName> = part.into_iter().map(|(_, group)| group).collect();
                let up = link.up()?;
                up.subscribe(&self.topics(&groups)).await?;
                if let Some(foreign) = &self.foreign {
                    foreign.join(&up, &groups).await?;
                }
            }
            Ok(())
        })
    }

    fn unfollow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            for (link, part) in self.known.fleet()?.sort(groups, GroupName::as_str) {
                let groups: Vec<GroupName> = part.into_iter().map(|(_, group)| group).collect();
                let up = link.up()?;
                up.unsubscribe(&self.topics(&groups)).await?;
                if let Some(foreign) = &self.foreign {
                    foreign.leave(&up, &groups).await?;
                }
            }
            Ok(())
        })
    }

    fn heads(&self, asks: Vec<WhereIs>) -> BrokerCall<'_, Vec<Position>> {
        Box::pin(async move {
            let mut heads: Vec<(usize, Position)> = Vec::with_capacity(asks.len());
            for (link, part) in self.known.fleet()?.sort(asks, |ask| ask.group.as_str()) {
                heads.extend(scripts::heads(&link.up()?, &self.names, part).await?);
            }
            heads.sort_by_key(|(at, _)| *at);
            Ok(heads.into_iter().map(|(_, head)| head).collect())
        })
    }

    fn history(&self, ask: Ask) -> BrokerCall<'_, Kept> {
        Box::pin(async move {
            let link = self.known.fleet()?.of(ask.group.as_str())?;
            scripts::history(&link, &self.names, &ask, self.sieve()).await
        })
    }

    fn send(&self, node: NodeId, channel: ChannelName, message: Message) -> BrokerCall<'_, bool> {
        Box::pin(async move {
            let fleet = self.known.fleet()?;
            let payload = names::with_text(channel.as_str(), message.raw());
            let reached = fleet.of(node.as_str())?.publish(&self.names.node(&node), &payload).await? > 0;
            match &self.foreign {
                Some(foreign) if !reached && !is_connection(&channel) => {
                    foreign.send(&fleet, &channel, &message).await.map(|()| true)
                }
                _ => Ok(reached),
            }
        })
    }

    fn push(&self, channel: ChannelName, message: Message, bound: ChannelBound) -> BrokerCall<'_, bool> {
        Box::pin(async move {
            let fleet = self.known.fleet()?;
            if let Some(foreign) = &self.foreign {
                return foreign.send(&fleet, &channel, &message).await.map(|()| true);
            }
            let link = fleet.of(channel.as_str())?;
            scripts::push(&link, &self.names, &channel, &message, bound).await
        })
    }

    fn take(&self, channel: ChannelName) -> BrokerCall<'_, Option<Message>> {
        Box::pin(async move {
            let link = self.known.fleet()?.of(channel.as_str())?;
            scripts::take(&link, &self.names, &channel, self.sieve()).await
        })
    }

    fn tell(&self, note: Bytes) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            // All nodes listen on the first server.
            self.known.fleet()?.first()?.publish_common(&self.names.notes(), &note).await
        })
    }

    fn has_foreign_channels(&self) -> bool {
        self.foreign.is_some()
    }

    fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.foreign.as_ref().map(foreign::counters).unwrap_or_default()
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.foreign.as_deref().map(foreign::gauges).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        self.known.ready()
    }

    fn level(&self) -> Level {
        self.known.level()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.tasks.lock().await.shutdown().await;
            if let (Some(foreign), Ok(fleet)) = (&self.foreign, self.known.fleet()) {
                for up in fleet.links().iter().filter_map(|link| link.up().ok()) {
                    foreign::resign(foreign, &up, &self.token).await;
                }
            }
            self.known.close();
        })
    }
}

/// What Redis answered when it did not do what it was asked.
fn failure(error: &redis::RedisError) -> BrokerError {
    let why = error.to_string();
    if error.code().is_some() && !error.is_io_error() {
        return BrokerError::Refused { why };
    }
    BrokerError::Unavailable { why }
}

/// Reads what lies in keys of ours, where others may have written.
#[derive(Clone, Copy)]
struct Sieve<'a> {
    max_bytes: usize,
    dropped: &'a Dropped,
}

impl Sieve<'_> {
    /// The message of an envelope without what stands before and in its offset, as it is in a stream: ` META MESSAGE`.
    fn message(self, tail: &[u8]) -> Option<Message> {
        let rest = tail.strip_prefix(b" ");
        let text = rest.and_then(|rest| Some(&rest[rest.iter().position(|byte| *byte == b' ')? + 1..]));
        let read = text.and_then(|text| self.parse(Bytes::copy_from_slice(text)));
        self.dropped.sift(read.ok_or(Reason::Stray))
    }

    /// The message of an entry of a channel: `DEADLINE_MS MESSAGE`.
    fn entry(self, entry: &Bytes) -> Option<Message> {
        let at = entry.iter().position(|byte| *byte == b' ');
        let read = at.and_then(|at| self.parse(entry.slice(at + 1..)));
        self.dropped.sift(read.ok_or(Reason::Stray))
    }

    fn parse(self, text: Bytes) -> Option<Message> {
        Message::parse_within(text, self.max_bytes).ok()
    }
}
