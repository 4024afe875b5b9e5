//! What connects the lines of a log with each other: whose work a task does at the moment.
//!
//! Reading order: `scope` (what a task is doing), `request_id` (what a request is called), `line` (how a line of the log tells
//! it).

mod line;
mod request_id;
mod scope;

pub(crate) use self::line::{InScope, Shape};
pub(crate) use self::request_id::{RequestId, X_REQUEST_ID};
pub(crate) use self::scope::Scope;
