//! What Redis does for this dialect in one step.

use std::sync::LazyLock;

use groupcast_protocol::GroupName;
use redis::Script;

use super::super::leases::Collected;
use super::super::{Foreign, bucket_of};
use super::{bucket_key, group_key, id_of, member, own_bucket};
use crate::broker::BrokerError;
use crate::broker::redis::up::Up;

/// Redis's time as Channels writes it, in seconds: clocks of senders may differ.
const NOW: &str = r"
local t = redis.call('TIME')
local now = t[1] .. '.' .. string.format('%06d', t[2])
";

/// KEYS: interest, their group, index. ARGV: node, member, group expiry in s, group.
static JOIN: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('SADD', KEYS[3], ARGV[4])
return 1
",
    )
});

/// KEYS: interest, their group, index. ARGV: node, member, group. Also for what a dead node left behind.
static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('SCARD', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('SREM', KEYS[3], ARGV[3])
end
return 1
",
    )
});

/// KEYS: their channel. ARGV: capacity, expiry in s, frame. Answers whether there was room.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, t[1] - ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
",
    )
});

/// KEYS: bucket, parked and registrar of each bucket. ARGV: token, how many of each. Parks what has come, as the time, the
/// score and the frame, unless so many are parked: what cannot be taken has to stay where senders count it. Answers for each
/// bucket with something parked which it is (from 0), how many frames are left in it, and what is parked; -1 for one whose
/// registrar is another node. A key of another type than it has to be was written by somebody else, and is removed: it would
/// keep all buckets from being emptied, and Django from writing to this one.
static COLLECT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local now, found = redis.call('TIME')[1], {}
local function is_of(key, kind)
  local is = redis.call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then redis.call('DEL', key) end
end
for i = 1, #KEYS, 3 do
  local at = (i - 1) / 3
  is_of(KEYS[i], 'zset')
  is_of(KEYS[i + 1], 'list')
  is_of(KEYS[i + 2], 'string')
  if redis.call('GET', KEYS[i + 2]) ~= ARGV[1] then
    found[#found + 1] = {at, -1, {}}
  else
    local room = ARGV[2] - redis.call('LLEN', KEYS[i + 1])
    if room > 0 then
      local popped = redis.call('ZPOPMIN', KEYS[i], room)
      for n = 1, #popped, 2 do
        redis.call('RPUSH', KEYS[i + 1], now .. ' ' .. popped[n + 1] .. ' ' .. popped[n])
      end
    end
    local parked = redis.call('LRANGE', KEYS[i + 1], 0, ARGV[2] - 1)
    if #parked > 0 then found[#found + 1] = {at, redis.call('ZCARD', KEYS[i]), parked} end
  end
end
return found
",
    )
});

/// KEYS: their channel. ARGV: how many. What has come, as frames and scores in turn.
static POP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local popped = redis.pcall('ZPOPMIN', KEYS[1], ARGV[1])
if not popped.err then return popped end
redis.call('DEL', KEYS[1])
return {}
",
    )
});

fn timed(rest: &str) -> Script {
    Script::new(&format!("{NOW}{rest}"))
}

/// Makes the gateways members of groups, and this node one that needs them.
pub(in crate::broker::redis::foreign) async fn join(
    foreign: &Foreign,
    up: &Up,
    groups: &[GroupName],
) -> Result<(), BrokerError> {
    for group in groups {
        let member = member(group);
        if !member.contains("!g.") {
            let command =
                redis::cmd("HSET").arg(format!("{}:ids", foreign.own)).arg(id_of(group)).arg(group.as_str()).clone();
            up.run::<redis::Value>(&command).await?;
        }
        let mut call = JOIN.prepare_invoke();
        call.key(foreign.key("interest", group))
            .key(group_key(foreign, group))
            .key(foreign.key("groups", bucket_of(group)));
        call.arg(foreign.node.as_str())
            .arg(member)
            .arg(foreign.config.group_expiry.as_secs().max(1))
            .arg(group.as_str());
        up.invoke::<i64>(&call).await?;
    }
    Ok(())
}

/// This node needs groups no more.
pub(in crate::broker::redis::foreign) async fn leave(
    foreign: &Foreign,
    up: &Up,
    groups: &[GroupName],
) -> Result<(), BrokerError> {
    for group in groups {
        leave_for(foreign, up, group, foreign.node.as_str()).await?;
    }
    Ok(())
}

/// Takes a node out of those that need a group.
pub(super) async fn leave_for(foreign: &Foreign, up: &Up, group: &GroupName, node: &str) -> Result<(), BrokerError> {
    let mut call = LEAVE.prepare_invoke();
    call.key(foreign.key("interest", group))
        .key(group_key(foreign, group))
        .key(foreign.key("groups", bucket_of(group)));
    call.arg(node).arg(member(group)).arg(group.as_str());
    up.invoke::<i64>(&call).await.map(drop)
}

/// Puts a frame into a channel of theirs; says whether there was room.
pub(super) async fn add(foreign: &Foreign, up: &Up, channel: &str, frame: &[u8]) -> Result<bool, BrokerError> {
    let mut call = ADD.prepare_invoke();
    call.key(format!("{}{channel}", foreign.config.prefix));
    call.arg(foreign.config.capacity).arg(foreign.config.expiry.as_secs().max(1)).arg(frame);
    up.invoke(&call).await
}

/// Parks what has come to buckets, all in one step since most of them have nothing, and answers what is parked; see
/// [`Collected`].
pub(in crate::broker::redis::foreign) async fn collect(
    foreign: &Foreign,
    up: &Up,
    buckets: &[usize],
    token: &str,
    limit: usize,
) -> Result<Vec<Collected>, BrokerError> {
    let mut call = COLLECT.prepare_invoke();
    for bucket in buckets {
        call.key(bucket_key(foreign, *bucket)).key(foreign.key("parked", bucket)).key(foreign.key("registrar", bucket));
    }
    call.arg(token).arg(limit);
    let found: Vec<(usize, i64, Vec<Vec<u8>>)> = up.invoke(&call).await?;
    let read =
        |(at, left, parked)| Some(Collected { bucket: *buckets.get(at)?, left: usize::try_from(left).ok(), parked });
    Ok(found.into_iter().filter_map(read).collect())
}

/// Takes the frames for this node's connections.
pub(super) async fn pop_own(foreign: &Foreign, up: &Up, limit: usize) -> Result<Vec<Vec<u8>>, BrokerError> {
    let mut call = POP.prepare_invoke();
    call.key(own_bucket(foreign)).arg(limit);
    let popped: Vec<Vec<u8>> = up.invoke(&call).await?;
    Ok(popped.into_iter().step_by(2).collect())
}
