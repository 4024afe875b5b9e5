//! The gateway: HTTP and WebSocket in front, consumers behind, the channel layer between them.

pub mod cli;
pub mod clock;
pub mod config;
pub mod jobs;
mod threads;
