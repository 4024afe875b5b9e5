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

#[allow(unused_imports, reason = "for the front door that needs no hyper")]
pub(crate) use driver::drive;
pub(crate) use shared::Shared;
pub(crate) use upgrade::{Upgrade, take_over, upgrade};
pub(crate) use wheel::turn;
