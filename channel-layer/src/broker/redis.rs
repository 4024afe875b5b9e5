//! Redis between nodes, 6.2 and later, or what speaks its protocol: pub/sub by group, numbers and history in scripts.
//!
//! One pub/sub topic for each group, to which a node subscribes while it follows the group; one script numbers, keeps and
//! publishes a message, so that none of the three is without the others. Reading order: `config`, `names` (keys and
//! topics), `link` (one server: connecting, watching, connecting again), `arrivals` (what a server pushes), `scripts`.
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
//! **Several hosts** share the groups as channels_redis shares them ([`shard`]).

mod arrivals;
mod backlog;
mod config;
pub mod core;
mod facts;
mod link;
mod names;
mod scripts;
pub mod shard;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Envelope, GroupName, Message, NodeId, Position};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::foreign::Intake;
use super::{
    Ask, Broker, BrokerCall, BrokerError, BrokerEvent, BrokerInbox, ChannelBound, INBOX, Kept, Level, Publication,
    Published, WhereIs,
};
use crate::config::GroupRule;
pub use config::{AddressError, RedisConfig, Topology};
pub use core::CoreConfig;
use link::Link;
use names::Names;

/// Redis as the broker of one node.
#[derive(Debug)]
pub struct RedisBroker {
    links: Vec<Link>,
    names: Names,
    max_bytes: usize,
    /// There when Django's processes are in the same groups.
    core: Option<Arc<core::Core>>,
    events: mpsc::Sender<BrokerEvent>,
    /// How much history groups keep, for what is published on behalf of others.
    rules: Vec<GroupRule>,
    epochs: AtomicU64,
    /// What this run is known by: no other has the same.
    token: String,
    /// The task of each link.
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
        let core =
            config.core.clone().map(|core| core::Core::new(core, config.prefix.clone(), node.clone(), servers.len()));
        let core = core.map(Arc::new);
        let shared = Arc::new(link::Shared::new(&config, names.clone(), node, events.clone(), core.clone()));
        let (mut links, mut tasks) = (Vec::new(), JoinSet::new());
        for (at, server) in servers.into_iter().enumerate() {
            let link = Link::new(at, server, config.timeout);
            tasks.spawn(link.clone().keep(shared.clone()));
            links.push(link);
        }
        shared.expect(links.len());
        let RedisConfig { message_bytes: max_bytes, groups: rules, run, .. } = config;
        let (token, epochs) = (format!("{node}-{run}"), AtomicU64::new(0));
        let tasks = tokio::sync::Mutex::new(tasks);
        Ok((Arc::new(Self { links, names, max_bytes, core, events, rules, epochs, token, tasks }), inbox))
    }

    /// Takes in what Django's processes send, from here on. Nothing without a dialect.
    pub async fn take_in(self: &Arc<Self>, intake: Arc<dyn Intake>) {
        if self.core.is_some() {
            for at in 0..self.links.len() {
                self.tasks.lock().await.spawn(core::run(self.clone(), at, intake.clone(), self.token.clone()));
            }
        }
    }

    /// Publishes a message of another program, once by its id; says whether it was news.
    async fn publish_foreign(&self, group: &GroupName, message: &Message, id: &[u8]) -> Result<bool, BrokerError> {
        let keep = self.rules.iter().find(|rule| rule.pattern.matches(group.as_str())).and_then(|rule| rule.history);
        let number = self.epochs.fetch_add(1, Ordering::Relaxed);
        let fresh_epoch = format!("{}-f{number:x}", self.token).into();
        let publication = Publication { group: group.clone(), message: message.clone(), keep, fresh_epoch };
        let link = self.link_of(group).up()?;
        let seen = self.names.seen(id);
        let extra = scripts::Extra { seen: Some(&seen), group: None };
        Ok(scripts::publish(&link, &self.names, &publication, extra).await?.is_news)
    }

    async fn tell(&self, event: BrokerEvent) {
        // When nobody takes events any more, the layer is at its end.
        let _ = self.events.send(event).await;
    }

    /// The server that has a group.
    fn link_of(&self, group: &GroupName) -> &Link {
        &self.links[shard::index(group.as_str().as_bytes(), self.links.len())]
    }

    fn link_of_channel(&self, channel: &ChannelName) -> &Link {
        &self.links[shard::index(channel.non_local().as_bytes(), self.links.len())]
    }

    /// Groups by the server that has them.
    fn by_link<T>(&self, items: Vec<T>, group: impl Fn(&T) -> &GroupName) -> Vec<Vec<(usize, T)>> {
        let mut parts: Vec<Vec<(usize, T)>> = self.links.iter().map(|_| Vec::new()).collect();
        for (at, item) in items.into_iter().enumerate() {
            let link = shard::index(group(&item).as_str().as_bytes(), self.links.len());
            parts[link].push((at, item));
        }
        parts
    }
}

impl Broker for RedisBroker {
    fn publish(&self, publication: Publication) -> BrokerCall<'_, Published> {
        Box::pin(async move {
            let link = self.link_of(&publication.group).up()?;
            if let Some(core) = &self.core {
                core.check(&publication.message)?;
            }
            let group = self.core.as_ref().map(|core| (core.group_key(&publication.group), core.config.group_expiry));
            let extra = scripts::Extra { seen: None, group: group.as_ref().map(|(key, expiry)| (&**key, *expiry)) };
            let done = scripts::publish(&link, &self.names, &publication, extra).await?;
            if let Some(core) = self.core.as_ref().filter(|_| !done.members.is_empty()) {
                core.forward(&self.links, &done.members, &publication.message).await?;
            }
            Ok(Published { position: done.position })
        })
    }

    fn follow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            for (link, part) in self.links.iter().zip(self.by_link(groups, |group| group)) {
                if !part.is_empty() {
                    let topics: Vec<String> = part.iter().map(|(_, group)| self.names.topic(group)).collect();
                    let up = link.up()?;
                    up.subscribe(&topics).await?;
                    if let Some(core) = &self.core {
                        core.join(&up, &part.into_iter().map(|(_, group)| group).collect::<Vec<_>>()).await?;
                    }
                }
            }
            Ok(())
        })
    }

    fn unfollow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            for (link, part) in self.links.iter().zip(self.by_link(groups, |group| group)) {
                if !part.is_empty() {
                    let topics: Vec<String> = part.iter().map(|(_, group)| self.names.topic(group)).collect();
                    let up = link.up()?;
                    up.unsubscribe(&topics).await?;
                    if let Some(core) = &self.core {
                        core.leave(&up, &part.into_iter().map(|(_, group)| group).collect::<Vec<_>>()).await?;
                    }
                }
            }
            Ok(())
        })
    }

    fn heads(&self, asks: Vec<WhereIs>) -> BrokerCall<'_, Vec<Position>> {
        Box::pin(async move {
            let mut heads: Vec<(usize, Position)> = Vec::with_capacity(asks.len());
            for (link, part) in self.links.iter().zip(self.by_link(asks, |ask| &ask.group)) {
                if !part.is_empty() {
                    heads.extend(scripts::heads(&link.up()?, &self.names, part).await?);
                }
            }
            heads.sort_by_key(|(at, _)| *at);
            Ok(heads.into_iter().map(|(_, head)| head).collect())
        })
    }

    fn history(&self, ask: Ask) -> BrokerCall<'_, Kept> {
        Box::pin(async move {
            let link = self.link_of(&ask.group).up()?;
            scripts::history(&link, &self.names, &ask, self.max_bytes).await
        })
    }

    fn send(&self, node: NodeId, channel: ChannelName, message: Message) -> BrokerCall<'_, bool> {
        Box::pin(async move {
            let link = self.link_of_channel(&channel).up()?;
            let payload = names::with_text(channel.as_str(), message.raw());
            let reached = link.publish(&self.names.node(&node), &payload).await? > 0;
            match &self.core {
                Some(core) if !reached && !core::Core::is_ours(&channel) => {
                    core.send(&self.links, &channel, &message).await.map(|()| true)
                }
                _ => Ok(reached),
            }
        })
    }

    fn push(&self, channel: ChannelName, message: Message, bound: ChannelBound) -> BrokerCall<'_, bool> {
        Box::pin(async move {
            if let Some(core) = &self.core {
                return core.send(&self.links, &channel, &message).await.map(|()| true);
            }
            let link = self.link_of_channel(&channel).up()?;
            scripts::push(&link, &self.names, &channel, &message, bound).await
        })
    }

    fn take(&self, channel: ChannelName) -> BrokerCall<'_, Option<Message>> {
        Box::pin(async move {
            let link = self.link_of_channel(&channel).up()?;
            scripts::take(&link, &self.names, &channel, self.max_bytes).await
        })
    }

    fn tell(&self, note: Bytes) -> BrokerCall<'_, ()> {
        Box::pin(async move {
            // All nodes listen on the first server.
            self.links[0].up()?.publish(&self.names.notes(), &note).await.map(drop)
        })
    }

    fn has_foreign_channels(&self) -> bool {
        self.core.is_some()
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.core.as_ref().map(core::counters).unwrap_or_default()
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.core.as_deref().map(core::gauges).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        self.links.iter().try_for_each(Link::ready)
    }

    fn level(&self) -> Level {
        self.links.iter().map(Link::level).min().unwrap_or(Level::Broker)
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.tasks.lock().await.shutdown().await;
            for link in &self.links {
                if let (Some(core), Ok(up)) = (&self.core, link.up()) {
                    core::resign(core, &up, &self.token).await;
                }
            }
            self.links.iter().for_each(Link::close);
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

/// The envelope behind the offset, as it is in a stream: ` META MESSAGE`.
fn message_of(tail: &[u8], max: usize) -> Option<Message> {
    let rest = tail.strip_prefix(b" ")?;
    let at = rest.iter().position(|byte| *byte == b' ')?;
    Message::parse_within(Bytes::copy_from_slice(&rest[at + 1..]), max).ok()
}

/// What a server pushes for a group.
fn envelope_of(payload: Vec<u8>, max: usize) -> Option<Envelope> {
    Envelope::decode(&payload.into(), max).ok()
}
