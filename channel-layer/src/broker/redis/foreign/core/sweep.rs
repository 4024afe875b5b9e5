//! Memberships are renewed, and those that no living gateway needs are ended.

use groupcast_protocol::GroupName;

use super::{group_key, member, scripts};
use crate::broker::BrokerError;
use crate::broker::redis::foreign::{Foreign, now_secs};
use crate::broker::redis::up::Up;

/// Looks over the groups of the buckets that this node is registrar of.
pub(in crate::broker::redis::foreign) async fn sweep(
    foreign: &Foreign,
    up: &Up,
    buckets: &[usize],
) -> Result<(), BrokerError> {
    for bucket in buckets {
        let command = redis::cmd("SMEMBERS").arg(foreign.key("groups", bucket)).clone();
        let groups: Vec<String> = up.run(&command).await?;
        for group in groups.iter().filter_map(|name| GroupName::parse(name).ok()) {
            look_over(foreign, up, &group).await?;
        }
    }
    Ok(())
}

async fn look_over(foreign: &Foreign, up: &Up, group: &GroupName) -> Result<(), BrokerError> {
    let nodes: Vec<String> = up.run(&redis::cmd("SMEMBERS").arg(foreign.key("interest", group)).clone()).await?;
    let mut lives = false;
    for node in &nodes {
        let alive: bool = up.run(&redis::cmd("EXISTS").arg(foreign.key("alive", node)).clone()).await?;
        if alive {
            lives = true;
        } else {
            scripts::leave_for(foreign, up, group, node).await?;
        }
    }
    if lives {
        // Long-lived members would otherwise be dropped by senders after `group_expiry`.
        let mut pipeline = redis::pipe();
        let key = group_key(foreign, group);
        pipeline.cmd("ZADD").arg(&key).arg("XX").arg(now_secs()).arg(member(group));
        pipeline.cmd("EXPIRE").arg(&key).arg(foreign.config.group_expiry.as_secs().max(1));
        up.run_all(&pipeline).await?;
    } else if nodes.is_empty() {
        scripts::leave_for(foreign, up, group, "").await?;
    }
    Ok(())
}
