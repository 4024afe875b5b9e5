//! Events that one process hands to another: who runs a job says how it goes, who took it in tells those who asked.
//!
//! Hints only. What is lost is lost: the record has it, and a terminal event does not come this way.

use std::collections::VecDeque;

use groupcast_protocol::{JobId, Message};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::new_job::ReplyTo;

/// Events that wait to be told; more are dropped. A few hundred bytes each.
const WAITING_MAX: usize = 4096;

/// An event of a job that runs, on its way to those who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The job.
    pub id: JobId,
    /// The attempt that it is about: of an attempt that is over nothing is told.
    pub attempt: u32,
    /// Who gets it.
    pub reply_to: ReplyTo,
    /// The event.
    pub event: Message,
}

/// What has come for this process to tell, in the order in which it was said.
#[derive(Default)]
pub(crate) struct Arrived {
    waiting: Mutex<VecDeque<Carried>>,
    /// Wakes who tells.
    pub(crate) come: Notify,
}

impl Arrived {
    /// Takes an event in, if there is room.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL is shared by processes"))]
    pub(crate) fn put(&self, carried: Carried) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(carried);
            self.come.notify_one();
        }
    }

    /// Takes what has come, at most so much.
    pub(crate) fn take(&self, most: usize) -> Vec<Carried> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }
}
