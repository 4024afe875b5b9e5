//! What Redis does in one step: scripts, each with the calls that run it.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Envelope, Message, Position};
use redis::Script;

use super::foreign::Told;
use super::names::Names;
use super::up::Up;
use super::{Sieve, failure};
use crate::broker::dropped::Reason;
use crate::broker::{Ask, BrokerError, ChannelBound, Kept, LIFE, Publication, WhereIs};

/// A group's epoch and newest offset, begun where this server does not go on: it is another one than began the epoch, knows
/// nothing of the group, or somebody else has written to its key. KEYS: head, stream. ARGV: fresh epoch, run id, life in ms.
const PLACE: &str = r"
local head = redis.pcall('HMGET', KEYS[1], 'e', 'r', 'n')
if head.err then
  redis.call('DEL', KEYS[1])
  head = {}
end
local epoch, n = head[1], tonumber(head[3] or 0)
local is_ours = epoch and n and n >= 0 and n % 1 == 0 and #epoch <= 64 and string.match(epoch, '^[%w_.-]+$')
if not is_ours or head[2] ~= ARGV[2] then
  epoch, n = ARGV[1], 0
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'e', epoch, 'r', ARGV[2], 'n', 0)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
";

/// ARGV behind those of [`PLACE`]: topic, envelope behind the offset, messages to keep (0: none), their age in ms, Django's
/// key of the group (or nothing), its expiry in s, the key that the message is known by (or nothing), how long in s,
/// the command that publishes, Django's topic of the group (or nothing).
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local members = {}
if ARGV[10] ~= '' and not redis.call('SET', ARGV[10], '1', 'NX', 'EX', ARGV[11]) then
  return {epoch, string.format('%.0f', n), members, 0}
end
n = redis.call('HINCRBY', KEYS[1], 'n', 1)
local offset = string.format('%.0f', n)
if ARGV[6] ~= '0' then
  local t = redis.call('TIME')
  local now = t[1] .. string.format('%03d', math.floor(t[2] / 1000))
  local function keep()
    return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], offset .. '-0', 't', now, 'm', ARGV[5])
  end
  if type(keep()) == 'table' then
    -- Somebody else has written there, under a later number or something else: what is behind it cannot be kept.
    redis.call('DEL', KEYS[2])
    keep()
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
redis.call(ARGV[12], ARGV[4], 'gc1 ' .. epoch .. ' ' .. offset .. ARGV[5])
if ARGV[8] ~= '' then
  -- The message is published: a key of theirs that is none must not say that it is not.
  redis.pcall('ZREMRANGEBYSCORE', ARGV[8], 0, redis.call('TIME')[1] - ARGV[9])
  local found = redis.pcall('ZRANGE', ARGV[8], 0, -1)
  for _, member in ipairs(found.err and {} or found) do
    if string.sub(member, 1, 10) ~= 'groupcast.' then members[#members + 1] = member end
  end
end
if ARGV[13] ~= '' and redis.call('PUBSUB', 'NUMSUB', ARGV[13])[2] > 0 then members[1] = ARGV[13] end
return {epoch, offset, members, 1}
",
    )
});

static HEAD: LazyLock<Script> = LazyLock::new(|| script("return {epoch, string.format('%.0f', n)}"));

/// ARGV behind those of [`PLACE`]: first offset that is asked for, how many entries, messages and age that are kept.
///
/// Entries that are too old stay until newer ones push them out. They are passed over by halving: times grow with offsets.
static HISTORY: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[7]
local function id(offset) return string.format('%.0f-0', offset) end
if redis.call('TYPE', KEYS[2]).ok ~= 'stream' then redis.call('DEL', KEYS[2]) end
-- What somebody else has added is taken out.
local strays = 0
local function is_ours(entry)
  local fields = entry[2]
  local ours = #fields == 4 and fields[1] == 't' and tonumber(fields[2]) and fields[3] == 'm'
  ours = ours and string.match(entry[1], '^%d+%-0$') and tonumber(string.match(entry[1], '^%d+')) <= n
  if not ours then strays = strays + redis.call('XDEL', KEYS[2], entry[1]) end
  return ours
end
local function first(from)
  while true do
    local entry = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)[1]
    if not entry or is_ours(entry) then return entry end
  end
end
local high = n + 1
local low = math.min(math.max(tonumber(ARGV[4]), n - ARGV[6] + 1), high)
while low < high do
  local middle = math.floor((low + high) / 2)
  local entry = first(id(middle))
  if entry and tonumber(entry[2][2]) <= oldest then
    low = tonumber(string.match(entry[1], '^%d+')) + 1
  else
    high = middle
  end
end
while true do
  local entries, all = redis.call('XRANGE', KEYS[2], id(low), '+', 'COUNT', ARGV[5]), true
  for _, entry in ipairs(entries) do all = is_ours(entry) and all end
  if all then return {epoch, string.format('%.0f', n), entries, strays} end
end
",
    )
});

/// Redis's time in milliseconds: those of the nodes may differ.
const NOW: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
";

/// KEYS: list, waiting. ARGV: capacity, message, expiry in ms, topic of the mail, channel.
static PUSH: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"
while true do
  local first = redis.call('LINDEX', KEYS[1], 0)
  if not first or tonumber(string.match(first, '^%d+')) > now then break end
  redis.call('LPOP', KEYS[1])
end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], string.format('%.0f ', now + ARGV[3]) .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return 1
",
    )
});

/// KEYS: list, waiting.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"
while true do
  local first = redis.call('LPOP', KEYS[1])
  if not first then
    redis.call('SET', KEYS[2], '1', 'EX', 3600)
    return false
  end
  if tonumber(string.match(first, '^%d+')) > now then return first end
end
",
    )
});

fn timed(rest: &str) -> Script {
    Script::new(&format!("{NOW}{rest}"))
}

/// How long a message of another program is known to have been published: longer than a registrar may hold it.
const SEEN: Duration = Duration::from_secs(300);

fn script(rest: &str) -> Script {
    Script::new(&format!("{PLACE}{rest}"))
}

/// What else a publication is about.
pub(super) struct Extra<'a> {
    /// The key that the message is known by: it is published once.
    pub(super) seen: Option<&'a str>,
    /// Who of Django's is asked for.
    pub(super) told: Told<'a>,
}

/// What became of a publication.
pub(super) struct Done {
    pub(super) position: Position,
    /// Django's members of the group, or its topic when somebody listens there.
    pub(super) members: Vec<String>,
    /// Whether it was not published before.
    pub(super) is_news: bool,
}

pub(super) async fn publish(
    up: &Up,
    names: &Names,
    publication: &Publication,
    extra: Extra<'_>,
) -> Result<Done, BrokerError> {
    let Publication { group, message, keep, fresh_epoch } = publication;
    let tail = Envelope::tail(message);
    let (messages, age) = keep.map_or((0, Duration::ZERO), |rule| (rule.messages, rule.age));
    let mut call = PUBLISH.prepare_invoke();
    call.key(names.head(group)).key(names.stream(group));
    call.arg(&**fresh_epoch).arg(&*up.run_id).arg(life(age)).arg(names.topic(group)).arg(&tail[..]);
    let (key, expiry, topic) = match extra.told {
        Told::Nobody => ("", Duration::ZERO, ""),
        Told::Members(key, expiry) => (key, expiry, ""),
        Told::Listeners(topic) => ("", Duration::ZERO, topic),
    };
    call.arg(messages).arg(millis(age)).arg(key).arg(expiry.as_secs());
    call.arg(extra.seen.unwrap_or_default()).arg(SEEN.as_secs()).arg(up.spread.verb()).arg(topic);
    let (epoch, offset, members, is_news): (String, String, Vec<Vec<u8>>, bool) = up.invoke(&call).await?;
    // What is no text is no name of anybody.
    let members = members.into_iter().filter_map(|member| String::from_utf8(member).ok()).collect();
    Ok(Done { position: position(epoch, &offset)?, members, is_news })
}

pub(super) async fn heads(
    up: &Up,
    names: &Names,
    asks: Vec<(usize, WhereIs)>,
) -> Result<Vec<(usize, Position)>, BrokerError> {
    let mut heads = Vec::with_capacity(asks.len());
    // Loaded by the first, so that the rest can go at once.
    for (at, WhereIs { group, fresh_epoch }) in asks.iter().take(1) {
        let mut call = HEAD.prepare_invoke();
        call.key(names.head(group)).key(names.stream(group)).arg(&**fresh_epoch).arg(&*up.run_id).arg(millis(LIFE));
        let (epoch, offset): (String, String) = up.invoke(&call).await?;
        heads.push((*at, position(epoch, &offset)?));
    }
    let mut pipeline = redis::pipe();
    for (_, WhereIs { group, fresh_epoch }) in asks.iter().skip(1) {
        pipeline.cmd("EVALSHA").arg(HEAD.get_hash()).arg(2).arg(names.head(group)).arg(names.stream(group));
        pipeline.arg(&**fresh_epoch).arg(&*up.run_id).arg(millis(LIFE));
    }
    if asks.len() > 1 {
        for ((at, _), answer) in asks.iter().skip(1).zip(up.run_all(&pipeline).await?) {
            let (epoch, offset): (String, String) =
                redis::from_redis_value(answer).map_err(|error| failure(&error.into()))?;
            heads.push((*at, position(epoch, &offset)?));
        }
    }
    Ok(heads)
}

/// An id, and names and values of its fields in turn.
type Entry = (String, Vec<Vec<u8>>);

pub(super) async fn history(up: &Up, names: &Names, ask: &Ask, sieve: Sieve<'_>) -> Result<Kept, BrokerError> {
    let Ask { group, rule, after, limit, fresh_epoch } = ask;
    let mut call = HISTORY.prepare_invoke();
    call.key(names.head(group)).key(names.stream(group));
    call.arg(&**fresh_epoch).arg(&*up.run_id).arg(life(rule.age));
    call.arg(after.saturating_add(1)).arg(limit + 1).arg(rule.messages).arg(millis(rule.age));
    let (epoch, head, entries, strays): (String, String, Vec<Entry>, u64) = up.invoke(&call).await?;
    sieve.dropped.note_many(Reason::Stray, strays);
    let head = position(epoch, &head)?;
    let more = entries.len() > *limit;
    let read = |(id, fields): &Entry| {
        let offset: u64 = id.strip_suffix("-0")?.parse().ok()?;
        let tail = fields.chunks_exact(2).find(|pair| pair[0] == b"m").map(|pair| &pair[1])?;
        Some((offset, sieve.message(tail)?))
    };
    let messages = entries.iter().take(*limit).filter_map(read).collect();
    Ok(Kept { head, messages, more })
}

pub(super) async fn push(
    up: &Up,
    names: &Names,
    channel: &ChannelName,
    message: &Message,
    bound: ChannelBound,
) -> Result<bool, BrokerError> {
    let mut call = PUSH.prepare_invoke();
    call.key(names.channel(channel)).key(names.waiting(channel));
    call.arg(bound.capacity).arg(&message.raw()[..]);
    call.arg(millis(bound.expiry)).arg(names.mail()).arg(channel.as_str());
    up.invoke(&call).await
}

pub(super) async fn take(
    up: &Up,
    names: &Names,
    channel: &ChannelName,
    sieve: Sieve<'_>,
) -> Result<Option<Message>, BrokerError> {
    loop {
        let mut call = TAKE.prepare_invoke();
        call.key(names.channel(channel)).key(names.waiting(channel));
        let taken: Option<Vec<u8>> = up.invoke(&call).await?;
        let Some(entry) = taken.map(Bytes::from) else { return Ok(None) };
        // What is no message is not ours; the next one may be.
        if let Some(message) = sieve.entry(&entry) {
            return Ok(Some(message));
        }
    }
}

fn position(epoch: String, offset: &str) -> Result<Position, BrokerError> {
    let offset = offset.parse().ok();
    let position = offset.and_then(|offset| Position::new(&epoch, offset).ok());
    position
        .ok_or_else(|| BrokerError::Refused { why: "a group's key has another form; is the prefix ours alone?".into() })
}

/// How long a group's place is remembered: as long as its messages are, and longer.
fn life(age: Duration) -> u64 {
    millis(LIFE.max(age * 2))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
