//! WebSocket at `/ws`: the only code that touches a WebSocket's socket.
//!
//! `upgrade` answers the handshake and takes the socket out of hyper; `driver` turns a connection: bytes in to the
//! session, the session's decisions out, the layer's bytes to the socket. Who may do what is not decided here.

mod commands;
mod driver;
mod reader;
mod socket;
mod upgrade;

#[allow(unused_imports, reason = "for the front door that needs no hyper")]
pub(crate) use driver::drive;
pub(crate) use upgrade::{Opening, PATH, Upgrade, accept, take_over, upgrade};
