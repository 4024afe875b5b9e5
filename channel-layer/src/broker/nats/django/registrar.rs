//! Empties the stream of what Django's processes have sent, while this node holds the lease. One task.
//!
//! The stream tells what it has stored; each group with something in it has a lane, which takes its messages in order. What
//! cannot be taken holds up its own group only.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use groupcast_protocol::GroupName;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Django;
use super::turn::Turn;
use crate::broker::BrokerError;
use crate::broker::foreign::Intake;
use crate::broker::nats::link::Link;
use crate::broker::nats::session::Session;
use crate::broker::nats::streams::FOREIGN_MAX;

/// How often the lease is renewed, and what could not be taken is tried again.
const TICK: Duration = Duration::from_millis(500);
/// How often the stream is looked at, told or not.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a session that could not be used.
const AGAIN: Duration = Duration::from_millis(200);
/// Groups whose messages are taken at once.
const LANES: usize = 32;
/// Groups that are known to have something; of more, the rest are found when the stream is looked at.
const GROUPS_MAX: usize = 100_000;

/// Runs until the broker is closed.
pub(in crate::broker::nats) async fn run(link: Link, django: Arc<Django>, intake: Arc<dyn Intake>) {
    loop {
        if let Ok(session) = link.session() {
            let mut registrar = Registrar::new(session.clone(), django.clone(), intake.clone());
            if let Err(error) = session.unless_over(registrar.serve()).await {
                tracing::debug!(%error, "what Django has sent cannot be taken right now");
            }
            *django.lease.lock() = None;
            django.counters.is_registrar.set(0);
        }
        sleep(AGAIN).await;
    }
}

struct Registrar {
    session: Arc<Session>,
    django: Arc<Django>,
    intake: Arc<dyn Intake>,
    /// What the stream tells; there while this node holds the lease.
    told: Option<Subscriber>,
    /// Groups with something in the stream, by subject.
    lanes: HashMap<Box<str>, Lane>,
    ready: VecDeque<Box<str>>,
    /// Those with something that could not be taken, until the next tick.
    paused: Vec<Box<str>>,
    turns: FuturesUnordered<Pin<Box<dyn Future<Output = Landed> + Send>>>,
    looked: Option<Instant>,
    is_told_deep: bool,
}

/// A group with something in the stream.
struct Lane {
    group: GroupName,
    /// The newest message that is known of.
    up_to: u64,
}

/// A turn that has ended.
struct Landed {
    subject: Box<str>,
    /// As far as was known when it began.
    up_to: u64,
    turn: Result<Turn, BrokerError>,
}

enum Input {
    Tick,
    Told(Option<async_nats::Message>),
    Landed(Landed),
}

impl Registrar {
    fn new(session: Arc<Session>, django: Arc<Django>, intake: Arc<dyn Intake>) -> Self {
        Self {
            session,
            django,
            intake,
            told: None,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            paused: Vec::new(),
            turns: FuturesUnordered::new(),
            looked: None,
            is_told_deep: false,
        }
    }

    /// Runs as long as the session can be used.
    async fn serve(&mut self) -> Result<(), BrokerError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                _ = tick.tick() => Input::Tick,
                told = next(&mut self.told) => Input::Told(told),
                Some(landed) = self.turns.next(), if !self.turns.is_empty() => Input::Landed(landed),
            };
            match input {
                Input::Tick => self.tick().await?,
                Input::Told(Some(told)) => self.take_note(&told).await?,
                Input::Told(None) => return Ok(()),
                Input::Landed(landed) => self.land(landed),
            }
            self.launch();
        }
    }

    async fn tick(&mut self) -> Result<(), BrokerError> {
        if !self.django.lease(&self.session).await? {
            self.stand_by();
            return Ok(());
        }
        if self.told.is_none() {
            // First listen, then look: nothing lies between the two.
            self.told = Some(self.session.listen_to(self.session.names.all_came()).await?);
            self.django.counters.is_registrar.set(1);
        }
        self.ready.extend(self.paused.drain(..));
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look().await?;
            self.looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Another node has the lease: what is in hand is given to it.
    fn stand_by(&mut self) {
        if self.told.is_some() {
            *self = Self::new(self.session.clone(), self.django.clone(), self.intake.clone());
            self.django.counters.is_registrar.set(0);
            self.django.counters.depth.set(0);
        }
    }

    /// Looks what is in the stream.
    async fn look(&mut self) -> Result<(), BrokerError> {
        let question = format!("STREAM.INFO.{}", self.session.names.foreign());
        let info = self.session.api.ask(&question, &Value::Null).await?;
        let (depth, last) = (count(&info["state"]["messages"]), count(&info["state"]["last_seq"]));
        self.note_depth(depth);
        if depth == 0 {
            return Ok(());
        }
        let info = self.session.api.ask(&question, &json!({ "subjects_filter": ">" })).await?;
        for subject in info["state"]["subjects"].as_object().into_iter().flat_map(|subjects| subjects.keys()) {
            match self.session.names.foreign_group(subject) {
                Some(group) => self.want(subject, group, last),
                // Of what was stored before anybody listened, no note tells.
                None => {
                    let question = json!({ "filter": subject });
                    let purge = format!("STREAM.PURGE.{}", self.session.names.foreign());
                    let purged = self.session.api.ask(&purge, &question).await?;
                    self.note_nameless(count(&purged["purged"]));
                }
            }
        }
        Ok(())
    }

    fn note_depth(&mut self, depth: u64) {
        self.django.counters.depth.set(depth);
        let is_deep = depth as f64 >= FOREIGN_MAX as f64 * 0.8;
        if is_deep && !self.is_told_deep {
            tracing::warn!(
                depth,
                max = FOREIGN_MAX,
                "the stream of what Django has sent is nearly full; what comes then is lost"
            );
        }
        self.is_told_deep = is_deep;
    }

    /// The stream tells that it has stored something.
    async fn take_note(&mut self, told: &async_nats::Message) -> Result<(), BrokerError> {
        let header =
            |name: &str| told.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str());
        let sequence = header("Nats-Sequence").and_then(|sequence| sequence.parse().ok());
        let (Some(subject), Some(sequence)) = (header("Nats-Subject"), sequence) else { return Ok(()) };
        match self.session.names.foreign_group(subject) {
            Some(group) => self.want(subject, group, sequence),
            None => {
                let is_there = self.session.api.remove(&self.session.names.foreign(), sequence).await?;
                self.note_nameless(u64::from(is_there));
            }
        }
        Ok(())
    }

    /// What could be taken by nobody is gone.
    fn note_nameless(&self, messages: u64) {
        if messages > 0 {
            self.django.drop_messages(messages, &"a subject is no name of a group");
        }
    }

    fn want(&mut self, subject: &str, group: GroupName, up_to: u64) {
        if let Some(lane) = self.lanes.get_mut(subject) {
            lane.up_to = lane.up_to.max(up_to);
        } else if self.lanes.len() < GROUPS_MAX {
            self.lanes.insert(subject.into(), Lane { group, up_to });
            self.ready.push_back(subject.into());
        }
    }

    fn launch(&mut self) {
        while self.turns.len() < LANES {
            let Some(subject) = self.ready.pop_front() else { return };
            let Some(Lane { group, up_to }) = self.lanes.get(&subject) else { continue };
            let (group, up_to) = (group.clone(), *up_to);
            let (session, django, intake) = (self.session.clone(), self.django.clone(), self.intake.clone());
            self.turns.push(Box::pin(async move {
                let turn = django.turn(&session, &*intake, &subject, &group).await;
                Landed { subject, up_to, turn }
            }));
        }
    }

    fn land(&mut self, Landed { subject, up_to, turn }: Landed) {
        let Some(lane) = self.lanes.get(&subject) else { return };
        match turn {
            Ok(Turn::Done { up_to: done, more }) if more || done < lane.up_to => self.ready.push_back(subject),
            // Something has come since it was looked.
            Ok(Turn::Empty) if lane.up_to > up_to => self.ready.push_back(subject),
            Ok(Turn::Done { .. } | Turn::Empty) => drop(self.lanes.remove(&subject)),
            Ok(Turn::Later) => self.paused.push(subject),
            Err(error) => {
                tracing::debug!(%error, "what Django has sent to a group has to be taken again");
                self.paused.push(subject);
            }
        }
    }
}

/// What the stream tells next; nothing, for ever, while it is not listened to. Cancel safe.
async fn next(told: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match told {
        Some(told) => told.next().await,
        None => std::future::pending().await,
    }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
