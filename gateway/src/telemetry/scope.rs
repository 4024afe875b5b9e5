//! `Scope`: what a task is doing at the moment, for the log and for traces.
//!
//! It costs two exchanges of a thread's variable each time that the task is polled, and is looked at only when a line is
//! written to the log, or a message sent. (A span of `tracing` for each request would be made and written out whether there is a line or
//! not.)

use std::fmt::Display;

use groupcast_protocol::{ChannelName, JobId, Message, Trace};

use super::span::{Kind, Span};
use super::{RequestId, Tracer};

tokio::task_local! {
    static SCOPE: Scope;
}

/// Whose work a task does, and which trace that is part of.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    whose: Whose,
    trace: Trace,
    tracer: Tracer,
}

#[derive(Debug, Clone)]
enum Whose {
    Request(RequestId),
    Connection(ChannelName),
    Job(JobId),
}

impl Scope {
    /// A request over HTTP.
    pub(crate) fn request(id: RequestId) -> Self {
        Self::of(Whose::Request(id))
    }

    /// A WebSocket or an event stream, by its channel.
    pub(crate) fn connection(channel: ChannelName) -> Self {
        Self::of(Whose::Connection(channel))
    }

    /// An attempt of a job.
    pub(crate) fn job(id: JobId) -> Self {
        Self::of(Whose::Job(id))
    }

    fn of(whose: Whose) -> Self {
        Self { whose, trace: None, tracer: Tracer::off() }
    }

    /// The same as part of a trace: what it asks and sends belongs to that.
    pub(crate) fn within(self, tracer: &Tracer, trace: Trace) -> Self {
        Self { trace, tracer: tracer.clone(), ..self }
    }

    /// Does something in this scope.
    pub(crate) fn run<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        SCOPE.scope(self, work)
    }

    /// The same for what does not wait.
    pub(crate) fn run_now<T>(self, work: impl FnOnce() -> T) -> T {
        SCOPE.sync_scope(self, work)
    }

    /// Takes the scope of this task along, to another one.
    pub(crate) fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
        let scope = SCOPE.try_get().ok();
        async move {
            match scope {
                Some(scope) => scope.run(work).await,
                None => work.await,
            }
        }
    }

    /// A message of this task is part of its trace, whatever it says itself.
    pub(crate) fn mark(message: Message) -> Message {
        match Self::current().flatten() {
            None => message,
            trace => message.with_trace(trace),
        }
    }

    /// The trace that this task's work is part of; `None` outside of any scope.
    pub(crate) fn current() -> Option<Trace> {
        SCOPE.try_with(|scope| scope.trace.clone()).ok()
    }

    /// Begins a step of this task's trace, if that is recorded.
    pub(crate) fn begin(kind: Kind, name: &'static str) -> Option<Span> {
        SCOPE.try_with(|scope| scope.tracer.begin(&scope.trace, kind, name)).ok().flatten()
    }

    /// Tells by which names lines of this task are found: of the field, and of the thing. Nothing outside of any scope.
    pub(super) fn tell(mut told: impl FnMut(&'static str, &dyn Display)) {
        // Outside of a scope there is nothing to tell, and so it is within the change of one.
        let _ = SCOPE.try_with(|scope| {
            match &scope.whose {
                Whose::Request(id) => told("request", id),
                Whose::Connection(channel) => told("connection", channel),
                Whose::Job(id) => told("job", id),
            }
            if let Some(trace) = scope.trace.as_ref().filter(|trace| trace.sampled()) {
                told("trace_id", &format_args!("{:032x}", u128::from_be_bytes(trace.trace_id())));
            }
        });
    }
}
