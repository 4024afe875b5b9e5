//! What is known of a set: what its subscribers have, and so what a newcomer gets.

use std::sync::OnceLock;

use bytes::Bytes;
use groupcast_protocol::{Message, frame};

use super::message;
use super::question::Question;
use super::rows::Keyed;
use crate::consumer::Failure;
use crate::jobs::results::RowSet;

/// The rows of a set, since a version.
pub(super) struct Known {
    pub(super) version: u64,
    pub(super) digest: String,
    pub(super) columns: Vec<String>,
    /// The rows as lines of JSON.
    pub(super) ndjson: Bytes,
    pub(super) truncated: bool,
    /// The same by their key, when the query has one and it is one.
    pub(super) keyed: Option<Keyed>,
    /// All of it as a message.
    pub(super) snapshot: Message,
    /// Written for the first newcomer, and the same for all.
    frame: OnceLock<Bytes>,
}

/// The failure of a set's last run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) message: String,
}

impl Known {
    /// Takes in what a run gave.
    ///
    /// # Errors
    /// When the query does not give the columns that its key names, or a value nests too deeply for a message.
    pub(super) fn new(question: &Question, version: u64, digest: String, set: RowSet) -> Result<Self, Failure> {
        let key = key_columns(question, &set.columns)?;
        let ndjson = join(&set);
        let keyed = if key.is_empty() { None } else { Keyed::read(&ndjson, &key) };
        let RowSet { columns, truncated, .. } = set;
        let snapshot = message::snapshot(question, version, &digest, &columns, &ndjson, truncated)?;
        Ok(Self { version, digest, columns, ndjson, truncated, keyed, snapshot, frame: OnceLock::new() })
    }

    /// The snapshot as a push, framed for WebSockets.
    pub(super) fn frame(&self, question: &Question) -> Bytes {
        self.frame.get_or_init(|| frame::frame_group_message(&question.group, None, &self.snapshot)).clone()
    }
}

impl Failed {
    /// The error as a push, framed for WebSockets.
    pub(super) fn frame(&self, question: &Question) -> Bytes {
        frame::frame_group_message(&question.group, None, &message::error(question, self))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

/// Where the columns of the query's key are among those that it gives.
fn key_columns(question: &Question, columns: &[String]) -> Result<Vec<usize>, Failure> {
    let key = question.query.config.key.iter();
    key.map(|name| {
        let missing = || {
            let known = columns.join("`, `");
            let message = format!("the query's `key` names the column `{name}`, but its columns are `{known}`");
            Failure::permanent("query_failed", message)
        };
        columns.iter().position(|column| column == name).ok_or_else(missing)
    })
    .collect()
}

fn join(set: &RowSet) -> Bytes {
    match set.chunks.as_slice() {
        [] => Bytes::new(),
        [only] => only.ndjson.clone(),
        chunks => chunks.iter().map(|chunk| &chunk.ndjson[..]).collect::<Vec<_>>().concat().into(),
    }
}
