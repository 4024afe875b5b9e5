//! What Redis does in one step: scripts, each with the calls that run it.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::{ChannelName, Message, Position};
use redis::Script;

use super::names::Names;
use super::up::Up;
use super::{Sieve, failure};
use crate::broker::dropped::Reason;
use crate::broker::{Ask, BrokerError, ChannelBound, Kept, LIFE, WhereIs};

/// A group's epoch and newest offset, begun where this server does not go on: it is another one than began the epoch, knows
/// nothing of the group, or somebody else has written to its key. Life in ms.
const PLACE: &str = r"
local function place(key, stream, fresh, run, life)
  local head = redis.pcall('HMGET', key, 'e', 'r', 'n')
  if head.err then
    redis.call('DEL', key)
    head = {}
  end
  local epoch, n = head[1], tonumber(head[3] or 0)
  -- Beyond 2^53 numbers are not told apart here.
  local is_number = n and n >= 0 and n % 1 == 0 and n < 9007199254740992
  local is_ours = epoch and is_number and #epoch <= 64 and string.match(epoch, '^[%w_.-]+$')
  if not is_ours or head[2] ~= run then
    epoch, n = fresh, 0
    redis.call('DEL', stream)
    redis.call('HSET', key, 'e', epoch, 'r', run, 'n', 0)
  end
  redis.call('PEXPIRE', key, life)
  return epoch, n
end
";

/// A place of one group. KEYS: head, stream. ARGV: fresh epoch, run id, life in ms.
const HERE: &str = "local epoch, n = place(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])";

static HEAD: LazyLock<Script> = LazyLock::new(|| placed("return {epoch, string.format('%.0f', n)}"));

/// ARGV behind those of [`HERE`]: first offset that is asked for, how many entries, messages and age that are kept.
///
/// Entries that are too old stay until newer ones push them out. They are passed over by halving: times grow with offsets.
static HISTORY: LazyLock<Script> = LazyLock::new(|| {
    placed(
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

/// A script that places groups.
pub(super) fn script(rest: &str) -> Script {
    Script::new(&format!("{PLACE}{rest}"))
}

fn placed(rest: &str) -> Script {
    script(&format!("{HERE}\n{rest}"))
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
        heads.push((*at, position(&epoch, &offset)?));
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
            heads.push((*at, position(&epoch, &offset)?));
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
    let head = position(&epoch, &head)?;
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

pub(super) fn position(epoch: &str, offset: &str) -> Result<Position, BrokerError> {
    let offset = offset.parse().ok();
    let position = offset.and_then(|offset| Position::new(epoch, offset).ok());
    position
        .ok_or_else(|| BrokerError::Refused { why: "a group's key has another form; is the prefix ours alone?".into() })
}

/// How long a group's place is remembered: as long as its messages are, and longer.
pub(super) fn life(age: Duration) -> u64 {
    millis(LIFE.max(age * 2))
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
