//! `Once`: what makes the repeat of a request recognisable, kept in the same commit as the request's jobs.

use std::time::Duration;

use bytes::Bytes;

use super::new_job::Enqueued;

/// How long a key is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A key, its request and what is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// SHA-256 of who asks for what, and of the key.
    pub name: [u8; 32],
    /// SHA-256 of the request's body.
    pub body: [u8; 32],
    /// What the answer has beside the jobs. Only the one who asked can read it.
    pub answer: Bytes,
}

/// What became of a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is the first with this key: its jobs are stored.
    Stored(Vec<Enqueued>),
    /// It is a repeat: nothing was stored. This is the first one's answer.
    Repeated {
        /// What it has beside the jobs.
        answer: Bytes,
        /// The jobs that it made.
        jobs: Vec<Enqueued>,
    },
    /// The key came with another body; nothing was stored.
    Conflict,
}

impl Told {
    /// What a request with this body is told of a kept key.
    pub(crate) fn of(kept_body: &[u8], body: &[u8; 32], answer: Bytes, jobs: Vec<Enqueued>) -> Self {
        if kept_body == body { Self::Repeated { answer, jobs } } else { Self::Conflict }
    }
}

/// The jobs of an answer as they are kept.
pub(crate) fn to_text(jobs: &[Enqueued]) -> String {
    serde_json::to_string(jobs).expect("jobs have string keys and finite numbers")
}

/// Jobs that were kept; none where it is not what was written.
pub(crate) fn from_text(text: &str) -> Option<Vec<Enqueued>> {
    serde_json::from_str(text).ok()
}
