//! Stories that a user, an operator or a developer can tell of Groupcast, told to the real binary.

mod batch;
mod cli;
mod closing;
mod crash;
mod events;
mod fan_out;
mod front_door;
mod groups;
mod handshake;
mod house;
mod http;
mod http2;
mod main_job;
mod protocol;
mod queries;
mod reports;
mod results;
mod shutdown;
mod tls;
mod wire;
