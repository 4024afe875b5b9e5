//! The gateway: HTTP and WebSocket in front, consumers behind, the channel layer between them.

pub mod clock;
pub mod config;
pub mod consumer;
pub mod demo;
pub mod jobs;
mod threads;
