//! The team's own service is asked about clients: whether they may connect and who they are, whether they may subscribe, what
//! becomes of their messages. This is how a session of Django's authenticates a socket.
//!
//! Reading order: this file (who is asked about what), `verdict` (what the answers mean), `shown` (what is shown of a
//! request), `service` (one call: `line`, `circuit`, the answer), `notices` (what is told and not waited for), `counters`.
//!
//! # Contract
//!
//! - **Asked about are clients**: whoever shows no API key, over WebSocket and event streams; over HTTP only users and
//!   anonymous callers. What a client may not do by its rights is refused without asking.
//! - **Closed, not open**: without an answer that makes sense nothing happens. At connect that is 503 (`unavailable`), for a
//!   command an error with the same code.
//! - **Only the client that is asked about waits**, in its own task and at most `timeout`; calls are made on the main runtime, so
//!   a shard's thread does nothing of it. At most `max_concurrent` calls are under way and `max_waiting` wait; more are
//!   refused.
//! - **Nothing of a request leaves but what is listed.** What the service may give is bounded by `grants`.

mod actions;
mod circuit;
mod counters;
mod line;
mod notices;
mod service;
mod shown;
#[cfg(test)]
mod tests;
mod verdict;

use std::net::SocketAddr;
use std::sync::Arc;

use groupcast_protocol::asgi::{Door, Event, Scope};
use groupcast_protocol::{ChannelName, ErrorCode, GroupName, Message, Refusal, Trace};
use http::{HeaderMap, Uri, Version};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use self::notices::Notices;
use self::service::Service;
use self::shown::Shown;
pub(crate) use self::verdict::{Connected, Verdict};
use crate::app::App;
use crate::auth::rights::{Patterns, Rights};
use crate::auth::{Auth, By, Caller};
use crate::backend::Backend;
use crate::clock;
use crate::config::{Config, HookEvent, HooksConfig};
use crate::consumer::Problem;

/// Asks the service, if there is one. A cheap handle.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Asking>>);

struct Asking {
    connect: bool,
    subscribe: bool,
    message: bool,
    /// The door that is told of at the end; there if ends are told.
    notices: Option<Notices>,
    groups: Patterns,
    types: Kinds,
    shown: Shown,
    grants: Arc<Rights>,
    service: Arc<Service>,
}

/// A connection that is asked about.
pub(crate) struct Applicant<'a> {
    pub(crate) door: Door,
    pub(crate) scope: &'a Scope,
    pub(crate) caller: &'a Caller,
    /// The channel that it will have.
    pub(crate) channel: &'a ChannelName,
    /// The trace that its request belongs to.
    pub(crate) trace: &'a Trace,
}

impl Hooks {
    /// What the configuration says. Connects to nothing. Calls are made on the runtime that this is called on.
    ///
    /// # Errors
    /// When the address, the secret, the certificates or a pattern cannot be used.
    pub(crate) fn new(config: &Config, auth: &Auth) -> Result<Self, Problem> {
        let Some(hooks) = &config.hooks else { return Ok(Self(None)) };
        let problem = |key: &str, message: String| Problem::new(format!("hooks.{key}"), message);
        let backend = backend(hooks).map_err(|(key, message)| problem(key, message))?;
        if !backend.signs() {
            tracing::warn!(
                "requests to the service of [hooks] are not signed; set `secret_env`, so that it knows them"
            );
        }
        let service = Arc::new(Service::new(hooks, backend));
        let notices = hooks.has(HookEvent::Disconnect).then(|| Notices::new(service.clone()));
        let asking = Asking {
            connect: hooks.has(HookEvent::Connect),
            subscribe: hooks.has(HookEvent::Subscribe),
            message: hooks.has(HookEvent::Message),
            notices,
            groups: Patterns::parse("groups", &hooks.groups).map_err(|error| problem("groups", error.to_string()))?,
            types: Kinds::new(&hooks.types),
            shown: Shown::new(hooks, config.server.tls.is_some()).map_err(|why| problem("headers", why))?,
            grants: auth.grants(hooks.grants.as_ref()).map_err(|error| problem("grants", error.to_string()))?,
            service,
        };
        Ok(Self(Some(Arc::new(asking))))
    }

    /// Shows what is counted.
    pub(crate) fn register(&self, registry: &mut Registry) {
        if let Some(asking) = &self.0 {
            asking.service.counters().register(registry);
        }
    }

    /// Tells what is not waited for, until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if let Some(notices) = self.0.as_ref().and_then(|asking| asking.notices.as_ref()) {
            notices.run(stop).await;
        }
    }

    /// Whether a connection has to be asked about before it is one.
    pub(crate) fn asks_connect(&self) -> bool {
        self.0.as_ref().is_some_and(|asking| asking.connect)
    }

    /// Whether a subscription has to be asked about.
    pub(crate) fn asks_subscribe(&self, caller: &Caller, group: &GroupName) -> bool {
        let about = |asking: &Arc<Asking>| asking.subscribe && asking.groups.allow(group.as_str());
        !is_service(caller) && self.0.as_ref().is_some_and(about)
    }

    /// Whether a message has to be asked about. Over HTTP whoever is everybody is the team itself.
    pub(crate) fn asks_message(&self, by: &By, group: &GroupName, message: &Message) -> bool {
        let is_client = !is_service(&by.caller) && (by.channel.is_some() || !matches!(by.caller, Caller::Everybody));
        let about = |asking: &Arc<Asking>| {
            asking.message && asking.groups.allow(group.as_str()) && asking.types.have(message.kind())
        };
        is_client && self.0.as_ref().is_some_and(about)
    }

    /// Refuses to show somebody without a subscription what a group carries to which others have to be let in.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn check_read(&self, caller: &Caller, group: &GroupName) -> Result<(), Refusal> {
        if matches!(caller, Caller::Everybody) || !self.asks_subscribe(caller, group) {
            return Ok(());
        }
        let why = format!("who is in group `{group}` and what it keeps is told to its subscribers, on their sockets");
        Err(Refusal::new(ErrorCode::Forbidden, why))
    }

    /// What is shown of a request for a connection.
    pub(crate) fn scope(
        &self,
        door: Door,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Option<Scope> {
        let asking = self.0.as_ref().filter(|asking| asking.connect)?;
        Some(asking.shown.scope(door, version, uri, headers, peer))
    }

    /// Whether a connection may be, who it is then, and where it is from the beginning. A service is not asked about.
    ///
    /// # Errors
    /// What its client is told: `forbidden` or `unauthenticated` when it may not be, `unavailable` without an answer.
    pub(crate) async fn connect(&self, app: &App, applicant: Applicant<'_>) -> Result<Connected, Refusal> {
        let Applicant { door, scope, caller, channel, trace } = applicant;
        let Some(asking) = self.0.as_ref().filter(|asking| asking.connect && !is_service(caller)) else {
            return Ok(Connected { caller: caller.clone(), groups: Vec::new() });
        };
        let event = Event::Connect { door, channel, user: caller.user(), scope };
        let actions = asking.service.ask(&event, trace).await?;
        let (accept, sends) = verdict::of_connect(actions).map_err(|why| asking.wrong(event.kind(), why))??;
        let named = app.auth.named(caller, &accept, &asking.grants);
        let caller = named.map_err(|why| asking.wrong(event.kind(), why.to_string()))?;
        caller.check_lasts(clock::now_ms())?;
        // A user may be one of those whose tokens are worth nothing any more.
        app.auth.check_still(&caller)?;
        actions::send_all(app, sends, trace).await?;
        Ok(Connected { caller, groups: accept.groups })
    }

    /// Whether a connection may subscribe to a group. `exists`: there is one that an answer can be about.
    ///
    /// # Errors
    /// `forbidden` when it may not, `unavailable` without an answer.
    pub(crate) async fn subscribe(&self, app: &App, by: &By, group: &GroupName, exists: bool) -> Result<(), Refusal> {
        let (Some(asking), Some(channel)) = (&self.0, &by.channel) else { return Ok(()) };
        let event = Event::Subscribe { channel, user: by.caller.user(), group };
        let actions = asking.service.ask(&event, &by.trace).await?;
        let own = by.channel.as_ref().filter(|_| exists);
        match asking.carry_out(app, event.kind(), by, own, actions).await? {
            Verdict::Allowed => Ok(()),
            Verdict::Denied(reason) => Err(Verdict::refusal(reason)),
            Verdict::Nothing => Err(asking.wrong(event.kind(), "it has neither `allow` nor `deny`".to_owned())),
        }
    }

    /// What becomes of a message that the caller may send.
    ///
    /// # Errors
    /// `unavailable` without an answer.
    pub(crate) async fn message(
        &self,
        app: &App,
        by: &By,
        group: &GroupName,
        message: &Message,
    ) -> Result<Verdict, Refusal> {
        let Some(asking) = &self.0 else { return Ok(Verdict::Allowed) };
        let channel = by.channel.as_ref();
        let event = Event::Receive { channel, user: by.caller.user(), group, message };
        let actions = asking.service.ask(&event, &by.trace).await?;
        asking.carry_out(app, event.kind(), by, channel, actions).await
    }

    /// A connection has ended. Never waits; without room the notice is dropped, and counted.
    pub(crate) fn disconnected(
        &self,
        door: Door,
        channel: &ChannelName,
        user: Option<&str>,
        code: Option<u16>,
        trace: &Trace,
    ) {
        if let Some(notices) = self.0.as_ref().and_then(|asking| asking.notices.as_ref()) {
            notices.tell(&Event::Disconnect { door, channel, user, code }, trace);
        }
    }
}

impl Asking {
    async fn carry_out(
        &self,
        app: &App,
        event: &'static str,
        by: &By,
        own: Option<&ChannelName>,
        actions: Vec<groupcast_protocol::asgi::Action>,
    ) -> Result<Verdict, Refusal> {
        let (verdict, steps) = verdict::of_command(actions, own.is_some()).map_err(|why| self.wrong(event, why))?;
        for step in &steps {
            actions::check(step, &by.caller, &self.grants).map_err(|why| self.wrong(event, why))?;
        }
        actions::carry_out(app, own, steps, &by.trace).await?;
        Ok(verdict)
    }

    /// An answer that could be read and cannot be followed.
    fn wrong(&self, event: &'static str, why: String) -> Refusal {
        self.service.note_wrong(event, &why);
        service::away()
    }
}

fn is_service(caller: &Caller) -> bool {
    matches!(caller, Caller::Service(_))
}

fn backend(hooks: &HooksConfig) -> Result<Backend, (&'static str, String)> {
    Backend::new(&crate::backend::Place {
        url: &hooks.url,
        allow_private: hooks.allow_private,
        secret: hooks.secret.as_ref(),
        secret_is_named: hooks.secret_env.is_some() || hooks.secret_file.is_some(),
        ca: hooks.ca.as_deref(),
        connections: hooks.max_concurrent,
    })
}

/// Types of messages, in which dots and underscores are one; a beginning that ends in `*` is many.
struct Kinds(Box<[String]>);

impl Kinds {
    fn new(types: &[String]) -> Self {
        Self(types.iter().map(|kind| kind.replace('.', "_")).collect())
    }

    fn have(&self, kind: &str) -> bool {
        let kind = kind.replace('.', "_");
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => kind.starts_with(beginning),
            None => *known == kind,
        })
    }
}
