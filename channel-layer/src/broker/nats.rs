//! NATS between nodes, 2.11 and later, with JetStream: numbers and history in streams, delivery by plain subjects.
//!
//! A message of a group is stored in a stream, behind the newest record of its group and only there
//! (`Nats-Expected-Last-Subject-Sequence`); what was stored is sent on by the server itself (`republish`) to the subject that
//! the group's followers listen to. So numbering, keeping and handing over are one step, and no two nodes give one number.
//! A stream for each group would have numbers of its own, but costs the server a hundred times what a subject does.
//! Reading order: `config`, `names`, `link` (connecting and watching), `session` (what is listened to), `record` and `place`
//! (how a group moves on), `traces` (what goes with a record), `publisher`, `reading`, `channels`; `api` and `streams` are JetStream's. `django` is the dialect of
//! other programs.
//!
//! ```text
//! PREFIX_plain     stream of PREFIX.plain.GROUP     groups without history: the newest records of each, in memory
//! PREFIX_kept      stream of PREFIX.kept.GROUP      groups with history, on the disk
//! PREFIX_channel   stream of PREFIX.channel.NAME    channels that any node may read
//! PREFIX.group.GROUP    where records are sent on
//! PREFIX.mail.NAME      that a channel has a message
//! PREFIX.node.NODE      requests to one node: `CHANNEL MESSAGE`
//! PREFIX.notes          what is told to all nodes
//! ```
//!
//! Periods in names are written `/`, so that a name is one part of a subject.
//!
//! **Epochs.** A single server that was started anew, and does not wait for its disk, may lack what it acknowledged last:
//! its groups begin new epochs, and nothing of the old ones is given out. In a cluster, and where the monitoring says
//! that the server waits for the disk (`sync_interval: always`), they go on.

mod api;
mod channels;
mod config;
mod django;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
mod monitoring;
mod names;
mod place;
mod publisher;
mod reading;
mod record;
mod session;
mod streams;
mod time;
mod traces;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message, NodeId, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dropped::Dropped;
use super::foreign::{self, Intake};
use super::{
    Ask, Broker, BrokerCall, BrokerError, BrokerInbox, ChannelBound, INBOX, Kept, Level, Publication, Published,
    WhereIs,
};
use api::ApiError;
pub use config::{NatsConfig, SettingsError};
use django::Django;
pub use django::DjangoConfig;
use link::{Keeper, Link, Signals};
use names::Names;
use publisher::Work;
use session::Session;

/// NATS as the broker of one node.
pub struct NatsBroker {
    link: Link,
    names: Names,
    timeout: Duration,
    work: mpsc::Sender<Work>,
    dropped: Arc<Dropped>,
    /// There when Django's processes are in the same groups.
    django: Option<Arc<Django>>,
    /// The link's task, the publisher's and the registrar's.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl NatsBroker {
    /// Connects in the background, and again whenever the link is lost: a server that is not there yet is waited for.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn connect(config: NatsConfig, node: &NodeId) -> Result<(Arc<Self>, BrokerInbox), SettingsError> {
        let (events, inbox) = mpsc::channel(INBOX);
        let (servers, signals) = (config.servers()?, Arc::new(Signals::default()));
        let heard = signals.clone();
        let options = config.options(&servers, node, move |event| heard.take(&event));
        let names = Names::new(&config.prefix, config.django.as_ref().map(|django| &*django.prefix));
        let (link, deadline) = (Link::new(), config.timeout);
        let django = config.django.clone().map(|django| Django::new(django, node.clone(), config.message_bytes));
        let django = django.map(Arc::new);
        let dropped = Arc::<Dropped>::default();
        let keeper = Keeper {
            signals,
            config,
            names: names.clone(),
            node: node.clone(),
            events,
            django: django.clone(),
            dropped: dropped.clone(),
        };
        let (work, todo) = mpsc::channel(publisher::WORK);
        let mut tasks = JoinSet::new();
        tasks.spawn(link.clone().keep(config::nameless(servers), options, keeper));
        tasks.spawn(publisher::run(link.clone(), todo));
        let tasks = tokio::sync::Mutex::new(tasks);
        let broker = Self { link, names, timeout: deadline, work, dropped, django, tasks };
        Ok((Arc::new(broker), inbox))
    }

    /// Takes in what Django's processes send, from here on. Nothing without the dialect.
    pub async fn take_in(&self, intake: Arc<dyn Intake>) {
        if let Some(django) = &self.django {
            self.tasks.lock().await.spawn(django::run(self.link.clone(), django.clone(), intake));
        }
    }

    /// Does something with the session, within the deadline.
    fn call<'a, T, F>(&'a self, act: impl FnOnce(Arc<Session>) -> F + Send + 'a) -> BrokerCall<'a, T>
    where
        T: Send + 'a,
        F: Future<Output = Result<T, BrokerError>> + Send + 'a,
    {
        Box::pin(async move {
            let session = self.link.session()?;
            let done = timeout(self.timeout, session.unless_over(act(session.clone()))).await;
            done.unwrap_or(Err(BrokerError::TimedOut { after: self.timeout }))
        })
    }
}

impl Broker for NatsBroker {
    fn publish(&self, publication: Publication) -> BrokerCall<'_, Published> {
        Box::pin(async move {
            let session = self.link.session()?;
            // Before anybody has got it.
            let frame = self.django.as_ref().map(|django| django.frame(&session, &publication.message)).transpose()?;
            let group = publication.group.clone();
            let (answer, answered) = oneshot::channel();
            let closed = || BrokerError::Unavailable { why: "the link was closed".to_owned() };
            let sent = async {
                self.work.send(Work { publication, answer }).await.map_err(|_| closed())?;
                answered.await.map_err(|_| closed())?
            };
            let sent = timeout(self.timeout, sent).await;
            let published: Published = sent.unwrap_or(Err(BrokerError::TimedOut { after: self.timeout }))?;
            if let Some((django, frame)) = self.django.as_ref().zip(frame) {
                django.forward(&session, &group, frame).await?;
            }
            Ok(published)
        })
    }

    fn follow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        self.call(async move |session| session.follow(groups).await)
    }

    fn unfollow(&self, groups: Vec<GroupName>) -> BrokerCall<'_, ()> {
        self.call(async move |session| {
            session.unfollow(&groups);
            Ok(())
        })
    }

    fn heads(&self, asks: Vec<WhereIs>) -> BrokerCall<'_, Vec<Position>> {
        self.call(async move |session| reading::heads(&session, asks).await)
    }

    fn history(&self, ask: Ask) -> BrokerCall<'_, Kept> {
        self.call(async move |session| reading::history(&session, &ask).await)
    }

    fn send(&self, node: NodeId, channel: ChannelName, message: Message) -> BrokerCall<'_, bool> {
        self.call(async move |session| {
            if let Some(django) = self.django.as_ref().filter(|_| !foreign::is_connection(&channel)) {
                return django.send(&session, &channel, &message).await;
            }
            let payload = session::direct(&channel, &message);
            match session.api.request(self.names.node(&node), async_nats::HeaderMap::new(), payload).await {
                Ok(_) => Ok(true),
                Err(ApiError::NobodyThere) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn push(&self, channel: ChannelName, message: Message, bound: ChannelBound) -> BrokerCall<'_, bool> {
        self.call(async move |session| {
            let Some(django) = &self.django else { return channels::push(&session, &channel, &message, bound).await };
            match django.send(&session, &channel, &message).await? {
                true => Ok(true),
                false => Err(BrokerError::Refused {
                    why: format!("nobody reads channel `{channel}`, and NATS keeps nothing for who comes later"),
                }),
            }
        })
    }

    fn take(&self, channel: ChannelName) -> BrokerCall<'_, Option<Message>> {
        self.call(async move |session| channels::take(&session, &channel).await)
    }

    fn tell(&self, note: Bytes) -> BrokerCall<'_, ()> {
        self.call(async move |session| {
            let sent = session.api.client.publish(self.names.notes(), note).await;
            sent.map_err(|error| BrokerError::Refused { why: error.to_string() })
        })
    }

    fn has_foreign_channels(&self) -> bool {
        self.django.is_some()
    }

    fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.django.as_ref().map(|django| django.counters()).unwrap_or_default()
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.django.as_ref().map(|django| django.gauges()).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        self.link.ready()
    }

    fn level(&self) -> Level {
        self.link.level()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // What was told last may still be in the client's own queue.
            if let Ok(session) = self.link.session() {
                let _ = timeout(self.timeout, session.api.client.flush()).await;
            }
            self.tasks.lock().await.shutdown().await;
            if let (Some(django), Ok(session)) = (&self.django, self.link.session()) {
                django.resign(&session).await;
            }
            self.link.down("the link was closed");
        })
    }
}

impl std::fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsBroker").field("names", &self.names).finish_non_exhaustive()
    }
}
