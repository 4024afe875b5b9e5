//! The link to one server: connecting, watching, and connecting again.
//!
//! Two connections: one for commands, and one that is pushed to, so that a burst of messages delays no answer. Both are
//! watched; when either is in doubt both are made anew, and the layer is told before and after.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use tokio::time::timeout;

use super::arrivals::{Arrivals, Broken};
use super::backlog::Backlog;
use super::config::Server;
use super::facts::Facts;
use super::names::Names;
use super::publisher::{self, Parcels};
use super::retry::Retry;
use super::shared::Shared;
use super::up::{Spread, Up};
use crate::broker::{BrokerError, Level};

/// How often both connections are asked whether they live.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Commands on their way to the server; beyond it callers wait, within their deadline.
const COMMANDS: usize = 1024;

/// The link to one server. A cheap handle.
#[derive(Clone)]
pub(super) struct Link {
    /// Its number among the servers.
    at: usize,
    server: Server,
    own: Arc<Own>,
    state: Arc<Mutex<State>>,
}

/// What a node listens to, whatever it follows.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Topics that are spread as groups are.
    pub(super) spread: Vec<String>,
    /// Topics that are the same on all servers of a cluster.
    pub(super) common: Vec<String>,
}

enum State {
    Up(Up),
    Down(String),
}

/// A link that has come to be, and has to be watched.
pub(super) struct Live {
    up: Up,
    backlog: Arc<Backlog>,
    parcels: Parcels,
    names: Names,
    state: Arc<Mutex<State>>,
}

impl Link {
    pub(super) fn new(at: usize, server: Server, own: Own) -> Self {
        let state = State::Down("connecting".to_owned());
        Self { at, server, own: Arc::new(own), state: Arc::new(Mutex::new(state)) }
    }

    /// The link, if it is there.
    pub(super) fn up(&self) -> Result<Up, BrokerError> {
        match &*self.state.lock() {
            State::Up(up) => Ok(up.clone()),
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
            State::Up(up) => up.level,
            State::Down(_) => Level::Broker,
        }
    }

    /// Ends the link: what is asked from here on fails.
    pub(super) fn close(&self) {
        *self.state.lock() = State::Down("the link was closed".to_owned());
    }

    /// Keeps the link for ever.
    pub(super) async fn keep(self, shared: Arc<Shared>) {
        let mut retry = Retry::default();
        loop {
            match self.connect(&shared, Spread::Everywhere).await {
                Ok(live) => {
                    retry = Retry::default();
                    shared.link_up().await;
                    let why = live.watch().await;
                    shared.link_down(why).await;
                }
                Err(why) => {
                    tracing::debug!(why, "Redis cannot be reached");
                    *self.state.lock() = State::Down(why);
                }
            }
            retry.wait().await;
        }
    }

    /// Connects, and listens to what is the node's own.
    pub(super) async fn connect(&self, shared: &Shared, spread: Spread) -> Result<Live, String> {
        let (backlog, broken) = (Arc::new(Backlog::new(shared.events.clone())), Arc::new(Broken::default()));
        let within = shared.timeout;
        let client = self.server.find(within).await?;
        if let Some(foreign) = &shared.foreign {
            foreign.begin(self.at);
        }
        let arrivals = Arrivals::new(shared, self.at, backlog.clone(), broken.clone());
        let plain = settings(within);
        let pushed = settings(within).set_push_sender(move |push| arrivals.take(push));
        let mut commands = open(&client, &plain).await?;
        let facts = in_time(within, Facts::read(&mut commands)).await?;
        let pushes = open(&client, &pushed).await?;
        let (run_id, level) = (facts.run_id.into(), facts.level);
        let (publisher, parcels) = publisher::queue();
        let mut up = Up { commands, pushes, run_id, level, broken, spread, tracks: false, timeout: within, publisher };
        let told = |error: BrokerError| error.to_string();
        up.subscribe(&self.own.spread).await.map_err(told)?;
        up.subscribe_common(&self.own.common).await.map_err(told)?;
        if let Some(foreign) = &shared.foreign {
            foreign.listen(&mut up, self.at).await.map_err(told)?;
        }
        *self.state.lock() = State::Up(up.clone());
        Ok(Live { up, backlog, parcels, names: shared.names.clone(), state: self.state.clone() })
    }
}

impl Live {
    /// Waits until the link is in doubt, which is its end; says why.
    pub(super) async fn watch(mut self) -> String {
        let why = tokio::select! {
            why = self.up.doubt() => why,
            () = self.backlog.run() => "nobody takes what arrives".to_owned(),
            () = self.parcels.carry(&self.up, &self.names) => "nobody can publish any more".to_owned(),
        };
        self.end(&why);
        why
    }

    /// Ends the link: its calls fail, and nothing more is taken from it.
    pub(super) fn end(&self, why: &str) {
        self.up.broken.end();
        *self.state.lock() = State::Down(why.to_owned());
    }
}

impl Up {
    async fn doubt(&self) -> String {
        loop {
            if timeout(PING_EVERY, self.broken.wait()).await.is_ok() {
                return self.broken.why();
            }
            let (mut commands, mut pushes) = (self.commands.clone(), self.pushes.clone());
            let asked = async {
                Facts::check(&mut commands).await?;
                let answer: redis::RedisResult<redis::Value> = redis::cmd("PING").query_async(&mut pushes).await;
                answer.map(drop).map_err(|error| format!("PING was not answered: {error}"))
            };
            if let Err(why) = in_time(self.timeout, asked).await {
                return why;
            }
        }
    }
}

/// Calls have deadlines of their own, which bound all that they do.
fn settings(within: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(within))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(COMMANDS)
}

async fn open(client: &Client, settings: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
    client.get_multiplexed_async_connection_with_config(settings).await.map_err(|error| error.to_string())
}

async fn in_time<T>(within: Duration, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = timeout(within, ask).await;
    answer.unwrap_or_else(|_elapsed| Err(format!("Redis did not answer within {} ms", within.as_millis())))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ready", &self.ready()).finish()
    }
}
