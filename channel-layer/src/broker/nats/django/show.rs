//! Publishes what Django has sent behind a group's newest record, once.

use std::collections::VecDeque;

use groupcast_protocol::{GroupName, Message, Position};

use super::Django;
use crate::broker::BrokerError;
use crate::broker::nats::names::Stream;
use crate::broker::nats::place::{Newest, Next};
use crate::broker::nats::publisher::{BYTES, MESSAGES};
use crate::broker::nats::record::Mark;
use crate::broker::nats::session::Session;

impl Django {
    /// Publishes messages of a group, in the order of their marks. What the group has already is passed over.
    pub(super) async fn show(
        &self,
        session: &Session,
        group: &GroupName,
        messages: Vec<(Mark, Message)>,
    ) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let stream = Stream::of(self.keeps(group));
        let mut rest: VecDeque<_> = messages.into();
        let mut newest = session.newest(stream, group).await?;
        loop {
            self.pass_over(&mut rest, newest.as_ref());
            let part = part(&rest);
            let Some((mark, _)) = part.last() else { return Ok(()) };
            let foreign = known(newest.as_ref()).map_or(*mark, |before| before.and(mark));
            let messages: Vec<Message> = part.iter().map(|(_, message)| message.clone()).collect();
            let to = self.behind(newest.as_ref(), messages.len() as u64);
            let next = Next { to, messages, foreign: Some(foreign) };
            newest = match session.advance(stream, group, newest.as_ref(), next).await? {
                Some(stored) => {
                    self.counters.shown.add(part.len() as u64);
                    let shown = part.len();
                    rest.drain(..shown);
                    Some(stored)
                }
                None => session.newest(stream, group).await?,
            };
        }
    }

    /// Takes out what the group has.
    fn pass_over(&self, rest: &mut VecDeque<(Mark, Message)>, newest: Option<&Newest>) {
        let Some(known) = known(newest) else { return };
        let before = rest.len();
        rest.retain(|(mark, _)| !known.covers(mark));
        self.counters.repeated.add((before - rest.len()) as u64);
    }

    /// Where a group is behind so many more messages.
    fn behind(&self, newest: Option<&Newest>, messages: u64) -> Position {
        match newest.and_then(|newest| newest.at.as_ref()) {
            Some(at) => Position { epoch: at.epoch.clone(), offset: at.offset + messages },
            None => Position { epoch: self.fresh_epoch(), offset: messages },
        }
    }
}

fn known(newest: Option<&Newest>) -> Option<Mark> {
    newest.and_then(|newest| newest.foreign)
}

/// What goes into one record.
fn part(rest: &VecDeque<(Mark, Message)>) -> Vec<(Mark, Message)> {
    let mut bytes = 0;
    let fits = |(_, message): &&(Mark, Message)| {
        let is_first = bytes == 0;
        bytes += message.raw().len();
        is_first || bytes <= BYTES
    };
    rest.iter().take(MESSAGES).take_while(fits).cloned().collect()
}
