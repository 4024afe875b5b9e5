//! Helpers of the outside tests: they start the real gateway and talk to it with clients that share no code with it.
//!
//! Reading order: [`home`] (a folder with a configuration and a database), [`gateway`] (the process), [`http`],
//! [`socket`], [`raw`] and [`events`] (four ways to talk to it), [`backend`] (what it talks to),
//! [`ledger`] and [`book`] (what a reader has to have got), [`verdict`] and [`strands`] (what all of them did, over several nodes),
//! [`reader`] (who comes back), [`chance`] (numbers that can be repeated), [`kernel`] (what a process uses and holds),
//! [`token`] (who an issuer says a client is),
//! [`postgres`] (a database server), [`redis`], [`replicated`] and [`nats`] (brokers; [`daemon`] starts and ends them,
//! [`resp`] talks to Redis), [`certificate`] (who a server is),
//! [`proxy`] (a wire with faults), [`wait`] (deadlines).

pub mod backend;
pub mod book;
pub mod certificate;
pub mod chance;
pub mod daemon;
pub mod events;
pub mod gateway;
pub mod home;
pub mod http;
pub mod kernel;
pub mod ledger;
pub mod nats;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod reader;
pub mod redis;
pub mod replicated;
pub mod resp;
pub mod socket;
pub mod strands;
pub mod token;
pub mod verdict;
pub mod wait;

pub use backend::Backend;
pub use certificate::Certificate;
pub use events::Events;
pub use gateway::Gateway;
pub use home::Home;
pub use http::{Http, Reply};
pub use nats::Nats;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use raw::Raw;
pub use redis::Redis;
pub use socket::Socket;
pub use verdict::{Records, Verdict};
