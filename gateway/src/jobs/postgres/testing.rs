//! A server for the unit tests: one for all of them, with a schema for each.

#[path = "../../../../tests/src/postgres.rs"]
#[allow(dead_code, unreachable_pub)]
mod server;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::server::Postgres;

/// The address of the tests' server, as a configuration has it.
pub(crate) fn url() -> String {
    Postgres::shared().url()
}

/// A name that no other test has.
pub(crate) fn schema() -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed))
}
