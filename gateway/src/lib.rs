//! The gateway: HTTP and WebSocket in front, consumers behind, the channel layer between them.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod demo;
pub mod dispatch;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod jobs;
pub mod metrics;
mod threads;
