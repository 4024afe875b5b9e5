//! What Redis does for this dialect in one step.

use std::sync::LazyLock;

use redis::Script;

use super::super::Foreign;
use super::super::leases::Collected;
use super::unparked::Part;
use super::{parked_topic, times_key};
use crate::broker::BrokerError;
use crate::broker::redis::up::Up;

/// Frames of a bucket that may be parked: there for the registrar that comes, in place of the memory of gateways.
const PARKED_MAX: usize = 1000;

/// KEYS: parked, registrar and times of each bucket. ARGV: token, how many may be parked, topic, what is answered at most; for
/// each bucket the time behind which it holds, how many frames it has got, and for each of them the group, the frame, and the
/// hash. Parks them, as far as there is room, if nobody has parked any of that bucket meanwhile, and tells so. Answers for each
/// bucket how many of them it has parked, how many frames there are beyond what is answered, and what is parked: for a node
/// that is not the registrar -1 and nothing. A key of another type than it has to be was written by somebody else, and is
/// removed.
static PARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local now, found, arg = redis.call('TIME')[1], {}, 5
local function is_of(key, kind)
  local is = redis.call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then redis.call('DEL', key) end
end
for i = 1, #KEYS, 3 do
  is_of(KEYS[i], 'list')
  is_of(KEYS[i + 1], 'string')
  is_of(KEYS[i + 2], 'string')
  local count, told = tonumber(ARGV[arg + 1]), {}
  if count > 0 and (redis.call('GET', KEYS[i + 2]) or '0') == ARGV[arg] then
    local room = math.min(count, ARGV[2] - redis.call('LLEN', KEYS[i]))
    if room > 0 then
      local time = redis.call('INCR', KEYS[i + 2])
      for n = 1, room do
        local frame = arg + 3 * n - 1
        local id = ARGV[1] .. '-' .. time .. '-' .. n
        redis.call('RPUSH', KEYS[i], now .. ' ' .. id .. ' ' .. ARGV[frame] .. ' ' .. ARGV[frame + 1])
        told[n] = ARGV[frame + 2]
      end
      redis.call('PUBLISH', ARGV[3], string.match(KEYS[i], '%d+$') .. ' ' .. time .. ' ' .. table.concat(told))
    end
  end
  arg = arg + 2 + 3 * count
  if redis.call('GET', KEYS[i + 1]) == ARGV[1] then
    local parked = redis.call('LRANGE', KEYS[i], 0, ARGV[4] - 1)
    found[#found + 1] = {#told, redis.call('LLEN', KEYS[i]) - #parked, parked}
  else
    found[#found + 1] = {#told, -1, {}}
  end
end
return found
",
    )
});

/// Parks frames, all in one step; says for each bucket how many, and to its registrar what is parked.
pub(super) async fn park(
    foreign: &Foreign,
    up: &Up,
    token: &str,
    limit: usize,
    parts: &[(usize, Part)],
) -> Result<Vec<(usize, Collected)>, BrokerError> {
    let mut call = PARK.prepare_invoke();
    call.arg(token).arg(PARKED_MAX).arg(parked_topic(foreign)).arg(limit);
    for (bucket, Part { behind, frames }) in parts {
        call.key(foreign.key("parked", bucket)).key(foreign.key("registrar", bucket)).key(times_key(foreign, *bucket));
        call.arg(behind).arg(frames.len());
        for (hash, group, frame) in frames {
            call.arg(group.as_str()).arg(&frame[..]).arg(hash.bytes());
        }
    }
    let found: Vec<(usize, i64, Vec<Vec<u8>>)> = up.invoke(&call).await?;
    let read = |((bucket, _), (count, left, parked)): (&(usize, Part), (usize, i64, _))| {
        (count, Collected { bucket: *bucket, left: usize::try_from(left).ok(), parked })
    };
    Ok(parts.iter().zip(found).map(read).collect())
}
