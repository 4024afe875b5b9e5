//! The link to NATS: one client, which connects again by itself, and the sessions between two losses.
//!
//! Whatever is lost ends the session: what it followed is forgotten, the layer is told, and another one begins as soon as
//! the streams are there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use groupcast_protocol::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::api::Api;
use super::config::NatsConfig;
use super::django::Django;
use super::names::Names;
use super::session::Session;
use super::{monitoring, streams};
use crate::broker::dropped::Dropped;
use crate::broker::{BrokerError, BrokerEvent, Level};

/// How often the streams are looked at: somebody may delete them.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a session that could not begin.
const RETRY: Duration = Duration::from_millis(250);
/// Characters of the server's id that tell its runs apart.
const RUN_LEN: usize = 16;
/// In place of a run, where the broker goes on where it was after whatever restart.
const LASTING: &str = "-";

/// The link. A cheap handle.
#[derive(Clone)]
pub(super) struct Link {
    state: Arc<Mutex<State>>,
}

enum State {
    Up(Arc<Session>),
    Down(String),
}

/// What the client has told of its connection.
#[derive(Default)]
pub(super) struct Signals {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    is_connected: bool,
    /// Goes up with every loss.
    losses: u64,
    why: String,
}

/// The client does not say more when it cannot connect.
fn explained(why: String) -> String {
    match why.contains("IO error") {
        true => format!("{why}: is NATS there, and is its certificate, with TLS, trusted by `ca_file` or the system?"),
        false => why,
    }
}

impl Signals {
    /// Takes what the client tells; never waits.
    pub(super) fn take(&self, event: &Event) {
        let mut seen = self.seen.lock();
        match event {
            Event::Connected => seen.is_connected = true,
            Event::Disconnected | Event::Closed => {
                seen.is_connected = false;
                seen.lose("the connection was lost");
            }
            Event::SlowConsumer(_) => seen.lose("messages came faster than they were taken"),
            Event::ClientError(error) if !seen.is_connected => seen.why = explained(error.to_string()),
            Event::ServerError(error) => {
                tracing::warn!(%error, "NATS reports an error");
                seen.why = error.to_string();
            }
            Event::LameDuckMode | Event::Draining | Event::ClientError(_) => return,
        }
        drop(seen);
        self.changed.notify_one();
    }

    fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Waits for a loss that is not among those; says why. One waits at a time. Cancel safe.
    async fn lost(&self, losses: u64) -> String {
        loop {
            let seen = self.seen();
            if seen.losses != losses {
                return seen.why;
            }
            self.changed.notified().await;
        }
    }
}

impl Seen {
    fn lose(&mut self, why: &str) {
        self.losses += 1;
        why.clone_into(&mut self.why);
    }
}

impl Link {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::Down("connecting".to_owned()))) }
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Result<Arc<Session>, BrokerError> {
        match &*self.state.lock() {
            State::Up(session) => Ok(session.clone()),
            State::Down(why) => Err(BrokerError::Unavailable { why: why.clone() }),
        }
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        match &*self.state.lock() {
            State::Up(_) => Ok(()),
            State::Down(why) => Err(why.clone()),
        }
    }

    pub(super) fn level(&self) -> Level {
        match &*self.state.lock() {
            State::Up(session) => session.level,
            State::Down(_) => Level::Broker,
        }
    }

    /// Ends the session, if there is one.
    pub(super) fn down(&self, why: &str) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Down(why.to_owned()));
        if let State::Up(session) = before {
            session.end();
        }
    }

    /// Keeps the link for ever.
    pub(super) async fn keep(self, servers: Vec<ServerAddr>, options: ConnectOptions, keeper: Keeper) {
        let Keeper { signals, events, .. } = &keeper;
        // Returns before the server is there, and would only fail for addresses that are none.
        let client = match options.connect(servers).await {
            Ok(client) => client,
            Err(error) => return self.down(&error.to_string()),
        };
        for number in 0.. {
            let seen = keeper.connected(&self).await;
            let begun = tokio::select! {
                biased;
                begun = keeper.begin(&client, number) => begun,
                // What was asked over it is never answered.
                _ = signals.lost(seen.losses) => continue,
            };
            match begun {
                Ok(session) => {
                    *self.state.lock() = State::Up(session.clone());
                    tell(events, BrokerEvent::Up).await;
                    let why = keeper.watch(&session, seen.losses).await;
                    self.down(&why);
                    tell(events, BrokerEvent::Down { why }).await;
                }
                Err(why) => {
                    tracing::debug!(why, "NATS cannot be used");
                    if signals.seen().is_connected {
                        self.down(&why);
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// What keeps the link.
pub(super) struct Keeper {
    pub(super) signals: Arc<Signals>,
    pub(super) config: NatsConfig,
    pub(super) names: Names,
    pub(super) node: NodeId,
    pub(super) events: mpsc::Sender<BrokerEvent>,
    pub(super) django: Option<Arc<Django>>,
    pub(super) dropped: Arc<Dropped>,
}

impl Keeper {
    /// Waits for the connection; says meanwhile what the matter is.
    async fn connected(&self, link: &Link) -> Seen {
        loop {
            let seen = self.signals.seen();
            if seen.is_connected {
                return seen;
            }
            if !seen.why.is_empty() {
                link.down(&seen.why);
            }
            self.signals.changed.notified().await;
        }
    }

    async fn begin(&self, client: &Client, number: u64) -> Result<Arc<Session>, String> {
        let server = client.server_info();
        if !server.headers || !client.is_server_compatible(2, 11, 0) {
            return Err(format!("the server has version {}; NATS 2.11 or later is needed", server.version));
        }
        let api = Api { client: client.clone(), timeout: self.config.timeout };
        let clock = streams::set_up(&api, &self.names, &self.config).await;
        let clock = clock.map_err(|error| BrokerError::from(error).to_string())?;
        let waits_for_disk = match &self.config.monitoring {
            None => false,
            Some(address) => timeout(self.config.timeout, monitoring::syncs_always(address, &server.server_id))
                .await
                .unwrap_or_else(|_elapsed| Err("it does not answer".to_owned()))
                .unwrap_or_else(|why| {
                    tracing::warn!(
                        address,
                        why,
                        "the server's monitoring cannot be read; nothing is proved of its disk"
                    );
                    false
                }),
        };
        // In a cluster with copies the others go on where the lost one was; and there a node does not know which server
        // has a stream. A single server that does not wait for its disk may have lost what it acknowledged last.
        let lasts = waits_for_disk || server.cluster.is_some();
        let run = if lasts { LASTING } else { server.server_id.get(..RUN_LEN).unwrap_or(&server.server_id) };
        let level = if waits_for_disk && self.config.all_on_disk { Level::Fsync } else { Level::Broker };
        let session = Session::new(
            number,
            api,
            self.names.clone(),
            (run.into(), level, clock),
            &self.config,
            self.dropped.clone(),
        );
        let session = Arc::new(session);
        session.listen(&self.node, &self.events, self.django.clone()).await.map_err(|error| error.to_string())?;
        Ok(session)
    }

    /// Waits until the session is of no use any more; says why.
    async fn watch(&self, session: &Session, losses: u64) -> String {
        loop {
            if let Ok(why) = timeout(LOOK_EVERY, self.signals.lost(losses)).await {
                return why;
            }
            let looked = tokio::select! {
                biased;
                why = self.signals.lost(losses) => return why,
                looked = streams::look(&session.api, &self.names) => looked,
            };
            match looked {
                Ok(clock) => session.set_clock(clock),
                Err(error) => return BrokerError::from(error).to_string(),
            }
        }
    }
}

async fn tell(events: &mpsc::Sender<BrokerEvent>, event: BrokerEvent) {
    // When nobody takes events any more, the layer is at its end.
    let _ = events.send(event).await;
}
