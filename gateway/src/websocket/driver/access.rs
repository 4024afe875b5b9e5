//! Who a connection is, and until when: what it may do is decided anew for each command, and again for what it has when
//! it shows another token.

use std::collections::BTreeMap;
use std::time::Duration;

use groupcast_protocol::close::CloseCode;
use groupcast_protocol::frame::{Command, Token};
use groupcast_protocol::session::{Answer, RefusedBy, Ticket};
use groupcast_protocol::{ErrorCode, GroupName, Refusal};
use serde_json::Value;
use tokio::time::Instant;

use super::Connection;
use crate::app::App;
use crate::auth::{By, Caller};
use crate::clock;
use crate::jobs::Asker;
use crate::limits::{Limit, Limits, Seat};
use crate::live::Question;

/// Who can do nothing before he authenticates has this time to do so.
const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection may do; nothing is kept where everybody may do everything.
pub(super) struct Access(Option<Box<Known>>);

struct Known {
    caller: Caller,
    /// Its place among those of its user.
    seat: Option<Seat>,
    /// Closes at this time, unless another token is shown before.
    until: Option<Instant>,
    /// Groups it is in because a service or hooks have put it there: no token of its own grants them, and none takes them.
    added: Vec<GroupName>,
    /// Live queries that it follows.
    followed: Vec<Followed>,
}

struct Followed {
    group: GroupName,
    query: Box<str>,
    /// The claims that the query binds: with other ones it would be another set of rows.
    claims: BTreeMap<String, Value>,
}

impl Access {
    /// `given`: groups that hooks put the connection into.
    pub(super) fn new(caller: Caller, seat: Option<Seat>, given: &[GroupName]) -> Self {
        if matches!(caller, Caller::Everybody) && given.is_empty() {
            return Self(None);
        }
        let until = until(&caller);
        Self(Some(Box::new(Known { caller, seat, until, added: given.to_vec(), followed: Vec::new() })))
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.0.as_ref()?.caller.user()
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.0.as_ref()?.until
    }

    /// Whether a service, or hooks, put the connection into a group.
    pub(super) fn is_given(&self, group: &GroupName) -> bool {
        self.0.as_ref().is_some_and(|known| known.added.contains(group))
    }

    pub(super) fn check_subscribe(&self, group: &GroupName) -> Result<(), Refusal> {
        self.0.as_ref().map_or(Ok(()), |known| known.caller.check_subscribe(group))
    }

    pub(super) fn check_query(&self, name: &str) -> Result<(), Refusal> {
        self.0.as_ref().map_or(Ok(()), |known| known.caller.check_query(name))
    }

    pub(super) fn follows(&mut self, question: &Question, asker: Option<&Asker>) {
        if let Some(known) = &mut self.0 {
            let (group, query) = (question.group().clone(), question.name().into());
            known.followed.push(Followed { group, query, claims: question.claims(asker) });
        }
    }

    pub(super) fn added(&mut self, group: &GroupName) {
        if let Some(known) = &mut self.0 {
            known.added.push(group.clone());
        }
    }

    pub(super) fn left(&mut self, group: &GroupName) {
        if let Some(known) = &mut self.0 {
            known.added.retain(|added| added != group);
            known.followed.retain(|followed| followed.group != *group);
        }
    }

    fn caller(&self) -> Caller {
        self.0.as_ref().map_or(Caller::Everybody, |known| known.caller.clone())
    }

    /// Goes on as another caller, in the groups that it keeps.
    fn become_(&mut self, caller: Caller, limits: &Limits) -> Result<(), Refusal> {
        let Some(known) = &mut self.0 else { return Ok(()) };
        known.caller.check_becomes(&caller)?;
        if known.seat.is_none() {
            known.seat = limits.seat(&caller)?;
        }
        known.until = until(&caller);
        known.caller = caller;
        Ok(())
    }

    /// Whether the connection may stay in a group that it is in.
    fn keeps(&self, group: &GroupName) -> bool {
        let Some(known) = &self.0 else { return true };
        let granted = match known.followed.iter().find(|followed| followed.group == *group) {
            Some(Followed { query, claims, .. }) if known.caller.says(claims) => known.caller.check_query(query),
            Some(_) | None => known.caller.check_subscribe(group),
        };
        granted.is_ok() || known.added.contains(group)
    }
}

/// When a connection of this caller ends: with its token, or if it shows none.
fn until(caller: &Caller) -> Option<Instant> {
    let left = match caller.expires_ms() {
        Some(expires_ms) => Duration::from_millis(expires_ms.saturating_sub(clock::now_ms())),
        None if caller.has_to_authenticate() => AUTHENTICATE_TIMEOUT,
        None => return None,
    };
    Instant::now().checked_add(left)
}

impl Connection {
    /// Who is in a group, and what it keeps, is for its subscribers where these have to be let in one by one.
    pub(super) fn check_read(&self, command: &Command) -> Result<(), Refusal> {
        let (Command::Members { group } | Command::History { group, .. }) = command else { return Ok(()) };
        let is_asked = self.local.app.hooks.asks_subscribe(&self.access.caller(), group);
        if is_asked && self.session.check_new(group).is_ok() {
            let why =
                format!("subscribe to group `{group}` first: who is in it and what it keeps is for its subscribers");
            return Err(Refusal::new(ErrorCode::Forbidden, why));
        }
        Ok(())
    }

    pub(super) fn by(&self) -> By {
        By {
            caller: self.access.caller(),
            channel: Some(self.channel.clone()),
            client: self.place.client(),
            trace: self.trace.clone(),
        }
    }

    /// Counts a command.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn charge(&self) -> Result<(), Refusal> {
        let caller = self.access.0.as_ref().map_or(&Caller::Everybody, |known| &known.caller);
        self.local.app.limits.charge(caller, self.place.client())
    }

    /// Shows operators what was refused. Whoever refuses for the sake of a limit of his own counts that himself, but the session.
    pub(super) fn count_refused(&self, code: ErrorCode, by: RefusedBy) {
        let app = &self.local.app;
        app.metrics.refused(code);
        match (by, code) {
            (RefusedBy::Session, ErrorCode::RateLimited) => app.limits.refused().add(Limit::CommandsPerSecond, 1),
            (RefusedBy::Session, ErrorCode::LimitExceeded) => {
                app.limits.refused().add(Limit::SubscriptionsPerConnection, 1);
            }
            _ => {}
        }
    }

    /// Takes another token: from here on the connection is its bearer, and in no group that the token does not grant.
    pub(super) fn authenticate(&mut self, ticket: Ticket, token: &Token) {
        let answer = identify(&self.local.app, token).and_then(|caller| self.become_(caller));
        self.session.complete(ticket, answer);
    }

    fn become_(&mut self, caller: Caller) -> Result<Answer, Refusal> {
        self.access.become_(caller, &self.local.app.limits)?;
        let lost = self.session.subscriptions().filter(|group| !self.access.keeps(group)).cloned().collect::<Vec<_>>();
        for group in lost {
            self.local.shard.borrow_mut().unsubscribe(self.slot, &group);
            self.session.revoke(&group);
            self.access.left(&group);
        }
        let user = self.access.user().map(str::to_owned);
        self.local.shard.borrow_mut().name_user(self.slot, user.as_deref());
        Ok(Answer::Authenticated { user })
    }

    /// Closes when the credential is worth nothing any more, before its time: a key that was taken away, a token that was
    /// revoked. Asked when that may have happened, and first of all: it may have while the connection was being made.
    pub(super) fn ask_again(&mut self) {
        let Some(known) = &self.access.0 else { return };
        if self.local.app.auth.check_still(&known.caller).is_err() {
            let why = "the credential is no longer valid; connect again with a new one";
            self.session.close(CloseCode::Unauthenticated, why);
        }
    }

    /// Closes when the token has ended, or none has come in time.
    pub(super) fn end_access(&mut self, now: Instant) {
        let Some(known) = &mut self.access.0 else { return };
        if known.until.is_none_or(|until| now < until) {
            return;
        }
        known.until = None;
        let why = match known.caller.expires_ms() {
            Some(_) => "the token has expired; connect again with a new one",
            None => "no token came in time; send `authenticate` first",
        };
        self.session.close(CloseCode::Unauthenticated, why);
    }
}

fn identify(app: &App, token: &Token) -> Result<Caller, Refusal> {
    if !app.auth.is_on() {
        let why =
            "this gateway takes no tokens: it has no [auth] section, and everybody on this machine may do everything";
        return Err(Refusal::new(ErrorCode::BadRequest, why));
    }
    let now_ms = clock::now_ms();
    let caller = app.auth.identify(Some(token.reveal()), now_ms)?;
    caller.check_lasts(now_ms)?;
    Ok(caller)
}
