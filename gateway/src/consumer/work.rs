//! `Consumer`: what runs jobs. The gateway's own consumers implement it, and so may a program that embeds the gateway.

use std::time::Duration;

use bytes::Bytes;
pub use futures_util::future::BoxFuture;

use super::context::JobContext;
use crate::jobs::results::{FileSet, RowSet};
use crate::jobs::{ErrorClass, JobError};

/// Runs the jobs of one `[[consumer]]` with `run = "embedded"`; registered under that consumer's name.
///
/// - A job may be run more than once: after a crash, a timeout or a transient failure. What it does outside of its result
///   has to bear that; [`JobContext::id`] is the same each time and makes a good key.
/// - `concurrency` jobs run at once, on the runtime that serves the sockets, so `run` must not block or compute for
///   long: [`JobContext::compute`] is the place for that.
/// - When the time of the attempt is over, or the job is cancelled, the future is dropped where it waits. Work given to
///   `compute` is not stopped by that; it has to ask [`JobContext::is_cancelled`] now and then.
/// - The gateway's claim on the job holds for `[jobs] lease`, and is prolonged only while its work shows life. A future that
///   waits is alive until its time is over, and so is work that waits for a free thread. Whatever occupies a thread, in
///   `compute` or inside of a poll, has to ask [`JobContext::is_cancelled`] or to say its [`JobContext::progress`] at least
///   once in two thirds of a lease. What does not is taken for hung: within two leases of its last sign the job is lost to it
///   and run again (a crash, of which a job has 3), its thread is replaced, and what it still says is ignored.
/// - A panic fails the job (class `crash`), and nothing else.
///
/// ```
/// use groupcast::consumer::{BoxFuture, Consumer, Failure, JobContext, Outcome};
///
/// /// Answers `{"type":"count_words","text":"…"}` with the number of words.
/// struct CountWords;
///
/// impl Consumer for CountWords {
///     fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
///         Box::pin(async move {
///             #[derive(serde::Deserialize)]
///             struct Ask {
///                 text: String,
///             }
///             let ask: Ask = serde_json::from_slice(job.message().raw())
///                 .map_err(|error| Failure::permanent("bad_message", error.to_string()))?;
///             // Computed on a thread of low priority, so that no socket waits for it.
///             let words = job
///                 .compute(move |job| {
///                     let words: Vec<&str> = ask.text.split_whitespace().collect();
///                     job.progress(words.len() as u64, Some(words.len() as u64), "words");
///                     words.len()
///                 })
///                 .await?;
///             Outcome::json(&words)
///         })
///     }
/// }
/// ```
pub trait Consumer: Send + Sync + 'static {
    /// Runs one attempt of one job.
    ///
    /// # Errors
    /// A [`Failure`], whose class decides whether the job is tried again.
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>>;
}

/// What came out of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One JSON value, as text.
    Json(Bytes),
    /// Rows.
    Rows(RowSet),
    /// Files, the one that is read by default first.
    Files(FileSet),
}

impl Outcome {
    /// A value as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON; the job fails for good.
    pub fn json<T: serde::Serialize>(value: &T) -> Result<Self, Failure> {
        let text = serde_json::to_vec(value).map_err(|error| Failure::permanent("bad_result", error.to_string()))?;
        Ok(Self::Json(text.into()))
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Decides whether the job is tried again.
    pub class: ErrorClass,
    /// A stable word for programs, such as `source_unavailable`.
    pub code: String,
    /// What, why and what to do, for a person. It is shown to whoever may read the job.
    pub message: String,
    /// Not to be tried again earlier than this.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// May go away by itself: the job is tried again.
    pub fn transient(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, code, message)
    }

    /// Will fail the same way every time: the job is dead.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, code, message)
    }

    /// Took too long: the job is tried once more.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Timeout, "timeout", message)
    }

    pub(crate) fn new(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), retry_after: None }
    }

    pub(crate) fn error(&self) -> JobError {
        JobError { code: self.code.clone(), message: self.message.clone(), class: self.class }
    }
}
