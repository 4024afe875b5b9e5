//! `Scope`: what a task is doing at the moment.
//!
//! It costs two exchanges of a thread's variable each time that the task is polled, and is looked at only when a line is
//! written to the log. (A span of `tracing` for each request would be made and written out whether there is a line or not.)

use std::fmt::Display;

use groupcast_protocol::{ChannelName, JobId};

use super::RequestId;

tokio::task_local! {
    static SCOPE: Scope;
}

/// Whose work it is.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    /// A request over HTTP.
    Request(RequestId),
    /// A WebSocket or an event stream, by its channel.
    Connection(ChannelName),
    /// An attempt of a job.
    Job(JobId),
}

impl Scope {
    /// Does something in this scope.
    pub(crate) fn run<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        SCOPE.scope(self, work)
    }

    /// The same for what does not wait.
    pub(crate) fn run_now<T>(self, work: impl FnOnce() -> T) -> T {
        SCOPE.sync_scope(self, work)
    }

    /// Tells by which names lines of this task are found: of the field, and of the thing. Nothing outside of any scope.
    pub(super) fn tell(mut told: impl FnMut(&'static str, &dyn Display)) {
        // Outside of a scope there is nothing to tell, and so it is within the change of one.
        let _ = SCOPE.try_with(|scope| match scope {
            Self::Request(id) => told("request", id),
            Self::Connection(channel) => told("connection", channel),
            Self::Job(id) => told("job", id),
        });
    }
}
