//! What everything that talks to PostgreSQL shares: the address, which holds a password and is never shown, and TLS.
//!
//! The driver's connections belong to whoever uses them: the store of jobs has its own, and a query's source has others.

mod address;
mod tls;

pub(crate) use self::address::{Address, AddressError, CONNECT_TIMEOUT};
