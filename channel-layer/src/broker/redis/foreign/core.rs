//! The dialect of `channels_redis.core.RedisChannelLayer`: sorted sets of members and of frames.
//!
//! To Django all gateways together are one member of a group, `groupcast.BUCKET!g.GROUP`: a `group_send` puts one frame into
//! Redis for all sockets of all gateways, and the part behind `!` names the group, which the frame does not.
//!
//! ```text
//! asgi:group:GROUP            their sorted set of members; ours is in it while any gateway follows the group
//! asgigroupcast.BUCKET!       their sorted set of frames for all gateways
//! asgispecific.NODE!          their sorted set of frames for the connections of one gateway
//! PREFIX:interest:GROUP       set of the gateways that follow the group
//! PREFIX:groups:BUCKET        set of the groups with members in the bucket
//! PREFIX:ids                  hash: group names that are too long to be part of a name
//! ```
//!
//! **How a registrar learns that something has come** was measured with Redis 7.0 over loopback, 16 buckets, 100 frames a
//! second, on two cores that others used too; from the sender's ZADD to the frame in hand:
//!
//! | | half within | 99 % within | idle, commands/s | idle, CPU of Redis |
//! |---|---|---|---|---|
//! | `CLIENT TRACKING` in broadcasting mode, a look every 500 ms besides | 0.38 ms | 0.70 ms | 40 | under 0.1 % |
//! | a look every 1 ms | 0.74 ms | 6.6 ms | 10,700 | 4 % |
//! | a look every 5 ms | 3.1 ms | 11.8 ms | 2,800 | 2 % |
//! | a look every 20 ms | 10.5 ms | 22.7 ms | 800 | 0.7 % |
//! | (`BZPOPMIN`, which cannot be fenced and parks nothing) | 0.23 ms | 0.38 ms | 1 | 0.3 % |
//!
//! So it is told by tracking; where that is refused, it looks every 5 ms. All buckets are looked at by one script.

pub(super) mod names;
mod scripts;
pub(super) mod sweep;

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use groupcast_protocol::{ChannelName, GroupName, Message};
use tokio::time::timeout;

use super::registrar::{BATCH, read};
use super::{Foreign, bucket_of, now_secs};
use crate::broker::redis::RedisBroker;
use crate::broker::redis::fleet::Fleet;
use crate::broker::redis::up::Up;
use crate::broker::{BrokerError, BrokerEvent};
use crate::dialect::{Frame, To};
pub(super) use scripts::{collect, join, leave};

/// What our own member names begin with.
pub(super) const MEMBER: &str = "groupcast.";
/// Processes of Django that are written to at once.
const AT_ONCE: usize = 64;
/// The longest group name that is part of a member's name; others go by a hash.
const EMBEDDED_MAX: usize = 80;

/// Sends a message to the members of a group that are not ours, to all at once and within one deadline. One that cannot be
/// written to keeps no other from it.
pub(super) async fn forward(
    foreign: &Foreign,
    fleet: &Fleet,
    members: &[String],
    message: &Message,
) -> Result<(), BrokerError> {
    let mut buckets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in members {
        buckets.entry(non_local(member)).or_default().push(member);
    }
    let mut frames = Vec::with_capacity(buckets.len());
    for (bucket, names) in buckets {
        frames.push((bucket.to_owned(), foreign.encode(message, &To::Several(&names))?));
    }
    let (mut left, mut outcome) = (frames.len(), Ok(()));
    let mut puts =
        stream::iter(frames).map(|(bucket, frame)| put(foreign, fleet, bucket, frame)).buffer_unordered(AT_ONCE);
    let all = async {
        while let Some(put) = puts.next().await {
            left -= usize::from(put.is_ok());
            if put.is_err() {
                outcome = put;
            }
        }
    };
    let in_time = timeout(foreign.timeout, all).await.is_ok();
    foreign.counters.given_up.add(left as u64);
    if in_time { outcome } else { Err(BrokerError::TimedOut { after: foreign.timeout }) }
}

/// Puts a frame into the channel of a process of Django.
async fn put(foreign: &Foreign, fleet: &Fleet, bucket: String, frame: Vec<u8>) -> Result<(), BrokerError> {
    match scripts::add(foreign, &fleet.of(&bucket)?, &bucket, &frame).await {
        Ok(true) => foreign.counters.sent.add(1),
        // As Channels does it: a member that is full is passed over.
        Ok(false) => foreign.counters.over_capacity.add(1),
        // The message is published, and the others are to have it.
        Err(BrokerError::Refused { why }) => {
            tracing::debug!(bucket, why, "a member of Django's cannot be written to");
            foreign.counters.refused.add(1);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Sends a message to one channel that is not ours.
pub(super) async fn send(
    foreign: &Foreign,
    fleet: &Fleet,
    channel: &ChannelName,
    message: &Message,
) -> Result<(), BrokerError> {
    let to = if channel.is_process_local() { To::One(channel.as_str()) } else { To::Nobody };
    let (bucket, frame) = (channel.non_local(), foreign.encode(message, &to)?);
    if scripts::add(foreign, &fleet.of(bucket)?, bucket, &frame).await? {
        foreign.counters.sent.add(1);
        return Ok(());
    }
    foreign.counters.over_capacity.add(1);
    Err(BrokerError::Full { capacity: foreign.config.capacity })
}

/// Takes frames for this node's connections; says whether there may be more.
pub(super) async fn take_own(broker: &RedisBroker, foreign: &Foreign, up: &Up) -> Result<bool, BrokerError> {
    let frames = scripts::pop_own(foreign, up, BATCH).await?;
    for frame in &frames {
        let Some(Frame { message, channels, .. }) = read(foreign, frame, now_secs()) else { continue };
        for name in channels {
            if let Ok(channel) = ChannelName::parse(&name) {
                broker.tell(BrokerEvent::Direct { channel, message: message.clone() }).await;
            }
        }
    }
    Ok(frames.len() == BATCH)
}

/// The local part of the gateways' name in what a frame of a bucket is for.
pub(super) fn named(frame: &Frame, bucket: usize) -> Option<&str> {
    let ours = format!("{MEMBER}{bucket}!");
    frame.channels.iter().find_map(|name| name.strip_prefix(&ours))
}

/// Keys whose changes a connection is to be told of.
pub(super) fn watched(foreign: &Foreign) -> Vec<String> {
    vec![format!("{}{MEMBER}", foreign.config.prefix), own_bucket(foreign)]
}

pub(super) fn group_key(foreign: &Foreign, group: &GroupName) -> String {
    format!("{}:group:{group}", foreign.config.prefix)
}

/// The name by which the gateways are a member of a group.
fn member(group: &GroupName) -> String {
    let bucket = bucket_of(group);
    match group.as_str().len() {
        0..=EMBEDDED_MAX => format!("{MEMBER}{bucket}!g.{group}"),
        _ => format!("{MEMBER}{bucket}!h.{}", id_of(group)),
    }
}

/// The key of a bucket.
fn bucket_key(foreign: &Foreign, bucket: usize) -> String {
    format!("{}{MEMBER}{bucket}!", foreign.config.prefix)
}

/// The key of the frames for this node's connections.
fn own_bucket(foreign: &Foreign) -> String {
    format!("{}specific.{}!", foreign.config.prefix, foreign.node)
}

/// What stands for a group name that is too long.
fn id_of(group: &GroupName) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, group.as_str().as_bytes());
    hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of a channel's name that capacity goes by: up to and with the `!`.
fn non_local(name: &str) -> &str {
    name.find('!').map_or(name, |at| &name[..=at])
}
