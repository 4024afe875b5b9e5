//! The configuration of the gateways that are tortured.

use std::time::Duration;

use super::work::QUERIES;
use super::{Plan, level};
use crate::config::consumer::StoreKind;
use crate::config::hidden::Hidden;

/// Where jobs are kept.
#[derive(Debug, Clone)]
pub(super) enum Store {
    /// In files of the folder: one gateway.
    Sqlite,
    /// On a server, in a schema of the run's own: several gateways.
    Postgres { url: Hidden, schema: String, lease: Duration },
}

impl Store {
    /// As it is called in a configuration.
    pub(super) fn kind(&self) -> StoreKind {
        match self {
            Self::Sqlite => StoreKind::Sqlite,
            Self::Postgres { .. } => StoreKind::Postgres,
        }
    }
}

/// The variable that tells the gateways where the server is; the configuration stays in the folder, and has no password.
pub(super) const URL_VARIABLE: &str = "TORTURE_STORE_URL";

/// The group that is asked, and that hears the events.
pub(super) const GROUP: &str = "torture";

/// Jobs that run at once in one process.
pub(super) const CONCURRENCY: u64 = 4;

/// How often a job may be tried: so often that kills alone never end one before its third crash.
pub(super) const ATTEMPTS_MAX: u64 = 10;

/// The configuration of a run's gateways.
pub(super) fn config(plan: &Plan) -> String {
    let durability = level(plan.durability);
    let store = match &plan.store {
        Store::Sqlite => String::new(),
        Store::Postgres { schema, lease, .. } => {
            let lease = lease.as_millis();
            format!(
                "store = \"postgres\"\nurl_env = \"{URL_VARIABLE}\"\nschema = \"{schema}\"\nlease = \"{lease}ms\"\n"
            )
        }
    };
    format!(
        r#"[server]
listen = "127.0.0.1:0"
data_dir = "data"
log = "warn"

[jobs]
{store}retry_base = "20ms"
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
