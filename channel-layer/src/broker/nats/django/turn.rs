//! Takes what waits of one group: a part of it at a time, in order.

use std::time::Duration;

use futures_util::future::join_all;
use groupcast_protocol::{GroupName, Message};
use serde_json::json;
use tokio::time::sleep;

use super::Django;
use crate::broker::BrokerError;
use crate::broker::foreign::{Intake, Taken};
use crate::broker::nats::api::Stored;
use crate::broker::nats::record::Mark;
use crate::broker::nats::session::Session;

/// Messages in one go.
const BATCH: usize = 100;
/// How long a server of a cluster is given that has not got the newest message yet.
const BEHIND: Duration = Duration::from_millis(10);

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything up to this number is done with, and whether there is more.
    Done { up_to: u64, more: bool },
    /// Nothing waits.
    Empty,
    /// Something could not be taken; it has to be tried again later.
    Later,
}

/// A message of the stream.
struct Waiting {
    mark: Mark,
    is_old: bool,
    /// None when it could not be read.
    message: Option<Message>,
}

impl Django {
    /// Takes a part of what waits of a group.
    pub(super) async fn turn(
        &self,
        session: &Session,
        intake: &dyn Intake,
        subject: &str,
        group: &GroupName,
    ) -> Result<Turn, BrokerError> {
        let stream = session.names.foreign();
        let part = session.api.several(&stream, subject, 1, BATCH).await?;
        if part.messages.is_empty() {
            // The server that was asked may not have it yet; the one that decides has.
            if session.api.newest(&stream, subject).await?.is_none() {
                return Ok(Turn::Empty);
            }
            sleep(BEHIND).await;
            return Ok(Turn::Done { up_to: 0, more: true });
        }
        let waiting: Vec<Waiting> = part.messages.iter().map(|stored| self.waiting(session, stored)).collect();
        let taken = join_all(waiting.iter().map(async |waiting| match &waiting.message {
            Some(message) => intake.take(group, message, waiting.mark.id().as_bytes()).await,
            None => Taken::Done,
        }));
        let taken = taken.await;
        let done = taken.iter().position(|taken| *taken == Taken::Later).unwrap_or(taken.len());
        let up_to = done.checked_sub(1).map(|last| waiting[last].mark.sequence);
        let shown = waiting.into_iter().zip(taken).take(done).filter(|(_, taken)| *taken == Taken::Show);
        let shown = shown.filter_map(|(waiting, _)| self.shown(waiting)).collect();
        self.show(session, group, shown).await?;
        let Some(up_to) = up_to else { return Ok(Turn::Later) };
        let question = json!({ "filter": subject, "seq": up_to + 1 });
        session.api.ask(&format!("STREAM.PURGE.{stream}"), &question).await?;
        if done < part.messages.len() {
            return Ok(Turn::Later);
        }
        Ok(Turn::Done { up_to, more: part.more })
    }

    fn waiting(&self, session: &Session, stored: &Stored) -> Waiting {
        let mark = Mark { sequence: stored.sequence, at: stored.at };
        let is_old = session.clock().age(stored.at) >= self.config.expiry;
        Waiting { mark, is_old, message: self.read(&stored.payload) }
    }

    /// What is to be shown of it: nothing once it has expired.
    fn shown(&self, waiting: Waiting) -> Option<(Mark, Message)> {
        if waiting.is_old {
            self.counters.expired.add(1);
            return None;
        }
        waiting.message.map(|message| (waiting.mark, message))
    }
}
