//! Channels that any node may read: one subject each. A message is taken by who removes it.
//!
//! ```text
//! EXPIRY_MS MESSAGE
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use groupcast_protocol::{ChannelName, Message};
use serde_json::json;

use super::api::{ApiError, Outcome, Stored};
use super::names::Stream;
use super::session::Session;
use crate::broker::dropped::Reason;
use crate::broker::{BrokerError, ChannelBound};

/// Puts a message at the end of a channel. Says whether there was room.
pub(super) async fn push(
    session: &Session,
    channel: &ChannelName,
    message: &Message,
    bound: ChannelBound,
) -> Result<bool, BrokerError> {
    let (stream, subject) = (session.names.stream(Stream::Channels), session.names.channel(channel));
    loop {
        // First the newest, then the count: whoever adds one in between takes the newest's place, and is noticed.
        let newest = session.api.newest(&stream, &subject).await?.map_or(0, |newest| newest.sequence);
        let unread = if newest == 0 { 0 } else { unread(session, &stream, &subject).await? };
        if unread >= bound.capacity as u64 {
            match session.api.oldest(&stream, &subject).await? {
                Some(oldest) if message_of(session, &oldest).is_none() => {
                    session.api.remove(&stream, oldest.sequence).await?;
                    continue;
                }
                Some(_) => return Ok(false),
                None => continue,
            }
        }
        match session.api.store(&subject, payload(message, bound.expiry), newest).await? {
            Outcome::Stored(_) => return Ok(true),
            Outcome::Overtaken => {}
        }
    }
}

/// Takes the oldest message of a channel. When there is none, the next one is told.
pub(super) async fn take(session: &Arc<Session>, channel: &ChannelName) -> Result<Option<Message>, BrokerError> {
    let (stream, subject) = (session.names.stream(Stream::Channels), session.names.channel(channel));
    loop {
        while let Some(oldest) = session.api.oldest(&stream, &subject).await? {
            let message = message_of(session, &oldest);
            if session.api.remove(&stream, oldest.sequence).await? && message.is_some() {
                return Ok(message);
            }
        }
        // What came before it was listened for is not told: it is looked for once more.
        if !session.await_mail(channel).await? {
            return Ok(None);
        }
    }
}

async fn unread(session: &Session, stream: &str, subject: &str) -> Result<u64, ApiError> {
    let info = session.api.ask(&format!("STREAM.INFO.{stream}"), &json!({ "subjects_filter": subject })).await?;
    Ok(info["state"]["subjects"][subject].as_u64().unwrap_or(0))
}

fn payload(message: &Message, expiry: Duration) -> Bytes {
    let head = format!("{} ", expiry.as_millis());
    let mut payload = BytesMut::with_capacity(head.len() + message.raw().len());
    payload.put_slice(head.as_bytes());
    payload.put_slice(message.raw());
    payload.freeze()
}

/// The message; none when it has expired, or is no message.
fn message_of(session: &Session, stored: &Stored) -> Option<Message> {
    let (expiry, message) = session.dropped.sift(read(&stored.payload, session.max_bytes).ok_or(Reason::Stray))?;
    (session.clock().age(stored.at) < expiry).then_some(message)
}

pub(super) fn read(payload: &Bytes, max: usize) -> Option<(Duration, Message)> {
    let at = payload.iter().position(|byte| *byte == b' ')?;
    let expiry: u64 = std::str::from_utf8(&payload[..at]).ok()?.parse().ok()?;
    Some((Duration::from_millis(expiry), Message::parse_within(payload.slice(at + 1..), max).ok()?))
}
