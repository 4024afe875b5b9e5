//! The link to one server: connecting, watching, and connecting again.
//!
//! Two connections: one for commands, and one that is pushed to, so that a burst of messages delays no answer. Both are
//! watched by pings; when either is in doubt both are made anew, and the layer is told before and after.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use groupcast_protocol::NodeId;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::arrivals::{Arrivals, Broken};
use super::config::{RedisConfig, Server};
use super::core::Core;
use super::failure;
use super::names::Names;
use crate::broker::{BrokerError, BrokerEvent, Level};

/// How often both connections are asked whether they live.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Between attempts to connect: from the first to the longest, each half of it by chance.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Commands on their way to the server; beyond it callers wait, within their deadline.
const COMMANDS: usize = 1024;

/// The link to one server. A cheap handle.
#[derive(Clone)]
pub(super) struct Link {
    /// Which of the servers.
    at: usize,
    server: Server,
    timeout: Duration,
    state: Arc<Mutex<State>>,
}

enum State {
    Up(Up),
    Down(String),
}

/// A link that is there.
#[derive(Clone)]
pub(super) struct Up {
    commands: MultiplexedConnection,
    pushes: MultiplexedConnection,
    pub(super) run_id: Arc<str>,
    pub(super) timeout: Duration,
    level: Level,
    /// Whether the server tells when something has come for the dialect.
    pub(super) tracks: bool,
}

/// What the links of one broker share.
pub(super) struct Shared {
    names: Names,
    node: NodeId,
    max_bytes: usize,
    events: mpsc::Sender<BrokerEvent>,
    links: AtomicUsize,
    up: AtomicUsize,
    core: Option<Arc<Core>>,
}

impl Shared {
    pub(super) fn new(
        config: &RedisConfig,
        names: Names,
        node: &NodeId,
        events: mpsc::Sender<BrokerEvent>,
        core: Option<Arc<Core>>,
    ) -> Self {
        let (links, up) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        Self { names, node: node.clone(), max_bytes: config.message_bytes, events, links, up, core }
    }

    /// How many links have to be there before the broker is.
    pub(super) fn expect(&self, links: usize) {
        self.links.store(links, Ordering::Release);
    }

    async fn tell_up(&self) {
        // With some of several servers, calls to the others fail: what is followed there waits.
        if self.up.fetch_add(1, Ordering::AcqRel) + 1 >= self.links.load(Ordering::Acquire) {
            self.tell(BrokerEvent::Up).await;
        }
    }

    async fn tell_down(&self, why: String) {
        self.up.fetch_sub(1, Ordering::AcqRel);
        self.tell(BrokerEvent::Down { why }).await;
    }

    async fn tell(&self, event: BrokerEvent) {
        // When nobody takes events any more, the layer is at its end.
        let _ = self.events.send(event).await;
    }
}

impl Link {
    pub(super) fn new(at: usize, server: Server, timeout: Duration) -> Self {
        let state = State::Down("connecting".to_owned());
        Self { at, server, timeout, state: Arc::new(Mutex::new(state)) }
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
        let mut wait = RETRY_FIRST;
        loop {
            let broken = Arc::new(Broken::default());
            match self.connect(&shared, &broken).await {
                Ok(up) => {
                    wait = RETRY_FIRST;
                    *self.state.lock() = State::Up(up.clone());
                    shared.tell_up().await;
                    let why = watch(up, &broken).await;
                    broken.end();
                    *self.state.lock() = State::Down(why.clone());
                    shared.tell_down(why).await;
                }
                Err(why) => {
                    tracing::debug!(why, "Redis cannot be reached");
                    *self.state.lock() = State::Down(why);
                }
            }
            sleep(jittered(wait)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn connect(&self, shared: &Shared, broken: &Arc<Broken>) -> Result<Up, String> {
        let client = self.server.find(self.timeout).await?;
        let plain = self.settings();
        let arrivals = Arrivals::new(shared.names.clone(), shared.max_bytes, shared.events.clone(), broken.clone())
            .waking(shared.core.clone(), self.at);
        let pushed = self.settings().set_push_sender(move |push| arrivals.take(push));
        let mut commands = open(&client, &plain).await?;
        let facts = Facts::read(&mut commands).await?;
        if self.server.is_watched() && facts.role != "master" {
            return Err(format!("the server that the sentinels name is a {}", facts.role));
        }
        let pushes = open(&client, &pushed).await?;
        let (run_id, timeout) = (facts.run_id.into(), self.timeout);
        let mut up = Up { commands, pushes, run_id, timeout, level: facts.level, tracks: false };
        let own = [shared.names.node(&shared.node), shared.names.mail(), shared.names.notes()];
        up.subscribe(&own).await.map_err(|error| error.to_string())?;
        if let Some(core) = &shared.core {
            up.tracks = up.track(&core.watched()).await;
        }
        Ok(up)
    }

    fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(COMMANDS)
    }
}

impl Up {
    /// Runs a command.
    pub(super) async fn run<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        command.query_async(&mut connection).await.map_err(|error| failure(&error, self.timeout))
    }

    /// Runs a script; loads it first when the server does not have it.
    pub(super) async fn invoke<T: redis::FromRedisValue>(
        &self,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        call.invoke_async(&mut connection).await.map_err(|error| failure(&error, self.timeout))
    }

    /// Runs commands at once; each has its own answer.
    pub(super) async fn run_all(&self, commands: &redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let mut connection = self.commands.clone();
        commands.query_async(&mut connection).await.map_err(|error| failure(&error, self.timeout))
    }

    /// Publishes to a topic; says to how many nodes.
    pub(super) async fn publish(&self, topic: &str, payload: &[u8]) -> Result<usize, BrokerError> {
        self.run(redis::cmd("PUBLISH").arg(topic).arg(payload)).await
    }

    pub(super) async fn subscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        let mut connection = self.pushes.clone();
        connection.subscribe(topics).await.map_err(|error| failure(&error, self.timeout))
    }

    /// Asks to be told when keys change that begin with one of these; says whether that was granted.
    async fn track(&self, prefixes: &[String]) -> bool {
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in prefixes {
            command.arg("PREFIX").arg(prefix);
        }
        let granted: redis::RedisResult<redis::Value> = command.query_async(&mut self.pushes.clone()).await;
        if let Err(error) = &granted {
            tracing::warn!(%error, "Redis does not tell what has come, so it is asked all the time; grant CLIENT TRACKING");
        }
        granted.is_ok()
    }

    pub(super) async fn unsubscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        let mut connection = self.pushes.clone();
        connection.unsubscribe(topics).await.map_err(|error| failure(&error, self.timeout))
    }
}

/// Waits until the link is in doubt; says why.
async fn watch(up: Up, broken: &Broken) -> String {
    loop {
        if timeout(PING_EVERY, broken.wait()).await.is_ok() {
            return broken.why();
        }
        for connection in [&up.commands, &up.pushes] {
            let mut connection = connection.clone();
            let answer: redis::RedisResult<redis::Value> = redis::cmd("PING").query_async(&mut connection).await;
            if let Err(error) = answer {
                return format!("Redis does not answer: {error}");
            }
        }
    }
}

async fn open(client: &Client, settings: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
    client.get_multiplexed_async_connection_with_config(settings).await.map_err(|error| error.to_string())
}

/// What a server says of itself.
struct Facts {
    run_id: String,
    role: String,
    level: Level,
}

impl Facts {
    async fn read(connection: &mut MultiplexedConnection) -> Result<Self, String> {
        let info: String =
            redis::cmd("INFO").query_async(connection).await.map_err(|error| format!("INFO was refused: {error}"))?;
        let fact = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let run_id = fact("run_id").ok_or("INFO names no run_id: is this Redis?")?;
        let role = fact("role").unwrap_or_default();
        // A user may lack the right to read it: then nothing is proved, and that is what is said.
        let settings: redis::RedisResult<HashMap<String, String>> =
            redis::cmd("CONFIG").arg("GET").arg("append*").query_async(connection).await;
        let settings = settings.unwrap_or_default();
        let is = |name: &str, value: &str| settings.get(name).is_some_and(|set| set == value);
        let synced = is("appendonly", "yes") && is("appendfsync", "always");
        Ok(Self { run_id, role, level: if synced { Level::Fsync } else { Level::Broker } })
    }
}

fn jittered(wait: Duration) -> Duration {
    // Spread enough to keep nodes apart; nothing depends on it being unpredictable.
    let chance = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    wait / 2 + (wait / 2).mul_f64(f64::from(chance % 1000) / 1000.0)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ready", &self.ready()).finish()
    }
}
