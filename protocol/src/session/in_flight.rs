//! The commands of one connection that are not answered yet, in the order they came in.

use std::collections::VecDeque;

use bytes::Bytes;

use super::answer::Asked;
use crate::frame::{Command, RequestId};

/// Names a started command until it is answered. Never given twice in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) u64);

/// A row of commands: `started` of them run or are answered, the others wait.
///
/// An answer leaves when it is at the front, so an answered command behind the front means that one before it is not.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    row: VecDeque<Entry>,
    /// The ticket of the front.
    first: u64,
    started: usize,
}

/// `Waiting => Running => Answered`; what was not understood is `Answered` from the beginning.
#[derive(Debug)]
enum Entry {
    Waiting(Option<RequestId>, Command),
    Running(Option<RequestId>, Asked),
    Answered(Bytes),
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.row.len()
    }

    pub(super) fn push(&mut self, id: Option<RequestId>, command: Command) {
        self.row.push_back(Entry::Waiting(id, command));
    }

    /// Adds an answer that waits for its turn.
    pub(super) fn push_answered(&mut self, reply: Bytes) {
        self.row.push_back(Entry::Answered(reply));
    }

    /// Starts the next command, if its turn has come.
    pub(super) fn start_next(&mut self) -> Option<(Ticket, Command)> {
        while matches!(self.row.get(self.started), Some(Entry::Answered(_))) {
            self.started += 1;
        }
        let at = self.started;
        let Some(Entry::Waiting(_, command)) = self.row.get(at) else { return None };
        let asked = Asked::of(command);
        let behind_barrier = matches!(self.row.front(), Some(Entry::Running(_, front)) if front.is_barrier());
        if behind_barrier || (asked.is_barrier() && at > 0) {
            return None;
        }
        self.started += 1;
        let entry = &mut self.row[at];
        // The place is taken while its content moves on; nothing can look at it in between.
        let nothing = Entry::Answered(Bytes::new());
        let Entry::Waiting(id, command) = std::mem::replace(entry, nothing) else { return None };
        *entry = Entry::Running(id, asked);
        Some((Ticket(self.first + at as u64), command))
    }

    /// What a running command's answer needs; `None` when it is answered already.
    pub(super) fn running(&self, ticket: Ticket) -> Option<(Option<RequestId>, Asked)> {
        match self.row.get(self.index(ticket)?) {
            Some(Entry::Running(id, asked)) => Some((id.clone(), asked.clone())),
            Some(Entry::Waiting(..) | Entry::Answered(_)) | None => None,
        }
    }

    /// Whether the command's answer has not left yet.
    pub(super) fn is_open(&self, ticket: Ticket) -> bool {
        self.index(ticket).is_some_and(|at| at < self.row.len())
    }

    /// Answers a running command.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: Bytes) {
        let Some(entry) = self.index(ticket).and_then(|at| self.row.get_mut(at)) else { return };
        if let Entry::Running(..) = entry {
            *entry = Entry::Answered(reply);
        }
    }

    /// Takes the front away if it is answered.
    pub(super) fn pop_answered(&mut self) -> Option<Bytes> {
        match self.row.pop_front()? {
            Entry::Answered(reply) => {
                self.first += 1;
                self.started = self.started.saturating_sub(1);
                Some(reply)
            }
            other @ (Entry::Waiting(..) | Entry::Running(..)) => {
                self.row.push_front(other);
                None
            }
        }
    }

    /// Gives memory back that an empty row does not need.
    pub(super) fn release(&mut self) {
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
    }

    fn index(&self, ticket: Ticket) -> Option<usize> {
        ticket.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok())
    }
}
