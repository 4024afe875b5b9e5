//! Where groups are, and what is kept of them.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use groupcast_protocol::{GroupName, Message, Position};
use tokio::time::sleep;

use super::api::{ApiError, Stored};
use super::names::Stream;
use super::place::{Newest, Next};
use super::record::Record;
use super::session::Session;
use crate::broker::{Ask, BrokerError, Kept, LIFE, WhereIs};

/// Groups that are asked for at once.
const ASKS: usize = 64;
/// Records that are asked for at once.
const RECORDS: usize = 256;
/// How many times farther back a history is begun when it was not far enough.
const FARTHER: u64 = 8;
/// How long a server of a cluster is given that has not got the newest record yet.
const BEHIND: Duration = Duration::from_millis(10);

/// Where groups are, in the order of the question.
pub(super) async fn heads(session: &Session, asks: Vec<WhereIs>) -> Result<Vec<Position>, BrokerError> {
    let heads = stream::iter(asks).map(|ask| async move { head(session, &ask).await }).buffered(ASKS);
    Ok(heads.try_collect().await?)
}

/// Where a group is. Which of the two streams it is in is not asked: that with the newer record.
async fn head(session: &Session, WhereIs { group, fresh_epoch }: &WhereIs) -> Result<Position, ApiError> {
    let (plain, kept) = tokio::try_join!(session.newest(Stream::Plain, group), session.newest(Stream::Kept, group))?;
    let since = |newest: &Option<Newest>| newest.as_ref().filter(|newest| newest.at.is_some())?.since;
    let (stream, newest) = match since(&kept) > since(&plain) {
        true => (Stream::Kept, kept),
        false => (Stream::Plain, plain),
    };
    let (newest, at) = session.place(stream, group, newest, fresh_epoch).await?;
    renew(session, stream, group, &newest, &at).await?;
    Ok(at)
}

/// Says once more where a group is, so that it is not forgotten.
async fn renew(
    session: &Session,
    stream: Stream,
    group: &GroupName,
    newest: &Newest,
    at: &Position,
) -> Result<(), ApiError> {
    if newest.since.is_none_or(|since| session.clock().age(since) <= renew_after(stream, session)) {
        return Ok(());
    }
    // Who was overtaken need not: somebody else has said it.
    session.advance(stream, group, Some(newest), Next::only(at.clone())).await.map(drop)
}

/// In a stream with history only when nothing of it is of use any more.
fn renew_after(stream: Stream, session: &Session) -> Duration {
    match stream {
        Stream::Kept => session.history_age.max(LIFE),
        Stream::Plain | Stream::Channels => LIFE,
    }
}

/// What is kept of a group behind an offset.
pub(super) async fn history(session: &Session, ask: &Ask) -> Result<Kept, BrokerError> {
    let newest = session.newest(Stream::Kept, &ask.group).await?;
    let (newest, head) = session.place(Stream::Kept, &ask.group, newest, &ask.fresh_epoch).await?;
    renew(session, Stream::Kept, &ask.group, &newest, &head).await?;
    let oldest = head.offset.saturating_sub(ask.rule.messages as u64);
    let after = ask.after.max(oldest);
    if after >= head.offset {
        return Ok(Kept { head, messages: Vec::new(), more: false });
    }
    let mut messages = read(session, ask, &newest, &head, after).await?;
    let more = messages.len() > ask.limit;
    messages.truncate(ask.limit);
    Ok(Kept { head, messages: messages.into(), more })
}

/// Messages behind an offset, at least one more than asked for if there are.
///
/// Numbers of the stream are not those of the group, whose records stand between those of others. So it is begun as far back
/// as they would be if half of them were this group's, and farther back when that was not far enough: a node that has missed
/// a little does not read the whole history for it.
async fn read(
    session: &Session,
    ask: &Ask,
    newest: &Newest,
    head: &Position,
    after: u64,
) -> Result<VecDeque<(u64, Message)>, ApiError> {
    let (stream, subject) = (session.names.stream(Stream::Kept), session.names.stored(Stream::Kept, &ask.group));
    let mut found = VecDeque::new();
    let mut back = (head.offset - after).saturating_mul(2);
    let mut from = newest.sequence.saturating_sub(back).max(1);
    let mut is_begun = from == 1;
    while from <= newest.sequence && found.len() <= ask.limit {
        let part = session.api.several(&stream, &subject, from, RECORDS).await?;
        let Some(last) = part.messages.last() else {
            sleep(BEHIND).await;
            continue;
        };
        if !is_begun && !part.messages.first().is_some_and(|first| reaches(session, first, head, after)) {
            back = back.saturating_mul(FARTHER);
            from = newest.sequence.saturating_sub(back).max(1);
            is_begun = from == 1;
            continue;
        }
        is_begun = true;
        from = last.sequence + 1;
        for stored in part.messages {
            found.extend(taken(session, ask, head, &stored).filter(|(offset, _)| *offset > after));
        }
        if !part.more && from <= newest.sequence {
            sleep(BEHIND).await;
        }
    }
    Ok(found)
}

/// Whether nothing that comes behind an offset stands before a record.
fn reaches(session: &Session, stored: &Stored, head: &Position, after: u64) -> bool {
    let Ok(record) = Record::decode(&stored.payload, session.max_bytes) else { return false };
    let is_of_before = record.run != session.run || record.at.epoch != head.epoch;
    is_of_before || record.at.offset - record.messages.len() as u64 <= after
}

/// The messages of a record that are still of use: of this epoch, not behind the head that was told, not too old.
fn taken(session: &Session, ask: &Ask, head: &Position, stored: &Stored) -> impl Iterator<Item = (u64, Message)> {
    let is_old = session.clock().age(stored.at) >= ask.rule.age;
    let record = Record::decode(&stored.payload, session.max_bytes).ok();
    let record = record.filter(|record| !is_old && record.run == session.run && record.at.epoch == head.epoch);
    let head = head.offset;
    record.into_iter().flat_map(Record::numbered).filter(move |(offset, _)| *offset <= head)
}
