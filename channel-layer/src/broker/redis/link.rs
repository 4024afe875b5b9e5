//! The link to one server: connecting, watching, and connecting again.
//!
//! Two connections: one for commands, and one that is pushed to, so that a burst of messages delays no answer. Both are
//! watched; when either is in doubt both are made anew, and the layer is told before and after.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use groupcast_protocol::NodeId;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult, ServerErrorKind};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::arrivals::{Arrivals, Broken};
use super::backlog::Backlog;
use super::config::{RedisConfig, Server};
use super::core::Core;
use super::facts::Facts;
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
    broken: Arc<Broken>,
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
            let (broken, backlog) = (Arc::new(Broken::default()), Arc::new(Backlog::new(shared.events.clone())));
            match self.connect(&shared, &broken, &backlog).await {
                Ok(up) => {
                    wait = RETRY_FIRST;
                    *self.state.lock() = State::Up(up.clone());
                    shared.tell_up().await;
                    let why = watch(up, &backlog).await;
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

    async fn connect(&self, shared: &Shared, broken: &Arc<Broken>, backlog: &Arc<Backlog>) -> Result<Up, String> {
        let client = self.server.find(self.timeout).await?;
        let plain = self.settings();
        let arrivals = Arrivals::new(shared.names.clone(), shared.max_bytes, backlog.clone(), broken.clone())
            .waking(shared.core.clone(), self.at);
        let pushed = self.settings().set_push_sender(move |push| arrivals.take(push));
        let mut commands = open(&client, &plain).await?;
        let facts = in_time(self.timeout, Facts::read(&mut commands)).await?;
        let pushes = open(&client, &pushed).await?;
        let (run_id, timeout) = (facts.run_id.into(), self.timeout);
        let level = facts.level;
        let mut up = Up { commands, pushes, run_id, timeout, level, tracks: false, broken: broken.clone() };
        let own = [shared.names.node(&shared.node), shared.names.mail(), shared.names.notes()];
        up.subscribe(&own).await.map_err(|error| error.to_string())?;
        if let Some(core) = &shared.core {
            up.tracks = up.track(&core.watched()).await;
        }
        Ok(up)
    }

    /// Calls have deadlines of their own, which bound all that they do.
    fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(COMMANDS)
    }
}

impl Up {
    /// Runs a command.
    pub(super) async fn run<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(command.query_async(&mut connection)).await
    }

    /// Runs a script; loads it first when the server does not have it.
    pub(super) async fn invoke<T: redis::FromRedisValue>(
        &self,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(call.invoke_async(&mut connection)).await
    }

    /// Runs commands at once; each has its own answer.
    pub(super) async fn run_all(&self, commands: &redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(commands.query_async(&mut connection)).await
    }

    /// Publishes to a topic; says to how many nodes.
    pub(super) async fn publish(&self, topic: &str, payload: &[u8]) -> Result<usize, BrokerError> {
        self.run(redis::cmd("PUBLISH").arg(topic).arg(payload)).await
    }

    pub(super) async fn subscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        let mut connection = self.pushes.clone();
        self.in_time(connection.subscribe(topics)).await
    }

    /// Asks to be told when keys change that begin with one of these; says whether that was granted.
    async fn track(&self, prefixes: &[String]) -> bool {
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in prefixes {
            command.arg("PREFIX").arg(prefix);
        }
        let mut connection = self.pushes.clone();
        let granted: Result<redis::Value, BrokerError> = self.in_time(command.query_async(&mut connection)).await;
        if let Err(error) = &granted {
            tracing::warn!(%error, "Redis does not tell what has come, so it is asked all the time; grant CLIENT TRACKING");
        }
        granted.is_ok()
    }

    pub(super) async fn unsubscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        self.broken.expect_ends(topics.len());
        let mut connection = self.pushes.clone();
        self.in_time(connection.unsubscribe(topics)).await
    }

    /// Bounds all that a call does, and says what its answer means for the caller and for the link.
    async fn in_time<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, BrokerError> {
        let Ok(answer) = timeout(self.timeout, call).await else {
            return Err(BrokerError::TimedOut { after: self.timeout });
        };
        answer.map_err(|error| {
            if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
                self.broken.note("the server has become a replica");
            }
            failure(&error)
        })
    }

    /// Waits until the link is in doubt; says why.
    async fn doubt(&self) -> String {
        loop {
            if timeout(PING_EVERY, self.broken.wait()).await.is_ok() {
                return self.broken.why();
            }
            let (mut commands, mut pushes) = (self.commands.clone(), self.pushes.clone());
            let asked = async {
                Facts::check(&mut commands).await?;
                let answer: RedisResult<redis::Value> = redis::cmd("PING").query_async(&mut pushes).await;
                answer.map(drop).map_err(|error| format!("PING was not answered: {error}"))
            };
            if let Err(why) = in_time(self.timeout, asked).await {
                return why;
            }
        }
    }
}

/// Moves on what arrives, until the link is in doubt; says why it is.
async fn watch(up: Up, backlog: &Backlog) -> String {
    tokio::select! {
        why = up.doubt() => why,
        () = backlog.run() => "nobody takes what arrives".to_owned(),
    }
}

async fn in_time<T>(within: Duration, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = timeout(within, ask).await;
    answer.unwrap_or_else(|_elapsed| Err(format!("Redis did not answer within {} ms", within.as_millis())))
}

async fn open(client: &Client, settings: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
    client.get_multiplexed_async_connection_with_config(settings).await.map_err(|error| error.to_string())
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
