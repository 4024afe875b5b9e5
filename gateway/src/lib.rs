//! The gateway: HTTP and WebSocket in front, consumers behind, the channel layer between them.
//!
//! A program that embeds it starts with [`Groupcast`]: a configuration, consumers and routes of its own, `start`, `stop`.
//! Reading order: [`server`] (how the parts are put together), [`app`] (what handlers reach), [`auth`] (who may do what), [`limits`] (how much), [`dispatch`]
//! (where a message goes), [`http`] and `websocket` (the front doors), [`jobs`] and [`consumer`] (deferred work), [`live`] (queries that are followed), [`config`].

mod address;
pub mod app;
pub mod auth;
mod backend;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod demo;
pub mod dispatch;
#[cfg(test)]
mod fake_backend;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod health;
mod history;
pub mod hooks;
pub mod http;
pub mod idempotency;
pub mod jobs;
pub mod kill_point;
pub mod lag;
pub mod limits;
pub mod live;
pub mod metrics;
mod notes;
mod origin;
#[cfg(feature = "postgres")]
mod postgres;
pub mod schedule;
pub mod server;
mod stream;
mod telemetry;
mod threads;
mod trace;
mod websocket;

pub use server::{Groupcast, Running};
