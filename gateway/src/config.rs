//! The configuration: `groupcast.toml`, environment and flags.

pub mod consumer;
pub mod query;
pub mod units;
