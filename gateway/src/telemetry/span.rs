//! `Span`: one step of a trace that is recorded, from its beginning to its drop.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{Trace, TraceContext};

use super::tracer::Tracer;
use crate::clock;

/// The part that a step has between programs ("Trace API", section SpanKind).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers a request.
    Server,
    /// Asks another program and waits for it.
    Client,
    /// Gives something away that is worked on later.
    Producer,
    /// Works on what was given.
    Consumer,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Word(&'static str),
    Number(i64),
}

/// What is kept of a span until it is sent: some 300 bytes, and its texts.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its trace, and the span itself where a context names its parent.
    pub(super) context: Arc<TraceContext>,
    /// Nothing for the first of a trace.
    pub(super) parent: Option<[u8; 8]>,
    /// The parent is another program's.
    pub(super) is_parent_remote: bool,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub(super) error: Option<String>,
}

/// A step that is recorded. It ends when it is dropped, also by whoever gives up.
#[derive(Debug)]
pub(crate) struct Span {
    tracer: Tracer,
    /// There until the drop.
    record: Option<Record>,
}

impl Span {
    pub(super) fn new(tracer: Tracer, record: Record) -> Self {
        Self { tracer, record: Some(record) }
    }

    /// What becomes of this step carries this: its spans are children of this one.
    pub(crate) fn trace(&self) -> Trace {
        self.record.as_ref().map(|record| record.context.clone())
    }

    /// Adds an attribute.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(record) = &mut self.record {
            record.attributes.push((name, value.into()));
        }
    }

    /// Gives it another name, of which there have to be few.
    pub(crate) fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(record) = &mut self.record {
            record.name = name.into();
        }
    }

    /// It has begun a while ago.
    pub(crate) fn began_before(&mut self, a_while: Duration) {
        if let Some(record) = &mut self.record {
            let ns = u64::try_from(a_while.as_nanos()).unwrap_or(u64::MAX);
            record.began_ns = record.began_ns.saturating_sub(ns);
        }
    }

    /// It has failed. `kind` is a word of few (`error.type`); what is said for people may be empty.
    pub(crate) fn fail(&mut self, kind: impl Into<Value>, why: &str) {
        self.set("error.type", kind);
        if let Some(record) = &mut self.record {
            record.error = Some(why.to_owned());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.ended_ns = clock::now_ns().max(record.began_ns);
            self.tracer.keep(record);
        }
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
