//! Deferred work: stored before it is acknowledged, handed to one consumer at a time, kept until its results are old.
//!
//! `jobs` keeps work and results; what the work is, `crate::consumer` knows. Reading order: [`record`], [`new_job`],
//! [`queue`] (the contract of every store), then this file: [`Jobs`], the handle that everybody uses.

mod backend;
mod carried;
#[cfg(test)]
mod contract;
mod counters;
mod error;
mod handle;
mod memory;
pub mod new_job;
mod once;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub mod queue;
pub mod record;
pub mod results;
mod row;
mod running;
mod sqlite;
pub(crate) mod time;
mod times;
mod watch;

pub use self::carried::Carried;
pub use self::counters::{Count, Counters};
pub use self::error::{JobsError, OpenError};
pub use self::handle::{Jobs, LIST_MAX};
pub use self::new_job::{Asker, Enqueued, NewJob, ReplyTo};
pub use self::once::{Once, Told};
pub use self::queue::{CancelOutcome, DeadLetters, Depth, Filter, RedriveFilter, Tick, WorkQueue};
pub use self::record::{ErrorClass, JobError, JobRecord, JobState, Progress, ResultInfo};
pub use self::results::{Content, FileInfo, ResultFile, StoredResult, StoredRows};
pub(crate) use self::row::CRASHES_MAX;
