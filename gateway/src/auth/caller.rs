//! `Caller`: who asks, and what he may do. Every front door asks here.

use std::collections::BTreeMap;
use std::sync::Arc;

use groupcast_protocol::{ChannelName, ErrorCode, GroupName, Refusal, Trace};

use serde_json::Value;

use super::proof::{Mark, Proof};
use super::rights::Rights;
use crate::idempotency::Share;
use crate::jobs::{Asker, ReplyTo};
use crate::limits::Client;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Caller {
    /// There is no `[auth]`: everybody may do everything.
    Everybody,
    /// Shows no credential.
    Anonymous(Arc<Rights>),
    /// A program of the team, by its API key.
    Service(Arc<Service>),
    /// Somebody with a token.
    User(Arc<User>),
}

/// Who asks, from where, and by which connection of his own, if by one that has a channel.
#[derive(Debug, Clone)]
pub struct By {
    /// Who.
    pub caller: Caller,
    /// The channel of the connection.
    pub channel: Option<ChannelName>,
    /// From where, as the limits count it.
    pub client: Client,
    /// The trace that the request belongs to, if it names one: what it asks for is told as part of it.
    pub trace: Trace,
}

impl By {
    /// The gateway itself, and programs that embed it.
    pub fn gateway() -> Self {
        Self { caller: Caller::Everybody, channel: None, client: Client::NOWHERE, trace: None }
    }

    /// The same, for what belongs to a trace.
    pub fn gateway_in(trace: &Trace) -> Self {
        Self { trace: trace.clone(), ..Self::gateway() }
    }
}

impl By {
    /// Whose memory the idempotency keys of the caller take. Of those who show nothing, each address has its own.
    pub(crate) fn share(&self) -> Share {
        match &self.caller {
            Caller::Everybody | Caller::Service(_) => Share::Team,
            Caller::Anonymous(_) => Share::Client(format!("anonymous {:?}", self.client)),
            Caller::User(_) => Share::Client(self.caller.scope()),
        }
    }
}

/// A program of the team.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// What its key is called, for logs and for keeping apart what services ask for.
    pub name: String,
    /// What it may do; `None`: everything.
    pub scopes: Option<Rights>,
    /// Which key it is.
    pub key: Mark,
}

/// Who a token names.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// The claim `sub`.
    pub name: String,
    /// What the claims grant.
    pub rights: Rights,
    /// Other claims by name, for queries that bind them: texts, numbers, and true or false.
    pub claims: BTreeMap<String, Value>,
    /// The claim `exp`, in milliseconds since 1970; `None`: never, as only a hook can say.
    pub expires_ms: Option<u64>,
    /// What his token was good by; `None` for who came by something else.
    pub proof: Option<Proof>,
}

impl User {
    /// Who it is: two tenants may have a user of the same name, who has nothing to do with the other one.
    pub(crate) fn identity(&self) -> (&str, Option<&str>) {
        (&self.name, self.rights.within.as_deref())
    }
}

impl Caller {
    /// The user that a token names.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(&user.name),
            Self::Everybody | Self::Anonymous(_) | Self::Service(_) => None,
        }
    }

    /// Whether the caller's token says these claims.
    pub fn says(&self, claims: &BTreeMap<String, Value>) -> bool {
        match self {
            Self::User(user) => claims.iter().all(|(name, value)| user.claims.get(name) == Some(value)),
            Self::Everybody | Self::Anonymous(_) | Self::Service(_) => claims.is_empty(),
        }
    }

    /// When the credential is worth nothing any more, in milliseconds since 1970.
    pub fn expires_ms(&self) -> Option<u64> {
        match self {
            Self::User(user) => user.expires_ms,
            Self::Everybody | Self::Anonymous(_) | Self::Service(_) => None,
        }
    }

    /// Whether the caller can do nothing before it shows a credential.
    pub fn has_to_authenticate(&self) -> bool {
        matches!(self, Self::Anonymous(rights) if rights.are_none())
    }

    /// Refuses a token for what lasts: it may be over already, where leeway still lets it pass for one request.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn check_lasts(&self, now_ms: u64) -> Result<(), Refusal> {
        if self.expires_ms().is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(Refusal::new(ErrorCode::Unauthenticated, "the token has expired; get a new one"));
        }
        Ok(())
    }

    /// Refuses who can do nothing before he shows a credential.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn check_known(&self) -> Result<(), Refusal> {
        if self.has_to_authenticate() { Err(self.refusal("use this gateway")) } else { Ok(()) }
    }

    /// May subscribe to a group, see who is in it and read what it keeps.
    ///
    /// # Errors
    /// `forbidden`; `unauthenticated` without a credential.
    pub fn check_subscribe(&self, group: &GroupName) -> Result<(), Refusal> {
        // What a live query's group carries is granted with the query, not by a name that nobody chose.
        let granted = |rights: &Rights| !group.is_of_live_query() && rights.allow_subscribe(group.as_str());
        self.check(granted, || format!("subscribe to group `{group}`"))
    }

    /// May send a message of this type to a group.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_send(&self, group: &GroupName, kind: &str) -> Result<(), Refusal> {
        let what = || format!("send `{}` to group `{group}`", shown(kind));
        self.check(|rights| rights.allow_send(group.as_str(), kind), what)
    }

    /// May send a message of this type to one channel, which users may not.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_send_to_channel(&self, channel: &ChannelName, kind: &str) -> Result<(), Refusal> {
        let what = || format!("send `{}` to channel `{channel}`; it is for services, by API key", shown(kind));
        self.check_service(|rights| rights.allow_send(channel.as_str(), kind), what)
    }

    /// May put a channel into a group and take it out, which users may not.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_membership(&self, group: &GroupName) -> Result<(), Refusal> {
        let what = || format!("say who is in group `{group}`; it is for services, by API key");
        self.check_service(|rights| rights.allow_subscribe(group.as_str()), what)
    }

    /// May run a named query, and follow it.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_query(&self, name: &str) -> Result<(), Refusal> {
        self.check(|rights| rights.allow_query(name), || format!("run query `{}`", shown(name)))
    }

    /// May have the events of a job sent there. `own` is the channel of the connection that asks.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_reply(&self, to: &ReplyTo, own: Option<&ChannelName>) -> Result<(), Refusal> {
        match to {
            ReplyTo::Nobody => Ok(()),
            ReplyTo::Group(group) => self
                .check(|rights| rights.allow_reply(group.as_str()), || format!("have answers sent to group `{group}`")),
            ReplyTo::Channel(channel) if own == Some(channel) => Ok(()),
            ReplyTo::Channel(channel) => {
                let what = || format!("have answers sent to channel `{channel}`");
                self.check_service(|rights| rights.allow_reply(channel.as_str()), what)
            }
        }
    }

    /// May see the names of groups that begin with this.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_list(&self, prefix: &str) -> Result<(), Refusal> {
        let what = || format!("list groups by the prefix {:?}; name one that it may subscribe to", shown(prefix));
        self.check(|rights| rights.allow_list(prefix), what)
    }

    /// May do whatever has no rule of its own: what the team's programs and its operators do.
    ///
    /// # Errors
    /// As [`Caller::check_subscribe`].
    pub fn check_operate(&self) -> Result<(), Refusal> {
        self.check(|_| false, || "do this; it is for services, by an API key for everything".to_owned())
    }

    /// Whether a job is the caller's to see and to cancel. Who may do everything owns all of them; a job that a service
    /// asked for is nobody else's.
    pub fn owns(&self, asker: Option<&Asker>) -> bool {
        match (self, asker) {
            (Self::Everybody, _) => true,
            (Self::Service(service), _) if service.scopes.is_none() => true,
            (Self::Service(service), Some(asker)) => asker.service.as_ref() == Some(&service.name),
            (Self::Anonymous(_), Some(asker)) => asker.user.is_none() && asker.service.is_none(),
            (Self::User(user), Some(asker)) => asker.user().is_some_and(|asked| asked == user.identity()),
            (Self::Anonymous(_) | Self::Service(_) | Self::User(_), None) => false,
        }
    }

    /// What is kept of the caller with a job; `None`: a job of the gateway's own people.
    pub fn asker(&self) -> Option<Asker> {
        match self {
            Self::Everybody => None,
            Self::Service(service) => {
                let is_scoped = service.scopes.is_some();
                is_scoped.then(|| Asker { service: Some(service.name.clone()), ..Asker::default() })
            }
            Self::Anonymous(_) => Some(Asker::default()),
            Self::User(user) => {
                let (name, within) = user.identity();
                let (user_name, within) = (Some(name.to_owned()), within.map(str::to_owned));
                Some(Asker { user: user_name, within, claims: user.claims.clone(), service: None })
            }
        }
    }

    /// Keeps what callers choose (idempotency keys, unique keys) apart: different callers have different scopes.
    pub fn scope(&self) -> String {
        match self {
            Self::Everybody => String::new(),
            Self::Anonymous(_) => "anonymous ".to_owned(),
            // Names have no end of their own that could be imitated: a length says where they end.
            Self::Service(service) => format!("service {} {} ", service.name.len(), service.name),
            Self::User(user) => {
                let (name, within) = user.identity();
                let within = within.unwrap_or_default();
                format!("user {} {name} {} {within} ", name.len(), within.len())
            }
        }
    }

    /// Whether an open connection may go on as another caller: who is known stays who he is.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check_becomes(&self, other: &Self) -> Result<(), Refusal> {
        match (self, other) {
            (Self::Everybody | Self::Anonymous(_), _) => Ok(()),
            (Self::Service(old), Self::Service(new)) if old.name == new.name => Ok(()),
            (Self::User(old), Self::User(new)) if old.identity() == new.identity() => Ok(()),
            (Self::Service(_) | Self::User(_), _) => {
                let why = "this connection is somebody else's; open another one for this token";
                Err(Refusal::new(ErrorCode::Forbidden, why))
            }
        }
    }

    fn check(&self, granted: impl Fn(&Rights) -> bool, what: impl Fn() -> String) -> Result<(), Refusal> {
        let granted = match self {
            Self::Everybody => true,
            Self::Service(service) => service.scopes.as_ref().is_none_or(granted),
            Self::Anonymous(rights) => granted(rights),
            Self::User(user) => granted(&user.rights),
        };
        if granted { Ok(()) } else { Err(self.refusal(&what())) }
    }

    fn check_service(&self, granted: impl Fn(&Rights) -> bool, what: impl Fn() -> String) -> Result<(), Refusal> {
        match self {
            Self::Everybody | Self::Service(_) => self.check(granted, what),
            Self::Anonymous(_) | Self::User(_) => self.check(|_| false, what),
        }
    }

    /// Who is not known may come back with a credential; who is known has no way out of his own.
    fn refusal(&self, what: &str) -> Refusal {
        match self {
            Self::Anonymous(_) => {
                let why =
                    format!("who shows no token may not {what}; send `Authorization: Bearer …`, or `authenticate`");
                Refusal::new(ErrorCode::Unauthenticated, why)
            }
            Self::Everybody | Self::Service(_) | Self::User(_) => {
                Refusal::new(ErrorCode::Forbidden, format!("this credential does not allow its bearer to {what}"))
            }
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
