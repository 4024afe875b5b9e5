//! Where a group is, as its newest record says; and moving it on, which succeeds only for who knows that record.

use super::api::{ApiError, Outcome};
use super::names::Stream;
use super::record::Record;
use super::session::Session;
use super::time::ServerTime;
use groupcast_protocol::{GroupName, Message, Position};

/// The newest record of a group.
#[derive(Debug, Clone)]
pub(super) struct Newest {
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// When it was stored; unknown for one of this process.
    pub(super) since: Option<ServerTime>,
    /// Where the group is; none when the record is of a run that is over, or cannot be understood: then the group begins
    /// a new epoch.
    pub(super) at: Option<Position>,
}

impl Session {
    /// The newest record of a group.
    pub(super) async fn newest(&self, stream: Stream, group: &GroupName) -> Result<Option<Newest>, ApiError> {
        let (name, subject) = (self.names.stream(stream), self.names.stored(stream, group));
        let stored = self.api.newest(&name, &subject).await?;
        Ok(stored.map(|stored| {
            let record = Record::decode(&stored.payload, self.max_bytes).filter(|record| record.run == self.run);
            Newest { sequence: stored.sequence, since: Some(stored.at), at: record.map(|record| record.at) }
        }))
    }

    /// Stores what comes behind the newest record, unless somebody else has done so.
    pub(super) async fn advance(
        &self,
        stream: Stream,
        group: &GroupName,
        newest: Option<&Newest>,
        to: Position,
        messages: Vec<Message>,
    ) -> Result<Option<Newest>, ApiError> {
        let record = Record { run: self.run.clone(), at: to, messages };
        let subject = self.names.stored(stream, group);
        let expected = newest.map_or(0, |newest| newest.sequence);
        match self.api.store(&subject, record.encode(), expected).await? {
            Outcome::Stored(sequence) => Ok(Some(Newest { sequence, since: None, at: Some(record.at) })),
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
            newest = match self.advance(stream, group, newest.as_ref(), begun, Vec::new()).await? {
                Some(begun) => Some(begun),
                None => self.newest(stream, group).await?,
            };
        }
    }
}
