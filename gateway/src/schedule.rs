//! `Schedules`: sends messages when their time comes, each once, whichever gateway is there.
//!
//! When that is, [`Timetable`] knows. That a tick is sent once, the store of jobs decides: the tick is noted in the commit
//! that stores its jobs, and whoever comes second finds it noted.

mod timetable;

use std::time::Duration;

use groupcast_protocol::{GroupName, Message};
use tokio_util::sync::CancellationToken;

pub use self::timetable::{Timetable, TimetableError};
use crate::clock;
use crate::config::schedule::{CatchUp, ScheduleConfig};
use crate::dispatch::Dispatch;
use crate::jobs::{Jobs, Tick};

/// The clock is looked at at least so often: it may be set.
const LOOK: Duration = Duration::from_secs(1);

/// A tick that is older is one that nobody was there for.
const LATE: u64 = 60_000;

/// The schedules of a gateway.
pub(crate) struct Schedules {
    schedules: Vec<Schedule>,
    dispatch: Dispatch,
    jobs: Jobs,
}

/// One schedule, and how far it is.
struct Schedule {
    name: String,
    timetable: Timetable,
    group: GroupName,
    message: Message,
    catch_up: CatchUp,
    /// Ticks up to here are done with, in milliseconds since 1970.
    done: u64,
}

impl Schedules {
    /// Reads the configuration, which has been checked. Ticks up to `now` are done with.
    ///
    /// # Errors
    /// As [`Timetable::parse`].
    pub(crate) fn new(
        configs: &[ScheduleConfig],
        dispatch: Dispatch,
        jobs: Jobs,
        now: u64,
    ) -> Result<Self, TimetableError> {
        let schedule = |config: &ScheduleConfig| {
            Ok(Schedule {
                name: config.name.clone(),
                timetable: Timetable::parse(&config.cron, &config.timezone, now)?,
                group: GroupName::parse(&config.group).expect("check() has parsed the group"),
                message: config.message().expect("check() has made the message"),
                catch_up: config.catch_up,
                done: now,
            })
        };
        Ok(Self { schedules: configs.iter().map(schedule).collect::<Result<_, _>>()?, dispatch, jobs })
    }

    /// Sends what is due until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if self.schedules.is_empty() {
            return;
        }
        let run = async {
            self.remember().await;
            loop {
                let now = clock::now_ms();
                self.look(now).await;
                tokio::time::sleep(self.pause(clock::now_ms())).await;
            }
        };
        stop.run_until_cancelled(run).await;
    }

    /// Goes back to the last tick that was sent, where missed ones are to be made up for. A schedule that never ticked has
    /// missed none.
    async fn remember(&mut self) {
        let ticks = loop {
            match self.jobs.ticks().await {
                Ok(ticks) => break ticks,
                Err(error) => tracing::warn!(%error, "the last ticks of schedules cannot be read; trying again"),
            }
            tokio::time::sleep(LOOK).await;
        };
        for schedule in self.schedules.iter_mut().filter(|schedule| schedule.catch_up == CatchUp::One) {
            let last = ticks.iter().find(|tick| tick.schedule == schedule.name);
            schedule.done = last.map_or(schedule.done, |tick| tick.due_ms.min(schedule.done));
        }
    }

    /// Sends what is due. What cannot be stored at the moment stays due.
    async fn look(&mut self, now: u64) {
        for schedule in &mut self.schedules {
            let Some(due_ms) = schedule.due(now) else { continue };
            let tick = Tick { schedule: schedule.name.clone(), due_ms };
            match self.dispatch.tick(tick, &schedule.group, schedule.message.clone()).await {
                Ok(sent) => {
                    tracing::debug!(schedule = schedule.name, due_ms, is_first = sent.is_some(), "a schedule ticked");
                    schedule.done = due_ms;
                }
                Err(refusal) if refusal.code.is_retriable() => {
                    tracing::warn!(schedule = schedule.name, error = refusal.message, "a tick waits; trying again");
                }
                Err(refusal) => {
                    tracing::error!(schedule = schedule.name, error = refusal.message, "a tick was refused");
                    schedule.done = due_ms;
                }
            }
        }
    }

    fn pause(&self, now: u64) -> Duration {
        let next = self.schedules.iter().filter_map(|schedule| schedule.timetable.next(schedule.done)).min();
        let until = next.map(|next| Duration::from_millis(next.saturating_sub(now)));
        // What is due already could not be sent.
        until.filter(|until| !until.is_zero()).unwrap_or(LOOK).min(LOOK)
    }
}

impl Schedule {
    /// The tick that is to be sent: of several the last, because the others are missed.
    fn due(&mut self, now: u64) -> Option<u64> {
        let due = self.timetable.last(now).filter(|due| *due > self.done)?;
        let is_missed = now - due > LATE && self.catch_up == CatchUp::None;
        if is_missed {
            tracing::warn!(schedule = self.name, due_ms = due, "a tick was missed");
            self.done = due;
        }
        (!is_missed).then_some(due)
    }
}

#[cfg(test)]
mod tests;
