//! The demo: real flight data, named queries over it, and the live page that shows them at work.
//!
//! Reading order: [`data`] builds the SQLite file, [`CONFIG`] says what may be asked of it, [`page`] is what a
//! browser gets, `start` brings them together, [`once`] is the round trip with a transcript. The command
//! `groupcast demo` calls these.

mod archive;
pub mod data;
pub mod once;
pub mod page;
mod progress;
mod start;
mod tables;
#[cfg(test)]
mod tests;

pub use progress::Progress;
pub(crate) use progress::grouped;
pub use start::{Folder, config, routes, welcome};

/// The demo's whole configuration, `gateway/assets/demo.toml`: one source, the named queries, two consumers.
///
/// The path of `[source.demo]` is relative; whoever starts the demo puts the file that [`data::load`] built there.
pub const CONFIG: &str = include_str!("../assets/demo.toml");
