//! Stories that a user, an operator or a developer can tell of Groupcast, told to the real binary.

mod batch;
mod bench;
mod cli;
mod closing;
mod crash;
mod descriptors;
mod drain;
mod events;
mod fan_out;
mod front_door;
mod groups;
mod handshake;
mod history;
mod house;
mod http;
mod main_job;
mod overload;
mod presence;
mod protocol;
mod queries;
mod recovery;
mod reports;
mod results;
mod shutdown;
mod stalled;
mod wire;
