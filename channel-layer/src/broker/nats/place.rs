//! Where a group is, as its newest record says; and moving it on, which succeeds only for who knows that record.

use super::api::{ApiError, Outcome, Stored};
use super::names::Stream;
use super::record::{Mark, Record};
use super::session::Session;
use super::time::ServerTime;
use super::traces;
use crate::broker::dropped::Reason;
use groupcast_protocol::{GroupName, Message, Position};

/// The newest record of a group.
#[derive(Debug, Clone)]
pub(super) struct Newest {
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// When it was stored; unknown for one of this process.
    pub(super) since: Option<ServerTime>,
    /// Where the group is; none when the record is of a run that is over: then the group begins a new epoch.
    pub(super) at: Option<Position>,
    /// Up to where it has the messages of other programs, in whatever run.
    pub(super) foreign: Option<Mark>,
}

/// What comes behind the newest record.
pub(super) struct Next {
    /// Where the group is then.
    pub(super) to: Position,
    pub(super) messages: Vec<Message>,
    /// Up to where it has the messages of other programs then; none for as far as before.
    pub(super) foreign: Option<Mark>,
}

impl Next {
    /// Says where a group is, and nothing else.
    pub(super) fn only(to: Position) -> Self {
        Self { to, messages: Vec::new(), foreign: None }
    }
}

impl Session {
    /// The newest record of a group. What is none is taken out.
    pub(super) async fn newest(&self, stream: Stream, group: &GroupName) -> Result<Option<Newest>, ApiError> {
        let (name, subject) = (self.names.stream(stream), self.names.stored(stream, group));
        loop {
            let Some(stored) = self.api.newest(&name, &subject).await? else { return Ok(None) };
            let Stored { sequence, at: since, payload } = stored;
            if let Some(Record { run, at, foreign, .. }) = Record::place(&payload) {
                let at = (run == self.run).then_some(at);
                return Ok(Some(Newest { sequence, since: Some(since), at, foreign }));
            }
            // Somebody else has written it. What stands before it says where the group is, and would be pushed out.
            if self.api.remove(&name, sequence).await? {
                self.dropped.note(Reason::Stray);
            }
        }
    }

    /// Stores what comes behind the newest record, unless somebody else has done so.
    pub(super) async fn advance(
        &self,
        stream: Stream,
        group: &GroupName,
        newest: Option<&Newest>,
        next: Next,
    ) -> Result<Option<Newest>, ApiError> {
        let Next { to: at, messages, foreign } = next;
        let foreign = foreign.or(newest.and_then(|newest| newest.foreign));
        let record = Record { run: self.run.clone(), at, messages, foreign };
        let payload = record.encode();
        let headers = traces::headers(&record.messages, self.api.room_beside(&payload));
        let subject = self.names.stored(stream, group);
        let expected = newest.map_or(0, |newest| newest.sequence);
        match self.api.store_with(headers, &subject, payload, expected).await? {
            Outcome::Stored(sequence) => Ok(Some(Newest { sequence, since: None, at: Some(record.at), foreign })),
            Outcome::Overtaken => Ok(None),
        }
    }

    /// Where a group is; it begins at offset 0 of a fresh epoch if it is nowhere.
    pub(super) async fn place(
        &self,
        stream: Stream,
        group: &GroupName,
        newest: Option<Newest>,
        fresh_epoch: &str,
    ) -> Result<(Newest, Position), ApiError> {
        let mut newest = newest;
        loop {
            if let Some(Newest { at: Some(at), .. }) = &newest {
                let at = at.clone();
                return Ok((newest.expect("it was there in the line above"), at));
            }
            let begun = Position { epoch: fresh_epoch.into(), offset: 0 };
            newest = match self.advance(stream, group, newest.as_ref(), Next::only(begun)).await? {
                Some(begun) => Some(begun),
                None => self.newest(stream, group).await?,
            };
        }
    }
}
