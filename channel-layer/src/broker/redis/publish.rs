//! Numbers, keeps and publishes messages in one step of Redis: the script, its call and its answer.

use std::sync::LazyLock;
use std::time::Duration;

use groupcast_protocol::Envelope;
use redis::{Cmd, RedisWrite, Script, Value};

use super::foreign::Told;
use super::names::Names;
use super::publisher::{Done, Parcel};
use super::scripts::{life, millis, position, script};
use super::up::Up;
use crate::broker::{BrokerError, Publication};

/// How long a message of another program is known to have been published: longer than a registrar may hold it.
const SEEN: Duration = Duration::from_secs(300);

/// KEYS, for each message: head, stream. ARGV: run id, how long in s a message is known, the command that publishes; then
/// for each message: fresh epoch, life in ms, topic, envelope behind the offset, messages to keep (0: none), their age in ms,
/// Django's key of the group (or nothing), its expiry in s, the key that the message is known by (or nothing), Django's topic of
/// the group (or nothing). Answers, for each message: `EPOCH OFFSET IS_NEWS`, or a list of that and Django's members.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local run, seen_for, verb = ARGV[1], ARGV[2], ARGV[3]
local placed, answers = {}, {}

local function keep(stream, offset, rest, messages, age)
  local t = redis.call('TIME')
  local now = t[1] .. string.format('%03d', math.floor(t[2] / 1000))
  local function add()
    return redis.pcall('XADD', stream, 'MAXLEN', '~', messages, offset .. '-0', 't', now, 'm', rest)
  end
  if type(add()) == 'table' then
    -- Somebody else has written there, under a later number or something else: what is behind it cannot be kept.
    redis.call('DEL', stream)
    add()
  end
  redis.call('PEXPIRE', stream, age)
end

local function add_members(answer, key, expiry)
  -- The message is published: a key of theirs that is none must not say that it is not.
  redis.pcall('ZREMRANGEBYSCORE', key, 0, redis.call('TIME')[1] - expiry)
  local found = redis.pcall('ZRANGE', key, 0, -1)
  for _, member in ipairs(found.err and {} or found) do
    if string.sub(member, 1, 10) ~= 'groupcast.' then answer[#answer + 1] = member end
  end
end

local function publish(head, stream, fresh, life, topic, rest, messages, age, key, expiry, seen, django)
  local at = placed[head]
  if not at then
    at = {place(head, stream, fresh, run, life)}
    placed[head] = at
  end
  if seen ~= '' and not redis.call('SET', seen, '1', 'NX', 'EX', seen_for) then
    return string.format('%s %.0f 0', at[1], at[2])
  end
  at[2] = redis.call('HINCRBY', head, 'n', 1)
  local offset = string.format('%.0f', at[2])
  if messages ~= '0' then keep(stream, offset, rest, messages, age) end
  redis.call(verb, topic, 'gc1 ' .. at[1] .. ' ' .. offset .. rest)
  local answer = {at[1] .. ' ' .. offset .. ' 1'}
  if key ~= '' then add_members(answer, key, expiry) end
  if django ~= '' and redis.call('PUBSUB', 'NUMSUB', django)[2] > 0 then answer[2] = django end
  return answer[2] and answer or answer[1]
end

for i = 1, #KEYS / 2 do
  answers[i] = publish(KEYS[2 * i - 1], KEYS[2 * i], unpack(ARGV, 10 * i - 6, 10 * i + 3))
end
return answers
",
    )
});

/// Publishes messages, in order: all of them, or, where Redis refuses, those before the one that it refused.
pub(super) async fn publish(up: &Up, names: &Names, parcels: &[Parcel]) -> Result<Vec<Done>, BrokerError> {
    let answers: Vec<Value> = up.run_script(&call(up, names, parcels), &SCRIPT).await?;
    if answers.len() != parcels.len() {
        return Err(not_understood());
    }
    answers.into_iter().map(|answer| read(answer).ok_or_else(not_understood)).collect()
}

fn call(up: &Up, names: &Names, parcels: &[Parcel]) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(SCRIPT.get_hash()).arg(parcels.len() * 2);
    for Parcel { publication: Publication { group, .. }, .. } in parcels {
        call.arg(names.head(group)).arg(names.stream(group));
    }
    call.arg(&*up.run_id).arg(SEEN.as_secs()).arg(up.spread.verb());
    for Parcel { publication, seen, told, .. } in parcels {
        let Publication { group, message, keep, fresh_epoch } = publication;
        let (messages, age) = keep.map_or((0, Duration::ZERO), |rule| (rule.messages, rule.age));
        call.arg(&**fresh_epoch).arg(life(age)).arg(names.topic(group));
        call.write_arg(&Envelope::tail(message));
        let (key, expiry, topic) = match told {
            Told::Nobody => ("", Duration::ZERO, ""),
            Told::Members(key, expiry) => (key.as_str(), *expiry, ""),
            Told::Listeners(topic) => ("", Duration::ZERO, topic.as_str()),
        };
        call.arg(messages).arg(millis(age)).arg(key).arg(expiry.as_secs());
        call.arg(seen.as_deref().unwrap_or_default()).arg(topic);
    }
    call
}

fn read(answer: Value) -> Option<Done> {
    let (place, members) = match answer {
        Value::Array(mut parts) if !parts.is_empty() => {
            let members = parts.split_off(1);
            (parts.pop()?, members)
        }
        place => (place, Vec::new()),
    };
    let Value::BulkString(place) = place else { return None };
    let mut parts = std::str::from_utf8(&place).ok()?.split(' ');
    let (epoch, offset, is_news) = (parts.next()?, parts.next()?, parts.next()? == "1");
    // What is no text is no name of anybody.
    let name = |member| match member {
        Value::BulkString(member) => String::from_utf8(member).ok(),
        _ => None,
    };
    let members = members.into_iter().filter_map(name).collect();
    Some(Done { position: position(epoch, offset).ok()?, members, is_news })
}

fn not_understood() -> BrokerError {
    BrokerError::Refused { why: "a group's key has another form; is the prefix ours alone?".to_owned() }
}
