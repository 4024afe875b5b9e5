//! Consumers: background tasks that claim messages of a group as jobs and run them.
//!
//! They know nothing of HTTP: work comes from `crate::jobs`, events leave by an [`Outlet`]. Reading order: [`Consumer`]
//! (the contract of what runs a job), `claims` (whose work a message is), `runtime` (takes jobs and runs them), then
//! `query`, `report` and `http`.

mod ask;
mod bucket;
mod cache;
mod check;
mod claim_params;
mod claims;
mod context;
mod cpu;
mod event;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
mod life;
mod nearest;
mod once;
mod outlet;
mod params;
mod problem;
mod product;
mod queries;
mod query;
mod report;
mod retry;
mod runtime;
mod share_key;
mod source;
#[cfg(test)]
mod testing;
mod work;

pub use self::cache::QueryCache;
pub use self::check::check;
pub(crate) use self::claim_params::{keep_needed, with_claims};
pub use self::claims::{Claimed, Claims, EVENT_PREFIX, HOPS_MAX};
pub use self::context::JobContext;
pub(crate) use self::context::Stop;
pub use self::cpu::CpuLoad;
pub(crate) use self::cpu::{CpuPool, Inline};
pub(crate) use self::http::Calls;
pub use self::outlet::{Outlet, OutletError};
pub(crate) use self::params::{Bound, Given};
pub use self::problem::Problem;
pub use self::queries::{Queries, Query};
pub use self::runtime::{Consumers, Drained, Setup};
pub(crate) use self::source::Execution;
pub use self::source::Sources;
pub use self::work::{BoxFuture, Consumer, Failure, Outcome};
