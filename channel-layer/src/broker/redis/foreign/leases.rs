//! Who is registrar of which buckets, and what a registrar has parked.

use std::sync::LazyLock;

use redis::Script;

use super::{BUCKETS, Foreign};
use crate::broker::BrokerError;
use crate::broker::redis::up::Up;

/// KEYS: alive. ARGV: token, lease in ms, what keys begin with, buckets, seconds that a node is believed to live. Answers the
/// buckets whose registrar this node is, which it becomes where there is none.
static LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('SET', KEYS[1], '1', 'EX', ARGV[5])
local held = {}
for bucket = 0, ARGV[4] - 1 do
  local key = ARGV[3] .. ':registrar:' .. bucket
  local holder = redis.pcall('GET', key)
  if type(holder) == 'table' then
    -- Somebody else has written there.
    redis.call('DEL', key)
    holder = false
  end
  if holder == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
    held[#held + 1] = bucket
  elseif not holder then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    held[#held + 1] = bucket
  end
end
return held
",
    )
});

/// ARGV: token, what keys begin with, buckets. Gives up all leases.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for bucket = 0, ARGV[3] - 1 do
  local key = ARGV[2] .. ':registrar:' .. bucket
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 1
",
    )
});

/// KEYS: parked, registrar. ARGV: token, how many. Forgets what is done; answers whether this node still is the registrar.
static DONE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('LTRIM', KEYS[1], ARGV[2], -1)
return 1
",
    )
});

pub(super) async fn lease(
    foreign: &Foreign,
    up: &Up,
    token: &str,
    ms: u64,
    alive: u64,
) -> Result<Vec<usize>, BrokerError> {
    let mut call = LEASE.prepare_invoke();
    call.key(foreign.key("alive", &foreign.node)).arg(token).arg(ms).arg(&*foreign.own).arg(BUCKETS).arg(alive);
    up.invoke(&call).await
}

pub(super) async fn release(foreign: &Foreign, up: &Up, token: &str) -> Result<(), BrokerError> {
    let mut call = RELEASE.prepare_invoke();
    call.arg(token).arg(&*foreign.own).arg(BUCKETS);
    up.invoke::<i64>(&call).await.map(drop)
}

pub(super) async fn done(
    foreign: &Foreign,
    up: &Up,
    bucket: usize,
    token: &str,
    count: usize,
) -> Result<bool, BrokerError> {
    let mut call = DONE.prepare_invoke();
    call.key(foreign.key("parked", bucket)).key(foreign.key("registrar", bucket)).arg(token).arg(count);
    up.invoke(&call).await
}

/// What a bucket has.
pub(super) struct Collected {
    pub(super) bucket: usize,
    /// Frames that are left in it; none when another node is its registrar.
    pub(super) left: Option<usize>,
    pub(super) parked: Vec<Vec<u8>>,
}
