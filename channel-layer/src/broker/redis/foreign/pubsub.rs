//! The dialect of `channels_redis.pubsub.RedisPubSubChannelLayer`: topics, and nothing that stays.
//!
//! A `group_send` is one frame to the topic of the group. It has no number and no id, and every gateway gets it: each keeps it
//! until it hears that it is parked. A script parks frames of a bucket and tells so in the same step, and holds only if nobody
//! has parked anything of the bucket that the caller has not heard of. On one connection a frame always comes before the word
//! that it is parked; so what a gateway has then is exactly what nobody has parked, and no frame is parked twice, whoever does
//! it. That is the registrar, at once; another gateway, when a frame waits for longer than that takes. From there on all is as
//! in `core`. What may be lost is what Redis itself forgets: frames on the way when its link to *all* gateways breaks, and
//! what is sent while no gateway listens.
//!
//! Our own messages go to the same topics, where somebody of Django's listens. They bear a [mark](crate::dialect::mark), by
//! which gateways know that they have them already.
//!
//! ```text
//! asgi__group__GROUP      topic of a group; we listen to all of them
//! specific.NODE!cN        topic of a connection; a gateway listens to those of its own
//! PREFIX:parked           topic: what has just been parked, BUCKET TIME and then a hash for each frame
//! PREFIX:parked:BUCKET    the list; an entry is TIME ID GROUP FRAME
//! PREFIX:times:BUCKET     how often frames of the bucket have been parked
//! ```

mod scripts;
mod unparked;
#[cfg(feature = "fuzzing")]
pub use unparked::told;

use std::time::Duration;

use groupcast_protocol::{ChannelName, GroupName, Message};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::leases::Collected;
use super::{BUCKETS, Foreign, bucket_of, now_secs, unwritable};
use crate::broker::redis::fleet::Fleet;
use crate::broker::redis::up::Up;
use crate::broker::{BrokerError, BrokerEvent};
use crate::dialect::CodecError;
use unparked::{Hash, Unparked, Waiting};

/// A frame that waits for longer is parked by a gateway that is not the registrar, which may be dead.
const LATE: Duration = Duration::from_millis(100);
/// Bytes of a frame that are read as one of a message with so many bytes of JSON; encryption and escapes make it longer.
const LONGER: usize = 2;

/// What has come by each server, and no registrar has parked.
pub(super) struct Pubsub {
    servers: Vec<Mutex<Unparked>>,
}

impl Pubsub {
    pub(super) fn new(servers: usize) -> Self {
        Self { servers: (0..servers).map(|_| Mutex::default()).collect() }
    }

    /// What came by the last connection is given up: whether it has been parked meanwhile cannot be told.
    pub(super) fn begin(&self, foreign: &Foreign, server: usize) {
        let lost = self.servers[server].lock().clear();
        if lost > 0 {
            tracing::warn!(lost, "the link to Redis was lost with messages of Django that nobody had taken down yet");
            foreign.counters.lost.add(lost);
        }
    }

    pub(super) fn arrived(
        &self,
        foreign: &Foreign,
        server: usize,
        topic: &[u8],
        payload: Vec<u8>,
    ) -> Option<BrokerEvent> {
        if topic == parked_topic(foreign).as_bytes() {
            let is_one = self.servers[server].lock().parked(&payload);
            foreign.counters.dropped.add(u64::from(!is_one));
            foreign.ring(server);
            return None;
        }
        let topic = std::str::from_utf8(topic).ok()?;
        match topic.strip_prefix(&group_topics(foreign)) {
            Some(group) => self.keep(foreign, server, group, payload),
            None => return direct(foreign, topic, &payload),
        }
        None
    }

    fn keep(&self, foreign: &Foreign, server: usize, group: &str, payload: Vec<u8>) {
        if foreign.config.codec.is_marked(&payload) {
            return;
        }
        let Ok(group) = GroupName::parse(group) else {
            // Channels checks no names in this layer; none of our groups is called so.
            foreign.counters.dropped.add(1);
            return;
        };
        if payload.len() > foreign.config.codec.message_bytes.saturating_mul(LONGER) {
            foreign.drop_frame(&CodecError::TooLarge { max: foreign.config.codec.message_bytes });
            return;
        }
        let bucket = bucket_of(&group);
        let waiting = Waiting { hash: Hash::of(&group, &payload), group, frame: payload.into(), since: Instant::now() };
        let lost = self.servers[server].lock().push(bucket, waiting, foreign.config.expiry);
        foreign.counters.lost.add(lost);
        foreign.ring(server);
    }
}

/// What is for a connection of this node.
fn direct(foreign: &Foreign, topic: &str, payload: &[u8]) -> Option<BrokerEvent> {
    let channel = ChannelName::parse(topic).ok().filter(|name| name.non_local() == own_channels(foreign))?;
    foreign.counters.arrived.add(1);
    match foreign.config.codec.decode(payload, now_secs()) {
        Ok(frame) => Some(BrokerEvent::Direct { channel, message: frame.message }),
        Err(error) => {
            foreign.drop_frame(&error);
            None
        }
    }
}

/// Topics and patterns. What is parked is listened to first: a frame whose parking was not heard would be taken twice.
fn topics(foreign: &Foreign) -> (Vec<String>, Vec<String>) {
    let all = |beginning: &str| format!("{}*", escaped(beginning));
    (vec![parked_topic(foreign)], vec![all(&group_topics(foreign)), all(&own_channels(foreign))])
}

pub(super) fn group_topic(foreign: &Foreign, group: &GroupName) -> String {
    format!("{}{group}", group_topics(foreign))
}

/// Publishes for Django; says to how many processes.
pub(super) async fn publish(
    foreign: &Foreign,
    fleet: &Fleet,
    topic: &str,
    message: &Message,
) -> Result<usize, BrokerError> {
    let frame = foreign.config.codec.encode_marked(message, now_secs()).map_err(unwritable)?;
    let reached = fleet.of(topic)?.publish(topic, &frame).await?;
    if reached > 0 {
        foreign.counters.sent.add(1);
    }
    Ok(reached)
}

/// Listens, and learns how often frames have been parked. That is asked on the connection that is pushed to, so that all that
/// was told before the answer has been heard.
pub(super) async fn listen(foreign: &Foreign, up: &Up, server: usize) -> Result<(), BrokerError> {
    let Some(pubsub) = &foreign.pubsub else { return Ok(()) };
    let (topics, patterns) = topics(foreign);
    up.subscribe_common(&topics).await?;
    up.subscribe_patterns(&patterns).await?;
    hear_times(foreign, up, &pubsub.servers[server], &(0..BUCKETS).collect::<Vec<_>>()).await
}

/// Asks how often frames of buckets have been parked. What was told of it is right as a rule; but anybody may tell something,
/// and who believes a time that never was could park nothing any more.
async fn hear_times(
    foreign: &Foreign,
    up: &Up,
    unparked: &Mutex<Unparked>,
    buckets: &[usize],
) -> Result<(), BrokerError> {
    if buckets.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = buckets.iter().map(|bucket| times_key(foreign, *bucket)).collect();
    let times: Vec<Option<u64>> = up.ask_pushed(redis::cmd("MGET").arg(keys)).await?;
    let mut unparked = unparked.lock();
    for (bucket, times) in buckets.iter().zip(times) {
        unparked.know(*bucket, times.unwrap_or(0));
    }
    Ok(())
}

/// Parks what has come to buckets, and what has waited for long in others, and answers what is parked; see [`Collected`].
pub(super) async fn collect(
    foreign: &Foreign,
    up: &Up,
    server: usize,
    buckets: &[usize],
    token: &str,
    limit: usize,
) -> Result<Vec<Collected>, BrokerError> {
    let Some(pubsub) = &foreign.pubsub else { return Ok(Vec::new()) };
    let unparked = &pubsub.servers[server];
    let parts: Vec<_> = {
        let mut unparked = unparked.lock();
        let late = unparked.late(LATE).into_iter().filter(|bucket| !buckets.contains(bucket));
        buckets.iter().copied().chain(late).map(|bucket| (bucket, unparked.part(bucket, limit))).collect()
    };
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let answer = scripts::park(foreign, up, token, limit, &parts).await;
    let Ok(found) = answer else {
        parts.iter().for_each(|(bucket, _)| unparked.lock().forget(*bucket));
        return answer.map(|_| Vec::new());
    };
    let idle: Vec<usize> = found.iter().filter(|(parked, _)| *parked == 0).map(|(_, of)| of.bucket).collect();
    idle.iter().for_each(|bucket| unparked.lock().forget(*bucket));
    let had_some = |bucket: &&usize| parts.iter().any(|(of, part)| of == *bucket && !part.frames.is_empty());
    let refused: Vec<usize> = idle.iter().filter(had_some).copied().collect();
    hear_times(foreign, up, unparked, &refused).await?;
    let is_news = |of: &Collected| of.left.is_none() || !of.parked.is_empty();
    Ok(found.into_iter().map(|(_, of)| of).filter(is_news).collect())
}

/// Reads what a registrar has parked: the group, and the frame.
pub(super) fn read(entry: &[u8]) -> Option<(GroupName, &[u8])> {
    let at = entry.iter().position(|byte| *byte == b' ')?;
    let group = GroupName::parse(std::str::from_utf8(&entry[..at]).ok()?).ok()?;
    Some((group, &entry[at + 1..]))
}

fn group_topics(foreign: &Foreign) -> String {
    format!("{}__group__", foreign.config.prefix)
}

fn own_channels(foreign: &Foreign) -> String {
    format!("specific.{}!", foreign.node)
}

fn times_key(foreign: &Foreign, bucket: usize) -> String {
    foreign.key("times", bucket)
}

fn parked_topic(foreign: &Foreign) -> String {
    format!("{}:parked", foreign.own)
}

/// A text that a pattern takes as it stands.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
