//! Starts the gateway, serves until it is told to stop, and drains.
//!
//! Reading order: this file (start and stop), `accept` (connections in), `admission` (how many), `doors` (at which addresses), `descriptors` (room for
//! them), `shard` (the threads that own them), `front` (a connection from its first byte), `first` and `tls` (what it
//! speaks), `guarded`, `watch` and `paced` (what HTTP may not do, and until when), `ready` (what is asked for readiness), `reload`, `jwks`
//! and `revoked` (what changes while it runs). Signals and exit codes are the binary's.

mod accept;
mod admission;
mod descriptors;
mod doors;
mod first;
mod front;
mod guarded;
mod jwks;
pub(crate) mod layer;
mod memory;
mod paced;
mod ready;
mod reload;
mod revoked;
pub(crate) mod shard;
mod store;
pub(crate) mod tls;
mod watch;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use groupcast_channel_layer::ChannelLayer;
use groupcast_channel_layer::broker::foreign::Intake;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::accept::Peer;
#[cfg(test)]
pub(crate) use self::admission::Admission;
pub(crate) use self::admission::Place;
use self::doors::{Addresses, Doors};
#[cfg(feature = "fuzzing")]
pub(crate) use self::first::read_head;
pub(crate) use self::guarded::Guarded;
pub use self::layer::LayerStartError;
use self::layer::{Foreign, Layer, Run};
pub use self::reload::Loader;
use self::shard::{Served, ShardThread};
use self::tls::{Tls, TlsError};
pub(crate) use self::watch::Busy;
use crate::app::{App, Parts};
use crate::auth::{Auth, AuthError};
use crate::clock;
use crate::config::{Config, Problems, Role};
use crate::consumer::{Claims, Consumer, Consumers, Problem, Queries, QueryCache, Setup, Sources};
use crate::dispatch::Dispatch;
use crate::hooks::Hooks;
use crate::http::Api;
use crate::idempotency::Idempotency;
use crate::lag::LoopLag;
use crate::limits::Limits;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::notes::{self, Peers};
use crate::schedule::Schedules;
use crate::telemetry::Telemetry;
use crate::websocket;

/// How often what has expired is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The part of a drain's time that running jobs may use.
const JOBS_SHARE: f32 = 0.6;
/// At most this long do the closings of a drain spread.
const SPREAD_MAX: Duration = Duration::from_secs(5);

/// A gateway that has not been started.
///
/// ```no_run
/// # async fn example() -> Result<(), groupcast::server::StartError> {
/// let running = groupcast::Groupcast::new(groupcast::config::Config::default()).start().await?;
/// println!("http://{}", running.address());
/// running.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct Groupcast {
    config: Config,
    consumers: HashMap<String, Arc<dyn Consumer>>,
    routes: Router,
    echo_at: Option<String>,
    loader: Option<Loader>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has problems.
    #[error("the configuration cannot be used:\n{0}")]
    Config(#[from] Problems),
    /// `[auth]` cannot be used.
    #[error("the configuration cannot be used:\n  {0}")]
    Auth(#[from] AuthError),
    /// The channel layer cannot be made.
    #[error("the configuration cannot be used:\n  {0}")]
    Layer(#[from] LayerStartError),
    /// The store of jobs cannot be opened.
    #[error("the store of jobs cannot be used")]
    Jobs(#[source] crate::jobs::OpenError),
    /// Sources, queries or consumers cannot be used.
    #[error("the configuration cannot be used:\n{}", list(.0))]
    Consumers(Vec<Problem>),
    /// The address cannot be listened on.
    #[error("`{address}` cannot be listened on; is another gateway running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be served.
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    /// A thread or its runtime could not be made.
    #[error("a thread could not be started")]
    Thread(#[source] io::Error),
}

impl StartError {
    fn consumers(problems: Vec<Problem>) -> Self {
        Self::Consumers(problems)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection was closed and every job finished or released.
    Cleanly,
    /// The time was over; what was left was cut. Jobs run again at the next start.
    Cut,
}

impl Groupcast {
    /// A gateway with this configuration.
    pub fn new(config: Config) -> Self {
        Self { config, consumers: HashMap::new(), routes: Router::new(), echo_at: None, loader: None }
    }

    /// Registers the code of a `[[consumer]]` with `run = "embedded"`.
    #[must_use]
    pub fn consumer(mut self, name: &str, consumer: Arc<dyn Consumer>) -> Self {
        self.consumers.insert(name.to_owned(), consumer);
        self
    }

    /// Adds routes of the embedding program to the HTTP server.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Says how the configuration is read again when [`Running::reload`] asks for it.
    #[must_use]
    pub fn reload_by(mut self, loader: Loader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Opens WebSockets at `path` that send back what they get: for test suites of the WebSocket protocol.
    #[doc(hidden)]
    #[must_use]
    pub fn echo_at(mut self, path: &str) -> Self {
        self.echo_at = Some(path.to_owned());
        self
    }

    /// Opens the stores, starts the threads, listens. Serves when it returns.
    ///
    /// # Errors
    /// Nothing is left running when it fails.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { mut config, consumers, routes, echo_at, loader } = self;
        config.check()?;
        let auth = Auth::with_groups(config.auth.as_ref(), &config.group)?;
        let hooks = Hooks::new(&config, &auth).map_err(|problem| StartError::consumers(vec![problem]))?;
        layer::name_node(&mut config);
        let config = Arc::new(config);
        let tls = config.server.tls.as_ref().map(Tls::load).transpose()?;
        let limits = Limits::new(&config.limits);
        let (doors, addresses) = Doors::open(&config, limits.clone())?;
        descriptors::prepare(doors.connections_max(&config.limits), &doors.clients);
        let jobs = store::open(&config).await?;
        let sources = Arc::new(Sources::open(&config.source, Path::new(".")).map_err(StartError::consumers)?);
        // A source may come back; /readyz says when it has.
        if let Err(problem) = sources.ready().await {
            tracing::warn!(problem, "a source cannot be read");
        }
        let queries = Arc::new(Queries::new(&config.source, &config.query).map_err(StartError::consumers)?);
        let claims = Claims::new(&config.consumer, queries.clone()).map_err(StartError::consumers)?;
        let Layer { layer, inboxes, cluster, follows } = layer::open(&config)?;
        let telemetry = Telemetry::start(&config);
        let telemetry = telemetry.map_err(|why| StartError::consumers(vec![Problem::new("tracing", why)]))?;
        let dispatch = Dispatch::new(layer.clone(), Arc::new(claims), jobs.clone());
        let dispatch = dispatch.traced_by(telemetry.tracer().clone());
        let (cache_bytes, cache_results) = (config.limits.cache_bytes.0, config.limits.cache_results);
        let cache = Arc::new(QueryCache::new(queries.clone(), cache_bytes, cache_results));
        let live = Live::new(&config, queries.clone(), sources.clone(), layer.clone());
        let lag = LoopLag::new(config.jobs.lag_budget.0);
        let setup = Setup {
            consumers: config.consumer.clone(),
            role: config.server.role,
            config: config.jobs.clone(),
            jobs: jobs.clone(),
            queries,
            sources: sources.clone(),
            cache: cache.clone(),
            outlet: Arc::new(dispatch.clone()),
            lag: lag.clone(),
            tracer: telemetry.tracer().clone(),
            embedded: consumers,
        };
        let consumers = Consumers::start(setup).map_err(StartError::consumers)?;
        let metrics = Metrics::new(layer.clone(), jobs.clone(), live.clone());
        let metrics = metrics.with_calls(consumers.calls()).with_limits(limits.clone()).with_hooks(&hooks);
        let metrics = metrics.with_telemetry(&telemetry);
        let metrics = Arc::new(metrics.with_pools(Arc::clone(consumers.cpu()), Arc::clone(&sources), &lag));
        let peers = Peers::new(&config.server.node, &dispatch.claims_digest());
        let health = ready::health(&layer, &jobs, &sources, &peers, auth.issuer());
        let health = health.with_check("groups", Arc::new(move || Box::pin(std::future::ready(follows.ready()))));
        let idempotency = Idempotency::default();
        // One that only runs jobs has no sockets to send to.
        let schedules = if config.server.role == Role::Consumer { &[][..] } else { &config.schedule };
        let schedules = Schedules::new(schedules, dispatch.clone(), jobs.clone(), clock::now_ms());
        let schedules =
            schedules.map_err(|error| StartError::consumers(vec![Problem::new("schedule", error.to_string())]))?;
        let app = App::new(Parts {
            config,
            auth,
            limits,
            hooks,
            layer,
            jobs,
            dispatch,
            cache,
            live,
            idempotency,
            metrics,
            health,
        });
        let api = match app.config.server.role {
            Role::All | Role::Gateway => Api::new(app.clone(), routes.merge(sockets(&app, echo_at))),
            Role::Consumer => Api::of_consumer(app.clone()),
        };
        let operators = Api::of_operators(app.clone());
        let served = Served { api, operators, tls: tls.clone(), lag: lag.clone(), inline: consumers.inline() };
        let stop = Stop::default();
        let mut shards = Vec::new();
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let doors = doors.try_clone().map_err(StartError::Thread)?;
            shards.push(ShardThread::start(number, inbox, doors, served.clone(), app.clone(), stop.clone())?);
        }
        let tasks = TaskTracker::new();
        if let Some(cluster) = cluster {
            let takes = app.config.server.role != Role::Consumer;
            let intake = takes.then(|| Arc::new(app.dispatch.clone()) as Arc<dyn Intake>);
            let needed = if takes { app.dispatch.claimed_groups() } else { Vec::new() };
            let Run { task, notes } = cluster.run(app.layer.clone(), Foreign { intake, needed }, stop.now.clone());
            tasks.spawn(task);
            tasks.spawn(notes::heed(notes, app.layer.clone(), peers.clone(), app.cache.clone(), app.live.clone()));
            tasks.spawn(peers.tell(app.layer.clone(), stop.accepting.clone()));
        }
        if let (Some(issuer), Some(config)) = (app.auth.issuer(), app.config.auth.clone()) {
            tasks.spawn(jwks::follow(config, app.auth.clone(), issuer, stop.accepting.clone()));
        }
        if let Some(path) = app.config.auth.as_ref().and_then(|auth| auth.revoked_file.clone()) {
            tasks.spawn(revoked::follow(path, app.auth.clone(), stop.accepting.clone()));
        }
        tasks.spawn(app.hooks.clone().run(stop.now.clone()));
        tasks.spawn(sweep(app.clone(), stop.accepting.clone()));
        tasks.spawn(memory::watch(app.clone(), shards.len(), stop.now.clone()));
        let (live, stop_live) = (app.live.clone(), stop.accepting.clone());
        tasks.spawn(async move { live.run(stop_live).await });
        let reload = Reload::default();
        if let Some(loader) = loader {
            tasks.spawn(reload::follow(app.clone(), loader, reload.config.clone(), stop.accepting.clone()));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        if let Some(tls) = tls {
            tasks.spawn(tls.follow(reload.certificate.clone(), stop.accepting.clone()));
        }
        tasks.spawn(announce(app.layer.clone(), stop.accepting.clone()));
        tasks.spawn(measure(lag, stop.now.clone()));
        tasks.spawn(schedules.run(stop.accepting.clone()));
        let Addresses { clients: address, operators } = addresses;
        tracing::info!(%address, ?operators, shards = shards.len(), "listening");
        Ok(Running { addresses, scheme, reload, app, consumers, shards, tasks, stop, telemetry })
    }
}

/// A gateway that serves.
pub struct Running {
    addresses: Addresses,
    scheme: &'static str,
    reload: Reload,
    app: App,
    consumers: Consumers,
    shards: Vec<ShardThread>,
    tasks: TaskTracker,
    stop: Stop,
    telemetry: Telemetry,
}

/// Who is notified when something is to be read again.
#[derive(Debug, Clone, Default)]
struct Reload {
    config: Arc<Notify>,
    certificate: Arc<Notify>,
}

/// Which parts have been told to end, in the order in which they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// No more connections are accepted.
    accepting: CancellationToken,
    /// Clients are told, their commands refused.
    taking: CancellationToken,
    /// Connections are closed.
    serving: CancellationToken,
    /// Time is over: what is left is dropped.
    now: CancellationToken,
}

impl Running {
    /// Where it listens; the port that was found, when the configuration says 0.
    pub fn address(&self) -> SocketAddr {
        self.addresses.clients
    }

    /// Where operators are served, if apart from clients, as a URL.
    pub fn operators_url(&self) -> Option<String> {
        self.addresses.operators.map(|address| format!("{}://{address}", self.scheme))
    }

    /// The same as a URL: `http://127.0.0.1:8000`, or with `https`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// Has the configuration read again, if it was said how ([`Groupcast::reload_by`]), and the certificate, as it happens
    /// by itself soon after its files change. The log tells what came of it.
    pub fn reload(&self) {
        self.reload.config.notify_one();
        self.reload.certificate.notify_one();
    }

    /// The layer, for an embedding program that sends and receives itself.
    pub fn layer(&self) -> &ChannelLayer {
        &self.app.layer
    }

    /// The parts of the gateway.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Drains: `/readyz` turns to 503, no connection is accepted, clients are told; jobs are finished or released, and
    /// their last events still reach the sockets; then these are closed with 1012. Takes at most
    /// `[limits] drain_timeout`.
    pub async fn stop(self) -> Drained {
        let budget = self.app.config.limits.drain_timeout.0;
        self.app.health.drain();
        self.stop.accepting.cancel();
        tracing::info!("draining");
        self.stop.taking.cancel();
        let orderly = async {
            self.consumers.drain(budget.mul_f32(JOBS_SHARE)).await;
            self.stop.serving.cancel();
            shards_ended(&self.shards).await;
        };
        let outcome = match timeout(budget, orderly).await {
            Ok(()) => Drained::Cleanly,
            Err(_elapsed) => Drained::Cut,
        };
        self.stop.now.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for shard in self.shards {
            shard.join();
        }
        self.app.jobs.close().await;
        // Last: what was done until here is told.
        self.telemetry.end().await;
        tracing::info!(?outcome, "drained");
        outcome
    }
}

fn sockets(app: &App, echo_at: Option<String>) -> Router {
    let mut sockets = Router::new().route(websocket::PATH, any(websocket::upgrade));
    if let Some(path) = echo_at {
        sockets = sockets.route(&path, any(websocket::upgrade_to_echo));
    }
    sockets.with_state(app.clone())
}

async fn shards_ended(shards: &[ShardThread]) {
    for shard in shards {
        shard.ended().await;
    }
}

/// How far apart the closings of a drain lie: a few connections close at once, thousands over seconds.
fn spread(connections: usize) -> Duration {
    Duration::from_millis(2 * connections as u64).min(SPREAD_MAX)
}

async fn sweep(app: App, stop: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        app.layer.sweep();
        app.limits.sweep();
    }
}

/// Measures how late the runtime of the jobs is.
async fn measure(lag: LoopLag, stop: CancellationToken) {
    stop.run_until_cancelled(lag.measure("main".to_owned())).await;
}

/// Tells who comes and goes.
async fn announce(layer: ChannelLayer, stop: CancellationToken) {
    stop.run_until_cancelled(layer.announce()).await;
}
