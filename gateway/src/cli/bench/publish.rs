//! One publisher: an HTTP connection that is kept alive, with several requests on their way. Requests of one connection
//! are answered in order, so the order of its messages is the order in which they were written.

mod sent;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::connect::Door;
use super::pace::Schedule;
use super::receive::Shared;
use super::stamp::Stamp;
use super::{Pace, Plan};
use crate::cli::delays::histogram;

pub(super) use sent::{Sent, ToGroup};

/// How long an answer may take, or the gateway not take a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A pause after a refusal or a lost connection: who is overloaded is not helped by being asked at once again.
const PAUSE: Duration = Duration::from_millis(10);
/// Connections that may fail in a row before the publisher gives up.
const ATTEMPTS_MAX: u32 = 10;

/// One publisher, with what it has seen.
#[derive(Debug)]
pub(super) struct Publisher {
    number: u32,
    plan: Arc<Plan>,
    door: Door,
    shared: Arc<Shared>,
    /// For each group: the head of a request.
    heads: Vec<String>,
    /// The group whose turn it is.
    group: u32,
    waiting: VecDeque<Asked>,
    /// What has been sent to each group and what of it was not taken.
    pub(super) sent: Vec<Sent>,
    /// Measured publications that were taken.
    pub(super) accepted: u64,
    /// How long their answers took, in nanoseconds.
    pub(super) delays: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
}

/// A request without an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    group: u32,
    sequence: u64,
    at: u64,
    /// Readers that have to get it.
    readers: u64,
}

/// A part of the run.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    pub(super) measured: bool,
    /// By the run's clock.
    pub(super) until: u64,
    /// Ends it early.
    pub(super) stop: CancellationToken,
}

impl Phase {
    fn is_over(&self, now: u64) -> bool {
        now >= self.until || self.stop.is_cancelled()
    }
}

impl Publisher {
    pub(super) fn new(number: u32, plan: &Arc<Plan>, door: &Door, shared: &Arc<Shared>) -> Self {
        Self {
            number,
            heads: plan.groups.iter().map(|group| door.publication(group.as_str())).collect(),
            // Each begins elsewhere.
            group: number % plan.groups.len() as u32,
            plan: plan.clone(),
            door: door.clone(),
            shared: shared.clone(),
            waiting: VecDeque::new(),
            sent: vec![Sent::default(); plan.groups.len()],
            accepted: 0,
            delays: histogram(),
            errors: BTreeMap::new(),
        }
    }

    /// Which one it is.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Publishes until the phase is over and everything is answered.
    ///
    /// # Errors
    /// When no connection can be made any more.
    pub(super) async fn run(&mut self, phase: &Phase) -> Result<(), String> {
        let mut schedule = match self.plan.pace {
            Pace::Rate(rate) => Some(Schedule::new(self.shared.clock.now(), rate, self.number, self.plan.publishers)),
            Pace::Delivered | Pace::Answered => None,
        };
        let mut failures = 0;
        while !phase.is_over(self.shared.clock.now()) {
            let accepted = self.accepted;
            let why = match self.door.publisher().await {
                Ok(stream) => match self.converse(stream, phase, &mut schedule).await {
                    Ok(()) if phase.is_over(self.shared.clock.now()) => return Ok(()),
                    Ok(()) => {
                        // Closed between two requests, as a gateway may do.
                        sleep(PAUSE).await;
                        continue;
                    }
                    Err(why) => why,
                },
                Err(why) => why,
            };
            *self.errors.entry("connection_lost".to_owned()).or_default() += 1;
            self.give_up_waiting();
            failures = if self.accepted > accepted { 0 } else { failures + 1 };
            if failures >= ATTEMPTS_MAX {
                return Err(format!("publisher {}: the gateway {why}", self.number));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Publishes over one connection.
    async fn converse(
        &mut self,
        mut stream: TcpStream,
        phase: &Phase,
        schedule: &mut Option<Schedule>,
    ) -> Result<(), String> {
        let (mut requests, mut answers) = (Vec::new(), Vec::with_capacity(16 << 10));
        loop {
            let over = phase.is_over(self.shared.clock.now());
            if !over {
                self.fill(&mut requests, phase, schedule);
            }
            if !requests.is_empty() {
                let written = timeout(ANSWER_DEADLINE, stream.write_all(&requests)).await;
                written.map_err(|_| "takes no requests")?.map_err(|e| format!("broke the connection: {e}"))?;
                requests.clear();
            }
            if over && self.waiting.is_empty() {
                return Ok(());
            }
            let may_send = !over && self.waiting.len() < self.plan.in_flight as usize;
            tokio::select! {
                () = self.turn(schedule.as_ref()), if may_send => {}
                () = sleep_until(self.shared.clock.at(phase.until)), if !over => {}
                () = phase.stop.cancelled(), if !over => {}
                // Keeps what it has read when another branch is taken.
                read = stream.read_buf(&mut answers) => match read {
                    Ok(0) if self.waiting.is_empty() => return Ok(()),
                    Ok(0) => return Err("closed the connection".to_owned()),
                    Ok(_) => {
                        if self.take_answers(&mut answers, phase)? {
                            return if self.waiting.is_empty() { Ok(()) } else { Err("closed the connection".to_owned()) };
                        }
                    }
                    Err(error) => return Err(format!("broke the connection: {error}")),
                },
                () = sleep(ANSWER_DEADLINE), if !self.waiting.is_empty() => return Err("does not answer".to_owned()),
            }
        }
    }

    /// Waits until one more message may be sent.
    async fn turn(&self, schedule: Option<&Schedule>) {
        match (self.plan.pace, schedule) {
            (Pace::Rate(_), Some(schedule)) => sleep_until(self.shared.clock.at(schedule.due())).await,
            (Pace::Answered | Pace::Rate(_), _) => {}
            (Pace::Delivered, _) => self.shared.window.room(self.group, self.messages_ahead()).await,
        }
    }

    /// Deliveries are counted together, so the publishers' windows are one.
    fn messages_ahead(&self) -> u64 {
        u64::from(self.plan.in_flight) * u64::from(self.plan.publishers)
    }

    /// Writes as many requests as may be sent now.
    fn fill(&mut self, requests: &mut Vec<u8>, phase: &Phase, schedule: &mut Option<Schedule>) {
        while self.waiting.len() < self.plan.in_flight as usize {
            let now = self.shared.clock.now();
            let at = match (self.plan.pace, schedule.as_mut()) {
                (Pace::Rate(_), Some(schedule)) => schedule.take(now),
                (Pace::Answered | Pace::Rate(_), _) => Some(now),
                (Pace::Delivered, _) => self.shared.window.has_room(self.group, self.messages_ahead()).then_some(now),
            };
            let Some(at) = at else { return };
            self.write(requests, at, phase.measured);
        }
    }

    fn write(&mut self, requests: &mut Vec<u8>, at: u64, measured: bool) {
        let group = self.group;
        self.group = (group + 1) % self.plan.groups.len() as u32;
        let sequence = self.sent[group as usize].next();
        let readers = self.shared.window.begin(group);
        self.waiting.push_back(Asked { group, sequence, at, readers });
        requests.extend_from_slice(self.heads[group as usize].as_bytes());
        requests.extend_from_slice(format!("{}\r\n\r\n", self.plan.size).as_bytes());
        Stamp { publisher: self.number, group, sequence, measured, sent: at }.write(self.plan.size, requests);
    }

    /// Takes the answers that are complete. Says whether the gateway closes the connection after them.
    fn take_answers(&mut self, read: &mut Vec<u8>, phase: &Phase) -> Result<bool, String> {
        let (mut at, mut last) = (0, false);
        while let Some(answer) = answer::read(&read[at..])? {
            let asked = self.waiting.pop_front().ok_or("answered what was not asked")?;
            let body = &read[at..][answer.body.clone()];
            self.take_answer(asked, &answer, body, phase.measured);
            at += answer.body.end;
            last |= answer.last;
        }
        read.drain(..at);
        Ok(last)
    }

    fn take_answer(&mut self, asked: Asked, answer: &Answer, body: &[u8], measured: bool) {
        if answer.status == 202 {
            if measured {
                self.accepted += 1;
                self.delays.saturating_record(self.shared.clock.now().saturating_sub(asked.at));
            }
            return;
        }
        let problem = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let code = problem.get("code").and_then(Value::as_str).map_or_else(|| answer.status.to_string(), str::to_owned);
        *self.errors.entry(code).or_default() += 1;
        self.not_taken(asked);
    }

    /// Of a message that was refused, or never answered, nobody knows whether readers get it.
    fn not_taken(&mut self, asked: Asked) {
        self.sent[asked.group as usize].refused(asked.sequence);
        self.shared.window.settle(asked.readers);
    }

    fn give_up_waiting(&mut self) {
        for asked in std::mem::take(&mut self.waiting) {
            *self.errors.entry("unanswered".to_owned()).or_default() += 1;
            self.not_taken(asked);
        }
    }
}
