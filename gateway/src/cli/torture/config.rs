//! The configuration of the gateways that are tortured.

use super::work::QUERIES;
use super::{Plan, level};

/// The group that is asked, and that hears the events.
pub(super) const GROUP: &str = "torture";

/// Jobs that run at once.
pub(super) const CONCURRENCY: u64 = 4;

/// How often a job may be tried: so often that kills alone never end one before its third crash.
pub(super) const ATTEMPTS_MAX: u64 = 10;

/// The configuration of a run's gateways.
pub(super) fn config(plan: &Plan) -> String {
    let durability = level(plan.durability);
    format!(
        r#"[server]
listen = "127.0.0.1:0"
data_dir = "data"
log = "warn"

[jobs]
retry_base = "20ms"
retry_max = "200ms"
max_queued = 10000000

[source.none]
kind = "sqlite"
path = "source.db"

[[consumer]]
name = "torture"
group = "{GROUP}"
type = "torture"
run = "query"
durability = "{durability}"
concurrency = {CONCURRENCY}
max_attempts = {ATTEMPTS_MAX}
{QUERIES}"#
    )
}
