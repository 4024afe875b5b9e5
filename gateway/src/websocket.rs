//! WebSocket at `/ws`: the only code that touches a WebSocket's socket.
//!
//! `upgrade` answers the handshake and takes the socket out of hyper; `driver` turns a connection: bytes in to the
//! session, the session's decisions out, the layer's bytes to the socket. Who may do what is not decided here.

mod commands;
mod driver;
mod shared;
mod socket;
mod upgrade;
mod wheel;

pub(crate) use driver::drive;
pub(crate) use shared::Shared;
pub(crate) use upgrade::{Opening, PATH, Upgrade, accept, take_over, upgrade, upgrade_to_echo};
pub(crate) use wheel::turn;
